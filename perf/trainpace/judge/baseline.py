"""Baselines: what they hold, which one a workload is judged against, and the spread that a tolerance comes from.

store/baselines.py reads and writes their files; judge/refresh.py says what a refresh changes.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from trainpace.cases.machine import Device
from trainpace.cases.workload import Scale, Workload
from trainpace.records import Record
from trainpace.runs.run import DataIdentity
from trainpace.stats.retest import outliers
from trainpace.stats.tolerance import Spread, geometric_mean, pooled_spread

# 1: first format (2026-11).
SCHEMA = 1


class Published(Record):
    """A row of somebody's published table: a speed without spread, memory, losses or a workload."""

    origin: Literal["published"]
    case: str
    model: str
    """The model's name for people, as the table gives it."""
    scale: Literal["full"]
    sequence: PositiveInt
    sp: PositiveInt
    gpus: PositiveInt
    tgs: PositiveFloat
    printed_tflops: PositiveFloat
    """The row's own figure as printed: never judged, compared only where the table itself is tested."""
    tflops: PositiveFloat
    """Recomputed from `tgs` in the named convention."""
    convention: str
    convention_version: PositiveInt
    hardware: str
    software: dict[str, str]
    source: str
    """Where the row stands, and what is known of how and when it was measured."""

    @property
    def key(self) -> str:
        """Its name in the device's file. No hash: the table does not say every number of the workload."""
        return f"{self.case}/{self.scale}/{self.origin}"

    @property
    def num_runs(self) -> int:
        """Runs that its value rests on."""
        return 1

    def spread(self, pool: Spread | None) -> None:
        """Unknown: the spread of our own runs says nothing about somebody else's machine."""


class Measured(Record):
    """What runs on this device gave, with everything needed to judge the next run and to repeat these."""

    origin: Literal["measured"]
    workload: Workload
    """Whole: a proxy's cut is chosen once and read back from here."""
    tgs: PositiveFloat
    """Geometric mean over the runs."""
    tgs_of_runs: Annotated[list[PositiveFloat], Field(min_length=1)]
    """Their spread is the noise that tolerances come from."""
    reference_tgs: PositiveFloat
    """What the next refresh must not fall below: the value when it last rose, or fell with a reason. Refreshes within
    the tolerance leave it, so that many small losses do not add up unseen."""
    tflops: PositiveFloat
    convention: str
    convention_version: PositiveInt
    mean_attended: PositiveFloat | None
    """Keys a token attends to, where documents are masked: other documents are other work."""
    peak_memory_bytes: PositiveInt
    """Largest over the runs."""
    yardstick_seconds: PositiveFloat | None
    """What the cores gave when this was recorded: median over the runs. None on a GPU, whose driver tells."""
    first_losses: list[float]
    """Empty where a program logs none."""
    data: DataIdentity | None
    """What the losses belong to; None where the trainer brings data that the suite does not know."""
    startup_seconds: NonNegativeFloat
    """Median over the runs."""
    device: Device
    software: dict[str, str]
    revision: str | None
    recorded: str
    """UTC, ISO 8601."""
    accepted_slower: str | None
    """The reason given when a slower value was recorded on purpose."""

    @model_validator(mode="after")
    def _mean_of_its_runs(self) -> Self:
        mean = geometric_mean(self.tgs_of_runs)
        if not math.isclose(mean, self.tgs, rel_tol=1e-4):
            raise ValueError(f"tgs must be the geometric mean of tgs_of_runs, {mean:.6g}, got {self.tgs:.6g}")
        return self

    @property
    def case(self) -> str:
        """The id of the case."""
        return self.workload.case

    @property
    def scale(self) -> Scale:
        """How the case was cut."""
        return self.workload.scale

    @property
    def key(self) -> str:
        """Its name in the device's file: that of its workload."""
        return self.workload.key

    @property
    def num_runs(self) -> int:
        """Runs that its value rests on."""
        return len(self.tgs_of_runs)

    def spread(self, pool: Spread | None) -> Spread | None:
        """The spread between runs to judge by: the device's pooled one, else that of its own runs."""
        return pool or pooled_spread([self.tgs_of_runs])


Baseline = Annotated[Published | Measured, Field(discriminator="origin")]


@dataclass(frozen=True)
class BaselineFile:
    """The file of one device; `baselines` by key."""

    device: str
    baselines: dict[str, Published | Measured]
    schema_version: int = SCHEMA

    def text(self) -> str:
        """The file's content: sorted, a field a line, so that a refresh shows as the lines that it changed."""
        content = {
            "schema_version": self.schema_version,
            "device": self.device,
            "baselines": {key: baseline.model_dump(mode="json") for key, baseline in self.baselines.items()},
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def find(baselines: Sequence[Published | Measured], workload: Workload) -> Published | Measured | None:
    """The baseline that `workload` is judged against: a measured one of its key, else the published row of its case.

    A row says case, GPUs and device and nothing else, so it matches on those, at full scale only; and only plain causal
    attention, which is what the table was measured with.
    """
    for baseline in baselines:
        if isinstance(baseline, Measured) and baseline.key == workload.key:
            return baseline
    row = (workload.case, workload.scale, workload.ranks)
    for baseline in baselines:
        if isinstance(baseline, Published) and (baseline.case, baseline.scale, baseline.gpus) == row:
            return baseline if workload.attention == "causal" else None
    return None


def pool(baselines: Iterable[Published | Measured], scale: Scale) -> Spread | None:
    """The spread between runs, pooled over a device's measured baselines of one scale; None where none has two runs.

    Outliers among them are left out: one would be the noise of every case.
    """
    return pooled_spread(counted for counted, _ in _split_outliers(baselines, scale).values())


def without_outliers(
    baseline: Published | Measured, baselines: Iterable[Published | Measured]
) -> tuple[Published | Measured, list[float]]:
    """What `baseline` is without the outliers among its runs, and the TGS of these; `baselines` are the device's."""
    if isinstance(baseline, Published):
        return baseline, []
    counted, aside = _split_outliers(baselines, baseline.scale).get(baseline.key, (baseline.tgs_of_runs, []))
    if not aside:
        return baseline, []
    tgs = geometric_mean(counted)
    figures = {"tgs": tgs, "tgs_of_runs": counted, "tflops": baseline.tflops * tgs / baseline.tgs}
    return baseline.model_copy(update=figures), aside


def _split_outliers(
    baselines: Iterable[Published | Measured], scale: Scale
) -> dict[str, tuple[list[float], list[float]]]:
    """TGS of the runs that count, and of those that were outliers, by the key of their measured baseline."""
    groups: dict[str, list[float]] = {}
    for each in baselines:
        if isinstance(each, Measured) and each.scale == scale:
            groups.setdefault(each.key, each.tgs_of_runs)
    found = {}
    for (key, runs), marks in zip(groups.items(), outliers(list(groups.values())), strict=True):
        pairs = list(zip(runs, marks, strict=True))
        found[key] = [tgs for tgs, aside in pairs if not aside], [tgs for tgs, aside in pairs if aside]
    return found


def proxy_cuts(baselines: Iterable[Published | Measured], case: str) -> list[Workload]:
    """The cuts of `case` that this device has baselines for, newest first: what `proxy` must use again."""
    cuts = [each for each in baselines if isinstance(each, Measured) and (each.case, each.scale) == (case, "proxy")]
    return [each.workload for each in sorted(cuts, key=lambda each: each.recorded, reverse=True)]
