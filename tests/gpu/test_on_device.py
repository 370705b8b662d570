"""Operators, a micro-step, its profile and its clock on the device that there is; health and waiting on a GPU alone."""

import time
from itertools import pairwise
from statistics import median
from types import SimpleNamespace

import pytest
import torch

from trainpace.cases import LLAMA2_7B, Case, Mini, Shape
from trainpace.cases.scaling import resolve
from trainpace.cost.trace import count
from trainpace.launch.distributed import Distributed
from trainpace.probe.device import GpuWindow, present
from trainpace.rank import loop, profile
from trainpace.trainers.native.attention import Ulysses, attention
from trainpace.trainers.native.loss import linear_cross_entropy
from trainpace.trainers.native.model import CausalLm, initial

DTYPES = {"cpu": (torch.float32, 1e-5), "cuda": (torch.bfloat16, 1e-2)}
"""What an operator is tested in, and how far it may be from float64, relative: bf16's own rounding is 4e-3."""
TOKENS = 64


def relative(found, wanted):
    """The distance of two tensors over the length of the second."""
    wanted = wanted.to(found.device)
    return float((found.detach().double() - wanted).norm() / wanted.norm())


def by_definition(query, key, value, ends, window):
    """Attention in float64, masked to each document's past and to a window."""
    tokens, heads, size = query.shape
    key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    place = torch.arange(tokens)
    document = torch.bucketize(place, torch.tensor(ends[1:]), right=True)
    distance = place[:, None] - place[None, :]
    seen = (document[:, None] == document[None, :]) & (distance >= 0) & (distance < (window or tokens))
    scores = torch.einsum("qhd,khd->hqk", query, key) * size**-0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("window", [0, 16])
@pytest.mark.parametrize("ends", [[0, 200], [0, 1, 64, 65, 193, 200]], ids=["causal", "documents"])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 4, 128), (7, 1, 64), (6, 2, 8)])
def test_attention(device, heads, kv_heads, size, ends, window):
    """Values and gradients are those of float64, of heads that share and of any width that models here have."""
    torch.manual_seed(0)
    dtype, most = DTYPES[device]
    shapes = [(200, number, size) for number in (heads, kv_heads, kv_heads)]
    given = [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]
    grad = torch.randn(200, heads, size, dtype=torch.float64).to(dtype)
    wanted = [part.double().requires_grad_() for part in given]
    got = [part.to(device).requires_grad_() for part in given]
    longest = max(end - begin for begin, end in pairwise(ends))

    expected = by_definition(*wanted, ends, window)
    expected.backward(grad.double())
    on_device = torch.tensor(ends, dtype=torch.int32, device=device)
    actual, lse = attention(*got, on_device, longest, size**-0.5, window)
    actual.backward(grad.to(device))

    assert (lse.shape, lse.dtype) == ((heads, 200), torch.float32)
    assert relative(actual, expected.detach()) < most
    assert all(relative(mine.grad, theirs.grad) < most for mine, theirs in zip(got, wanted, strict=True))


def test_loss(device):
    """The fused loss and its gradients are those of float64."""
    torch.manual_seed(0)
    dtype, most = DTYPES[device]
    given = [torch.randn(300, 64).to(dtype), (0.1 * torch.randn(1000, 64)).to(dtype)]
    labels = torch.randint(0, 1000, (300,))
    wanted = [part.double().requires_grad_() for part in given]
    got = [part.to(device).requires_grad_() for part in given]

    expected = torch.nn.functional.cross_entropy(wanted[0] @ wanted[1].t(), labels, reduction="sum") / 300
    expected.backward()
    actual = linear_cross_entropy(*got, labels.to(device))[0] / 300
    actual.backward()

    assert relative(actual.detach(), expected.detach()) < most
    assert all(relative(mine.grad, theirs.grad) < most for mine, theirs in zip(got, wanted, strict=True))


BUSY = Shape(hidden=4096, layers=2, intermediate=11008, heads=32, kv_heads=32, vocabulary=32000)
"""Two layers of Llama2-7B, whose kernels take longer than it takes to launch them."""


class Trainer:
    """The native trainer's model on one device, without an engine; notes when it was asked for what."""

    def __init__(self, device, recompute="full", shape=LLAMA2_7B.mini, tokens=TOKENS):
        self.model = CausalLm(shape, tokens, recompute)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(initial(name, parameter.shape, self.model.config, "cpu"))
        self.model.to(device, DTYPES[device][0])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        place = torch.arange(tokens, device=device)
        ends = torch.tensor([0, tokens], dtype=torch.int32, device=device)
        self.batch = {"tokens": place, "labels": place, "positions": place, "document_ends": ends, "longest": tokens}
        self.tokens = tokens
        self.begins, self.ends = [], []

    def load(self, step):
        self.begins.append(time.perf_counter())
        return self.batch

    def forward_backward(self, batch):
        loss = self.model(**batch, ulysses=Ulysses(None, 1)) / self.tokens
        loss.backward()
        return loss.detach()

    def optimizer_step(self):
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ends.append(time.perf_counter())


def trained(device, trainer=None, steps=4):
    """What the step loop samples of a few steps."""
    clock = loop.CpuClock() if device == "cpu" else loop.AcceleratorClock(torch)
    workload = SimpleNamespace(warmup=2, steps=steps, accumulation=2)
    return loop.measure(trainer or Trainer(device), workload, clock, lambda *_, **__: None, watch=[])


def test_steps_of_the_loop(device):
    """The step loop's clock, memory and losses: the device's losses are the CPU's, to its dtype's rounding."""
    sampled, on_cpu = trained(device), trained("cpu")

    assert sampled["losses"] == pytest.approx(on_cpu["losses"], rel=1e-6 if device == "cpu" else 0.02)
    assert all(seconds > 0 for seconds in [*sampled["seconds"], *sampled["optimizer_seconds"]])
    assert sum(sampled["seconds"]) + sum(sampled["optimizer_seconds"]) <= sampled["window_seconds"] * 1.05
    assert sampled["peak_memory_bytes"] > 0


def test_parts_of_a_profile_are_the_step(device, tmp_path):
    """What a profile tells by part and by operator are the same seconds, and those of the step.

    On a CPU, where the profiler itself takes a part of a small step, those of the profiled one; on a GPU that is kept
    busy, those that the step loop measures without a profiler.
    """
    trainer = Trainer(device) if device == "cpu" else Trainer(device, shape=BUSY, tokens=4096)
    found = profile.profile(trainer, SimpleNamespace(accumulation=2), 0, tmp_path / "trace.json.gz", device)
    parts, operators = found["parts"], found["operators"]
    step = (trainer.ends[-1] - trainer.begins[-2]) / 2
    if device != "cpu":
        sampled = trained(device, trainer)
        step = median(sampled["seconds"]) + median(sampled["optimizer_seconds"]) / 2

    assert {"forward", "backward", "recompute", "optimizer"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(sum(operators.values()))
    assert sum(parts.values()) == pytest.approx(step, rel=0.15)


@pytest.mark.slow
def test_memory_is_what_is_counted(device, tmp_path):
    """Four layers more take on the device what they take in the count; what libraries take stands on both sides.

    On a CPU what is resident is only near what is asked for.
    """
    machine = present()

    def workload(layers, engine):
        shape = Shape(hidden=768, layers=layers, intermediate=2048, heads=6, kv_heads=6, vocabulary=8192)
        case = Case(model=LLAMA2_7B, length="8k", sp=1, gpus=1, mini=Mini(shape=shape, sequence=256, ranks=1))
        return resolve(case, machine, scale="mini", device=device, engine=engine, warmup=1, steps=2).workload

    # A count is of both engines, and needs the settings of DeepSpeed's.
    counted = [count(workload(layers, "deepspeed")).peak("fsdp2") for layers in (2, 6)]
    with Distributed(machine=machine, cache=tmp_path, step_timeout=300) as fleet:
        taken = [fleet.run(workload(layers, "fsdp2")).ranks[0].peak_memory_bytes for layers in (2, 6)]

    expected = pytest.approx(counted[1] - counted[0], rel=0.25 if device == "cpu" else 0.05)
    assert taken[1] - taken[0] == expected


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["deepspeed", "fsdp2"])
def test_the_whole_path(device, engine, tmp_path):
    """The native trainer at scale mini, from the run host to the record: on the device its losses are the CPU's."""
    machine = present()
    case = Case(model=LLAMA2_7B, length="8k", sp=1, gpus=1, mini=Mini(ranks=1))

    def losses(device, dtype):
        small = resolve(case, machine, scale="mini", device=device, engine=engine, dtype=dtype, warmup=1, steps=3)
        with Distributed(machine=machine, cache=tmp_path, step_timeout=300) as fleet:
            run = fleet.run(small.workload)
        assert run.device == machine.device_for(small.workload)
        assert run.kernels["attention"] == ("cpu" if device == "cpu" else run.kernels["attention"])
        return run.ranks[0].losses

    # Two steps lie before the first update that the engines' own rounding is in.
    assert losses(device, "bf16")[:2] == pytest.approx(losses("cpu", "fp32")[:2], rel=0.01)


@pytest.mark.parametrize("recompute", ["full", "selective_op", "none"])
def test_a_micro_step_does_not_wait_for_the_gpu(gpu, recompute):
    """CUDA's own check of synchronisations finds none."""
    trainer = Trainer(gpu, recompute)
    trainer.forward_backward(trainer.batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.forward_backward(trainer.batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_health_during_a_burn(gpu):
    """The driver's reader finds a GPU that is kept busy by this process alone in order."""
    window = GpuWindow(1)
    factor = torch.randn(8192, 8192, device=gpu).bfloat16()
    window.open()
    for _ in range(500):
        factor @ factor
    torch.accelerator.synchronize()
    health = window.close()

    assert present().gpus is not None
    assert health.faults == ()
