"""Why head is slower than base: both train once more under a profiler, and a full-size step of both is counted."""

import os
from pathlib import Path

from trainpace.app.options import Options
from trainpace.app.resources import Resources, Show
from trainpace.cases.published import Case
from trainpace.cases.scaling import full_workload
from trainpace.cases.workload import Dtype
from trainpace.cost.worker import CountFailed, counted
from trainpace.errors import RunFailed
from trainpace.judge.finding import Finding
from trainpace.launch.quiet import nothing_left
from trainpace.report.explain import beside, count_differences, explain
from trainpace.runs.cost import Cost


def explained(found: Finding, case: Case, *, options: Options, resources: Resources, show: Show) -> list[str]:
    """Where the time went on both sides of a finding, each line a sentence; or why that cannot be told."""
    workload = found.runs[0].workload
    assert options.gate is not None
    kept = (options.report or options.runs or options.gate.folder) / "traces" / workload.case
    profiles = []
    for side in ("base", "head"):
        folder: Path = kept / side
        folder.mkdir(parents=True, exist_ok=True)
        with show(f"{workload.case} {workload.scale}, profiling {side}", 1):
            try:
                profiles.append(resources.start_hosts().profile(workload, side=side, folder=folder))
            except RunFailed as failure:
                return [f"not explained: {side}: {failure}"]
    lines = [*explain(*profiles), *beside(found.base_runs, found.runs)]
    if workload.trainer == "native":
        lines += _counted(case, workload.dtype, resources=resources, show=show)
    # Relative: the line stands in a comment too, where nobody has this machine's folders.
    return [*lines, f"traces, for Perfetto: {os.path.relpath(kept, options.gate.folder)}"]


def _counted(case: Case, dtype: Dtype, *, resources: Resources, show: Show) -> list[str]:
    """What a full-size step of both sides must do, as a difference."""
    costs: list[Cost] = []
    sides = resources.prepare_sides()
    for side in (sides.base, sides.head):
        # Counting runs head's code, and the report is written after it.
        with show(f"{case.id}, counting a full-size step", 1), nothing_left():
            try:
                full = full_workload(case, dtype=dtype)
                ((_, cost),) = counted(
                    [full],
                    checkout=side.checkout,
                    apart=side.apart,
                    python=side.python,
                    added=resources.options.environment,
                )
            except CountFailed as failure:
                cost = failure
        if isinstance(cost, CountFailed):
            return [f"not counted: {cost}"]
        costs.append(cost)
    return count_differences(*costs)
