"""results.json: one session for machines, and what the other reports are written from.

Its schema travels beside this file and is a promise to readers outside. So it is a record of its own, and no dump of
the judgement, which changes with the judge. This writes it anew:

    python -m trainpace schema > perf/trainpace/report/results.schema.json
"""

import json
from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

import trainpace
from trainpace.judge.finding import Finding, Status
from trainpace.judge.finding import Outcome as Ended
from trainpace.judge.systems import SideBySide
from trainpace.judge.verdict import Judgement
from trainpace.records import Record
from trainpace.report.compare import last_line
from trainpace.runs.run import TrainedOn, described
from trainpace.runs.verdict import Verdict
from trainpace.text import count

DETAIL_LENGTH = 8000
"""Characters kept of what a failed run printed, the last ones."""


class Reference(Record):
    """The baseline or the base that a case was judged against."""

    kind: Literal["baseline", "base"]
    name: str
    """Origin of the baseline (measured, published), or revision or interpreter of the base."""
    tgs: PositiveFloat
    head: str | None = None
    """Revision that was compared with the base; null for a baseline."""
    pairs: NonNegativeInt | None = None
    """Pairs of runs that were compared; null for a baseline."""
    low: PositiveFloat | None = None
    """Lower end of the ratio's interval; null for a baseline."""
    high: PositiveFloat | None = None
    """Upper end of the ratio's interval; null for a baseline."""


class Entry(Record):
    """One case of a session, measured or counted. A figure that is not known is null."""

    case: str
    workload: str | None
    """Key of what was trained: two figures may be compared where it is the same."""
    verdict: Verdict
    outcome: Status
    """Outcome of the test."""
    excused: str | None = None
    """Reason for which the test does not fail, though its verdict would; null where there is none."""
    refresh: Literal["recorded", "refused"] | None
    """Set in a session that records baselines; the verdict is then against the old baseline."""
    change: str | None
    """What was recorded, old -> new, or why nothing was; null without a refresh."""
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    version_differences: tuple[str, ...]
    detail: str
    """End of what a failed run printed."""

    @property
    def label(self) -> str:
        """One word for the case: its verdict, or in a refresh whether it was recorded."""
        return self.refresh or self.verdict.value

    @property
    def title(self) -> str:
        """Name of the entry, unique in a session of one trainer."""
        return self.case


class CaseResult(Entry):
    """A case that was measured."""

    trainer: str | None
    scale: str | None
    ranks: PositiveInt | None
    device: str | None
    revision: str | None = None
    """Commit of what was measured, `+dirty` behind it where files differed from it; null where it is not known."""
    tgs: PositiveFloat | None
    """Tokens per GPU per second."""
    tgs_of_runs: tuple[PositiveFloat, ...]
    tflops: PositiveFloat | None
    convention: str
    """Convention of the TFLOPs, with its version: `xtuner 1`."""
    mfu: PositiveFloat | None = None
    """Model FLOPs of a second / those that the device can do, 0 to 1; null where either is not known."""
    hfu: PositiveFloat | None = None
    """Executed FLOPs of a second, what is made again included / those that the device can do; null where unknown."""
    peak_memory_bytes: PositiveInt | None
    startup_seconds: float | None
    data: str | None = None
    """What was trained on: the sources and the tokenizer; null where the suite does not know it."""
    trained_on: tuple[TrainedOn, ...] = ()
    """What was found in each source; empty where the trainer does not say."""
    versus: Reference | None
    """Null where there was nothing to judge against."""
    ratio: PositiveFloat | None
    """TGS / TGS of what it was judged against."""
    tolerance: PositiveFloat | None
    tolerance_source: str
    explanation: tuple[str, ...]
    """Where the time of a slower step went, a line each."""

    @property
    def title(self) -> str:
        """Name of the entry: the case, with the trainer where that is not the native one."""
        return self.case if self.trainer in {None, "native"} else f"{self.case} ({self.trainer})"


class CostResult(Entry):
    """A case whose cost was counted at full size."""

    counters: dict[str, NonNegativeInt] | None
    """Per rank and step; runs/cost.py says what each stands for. Null where nothing could be counted."""

    @property
    def title(self) -> str:
        """Name of the entry, apart from that of the measurement."""
        return f"cost of {self.case}"


class CompareResult(Entry):
    """A case trained by several systems side by side. The verdict is on the measurement, never on who is slower."""

    side_by_side: SideBySide | None
    """As in compare.json; null where nothing could be measured."""

    @property
    def title(self) -> str:
        """Name of the entry, apart from that of one trainer."""
        return f"{self.case} side by side"


class Results(Record):
    """One session."""

    # 1: first format (2026-11).

    schema_version: Literal[1] = 1
    trainpace: str = trainpace.__version__
    exit_status: int
    summary: str
    """Counts of the verdicts, with the names of all cases that did not pass."""
    warnings: tuple[str, ...] = ()
    """Messages that stand before everything else."""
    said: tuple[str, ...] = ()
    """Messages on choices that the suite made by itself."""
    cases: tuple[CaseResult, ...]
    costs: tuple[CostResult, ...] = ()
    comparisons: tuple[CompareResult, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries: measured, counted, compared."""
        return (*self.cases, *self.costs, *self.comparisons)


def case_result(finding: Finding, ended: Ended) -> CaseResult:
    """What is told of a speed test; `ended` is what became of it."""
    judgement, change, runs = finding.judgement, finding.change, finding.runs
    assert judgement is not None
    workload = judgement.workload
    return CaseResult(
        case=judgement.case,
        trainer=workload.trainer if workload else None,
        workload=workload.key if workload else None,
        scale=workload.scale if workload else None,
        ranks=workload.ranks if workload else None,
        device=runs[0].device.slug if runs else None,
        revision=runs[0].revision if runs else None,
        verdict=judgement.verdict,
        outcome=ended.status,
        excused=judgement.waiver,
        refresh=None if change is None else "refused" if change.new is None else "recorded",
        change=None if change is None else str(change),
        reasons=judgement.reasons,
        notes=judgement.notes,
        version_differences=judgement.version_differences,
        tgs=judgement.tgs,
        tgs_of_runs=judgement.tgs_of_runs,
        tflops=judgement.tflops,
        convention=f"{judgement.convention} {judgement.convention_version}",
        mfu=judgement.mfu,
        hfu=judgement.hfu,
        peak_memory_bytes=judgement.peak_memory_bytes,
        startup_seconds=judgement.startup_seconds,
        data=described(judgement.data, judgement.trained_on) if judgement.data else None,
        trained_on=judgement.trained_on,
        versus=_reference(judgement),
        ratio=judgement.ratio,
        tolerance=judgement.tolerance,
        tolerance_source=judgement.tolerance_source,
        explanation=judgement.explanation,
        detail=finding.detail[-DETAIL_LENGTH:],
    )


def cost_result(finding: Finding, ended: Ended) -> CostResult:
    """What is told of a cost test; `ended` is what became of it."""
    judgement, change = finding.cost, finding.change
    assert judgement is not None
    return CostResult(
        case=judgement.case,
        workload=judgement.cost.key if judgement.cost else None,
        verdict=judgement.verdict,
        outcome=ended.status,
        refresh="recorded" if change else None,
        change=str(change) if change else None,
        reasons=judgement.reasons,
        notes=judgement.notes,
        version_differences=judgement.version_differences,
        counters=judgement.cost.counters if judgement.cost else None,
        detail=finding.detail[-DETAIL_LENGTH:],
    )


def compare_result(finding: Finding, ended: Ended) -> CompareResult:
    """What is told of a comparison; `ended` is what became of its test."""
    return CompareResult(
        case=finding.case,
        workload=finding.systems.workload.key if finding.systems else None,
        verdict=finding.verdict,
        outcome=ended.status,
        refresh=None,
        change=None,
        reasons=finding.reasons,
        notes=(),
        version_differences=(),
        side_by_side=finding.systems,
        detail=finding.detail[-DETAIL_LENGTH:],
    )


def compare_summary(comparisons: Sequence[CompareResult]) -> str:
    """Counts of the statuses, with the names of all systems without a number; empty where nothing was compared."""
    found = [each.side_by_side for each in comparisons if each.side_by_side]
    failed = [each.case for each in comparisons if not each.side_by_side]
    counts = [last_line(found)] if found else []
    return "; ".join([*counts, *(f"{case} side by side: not measured" for case in failed)])


def cost_summary(costs: Sequence[CostResult]) -> str:
    """`14 costs: 13 pass, 1 regression`; empty where nothing was counted."""
    labels = [cost.label for cost in costs]
    counts = ", ".join(f"{labels.count(label)} {label}" for label in dict.fromkeys(labels))
    return f"{count(len(costs), 'cost')}: {counts}" if costs else ""


def schema_text() -> str:
    """The JSON schema of results.json, as its file holds it."""
    schema = Results.model_json_schema(mode="serialization")
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(described, indent=1, sort_keys=True) + "\n"


def _reference(judgement: Judgement) -> Reference | None:
    baseline, comparison = judgement.baseline, judgement.comparison
    if comparison is not None:
        return Reference(
            kind="base",
            name=comparison.base,
            tgs=comparison.base_tgs,
            head=comparison.head,
            pairs=len(comparison.log_ratios),
            low=comparison.low,
            high=comparison.high,
        )
    return Reference(kind="baseline", name=baseline.origin, tgs=baseline.tgs) if baseline is not None else None
