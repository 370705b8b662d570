"""The step loop on an accelerator's clock: known times come back, whatever the host does meanwhile."""

from types import SimpleNamespace

import pytest

from accelerator import Accelerator
from trainpace.rank import loop, proc

LOADING, LAUNCHING, STEP, OPTIMIZER_LAUNCHING, OPTIMIZER, AGREEING = 0.001, 0.1, 10.0, 0.3, 0.05, 0.02
"""Seconds. The host launches a step in a hundredth of the time that the device takes for it, and an optimizer step in
far more."""


class Trainer:
    """Issues known work."""

    def __init__(self, accelerator):
        self.accelerator = accelerator

    def load(self, step):
        self.accelerator.host += LOADING
        return step

    def forward_backward(self, batch):
        self.accelerator.issue(STEP, launching=LAUNCHING)
        return 0.5

    def optimizer_step(self):
        self.accelerator.issue(OPTIMIZER, launching=OPTIMIZER_LAUNCHING)


def measure(accelerator, *, borders=None, steps=6, accumulation=2):
    """Run the loop; with `borders` the ranks agree after each step whether it is enough."""
    workload = SimpleNamespace(warmup=2, steps=steps, accumulation=accumulation)

    def agree(numbers):
        accelerator.host += AGREEING
        return numbers

    clock = loop.AcceleratorClock(accelerator.torch)
    enough = None if borders is None else loop.Enough(borders, steps, accumulation, agree)
    return loop.measure(Trainer(accelerator), workload, clock, lambda *_, **__: None, watch=[], enough=enough)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_known_times(accumulation):
    """Steps and optimizer steps are those of the device, to 1 %, with the queue drained at the window's ends alone."""
    sampled = measure(accelerator := Accelerator(), accumulation=accumulation)

    # What the host takes for the first step after the window opened is its own: there was nothing before it to hide it.
    assert sampled["seconds"][0] == pytest.approx(STEP + LOADING + LAUNCHING)
    assert sampled["seconds"][1:] == pytest.approx([STEP] * 5, rel=0.01)
    assert sampled["optimizer_seconds"] == pytest.approx([OPTIMIZER] * len(sampled["optimizer_seconds"]), rel=0.01)
    assert sampled["peak_memory_bytes"] == 1 << 30
    assert accelerator.synchronised == 3


def test_processes_are_not_looked_at(monkeypatch):
    """Who else uses an accelerator its driver tells: the host reads no process while the device waits for it."""
    monkeypatch.setattr(proc, "pids", lambda: pytest.fail("all processes were looked through"))
    sampled = measure(Accelerator())

    assert (sampled["busy_cpu_seconds"], sampled["own_cpu_seconds"], sampled["others"]) == (None, 0.0, [])


def test_asking_whether_it_is_enough_costs_nothing():
    """A run whose ranks ask after each step whether they may end is timed as one that does not ask."""
    plain, asked = measure(Accelerator()), measure(accelerator := Accelerator(), borders=[STEP + OPTIMIZER / 2])

    assert plain["seconds"] == asked["seconds"]
    assert plain["optimizer_seconds"] == asked["optimizer_seconds"]
    assert accelerator.synchronised == 3


def test_a_run_that_ends_early_has_the_times_of_a_whole_one():
    """It ends one step after the one that made it certain, and what it timed till then is what a whole run timed."""
    whole, ended = measure(Accelerator(), steps=9), measure(Accelerator(), steps=9, borders=[100.0])

    assert len(ended["seconds"]) == 6
    assert ended["seconds"] == whole["seconds"][:6]
    assert ended["optimizer_seconds"] == pytest.approx([OPTIMIZER] * 3)


def test_a_host_that_is_too_slow_is_seen():
    """Where the host issues a step more slowly than the device does it, that is how long a step takes."""
    accelerator = Accelerator()
    trainer = Trainer(accelerator)
    trainer.load = lambda step: setattr(accelerator, "host", accelerator.host + 2 * STEP)
    workload = SimpleNamespace(warmup=1, steps=4, accumulation=1)
    clock = loop.AcceleratorClock(accelerator.torch)
    sampled = loop.measure(trainer, workload, clock, lambda *_, **__: None, watch=[])

    steps = zip(sampled["seconds"][1:], sampled["optimizer_seconds"][1:], strict=True)
    assert [step + optimizer for step, optimizer in steps] == pytest.approx(
        [2 * STEP + LAUNCHING + OPTIMIZER_LAUNCHING] * 3, rel=0.01
    )


def test_ranks_agree_through_the_host(tmp_path):
    """Whatever the ranks' own process group runs on, they agree over the host's network: nothing enters the queue."""
    torch = pytest.importorskip("torch")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        workload = SimpleNamespace(steps=9, accumulation=1, trainer="native")
        asked = loop.Enough.of({"borders": [100.0], "device": "cuda"}, workload)  # there is no such device here
        reached = asked.reached([10.0] * 5, 0.1)
    finally:
        torch.distributed.destroy_process_group()

    assert reached
