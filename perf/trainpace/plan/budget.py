"""How long a selection takes, told before it runs; and what was spent and saved, told after it.

A duration comes from the case's baseline on this device, else from the prediction on counts (stats/roofline.py) where
the device's datasheet allows one; what has neither is named, and counts as nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainpace.cases.workload import Workload
from trainpace.judge.baseline import Measured, Published
from trainpace.runs.run import Run

STARTUP_SECONDS = 120.0
"""Of a run whose start was never measured: processes, imports, the model, the first and slowest step."""


@dataclass(frozen=True, kw_only=True)
class Duration:
    """What one case takes, at most."""

    case: str
    seconds: float
    """Of all runs of the case."""
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
        text = (
            f"estimated: {format_duration(self.hours)}, {self.rank_hours:.2f} {self.unit} hours ({told})"
            if told
            else ""
        )
        if self.unknown:
            nothing = f"nothing is known of the duration of {', '.join(self.unknown)}"
            text = f"{text}; {nothing}" if text else nothing
        return text


def duration_of(
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


@dataclass
class ResourceUsage:
    """Device time of one session, spent and saved."""

    spent: float = 0.0
    """Seconds, summed over all ranks."""
    saved: float = 0.0
    why: list[str] = field(default_factory=list)

    def spend(self, seconds: float, ranks: int) -> None:
        """Count `seconds` of training on `ranks` ranks."""
        self.spent += seconds * ranks

    def save(self, seconds: float, ranks: int, why: str) -> None:
        """Count `seconds` on `ranks` ranks that were not needed, and why."""
        self.saved += seconds * ranks
        if seconds > 0 and why not in self.why:
            self.why.append(why)

    def text(self, unit: str) -> str:
        """`GPU hours: 0.50 spent, 0.10 saved (why)`; `unit` is what a rank runs on."""
        saved = f", {self.saved / 3600:.2f} saved ({'; '.join(self.why)})" if self.saved else ""
        return f"{unit} hours: {self.spent / 3600:.2f} spent{saved}"


def run_seconds(run: Run) -> float:
    """Seconds that a run took, as its samples say."""
    first = run.ranks[0]
    return run.startup_seconds + sum(first.warmup_seconds) + sum(first.seconds) + sum(first.optimizer_seconds)


def format_duration(hours: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def estimate_of(durations: Sequence[Duration | None], workloads: Sequence[str], *, unit: str) -> Estimate:
    """The estimate of a selection: what is known of each case, and the names of all of them, in one order."""
    return Estimate(
        durations=tuple(each for each in durations if each is not None),
        unknown=tuple(name for each, name in zip(durations, workloads, strict=True) if each is None),
        unit=unit,
    )
