"""Where a step's time goes: every kernel once, in the part of the step that launched it."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from trainpace.rank import profile


def host(number, name, begin, end, *, thread=1, launches=()):
    """An event of the host, microseconds; `launches` are kernels that it has launched."""
    event = FunctionEvent(number, name, thread, begin, end, use_device="cuda", device_type=DeviceType.CPU)
    for kernel, microseconds in launches:
        event.append_kernel(kernel, 0, microseconds)
    return event


def kernel(number, name, begin, end, *, linked=0, annotation=False):
    """An event of the device, microseconds; `linked` is the number of the operator that launched it."""
    return FunctionEvent(
        number,
        name,
        7,
        begin,
        end,
        use_device="cuda",
        device_type=DeviceType.CUDA,
        linked_correlation_id=linked,
        is_user_annotation=annotation,
    )


def gathered(*events):
    """Events as torch gives them, each with its parent."""
    found = EventList(events, use_device="cuda")
    found._build_tree()
    return found


def step():
    """A product of 1 ms in the forward and one of 2 ms in the backward, and the host, which waits for both."""
    return gathered(
        host(1, "part: forward", 0, 100),
        host(2, "aten::mm", 10, 20, launches=[("sgemm", 1000)]),
        host(3, "autograd::engine::evaluate_function: MmBackward0", 200, 300, thread=2),
        host(4, "aten::mm", 210, 250, thread=2, launches=[("sgemm", 2000)]),
        host(5, "cudaDeviceSynchronize", 400, 3400),
        kernel(6, "sgemm", 100, 1100, linked=2),
        kernel(7, "sgemm", 1100, 3100, linked=4),
        kernel(8, "part: forward", 100, 1100, annotation=True),
    )


def test_every_kernel_once():
    """Of an accelerator the time of its kernels counts, each once and in its part; the host's waiting does not."""
    parts, operators, _ = profile.sums(step(), "cuda")

    assert {name: seconds for name, seconds in parts.items() if seconds} == pytest.approx(
        {"forward": 1e-3, "backward": 2e-3}
    )
    assert {name: seconds for name, seconds in operators.items() if seconds} == pytest.approx({"aten::mm": 3e-3})


def test_kernels_without_an_operator():
    """A kernel that no operator launched is counted by its own name, in the part whose call of the runtime it is."""
    compiled = (
        host(1, "part: optimizer", 0, 100),
        host(31, "cudaLaunchKernel", 10, 20),
        kernel(31, "triton_fused", 50, 550),
        kernel(40, "part: optimizer", 50, 550, annotation=True),
    )
    parts, operators, _ = profile.sums(gathered(*compiled), "cuda")

    assert parts["optimizer"] == operators["triton_fused"] == pytest.approx(5e-4)
    assert sum(parts.values()) == pytest.approx(5e-4)


def test_a_trainer_on_the_cpu_of_a_gpu_machine():
    """Where the trainer runs on the CPU it is the host's time that counts, whatever else the machine has."""
    parts, operators, _ = profile.sums(step(), "cpu")

    assert operators["aten::mm"] == pytest.approx(50e-6)
    assert parts["backward"] == pytest.approx(100e-6)


def test_parts_of_a_real_step(tmp_path):
    """On a CPU: parts and operators are the same seconds, once by part and once by name, and a trace is kept."""
    weight = torch.ones(64, 64, requires_grad=True)
    trainer = SimpleNamespace(
        load=lambda step: step,
        forward_backward=lambda batch: (weight @ weight).sum().backward(),
        optimizer_step=lambda: None,
    )
    trace = tmp_path / "trace.json.gz"
    found = profile.profile(trainer, SimpleNamespace(accumulation=2), 0, trace, "cpu")

    assert found["calls"]["aten::mm"] == 3
    assert found["parts"]["backward"] > 0
    assert sum(found["parts"].values()) == pytest.approx(sum(found["operators"].values()))
    assert trace.stat().st_size > 0
