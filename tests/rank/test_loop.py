"""The step loop: what it calls and in which order, what it times and what it leaves out, what it writes."""

import json
import math
import re
import statistics
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bench
from factories import make_run, make_workload
from repository import TOY
from trainpace.rank import loop
from trainpace.runs import metrics
from trainpace.runs.run import RankSamples

LOADING, TRAINING, OPTIMIZING, WRITING = 1.0, 10.0, 100.0, 1000.0
"""Seconds that each part takes, on a clock that stands still otherwise."""
MAIN = (
    "import json, runpy, sys\nloop = runpy.run_path(sys.argv[1])['load']('loop')\n"
    "sys.exit(loop.main(json.loads(sys.argv[2]), 0, 0))"
)


class Loss:
    """One that is told of when it is read."""

    def __init__(self, timeline, step):
        self.timeline, self.step = timeline, step

    def __float__(self):
        self.timeline.calls.append(f"read {self.step}")
        return float(self.step)


class Timeline:
    """A clock, a trainer and a writer on one timeline, and all that was asked of them."""

    behind = 0

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def _spend(self, call, seconds=0.0):
        self.calls.append(call)
        self.now += seconds

    def mark(self):
        return self.now

    def wait(self, mark):
        assert mark <= self.now

    def synchronize(self):
        self._spend("synchronize")

    def seconds(self, begin, end):
        return end - begin

    def reset_peak(self):
        self._spend("reset peak")

    def peak_bytes(self):
        self._spend("peak")
        return 1 << 20

    def load(self, step):
        self._spend(f"load {step}", LOADING)
        return step

    def forward_backward(self, batch):
        self._spend(f"train {batch}", TRAINING)
        return Loss(self, batch)

    def optimizer_step(self):
        self._spend("optimizer", OPTIMIZING)

    def write(self, event, **fields):
        self._spend(" ".join([event, *map(str, fields.values())]), WRITING)


@pytest.fixture
def timeline():
    return Timeline()


def measure(timeline, warmup=2, steps=4, accumulation=2, enough=None):
    """Run the loop on a timeline."""
    workload = SimpleNamespace(warmup=warmup, steps=steps, accumulation=accumulation)
    return loop.measure(timeline, workload, timeline, timeline.write, watch=[], enough=enough)


def run_rank(folder, source, **overrides):
    """Run one rank of a trainer, given as source, in a process of its own; returns its exit code and its lines."""
    (folder / "written.py").write_text(source)
    request = {
        "folder": str(folder),
        "trainer": "written:Trainer",
        "workload": make_workload(ranks=1, warmup=1, steps=2).model_dump(),
        "device": "cpu",
        "pin": True,
        "data": {"sources": ["a.json"], "tokenizer": "bytes", "seed": 7},
        "cache": str(folder),
        "watch": [],
        "profile": None,
    }
    command = [
        sys.executable,
        "-c",
        MAIN,
        loop.__file__.replace("loop.py", "__main__.py"),
        json.dumps(request | overrides),
    ]
    done = subprocess.run(command, env={"PYTHONPATH": f"{folder}:{TOY}"}, check=False, capture_output=True)
    return done.returncode, [json.loads(line) for line in (folder / "rank-0.jsonl").read_text().splitlines()]


PLAIN = """
class Trainer:
    def setup(self, context): {setup}
    def load(self, step): return step
    def forward_backward(self, batch): {train}
    def optimizer_step(self): pass
"""


@pytest.mark.parametrize(
    ("warmup", "steps", "accumulation", "after"),
    [
        (2, 4, 1, [1, 2, 3, 4, 5]),
        (2, 4, 2, [1, 3, 5]),
        (1, 8, 4, [0, 4, 8]),
        (3, 3, 8, [2, 5]),
        (1, 5, 2, [0, 2, 4, 5]),
    ],
)
def test_optimizer_steps(timeline, warmup, steps, accumulation, after):
    """The optimizer steps after the warm-up, after every accumulation-th measured step, and after the last one."""
    measure(timeline, warmup, steps, accumulation)
    calls = timeline.calls
    stepped = [calls[index - 1] for index, call in enumerate(calls) if call == "optimizer"]

    assert stepped == [f"train {step}" for step in after]


def test_every_step_is_sampled(timeline):
    """Each list holds an entry a step: the warm-up's apart, the optimizer's of the measured window alone."""
    sampled = measure(timeline, warmup=3, steps=4, accumulation=3)

    assert len(sampled["warmup_seconds"]) == 3
    assert len(sampled["seconds"]) == 4
    assert len(sampled["data_seconds"]) == 4
    assert sampled["losses"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert len(sampled["optimizer_seconds"]) == 2


def test_own_work_is_in_no_sample(timeline):
    """A step is loading, forward and backward; the optimizer stands apart; what the loop does itself is in neither."""
    sampled = measure(timeline)

    assert sampled["seconds"] == [LOADING + TRAINING] * 4
    assert sampled["warmup_seconds"] == [LOADING + TRAINING] * 2
    assert sampled["optimizer_seconds"] == [OPTIMIZING] * 2


def test_one_synchronisation_at_the_ends(timeline):
    """The device is waited for after the first step and at the window's two ends, and never within: it would drain."""
    measure(timeline, warmup=2, steps=20)
    calls = timeline.calls
    before = [calls[index - 1] for index, call in enumerate(calls) if call == "synchronize"]

    assert before == ["train 0", "optimizer", "step 21"]


def test_memory_is_that_of_the_window(timeline):
    """The peak begins anew behind the warm-up, and is read behind the last step."""
    measure(timeline)
    calls = timeline.calls

    assert calls[calls.index("reset peak") - 2 : calls.index("reset peak")] == ["optimizer", "synchronize"]
    assert calls[calls.index("step 5") + 1] == "synchronize"
    assert calls[-1] == "peak"


def test_the_window_begins_where_the_warm_up_is_said_to_end(timeline):
    """Nothing lies between the line of the warm-up's last step, which the judging side's clock starts at, and the first
    measured step."""
    measure(timeline)
    calls = timeline.calls

    assert calls[calls.index("step 1") - 1 : calls.index("step 1") + 2] == ["reset peak", "step 1", "load 2"]


def test_losses_are_read_within_the_window(timeline):
    """Once, behind the last step and the one synchronisation: who trains when a loss is read trains in the window."""
    measure(timeline)
    calls = timeline.calls

    assert calls[-9:-1] == ["synchronize", *(f"read {step}" for step in range(6)), "measured"]


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_value_agrees_with_the_stopwatch(timeline, accumulation):
    """TGS of the samples is the tokens over all the measured time, loading and optimizer included."""
    sampled = measure(timeline, warmup=1, steps=4, accumulation=accumulation)
    workload = make_workload(ranks=1, warmup=1, steps=4, accumulation=accumulation)
    fields = {key: sampled[key] for key in RankSamples.model_fields.keys() & sampled.keys()}
    samples = RankSamples(**{**fields, "losses": [1.0] * 5}, rank=0, place="host/cpu 0")
    run = make_run(workload=workload).model_copy(update={"ranks": (samples,)})
    seconds = LOADING + TRAINING + OPTIMIZING / accumulation

    assert metrics.tgs(run) == pytest.approx(workload.rank_tokens / seconds)
    assert metrics.whole_window_tgs(run) == pytest.approx(metrics.tgs(run))


def test_parts_fit_into_the_window():
    """On the CPU's own clock steps and optimizer take no longer than the window that they lie in."""
    toy = SimpleNamespace(load=lambda step: step, forward_backward=lambda step: step, optimizer_step=lambda: None)
    workload = SimpleNamespace(warmup=1, steps=50, accumulation=5)
    sampled = loop.measure(toy, workload, loop.CpuClock(), lambda *_, **__: None, watch=[])
    parts = sum(sampled["seconds"]) + sum(sampled["optimizer_seconds"])

    assert 0 < parts <= sampled["window_seconds"]
    assert sum(sampled["data_seconds"]) <= sum(sampled["seconds"])
    assert sampled["own_cpu_seconds"] >= 0
    assert sampled["peak_memory_bytes"] > 0


def test_lines_of_a_rank(tmp_path):
    """A rank says that it began, what it prepares, each step, and once all that it sampled."""
    code, lines = run_rank(tmp_path, PLAIN.format(setup="context.note('packing')", train="return 2"))
    samples = lines[-1]

    assert code == 0
    said = ["begin", "note", "set-up", "step", "step", "step", "measured", "samples"]
    assert [line["event"] for line in lines] == said
    assert [line["step"] for line in lines[3:6]] == [0, 1, 2]
    assert lines[1]["text"] == "packing"
    assert samples["losses"] == [2.0, 2.0, 2.0]
    assert (samples["data"], samples["mean_attended"], samples["compile_seconds"]) == (None, None, 0.0)
    assert RankSamples.model_fields.keys() - {"observed"} <= samples.keys()  # that is seen from outside


def test_trainer_may_be_an_object(tmp_path):
    """What the name stands for is used as it is where it is no class."""
    code, _ = run_rank(
        tmp_path, PLAIN.format(setup="pass", train="return 1") + "ready = Trainer()", trainer="written:ready"
    )

    assert code == 0


def test_extra_facts_of_a_trainer(tmp_path):
    """A trainer may say what its losses belong to, and how far its tokens look."""
    setup = (
        "self.mean_attended = 5.5; self.data_identity = {'seed': context.data.seed, 'sources': context.data.sources}"
    )
    train = "return 1\n    def flops_per_step(self): return 3e9"
    _, lines = run_rank(tmp_path, PLAIN.format(setup=setup, train=train), count_flops=True)
    samples, counted = lines[-2:]

    assert (samples["mean_attended"], samples["flops_per_step"]) == (5.5, 3e9)
    assert samples["data"] == {"seed": 7, "sources": ["a.json"]}
    assert (counted["event"], counted["error"]) == ("counted", "the trainer uses no torch")


@pytest.mark.parametrize("said", [0, -1.0, "many", math.nan, math.inf])
def test_flops_that_are_no_number(said):
    """They are refused with what they are of."""
    with pytest.raises(TypeError, match=r"flops_per_step must be the FLOPs of a micro-step, a number above 0, got "):
        loop._flops_per_step(SimpleNamespace(flops_per_step=said))


def test_an_injected_slowdown_hides_nothing_of_the_trainer(tmp_path):
    """Slowed for a self-test, a trainer says the same of its data, and its steps take the share longer."""
    setup = "self.data_identity = {'seed': context.data.seed}"
    train = "__import__('time').sleep(0.02); return 1"

    _, lines = run_rank(tmp_path, PLAIN.format(setup=setup, train=train), injected=1.0)

    assert lines[-1]["data"] == {"seed": 7}
    assert min(lines[-1]["seconds"]) >= 2 * 0.02


def test_a_yardstick_lies_beside_the_steps(tmp_path):
    """On a CPU a fixed piece of work is timed between the steps, and its median kept."""
    _, lines = run_rank(tmp_path, PLAIN.format(setup="pass", train="return 1"))

    assert lines[-1]["yardstick_seconds"] > 0


def test_unknown_fields_of_a_newer_side(tmp_path):
    """A request may hold more than this trainer knows of, nested too."""
    workload = make_workload(ranks=1, warmup=1, steps=2).model_dump() | {"new": {"field": 3}}
    code, _ = run_rank(
        tmp_path, PLAIN.format(setup="assert context.workload.new.field == 3", train="return 1"), workload=workload
    )

    assert code == 0


def test_a_config_is_a_mapping():
    """A trainer hands it on as it is, with what is nested in it; what an older one asks of it works too."""
    config = {"qk_norm": True, "rope_parameters": {"factor": 2.0}}
    found = loop.namespace({"shape": {"hidden": 64, "config": config}}).shape

    assert (found.hidden, dict(**found.config)) == (64, config)
    assert (vars(found.config), found.config.qk_norm) == (config, True)


@pytest.mark.parametrize(
    ("train", "kind", "message"),
    [
        ("raise KeyError('x')", "KeyError", "'x'"),
        ("raise SystemExit(0)", "SystemExit", "0"),
        ("return float('inf')", "FloatingPointError", "the loss is inf at step 0 (0 is the first of the warm-up)"),
        ("pass", "TypeError", "forward_backward must return the loss, one number, got None at step 0"),
    ],
)
def test_error_is_the_last_line(tmp_path, train, kind, message):
    """What ends a rank is written with its type, its message and its traceback; the exit code is 1."""
    code, lines = run_rank(tmp_path, PLAIN.format(setup="pass", train=train))

    assert code == 1
    assert (lines[-1]["event"], lines[-1]["type"], lines[-1]["message"]) == ("error", kind, message)
    assert lines[-1]["traceback"].startswith("Traceback")


def test_loop_imports_no_torch(tmp_path):
    """A trainer that needs no torch gets none: its ranks start at once."""
    code, _ = run_rank(
        tmp_path, PLAIN.format(setup="import sys; assert not {'torch', 'perf'} & sys.modules.keys()", train="return 1")
    )

    assert code == 0


@pytest.mark.parametrize(
    ("known", "total", "expected"),
    [
        ([5.0], 1, (5.0, 5.0)),
        ([5.0], 3, (0.0, math.inf)),
        ([5.0, 7.0], 3, (5.0, 7.0)),
        ([7.0, 5.0, 6.0], 5, (5.0, 7.0)),
        ([5.0, 7.0], 4, (2.5, math.inf)),
        ([5.0, 7.0, 6.0], 4, (5.5, 6.5)),
    ],
)
def test_median_range(known, total, expected):
    """What is unknown may lie below all that is known, or above."""
    assert expected == loop.median_range(known, total)


def enough(*borders, steps, accumulation=2, own=False):
    """Of one rank."""
    return loop.Enough(list(borders), steps, accumulation, lambda numbers: numbers, own=own)


@pytest.mark.parametrize(
    ("border", "made"),
    [(5.0, 3), (30.0, 5), (70.0, 3), (1000.0, 3)],
)
def test_steps_end_when_the_verdict_is_certain(timeline, border, made):
    """Steps of 11 s, an optimizer's share of up to 50: far from the border no step is made in vain."""
    window = measure(timeline, steps=5, enough=enough(border, steps=5))

    assert [LOADING + TRAINING] * made == window["seconds"]
    end = timeline.calls.index(f"step {made + 1}")
    assert timeline.calls[end : end + 3] == [f"step {made + 1}", "synchronize", "read 0"]
    assert len(window["optimizer_seconds"]) == made // 2 + made % 2


@given(
    seconds=st.lists(st.floats(1.0, 3.0), min_size=1, max_size=9),
    border=st.floats(1.0, 3.0),
    optimizer=st.floats(0.0, 0.5),
)
def test_ending_early_changes_no_verdict(seconds, border, optimizer):
    """Wherever a run ends, its value lies on that side of the border on which it would have lain at its end."""
    steps = len(seconds)
    rule = enough(border, steps=steps, accumulation=1)
    made = next((k for k in range(1, steps) if rule.reached(seconds[:k], optimizer)), steps)
    early, late = (statistics.median(seconds[:count]) + optimizer for count in (made, steps))

    assert (early > border) == (late > border)


@given(
    seconds=st.lists(st.floats(1.0, 3.0), min_size=1, max_size=9),
    border=st.floats(1.0, 3.0),
    accumulation=st.integers(1, 4),
)
def test_ending_early_changes_no_verdict_of_a_users_trainer(seconds, border, accumulation):
    """Nor where the last micro-step of a group counts apart."""
    workload = make_workload(trainer="ours:t", accumulation=accumulation)
    steps, value = len(seconds), metrics.micro_step_seconds
    rule = enough(border, steps=steps, accumulation=accumulation, own=True)
    made = next((k for k in range(1, steps) if rule.reached(seconds[:k], 0.0)), steps)

    assert (value(seconds[:made], workload) > border) == (value(seconds, workload) > border)


def test_tokens_are_those_of_the_measured_steps(tmp_path):
    """The least and the most of a measured step, by the shapes of its batch, and by the trainer's own word."""
    source = PLAIN.format(setup="pass", train="return 1").replace("return step", "return [0] * (4 + step)")
    _, lines = run_rank(tmp_path, source + "    def tokens(self, batch): return 2 * len(batch)\n")

    assert lines[-1]["tokens"] == {
        "counted": {"least": 5, "least_step": 1, "most": 6, "most_step": 2, "sequences": 1},
        "said": {"least": 10, "least_step": 1, "most": 12, "most_step": 2, "sequences": 1},
    }


def test_tokens_that_are_no_number(tmp_path):
    """A `tokens(batch)` that gives no int ends the rank, and says what is expected."""
    source = PLAIN.format(setup="pass", train="return 1") + "    def tokens(self, batch): return 1.5\n"
    code, lines = run_rank(tmp_path, source)

    assert code == 1
    assert lines[-1]["message"] == "tokens(batch) must return how many they are, an int, got 1.5 at step 1"


def test_the_bench_times_every_step(capsys):
    """`tox run -e bench` prints what a step costs beside its trainer, of the loop as it is."""
    bench.inside_a_step()

    assert re.fullmatch(r"the suite's own work inside a step: \d+\.\d+ ms \(.*\)\n", capsys.readouterr().out)
