"""Runs in a history: the few numbers of each that a trend needs."""

from collections.abc import Iterable
from typing import NamedTuple

Software = tuple[tuple[str, str], ...]
"""Versions, by name."""


class SeriesKey(NamedTuple):
    """Fields in which the runs of one series are equal."""

    case: str
    scale: str
    trainer: str
    hash: str
    """Hash of the workload."""
    device: str
    """Slug."""

    def __str__(self) -> str:
        trainer = "" if self.trainer == "native" else f" ({self.trainer})"
        return f"{self.case}{trainer} {self.scale} on {self.device}"


class RunSummary(NamedTuple):
    """One run of a series."""

    kind: SeriesKey
    started: int
    """Seconds since 1970, UTC."""
    id: str
    revision: str | None
    """Commit, `+dirty` where files differed; None outside a checkout."""
    software: Software
    tgs: float
    peak_memory_bytes: int
    startup_seconds: float
    """Until the first step."""
    fault: str | None
    """The first fact that makes the run invalid; None for a valid one."""


def sessions(points: Iterable[RunSummary], *, apart: int = 3600) -> list[int]:
    """Number of the session of each run, from 0. A session is runs of one revision, each started less than `apart`
    seconds after the one before."""
    numbers: list[int] = []
    before: RunSummary | None = None
    for point in points:
        same = before is not None and before.revision == point.revision and point.started - before.started < apart
        numbers.append(numbers[-1] + (not same) if numbers else 0)
        before = point
    return numbers
