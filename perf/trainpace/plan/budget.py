"""How long a selection takes, told before it runs, and what was spent and saved, told after it.

A duration comes from the case's baseline on this device, else from the prediction on counts (stats/roofline.py)
where the device's datasheet allows one; what has neither is named, and counts as nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainpace.app.options import DEFAULT_REFRESH_RUNS
from trainpace.cases.workload import Workload
from trainpace.errors import BudgetExceeded, RunFailed
from trainpace.judge.baseline import Measured, Published, find
from trainpace.runs.run import Run

if TYPE_CHECKING:
    from trainpace.app.session import Selected, Session

STARTUP_SECONDS = 120.0
"""Of a run whose start was never measured: processes, imports, the model, the first and slowest step."""


@dataclass(frozen=True, kw_only=True)
class Duration:
    """What one case takes, at most."""

    case: str
    seconds: float
    """Of all its runs."""
    ranks: int
    source: str
    """`baseline`, `published` or `predicted`."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a selection takes."""

    durations: tuple[Duration, ...]
    unknown: tuple[str, ...]
    """Cases that nothing is known of."""
    unit: str
    """What a rank runs on: `GPU`, `core`."""

    @property
    def hours(self) -> float:
        """Until the last case is done."""
        return sum(each.seconds for each in self.durations) / 3600

    @property
    def rank_hours(self) -> float:
        """Hours of one GPU or core, over all ranks."""
        return sum(each.seconds * each.ranks for each in self.durations) / 3600

    def __str__(self) -> str:
        sources = [each.source for each in self.durations]
        told = ", ".join(f"{sources.count(source)} from {source}" for source in dict.fromkeys(sources))
        text = f"estimated: {words(self.hours)}, {self.rank_hours:.2f} {self.unit} hours ({told})" if told else ""
        if self.unknown:
            nothing = f"nothing is known of the duration of {', '.join(self.unknown)}"
            text = f"{text}; {nothing}" if text else nothing
        return text


def of_case(
    workload: Workload, baseline: Measured | Published | None, predicted_tgs: float | None, runs: int
) -> Duration | None:
    """What `runs` runs of a workload take; None where nothing is known of it."""
    if baseline is not None:
        tgs, source = baseline.tgs, "baseline" if isinstance(baseline, Measured) else "published"
    elif predicted_tgs is not None:
        tgs, source = predicted_tgs, "predicted"
    else:
        return None
    startup = baseline.startup_seconds if isinstance(baseline, Measured) else STARTUP_SECONDS
    steps = (workload.warmup + workload.steps) * workload.rank_tokens / tgs
    return Duration(case=workload.case, seconds=runs * (startup + steps), ranks=workload.ranks, source=source)


def predicted(workload: Workload, device: str) -> float | None:
    """TGS that the counts suggest for a published row as it was published; None where there is no such prediction."""
    if workload.scale != "full":
        return None
    from trainpace.cost.predict import devices, predicted_on
    from trainpace.errors import FileError

    if device not in devices():
        return None
    try:
        return predicted_on(device).get(workload.case)
    except FileError:
        return None


@dataclass
class Meter:
    """What a session spends, and what it did not have to."""

    spent: float = 0.0
    """Seconds of one rank's device, over all ranks."""
    saved: float = 0.0
    why: list[str] = field(default_factory=list)

    def spend(self, seconds: float, ranks: int) -> None:
        """Somebody trained."""
        self.spent += seconds * ranks

    def save(self, seconds: float, ranks: int, why: str) -> None:
        """Somebody did not have to."""
        self.saved += seconds * ranks
        if seconds > 0 and why not in self.why:
            self.why.append(why)

    def __call__(self, unit: str) -> str:
        """For the report."""
        saved = f", {self.saved / 3600:.2f} saved ({'; '.join(self.why)})" if self.saved else ""
        return f"{unit} hours: {self.spent / 3600:.2f} spent{saved}"


def of_run(run: Run) -> float:
    """Seconds that a run took, as its samples say."""
    first = run.ranks[0]
    return run.startup_seconds + sum(first.warmup_seconds) + sum(first.seconds) + sum(first.optimizer_seconds)


def words(hours: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def announce(session: "Session") -> None:
    """Say before anything runs how long the selection takes, where hours are counted.

    Raises:
        BudgetExceeded: where that is longer than --perf-max-hours.
    """
    most = session.options.max_hours
    if session.options.replay or (most is None and not _are_counted(session)):
        return
    names = [each.case.id for each in session.selection]
    try:
        estimate = total([_duration(session, each) for each in session.selection], names, unit=_unit(session))
    except RunFailed:  # there are no nodes: every case will say so
        return
    session.tell(str(estimate))
    session.say(str(estimate))
    if most is not None and estimate.hours > most:
        raise BudgetExceeded(
            f"--perf-max-hours {most:g}: the selection takes about {words(estimate.hours)}: select fewer cases with "
            "-k, or allow more"
        )


def say_hours(session: "Session") -> None:
    """Say what was spent and saved, where that is counted."""
    if session.meter.spent and _are_counted(session):
        session.say(session.meter(_unit(session)))


def _are_counted(session: "Session") -> bool:
    """Of GPUs, and of several nodes."""
    return session.options.launcher != "local" or session.machine.gpus is not None


def _unit(session: "Session") -> str:
    return "GPU" if session.machine.gpus else "rank"


def _duration(session: "Session", selected: "Selected") -> Duration | None:
    """What a selected case takes, at most; None where nothing is known of it."""
    try:
        workload = session.resolve(selected.case, selected.trainer).workload
    except RunFailed:  # it will say so itself
        return None
    options, device = session.options, session.device_of(workload)
    found = find(session.stored.baselines(device), workload)
    runs = options.runs_per_case or (DEFAULT_REFRESH_RUNS if options.refresh else 1)
    if options.gate is not None:
        runs = 2 * options.gate.max_pairs
    return of_case(workload, found, predicted(workload, device.slug), runs)


def total(durations: Sequence[Duration | None], workloads: Sequence[str], *, unit: str) -> Estimate:
    """The estimate of a selection: what is known of each case, and the names of all of them, in one order."""
    return Estimate(
        durations=tuple(each for each in durations if each is not None),
        unknown=tuple(name for each, name in zip(durations, workloads, strict=True) if each is None),
        unit=unit,
    )
