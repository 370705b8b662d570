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
        """Key of the row in the device's file. It has no hash, because the table does not give the whole workload."""
        return f"{self.case}/{self.scale}/{self.origin}"

    @property
    def num_runs(self) -> int:
        """Number of runs that `tgs` is the mean of."""
        return 1

    @property
    def counted_tgs(self) -> list[float]:
        """TGS of each of its runs: the row's own."""
        return [self.tgs]

    def spread(self, pool: Spread | None) -> None:
        """None: the spread of our own runs says nothing about somebody else's machine."""


class Measured(Record):
    """The runs of one workload on one device, with everything needed to judge the next run and to repeat these."""

    origin: Literal["measured"]
    workload: Workload
    """The whole workload: a proxy's cut is chosen once and read back from here."""
    tgs: PositiveFloat
    """Geometric mean over the runs."""
    tgs_of_runs: Annotated[list[PositiveFloat], Field(min_length=1)]
    """TGS of each run. Their spread is the noise that tolerances come from."""
    reference_tgs: PositiveFloat
    """TGS that the next refresh is compared with: `tgs` when it last rose, or fell with a reason. A refresh within the
    tolerance keeps it, so that many small losses do not add up unseen."""
    tflops: PositiveFloat
    convention: str
    convention_version: PositiveInt
    mean_attended: PositiveFloat | None
    """Mean number of keys that a token attends to, where documents are masked; None where attention is causal."""
    peak_memory_bytes: PositiveInt
    """Largest peak over the runs and their ranks."""
    yardstick_seconds: PositiveFloat | None
    """Seconds of the fixed piece of work that tells the speed of a CPU, median over the runs; None on a GPU."""
    first_losses: list[float]
    """Losses of the first steps of the first run; empty where a system logs none."""
    data: DataIdentity | None
    """Data that the losses belong to; None where the trainer brings data that the suite does not know."""
    startup_seconds: NonNegativeFloat
    """Seconds from the start of a run to its first step, median over the runs."""
    device: Device
    software: dict[str, str]
    revision: str | None
    recorded: str
    """UTC, ISO 8601."""
    accepted_slower: str | None
    """The reason given for recording a slower value; None where none had to be given."""

    @model_validator(mode="after")
    def _mean_of_its_runs(self) -> Self:
        mean = geometric_mean(self.tgs_of_runs)
        if not math.isclose(mean, self.tgs, rel_tol=1e-4):
            raise ValueError(f"tgs must be the geometric mean of tgs_of_runs, {mean:.6g}, got {self.tgs:.6g}")
        return self

    @property
    def case(self) -> str:
        """Id of the case."""
        return self.workload.case

    @property
    def scale(self) -> Scale:
        """Scale that the case was cut to."""
        return self.workload.scale

    @property
    def key(self) -> str:
        """Key of the baseline in the device's file: that of its workload."""
        return self.workload.key

    @property
    def num_runs(self) -> int:
        """Number of runs that `tgs` is the mean of."""
        return len(self.tgs_of_runs)

    @property
    def counted_tgs(self) -> list[float]:
        """TGS of each of its runs."""
        return self.tgs_of_runs

    def spread(self, pool: Spread | None) -> Spread | None:
        """Spread of log TGS between runs: `pool`, the device's, else of its own runs; None where it has one run."""
        return pool or pooled_spread([self.tgs_of_runs])


Baseline = Annotated[Published | Measured, Field(discriminator="origin")]


@dataclass(frozen=True)
class BaselineFile:
    """The baselines of one device, by key."""

    device: str
    baselines: dict[str, Published | Measured]
    schema_version: int = SCHEMA

    def text(self) -> str:
        """Content of the file: sorted, a field a line, so that a refresh shows as the lines that it changed."""
        content = {
            "schema_version": self.schema_version,
            "device": self.device,
            "baselines": {key: baseline.model_dump(mode="json") for key, baseline in self.baselines.items()},
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def find(baselines: Sequence[Published | Measured], workload: Workload) -> Published | Measured | None:
    """The baseline that `workload` is judged against: the measured one of its key, else the published row of its case;
    None where there is neither.

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
    """Spread of log TGS between runs, pooled over a device's measured baselines of one scale; None where none has two
    runs. Outliers are left out: one of them would be the noise of every case.
    """
    return pooled_spread(counted for counted, _ in _split_outliers(baselines, scale).values())


def without_outliers(
    baseline: Published | Measured, baselines: Iterable[Published | Measured]
) -> tuple[Published | Measured, list[float]]:
    """`baseline` without its outliers, and the TGS of these. `baselines` are all of the device: their spread tells."""
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
    """By key of a measured baseline: TGS of its runs that count, and of its outliers."""
    groups: dict[str, list[float]] = {}
    for each in baselines:
        if isinstance(each, Measured) and each.scale == scale:
            groups.setdefault(each.key, each.tgs_of_runs)
    found = {}
    for (key, runs), marks in zip(groups.items(), outliers(list(groups.values())), strict=True):
        pairs = list(zip(runs, marks, strict=True))
        found[key] = [tgs for tgs, aside in pairs if not aside], [tgs for tgs, aside in pairs if aside]
    return found


def run_noise(baseline: Published | Measured | None) -> Spread | None:
    """Spread of log TGS between runs of one session, of this workload alone; None where nothing was measured twice."""
    return pooled_spread([baseline.tgs_of_runs]) if isinstance(baseline, Measured) else None


def proxy_cuts(baselines: Iterable[Published | Measured], case: str) -> list[Workload]:
    """Proxy workloads of `case` that the device has baselines of, newest first: scale `proxy` uses the first."""
    cuts = [each for each in baselines if isinstance(each, Measured) and (each.case, each.scale) == (case, "proxy")]
    return [each.workload for each in sorted(cuts, key=lambda each: each.recorded, reverse=True)]
