"""A run in a history: the few numbers of it that a trend needs."""

from collections.abc import Iterable
from typing import NamedTuple

Software = tuple[tuple[str, str], ...]
"""Versions, by name."""


class Kind(NamedTuple):
    """What runs must share to be one series."""

    case: str
    scale: str
    trainer: str
    hash: str
    """Of the workload."""
    device: str

    def __str__(self) -> str:
        trainer = "" if self.trainer == "native" else f" ({self.trainer})"
        return f"{self.case}{trainer} {self.scale} on {self.device}"


class Point(NamedTuple):
    """One run of a series."""

    kind: Kind
    started: int
    """Seconds since 1970, UTC."""
    id: str
    revision: str | None
    software: Software
    tgs: float
    peak_memory_bytes: int
    fault: str | None
    """The first fact that makes it invalid."""


def sessions(points: Iterable[Point], *, apart: int = 3600) -> list[int]:
    """The number of the session of each run: those of one revision, less than `apart` seconds after one another."""
    numbers: list[int] = []
    before: Point | None = None
    for point in points:
        same = before is not None and before.revision == point.revision and point.started - before.started < apart
        numbers.append(numbers[-1] + (not same) if numbers else 0)
        before = point
    return numbers
