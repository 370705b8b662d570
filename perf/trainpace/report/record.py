"""results.json: one session for machines, and what the other reports are written from.

Its schema travels beside this file and is a promise to readers outside. So it is a record of its own, and no dump of
the judgement, which changes with the judge. This writes it anew:

    python -m trainpace schema > perf/trainpace/report/results.schema.json
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

import trainpace
from trainpace.judge.refresh import Change
from trainpace.judge.systems import SideBySide
from trainpace.judge.verdict import Judgement, outcome
from trainpace.records import Record
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict

if TYPE_CHECKING:
    from trainpace.app.compare_plugin import Compared
    from trainpace.app.cost_gate import Counted

FILE = "results.json"
DETAIL_LENGTH = 8000
"""Characters kept of what a failed run printed, the last ones."""

Outcome = Literal["passed", "failed", "skipped", "excused"]


class Versus(Record):
    """What a case was judged against."""

    kind: Literal["baseline", "base"]
    name: str
    """Of a baseline its origin, measured or published; of a base its revision, or its interpreter."""
    tgs: PositiveFloat
    head: str | None = None
    """The revision that was compared with the base."""
    pairs: NonNegativeInt | None = None
    low: PositiveFloat | None = None
    """Of the ratio's interval."""
    high: PositiveFloat | None = None


class Told(Record):
    """What is told of a case, measured or counted. What is not known is null."""

    case: str
    workload: str | None
    """Key of what was trained: two figures compare where it is the same."""
    verdict: Verdict
    outcome: Outcome
    """What the verdict did to the test."""
    excused: str | None = None
    """Why it does not fail, though its verdict would."""
    refresh: Literal["recorded", "refused"] | None
    """In a session that records baselines; the verdict is then of the old baseline."""
    change: str | None
    """What was recorded, old -> new, or why not."""
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    version_differences: tuple[str, ...]
    detail: str
    """What a failed run printed, its end."""

    @property
    def said(self) -> str:
        """The one word for it."""
        return self.refresh or self.verdict.value

    @property
    def title(self) -> str:
        """The case, told from others of its name."""
        return self.case


class CaseResult(Told):
    """A case as measured."""

    trainer: str | None
    scale: str | None
    ranks: PositiveInt | None
    device: str | None
    tgs: PositiveFloat | None
    """Tokens per GPU per second."""
    tgs_of_runs: tuple[PositiveFloat, ...]
    tflops: PositiveFloat | None
    convention: str
    """That TFLOPs are in, with its version: `xtuner 1`."""
    peak_memory_bytes: PositiveInt | None
    startup_seconds: float | None
    versus: Versus | None
    ratio: PositiveFloat | None
    """TGS / TGS of what it was judged against."""
    tolerance: PositiveFloat | None
    tolerance_source: str
    explanation: tuple[str, ...]
    """Where the time of a slower step went, a line each."""

    @property
    def title(self) -> str:
        """The case, and the trainer where it is not ours."""
        return self.case if self.trainer in {None, "native"} else f"{self.case} ({self.trainer})"


class CostResult(Told):
    """A case at full size as counted, without a measurement."""

    counters: dict[str, NonNegativeInt] | None
    """Per rank and step; runs/cost.py says what each stands for."""

    @property
    def title(self) -> str:
        """The case, told from its measurement."""
        return f"cost of {self.case}"


class CompareResult(Told):
    """A case, trained by several systems side by side. Its verdict is on the measurement, never on who is slower."""

    side_by_side: SideBySide | None
    """As in compare.json; null where nothing could be measured."""

    @property
    def title(self) -> str:
        """The case, told from that of one trainer."""
        return f"{self.case} side by side"


class Results(Record):
    """One session."""

    # 1: first format (2026-11).

    schema_version: Literal[1] = 1
    trainpace: str = trainpace.__version__
    exit_status: int
    summary: str
    """The counts, with everything named that did not pass."""
    warnings: tuple[str, ...] = ()
    """What must be said before anything else."""
    said: tuple[str, ...] = ()
    """Choices that the suite made by itself."""
    cases: tuple[CaseResult, ...]
    costs: tuple[CostResult, ...] = ()
    comparisons: tuple[CompareResult, ...] = ()

    @property
    def told(self) -> tuple[Told, ...]:
        """Everything that was judged."""
        return (*self.cases, *self.costs, *self.comparisons)


def case_result(
    judgement: Judgement,
    *,
    runs: Sequence[Run] = (),
    explanation: Sequence[str] = (),
    detail: str = "",
    change: Change | None = None,
    require_verdict: bool = False,
) -> CaseResult:
    """What is told of one case; `detail` is what its failed run printed."""
    workload = judgement.workload
    ended: Outcome = outcome(judgement.verdict, require_verdict=require_verdict)
    if change is not None:
        ended = "failed" if change.new is None else "passed"
    elif ended == "failed" and judgement.excused:
        ended = "excused"
    return CaseResult(
        case=judgement.case,
        trainer=workload.trainer if workload else None,
        workload=workload.key if workload else None,
        scale=workload.scale if workload else None,
        ranks=workload.ranks if workload else None,
        device=runs[0].device.slug if runs else None,
        verdict=judgement.verdict,
        outcome=ended,
        excused=judgement.excused,
        refresh=None if change is None else "refused" if change.new is None else "recorded",
        change=None if change is None else str(change),
        reasons=judgement.reasons,
        notes=judgement.notes,
        version_differences=judgement.version_differences,
        tgs=judgement.tgs,
        tgs_of_runs=judgement.tgs_of_runs,
        tflops=judgement.tflops,
        convention=f"{judgement.convention} {judgement.convention_version}",
        peak_memory_bytes=judgement.peak_memory_bytes,
        startup_seconds=judgement.startup_seconds,
        versus=_versus(judgement),
        ratio=judgement.ratio,
        tolerance=judgement.tolerance,
        tolerance_source=judgement.tolerance_source,
        explanation=tuple(explanation),
        detail=detail[-DETAIL_LENGTH:],
    )


def cost_result(counted: "Counted", *, outcome: Outcome) -> CostResult:
    """What is told of one counted case; `outcome` is that of its test."""
    judgement, change = counted.judgement, counted.change
    return CostResult(
        case=judgement.case,
        workload=judgement.cost.key if judgement.cost else None,
        verdict=judgement.verdict,
        outcome=outcome,
        refresh="recorded" if change else None,
        change=str(change) if change else None,
        reasons=judgement.reasons,
        notes=judgement.notes,
        version_differences=judgement.version_differences,
        counters=judgement.cost.counters if judgement.cost else None,
        detail=counted.detail[-DETAIL_LENGTH:],
    )


def compare_result(compared: "Compared", *, outcome: Outcome) -> CompareResult:
    """What is told of one comparison; `outcome` is that of its test."""
    return CompareResult(
        case=compared.case,
        workload=compared.found.workload.key if compared.found else None,
        verdict=compared.verdict,
        outcome=outcome,
        refresh=None,
        change=None,
        reasons=compared.reasons,
        notes=(),
        version_differences=(),
        side_by_side=compared.found,
        detail=compared.detail[-DETAIL_LENGTH:],
    )


def compare_summary(comparisons: Sequence[CompareResult]) -> str:
    """The counts, with every system named that has no number; empty where nothing was compared."""
    from trainpace.report.compare import last_line

    found = [each.side_by_side for each in comparisons if each.side_by_side]
    failed = [each.case for each in comparisons if not each.side_by_side]
    said = [last_line(found)] if found else []
    return "; ".join([*said, *(f"{case} side by side: not measured" for case in failed)])


def cost_summary(costs: Sequence[CostResult]) -> str:
    """`14 costs: 13 pass, 1 regression`; empty where nothing was counted."""
    said = [cost.said for cost in costs]
    counts = ", ".join(f"{said.count(word)} {word}" for word in dict.fromkeys(said))
    return f"{len(costs)} cost{'' if len(costs) == 1 else 's'}: {counts}" if costs else ""


def schema_text() -> str:
    """The JSON schema of results.json, as its file holds it."""
    schema = Results.model_json_schema(mode="serialization")
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(described, indent=1, sort_keys=True) + "\n"


def _versus(judgement: Judgement) -> Versus | None:
    baseline, comparison = judgement.baseline, judgement.comparison
    if comparison is not None:
        return Versus(
            kind="base",
            name=comparison.base,
            tgs=comparison.base_tgs,
            head=comparison.head,
            pairs=len(comparison.log_ratios),
            low=comparison.low,
            high=comparison.high,
        )
    return Versus(kind="baseline", name=baseline.origin, tgs=baseline.tgs) if baseline is not None else None
