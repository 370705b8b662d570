"""Several systems on one workload, measured in rounds: how fast each is, and how that stands to the reference, which is
one of them.

Nothing is red for being slower: what is judged is whether each was measured validly.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from trainpace.cases.machine import Device
from trainpace.cases.workload import Workload
from trainpace.records import Record

CONFIDENCE = 0.95
"""Of every interval here, two-sided."""

Status = Literal["measured", "skipped", "invalid", "out of memory"]


class System(Record):
    """One training system on one workload."""

    trainer: str
    """As it was asked for: `native`, `hf`, a path."""
    title: str
    """For people: `LLaMA-Factory`."""
    status: Status
    reference: bool = False
    """Whether it is the one that all ratios are to: the first, as they were asked for, that was measured."""
    reason: str = ""
    """Why it is not `measured`, with the next command to run."""
    tgs_of_runs: tuple[PositiveFloat, ...] = ()
    """One a round."""
    tgs: PositiveFloat | None = None
    """Geometric mean over the rounds."""
    low: PositiveFloat | None = None
    """The interval of `tgs`; None for a single round."""
    high: PositiveFloat | None = None
    ratio: PositiveFloat | None = None
    """TGS / that of the reference; 1 for itself."""
    ratio_low: PositiveFloat | None = None
    ratio_high: PositiveFloat | None = None
    tflops: PositiveFloat | None = None
    """In the comparison's convention; None where its formula does not hold and the step was not counted."""
    mfu: PositiveFloat | None = None
    """Model FLOPs of a second / those that the device can do, 0 to 1; None where either is not known."""
    hfu: PositiveFloat | None = None
    """The same of all FLOPs that were executed, what is made again included; the native trainer's alone."""
    peak_memory_bytes: PositiveInt | None = None
    startup_seconds: NonNegativeFloat | None = None
    """Median over the rounds."""
    command: str = ""
    """What was run, as it can be typed on that machine."""
    files: dict[str, str] = Field(default_factory=dict)
    """Texts of the files that the command names, by their paths below the report's folder."""
    software: dict[str, str] = Field(default_factory=dict)
    footnotes: tuple[str, ...] = ()
    """What differs from the native trainer, and what must be known of the measurement."""


class SideBySide(Record):
    """One case, trained by several systems."""

    case: str
    title: str
    """Of the model: `Llama2-7B`."""
    length: str
    """Of the case's sequence, as the table names it: `8k`."""
    workload: Workload
    """As the first system trained it; the others differ in `trainer` and `engine` alone."""
    device: Device
    rounds: PositiveInt
    convention: str
    """In which TFLOPs are counted."""
    systems: tuple[System, ...]
    """In the order in which they were asked for."""

    @property
    def measured(self) -> list[System]:
        """Systems with a number."""
        return [system for system in self.systems if system.status == "measured"]

    @property
    def reference(self) -> System | None:
        """The system that all ratios are to; None where none was measured."""
        return next((system for system in self.systems if system.reference), None)


def interval(logs: Sequence[float]) -> tuple[float, float | None, float | None]:
    """exp of the mean of `logs` and its two-sided CONFIDENCE interval, mean +- t s / sqrt(n); None for one value."""
    mean = fmean(logs)
    if len(logs) < 2:
        return math.exp(mean), None, None
    from scipy.special import stdtrit

    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def figures(tgs: Sequence[float], first: Sequence[float]) -> Mapping[str, float | None]:
    """TGS and ratio of one system, with their intervals: fields of a System.

    Args:
        tgs: one a round, at least one.
        first: of the reference, in the same rounds. The ratio is taken round by round, so that what the machine did in
            a round meets both.
    """
    value, low, high = interval([math.log(each) for each in tgs])
    pairs = [math.log(each / other) for each, other in zip(tgs, first, strict=True)]
    ratio, ratio_low, ratio_high = interval(pairs)
    return {
        "tgs": value,
        "low": low,
        "high": high,
        "ratio": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
    }
