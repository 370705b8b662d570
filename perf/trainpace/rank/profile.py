"""Where a step's time goes, in a rank: a few steps more under a profiler, outside the timed window.

Inside a rank, loaded by path from the judging checkout; imports nothing else of `trainpace`. With torch loaded it is
torch's profiler, and its trace is kept as a file that Perfetto opens; without, Python's own profiler, by function.
"""

import cProfile
import pstats
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

COLLECTIVES = ("gloo:", "nccl:", "c10d::", "_c10d_functional::", "record_param_comms", "ncclDevKernel", "ncclKernel")
"""How the names of collectives begin, on the host and on a GPU."""

Profile = dict[str, Any]


def profile(trainer: Any, workload: Any, first: int, trace: Path, device: str) -> Profile:
    """Profile `workload.accumulation` micro-steps and their optimizer step, numbered from `first`.

    Args:
        trainer: what is profiled.
        workload: what it trains.
        first: number of the first step.
        trace: the file that a trace is written to, a gzipped JSON; none without torch.
        device: `cpu`, or what torch calls the accelerator that the trainer runs on.

    Returns:
        Seconds of a micro-step: `parts` by part of the step, `operators` by name, without what they call; and `calls`,
        how often each ran in a micro-step. On an accelerator the time of what ran there, else the host's.
    """
    if "torch" in sys.modules:
        return _torch(trainer, workload, first, trace, device)
    return _python(trainer, workload, first)


def _steps(trainer: Any, workload: Any, first: int, part: Any) -> None:
    for step in range(first, first + workload.accumulation):
        with part("data"):
            batch = trainer.load(step)
        with part("forward"):
            trainer.forward_backward(batch)
    with part("optimizer"):
        trainer.optimizer_step()


def _torch(trainer: Any, workload: Any, first: int, trace: Path, device: str) -> Profile:
    import torch
    from torch.profiler import ProfilerActivity, record_function, supported_activities

    activities = [ProfilerActivity.CPU] if device == "cpu" else supported_activities()
    for _ in range(2):  # the first steps under a profiler pay for its start, and are thrown away
        with torch.profiler.profile(activities=activities) as profiler:
            _steps(trainer, workload, first, lambda name: record_function(f"part: {name}"))
            if device != "cpu":
                torch.accelerator.synchronize()
    profiler.export_chrome_trace(str(trace))
    return _per_step(workload, *sums(profiler.events(), device))


def sums(events: Iterable[Any], device: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Seconds by part of the step and by operator, and calls by operator, of a profiler's events.

    On an accelerator these hold what ran there several times: as the time of the operator that launched it, as an event
    of its own, and within the ranges that are repeated on the device's own timeline. The first is what counts. What no
    operator launched (a graph that was compiled) is counted as itself; the runtime's call that launched it has its
    number.

    Args:
        events: as torch.profiler gives them.
        device: `cpu`, or what torch calls the accelerator that the trainer ran on.
    """
    from torch.autograd import DeviceType

    parts: dict[str, float] = defaultdict(float)
    operators: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    listed = list(events)
    launched_by = {event.id: event for event in listed if event.device_type == DeviceType.CPU and _is_launch(event)}
    for event in listed:
        launcher = event
        if device == "cpu":
            seconds = event.self_cpu_time_total / 1e6
        elif event.device_type == DeviceType.CPU:
            seconds = event.self_device_time_total / 1e6
        elif event.is_user_annotation or getattr(event, "linked_correlation_id", 1):  # torch 2.11 does not tell it
            continue
        else:
            seconds, launcher = event.self_device_time_total / 1e6, launched_by.get(event.id, event)
        parts[_part(launcher)] += seconds
        # The name of a compiled graph is a hash of what it holds: another one on either side.
        name = "compiled graph" if "CompiledFxGraph" in event.name else event.name
        operators[name] += seconds
        calls[name] += 1
    return parts, operators, calls


def _is_launch(event: Any) -> bool:
    """Whether an event of the host is a call of the device's runtime, which is numbered apart from operators."""
    return event.name.startswith(("cu", "hip")) and "::" not in event.name


def _part(event: Any) -> str:
    """The part of the step that an event belongs to, by the ranges around it."""
    part = "forward"
    ancestor = event
    while ancestor is not None:
        name = ancestor.name
        if name.startswith(COLLECTIVES):
            return "collectives"
        if name == "recompute":
            part = "recompute"
        elif name.startswith("autograd::engine") and part != "recompute":
            part = "backward"
        elif name.startswith("part: ") and name != "part: forward":
            part = name.removeprefix("part: ")
        ancestor = ancestor.cpu_parent
    return part


def _python(trainer: Any, workload: Any, first: int) -> Profile:
    profiler = cProfile.Profile()
    profiler.enable()
    _steps(trainer, workload, first, lambda _: nullcontext())
    profiler.disable()
    stats = pstats.Stats(profiler).stats
    operators: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    parts: dict[str, float] = defaultdict(float)
    of_part = {"load": "data", "forward_backward": "forward", "optimizer_step": "optimizer"}
    for (file, _, function), (_, number, own, cumulative, _) in stats.items():
        name = function if file in {"~", ""} else f"{Path(file).name}:{function}"
        operators[name] += own
        calls[name] += number
        if function in of_part and file == sys.modules[type(trainer).__module__].__file__:
            parts[of_part[function]] += cumulative
    return _per_step(workload, parts, operators, calls)


def _per_step(workload: Any, *counts: dict[str, float]) -> Profile:
    names = ("parts", "operators", "calls")
    return {
        name: {key: value / workload.accumulation for key, value in count.items() if value}
        for name, count in zip(names, counts, strict=True)
    }
