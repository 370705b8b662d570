"""Baselines: what they hold, which one a workload is judged against, and the spread that a tolerance comes from.

store/baselines.py reads and writes their files; judge/refresh.py says what a refresh changes.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from trainpace.cases.machine import Device
from trainpace.cases.workload import Scale, Workload
from trainpace.records import Record
from trainpace.runs.flops import COUNTED
from trainpace.runs.run import DataIdentity
from trainpace.stats.retest import outliers
from trainpace.stats.tolerance import CaseNoise, Spread, geometric_mean, pooled_spread
from trainpace.stats.variance import case_noises

# 1: first format (2026-11), one session a baseline.
# 2: runs by session, with their peak memory (2026-11). Version 1 is read as one session.
SCHEMA = 2
MAX_SESSIONS = 10
"""Sessions that a baseline keeps, the newest."""
MIN_ALIKE_DOF = 20
"""Degrees of freedom, between runs, of the baselines of one trainer and engine that tell how alike its cases are."""


T = TypeVar("T")


def mean_of_sessions(sessions: Sequence[Sequence[float]]) -> float:
    """Geometric mean over sessions of the geometric mean of their runs: each session counts once, however many runs."""
    return geometric_mean([geometric_mean(runs) for runs in sessions])


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
    printed_tflops: PositiveFloat | None
    """The row's own figure as printed, in its table's convention: never judged, compared only where the table itself is
    tested; None where it prints none."""
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
    def counted_tgs(self) -> list[list[float]]:
        """TGS of each of its runs, by session: the row's own."""
        return [[self.tgs]]


class StoredSession(Record):
    """The runs of one workload that one refresh made."""

    recorded: str
    """When its session began to record: UTC, ISO 8601. Equal for all cases of that session: it tells which they are."""
    revision: str | None
    level: PositiveInt
    """Sessions of one level are of equal speed but for the machine; the next level began where the speed changed."""
    tgs: Annotated[list[PositiveFloat], Field(min_length=1)]
    """TGS of each run."""
    ids: list[str]
    """Of each run, which tells runs that are recorded twice; empty where the file was of version 1, without them."""
    peak_memory_bytes: list[PositiveInt]
    """Largest peak of each run over its ranks; empty where the file was of version 1."""

    @model_validator(mode="after")
    def _one_of_each_run(self) -> Self:
        for field in ("ids", "peak_memory_bytes"):
            number = len(getattr(self, field))
            if number not in {0, len(self.tgs)}:
                raise ValueError(f"{field} must have {len(self.tgs)} entries, got {number}")
        return self

    def shares_runs(self, other: "StoredSession") -> bool:
        """Whether a run is in both: one session was recorded twice."""
        mine, its = (set(zip(each.ids, each.tgs, strict=False)) for each in (self, other))
        return not mine.isdisjoint(its)


class Measured(Record):
    """The runs of one workload on one device, with everything needed to judge the next run and to repeat these."""

    origin: Literal["measured"]
    workload: Workload
    """The whole workload: a proxy's cut is chosen once and read back from here."""
    tgs: PositiveFloat
    """Geometric mean over the sessions of the newest level, each of which is the geometric mean of its runs."""
    sessions: Annotated[list[StoredSession], Field(min_length=1)]
    """Oldest first. Those of the newest level are what a run is compared with; the tolerance comes from all of them:
    from the spread within a session and the spread between the sessions of a level."""
    reference_tgs: PositiveFloat
    """TGS that the next refresh is compared with: `tgs` when its level began. A refresh within the tolerance keeps it,
    so that many small losses do not add up unseen."""
    tflops: PositiveFloat | None
    """None where they were not known: in the convention `counted`, of a step that was not counted."""
    convention: str
    convention_version: PositiveInt
    mean_attended: PositiveFloat | None
    """Mean number of keys that a token attends to, where documents are masked; None where attention is causal."""
    peak_memory_bytes: PositiveInt
    """Largest peak over the runs of the newest session and their ranks."""
    yardstick_seconds: PositiveFloat | None
    """Seconds of the fixed piece of work that tells the speed of a CPU, median over the runs; None on a GPU."""
    first_losses: list[float]
    """Losses of the first steps of the newest session's first run; empty where a system logs none."""
    data: DataIdentity | None
    """Data that the losses belong to; None where the trainer brings data that the suite does not know."""
    startup_seconds: NonNegativeFloat
    """Seconds from the start of a run to its first step, median over the runs."""
    device: Device
    software: dict[str, str]
    """Versions of the newest session."""
    accepted_slower: str | None
    """The reason given for recording a slower value; None where none had to be given."""

    @model_validator(mode="after")
    def _mean_of_its_sessions(self) -> Self:
        levels = [session.level for session in self.sessions]
        if levels != sorted(levels):
            raise ValueError(f"levels of the sessions must not fall, got {levels}")
        if self.tflops is None and self.convention != COUNTED:
            raise ValueError(f"tflops must be given in the convention {self.convention}, got None")
        mean = mean_of_sessions(self.counted_tgs)
        if not math.isclose(mean, self.tgs, rel_tol=1e-4):
            raise ValueError(
                f"tgs must be the geometric mean of the newest level's sessions, {mean:.6g}, got {self.tgs:.6g}"
            )
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
    def level(self) -> int:
        """Of its newest session."""
        return self.sessions[-1].level

    @property
    def counted_tgs(self) -> list[list[float]]:
        """TGS of each run that `tgs` is the mean of, by session."""
        return [session.tgs for session in self.sessions if session.level == self.level]

    @property
    def num_runs(self) -> int:
        """Number of runs that `tgs` is the mean of."""
        return sum(map(len, self.counted_tgs))

    @property
    def recorded(self) -> str:
        """When its newest session was recorded: UTC, ISO 8601."""
        return self.sessions[-1].recorded

    @property
    def revision(self) -> str | None:
        """What its newest session measured."""
        return self.sessions[-1].revision


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
    """The baseline that `workload` is judged against: the measured one of its key, of a proxy else that of another case
    which is the same computation; else the published row of its case; None where there is neither.

    A row says case, GPUs and device and nothing else, so it matches on those, at full scale only; and only plain causal
    attention, which is what the table was measured with.
    """
    for baseline in baselines:
        if isinstance(baseline, Measured) and baseline.key == workload.key:
            return baseline
    for baseline in baselines if workload.scale == "proxy" else ():
        if isinstance(baseline, Measured) and baseline.workload.computation == workload.computation:
            return baseline
    row = (workload.case, workload.scale, workload.ranks)
    for baseline in baselines:
        if isinstance(baseline, Published) and (baseline.case, baseline.scale, baseline.gpus) == row:
            return baseline if workload.attention == "causal" else None
    return None


def case_noise(
    baseline: Published | Measured, baselines: Iterable[Published | Measured], *, shared: bool
) -> CaseNoise | None:
    """How far unchanged code is from `baseline`; None of a published row (our own runs say nothing about somebody
    else's machine), and where no two runs are known.

    The case's own variances are moderated by those of what is alike: the device's baselines of the same scale, trainer
    and engine, or, where these are too few to tell, of the same scale. Outliers are left out: one of them would be the
    noise of every case.

    Args:
        baseline: of the case.
        baselines: all of its device.
        shared: whether what all cases of a session share is taken out when they are judged.
    """
    if isinstance(baseline, Published):
        return None
    measured = _of_scale([baseline, *baselines], baseline.scale)
    counted = [
        [
            session.model_copy(update={"tgs": _split(session.tgs, aside)[0]})
            for session, aside in zip(*pair, strict=True)
        ]
        for pair in zip([each.sessions for each in measured], _outliers(measured), strict=True)
    ]
    kind = baseline.workload.trainer, baseline.workload.engine
    alike = [
        sessions
        for each, sessions in zip(measured, counted, strict=True)
        if (each.workload.trainer, each.workload.engine) == kind
    ]
    dof = sum(len(session.tgs) - 1 for sessions in alike for session in sessions)
    # `baseline` is the first of both.
    return case_noises(alike if dof >= MIN_ALIKE_DOF else counted, shared=shared)[0]


def run_noise(baseline: Published | Measured | None) -> Spread | None:
    """Spread of log TGS between runs of one session, of this workload alone, over all sessions that its baseline holds;
    None where none has two runs.
    """
    if not isinstance(baseline, Measured):
        return None
    return pooled_spread(session.tgs for session in baseline.sessions)


def without_outliers(
    baseline: Published | Measured, baselines: Iterable[Published | Measured]
) -> tuple[Published | Measured, list[float]]:
    """`baseline` without its outliers, and the TGS of those that its newest level had. `baselines` are all of the
    device: their spread tells.
    """
    if isinstance(baseline, Published):
        return baseline, []
    measured = _of_scale(baselines, baseline.scale)
    marks = dict(zip([each.key for each in measured], _outliers(measured), strict=True)).get(baseline.key, [])
    sessions, aside = [], []
    for session, outlier in zip(baseline.sessions, marks, strict=bool(marks)):
        counted, gone = _split(session.tgs, outlier)
        ids, peaks = (_split(each, outlier)[0] for each in (session.ids, session.peak_memory_bytes))
        sessions.append(session.model_copy(update={"tgs": counted, "ids": ids, "peak_memory_bytes": peaks}))
        if session.level == baseline.level:
            aside += gone
    if not marks or sessions == baseline.sessions:
        return baseline, []
    tgs = mean_of_sessions([session.tgs for session in sessions if session.level == baseline.level])
    figures = {"tgs": tgs, "sessions": sessions, "tflops": baseline.tflops and baseline.tflops * tgs / baseline.tgs}
    return baseline.model_copy(update=figures), aside


def _of_scale(baselines: Iterable[Published | Measured], scale: Scale) -> list[Measured]:
    """The measured baselines of a scale, the first of each key."""
    found: dict[str, Measured] = {}
    for each in baselines:
        if isinstance(each, Measured) and each.scale == scale:
            found.setdefault(each.key, each)
    return list(found.values())


def _outliers(measured: Sequence[Measured]) -> list[list[Sequence[bool]]]:
    """One flag a run, by baseline and session: True for an outlier among the runs of its session."""
    marks = iter(outliers([session.tgs for each in measured for session in each.sessions]))
    return [[next(marks) for _ in each.sessions] for each in measured]


def _split(values: Sequence[T], outlier: Sequence[bool]) -> tuple[list[T], list[T]]:
    """Those that are no outliers, and those that are."""
    pairs = list(zip(values, outlier, strict=bool(values)))
    return [value for value, aside in pairs if not aside], [value for value, aside in pairs if aside]


def proxy_cuts(baselines: Iterable[Published | Measured], case: str) -> list[Workload]:
    """Proxy workloads of `case` that the device has baselines of, newest first: scale `proxy` uses the first."""
    cuts = [each for each in baselines if isinstance(each, Measured) and (each.case, each.scale) == (case, "proxy")]
    return [each.workload for each in sorted(cuts, key=lambda each: each.recorded, reverse=True)]
