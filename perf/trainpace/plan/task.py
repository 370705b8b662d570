"""What to measure next, as data, and the one loop that measures it.

A plan decides and knows no process, no file and no clock. `next` gives the task that it wants done, `add` takes what
came of it. Whoever drives it says how a task is done: by training (the program), by drawing numbers (the simulation),
or not at all (a replay, whose plan has its runs from the beginning).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from trainpace.cases.workload import Workload
from trainpace.runs.run import Run

DISTURBED_ATTEMPTS = 3
"""Times that a run is measured before its case is invalid because something disturbed each of them."""

BURNT_CORES = 0.3
"""Of a core: processes that kept so much busy over a window, and run on, are still there at the next attempt. One that
wants all of a core has about half of it beside a rank."""


def attempts(*runs: Run) -> int:
    """How often what gave these disturbed runs is measured in all: once where another attempt would meet the same."""
    burnt = any(sum(other.cores for other in run.health.others) > BURNT_CORES for run in runs)
    return 1 if burnt else DISTURBED_ATTEMPTS


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run to be made."""

    test: str
    """Id of the test that the run belongs to."""
    workload: Workload
    side: str = "here"
    """What is measured: `here`, `base`, `head`, `injected` (a slowdown), or the name of a training system."""
    label: str
    """For people: case, scale, number of the run, attempt."""
    stop_at: tuple[float, ...] = ()
    """Seconds of a step at which the verdict changes: a run that is surely between two of them may end early. Empty:
    the run makes all its steps."""
    replaces: Run | None = None
    """The run, with its fault, that was measured before and does not count any more; None: there is none."""
    records: bool = False
    """Whether the run is to be part of a baseline that is missing; it is kept apart from those that are judged."""


TaskT = TypeVar("TaskT")
ResultT_contra = TypeVar("ResultT_contra", contravariant=True)


class Plan(Protocol[TaskT, ResultT_contra]):
    """Decides what is measured next."""

    def next(self, wanted: Any) -> TaskT | None:
        """The task that is to be done for `wanted` (None: for all cases); None: no further one."""

    def add(self, task: TaskT, result: ResultT_contra) -> object:
        """Take what came of a task. What it returns is for whoever knows the plan."""

    def begin_no_more(self) -> None:
        """The time is up: finish what is under way and begin nothing else."""


def drive(
    plan: Plan[TaskT, ResultT_contra],
    measure: Callable[[TaskT], ResultT_contra],
    *,
    wanted: Any = None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> None:
    """Do what `plan` wants, until it wants nothing more.

    Args:
        plan: decides.
        measure: does one task; what cannot be done it returns, as a failure, and does not raise.
        wanted: for which case; None: for all.
        out_of_time: whether nothing more may be begun.
    """
    while True:
        if out_of_time():
            plan.begin_no_more()
        if (task := plan.next(wanted)) is None:
            return
        plan.add(task, measure(task))
