"""Where a step's time goes, in a rank: a few steps more under a profiler, outside the timed window.

Inside a rank, loaded by path from the judging checkout; imports nothing else of `trainpace`. With torch loaded it is
torch's profiler, and its trace is kept as a file that Perfetto opens; without, Python's own profiler, by function.
"""

import cProfile
import pstats
import sys
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

COLLECTIVES = ("gloo:", "nccl:", "c10d::", "_c10d_functional::", "record_param_comms", "ncclDevKernel", "ncclKernel")
"""How the names of collectives begin, on the host and on a GPU."""

Profile = dict[str, Any]


def profile(trainer: Any, workload: Any, first: int, folder: Path, rank: int) -> Profile:
    """Profile `workload.accumulation` micro-steps and their optimizer step, numbered from `first`.

    Returns:
        Seconds of a micro-step: `parts` by part of the step, `operators` by name, without what they call; and `calls`,
        how often each ran in a micro-step. Of the device where there is one, else of the host.
    """
    if "torch" in sys.modules:
        return _torch(trainer, workload, first, folder / f"trace-rank-{rank}.json.gz")
    return _python(trainer, workload, first)


def _steps(trainer: Any, workload: Any, first: int, part: Any) -> None:
    for step in range(first, first + workload.accumulation):
        with part("data"):
            batch = trainer.load(step)
        with part("forward"):
            trainer.forward_backward(batch)
    with part("optimizer"):
        trainer.optimizer_step()


def _torch(trainer: Any, workload: Any, first: int, trace: Path) -> Profile:
    import torch
    from torch.profiler import ProfilerActivity, record_function

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    for _ in range(2):  # the first steps under a profiler pay for its start, and are thrown away
        with torch.profiler.profile(activities=activities) as profiler:
            _steps(trainer, workload, first, lambda name: record_function(f"part: {name}"))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    profiler.export_chrome_trace(str(trace))
    parts: dict[str, float] = defaultdict(float)
    operators: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        seconds = (event.self_device_time_total or event.self_cpu_time_total) / 1e6
        parts[_part(event)] += seconds
        # The name of a compiled graph is a hash of what it holds: another one on either side.
        name = "compiled graph" if "CompiledFxGraph" in event.name else event.name
        operators[name] += seconds
        calls[name] += 1
    return _per_step(workload, parts, operators, calls)


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
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
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
