"""The report of counted costs on a terminal: a table, the lines below it, and the counts of verdicts."""

from collections.abc import Callable, Iterable, Sequence

from trainpace.cases.published import PUBLISHED_DEVICE
from trainpace.cases.scaling import MEMORY_SHARE
from trainpace.judge.cost import CostJudgement
from trainpace.judge.finding import Finding
from trainpace.report.console import PLAIN_WIDTH, Line, as_text
from trainpace.report.table import Column, with_outcomes
from trainpace.report.terminal import STYLES
from trainpace.runs.cost import Cost
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import DEFAULT, flops_per_token, why_not
from trainpace.runs.verdict import Verdict
from trainpace.text import GIB, UNKNOWN, count, known, tally

ENGINES = ("deepspeed", "fsdp2")


def render(results: Sequence[Finding], *, width: int = PLAIN_WIDTH, colour: bool = False) -> str:
    """The whole report as text, ending with its last line."""
    lines: list[Line] = [("", "")]
    judgements = [result.cost for result in results if result.cost is not None]
    for result, judgement in zip(results, judgements, strict=True):
        if judgement.verdict is not Verdict.PASS and result.change is None:
            if judgement.verdict is not Verdict.NO_BASELINE:
                lines.append((f"{judgement.verdict}: {judgement.case}", STYLES[judgement.verdict]))
            lines += [(f"  {reason}", "") for reason in judgement.reasons]
    lines += [(str(result.change), "") for result in results if result.change]
    versions = {text for judgement in judgements for text in judgement.version_differences}
    lines += [(f"version, baseline -> now: {text}", "") for text in sorted(versions)]
    notes = {note for judgement in judgements for note in judgement.notes}
    lines += [(f"note: {note}", "") for note in sorted(notes)]
    lines.append(last_line(results))
    refreshed = any(result.change for result in results)
    outcomes = ["recorded" if refreshed and judgement.cost else judgement.verdict for judgement in judgements]
    table = with_outcomes(COLUMNS, judgements, "verdict", outcomes)
    return as_text(table, lines, width, styles=STYLES, colour=colour)


def last_line(results: Sequence[Finding]) -> tuple[str, str]:
    """The counts of verdicts and their style: `14 costs: 13 pass, 1 regression (llama2_7b-8k-sp1)`."""
    said = ["recorded" if result.change else result.verdict for result in results]
    named = zip(said, [result.case for result in results], strict=True)
    counts = tally(named, order=STYLES, unnamed={Verdict.PASS, "recorded"})
    worst = next((each for each in (Verdict.REGRESSION, Verdict.INVALID, Verdict.NO_BASELINE) if each in said), None)
    return f"{count(len(results), 'cost')}: {counts}", STYLES[worst or Verdict.PASS]


def properties(judgement: CostJudgement) -> dict[str, str]:
    """The judgement as JUnit properties of its test; what is not known is left out."""
    found = {"case": judgement.case, "verdict": judgement.verdict.value}
    if judgement.reasons:
        found["reasons"] = "\n".join(judgement.reasons)
    if judgement.cost is not None:
        found |= {"workload": judgement.cost.key, "flops": str(judgement.cost.flops)}
        found |= {name: str(value) for name, value in judgement.cost.counters.items()}
    return {f"perf.cost.{name}": value for name, value in found.items()}


def xtuner_ratio(cost: Cost) -> float | None:
    """Counted FLOPs / FLOPs by the published table's formula; None where that does not hold."""
    workload = cost.workload
    if why_not(DEFAULT, workload):
        return None
    return cost.flops / (flops_per_token(workload.decoder, workload.sequence) * workload.rank_tokens)


def _traffic(cost: Cost) -> str:
    bytes_of = cost.counters
    kinds = ("all_gather", "reduce_scatter")
    return _by_engine(sum(bytes_of[f"{engine}.step.{kind}.bytes"] for kind in kinds) for engine in _engines(cost))


def _peaks(cost: Cost) -> str:
    peaks = [cost.peak(engine) for engine in _engines(cost)]
    usable = MEMORY_SHARE * (DATASHEETS[PUBLISHED_DEVICE].memory_bytes or 0)
    return _by_engine(peaks) + ("" if max(peaks) <= usable else " (over 80 GB)")


def _engines(cost: Cost) -> tuple[str, ...]:
    """Those that it was counted with: a model that is not ours with FSDP2 alone."""
    return tuple(engine for engine in ENGINES if f"{engine}.memory.peak" in cost.counters)


def _by_engine(sizes: Iterable[int]) -> str:
    found = [f"{size / GIB:.1f}" for size in sizes]
    return " / ".join([UNKNOWN] * (len(ENGINES) - len(found)) + found)


def _column(title: str, text: Callable[[Cost], str]) -> Column[CostJudgement]:
    return Column(
        title,
        lambda judgement: text(judgement.cost) if judgement.cost else UNKNOWN,
        align="right",
        too_long="wrap",
    )


COLUMNS: tuple[Column[CostJudgement], ...] = (
    Column("case", lambda judgement: judgement.case),
    # Per rank and step.
    _column("GPUs", lambda cost: str(cost.workload.ranks)),
    _column("PFLOPs\nof a step", lambda cost: f"{cost.flops / 1e15:.4g}"),
    _column("of xtuner's\nformula", lambda cost: known(xtuner_ratio(cost), ".3f")),
    _column("operators\ncalled", lambda cost: f"{cost.counters['step.calls']:,}"),
    _column("sequence\nGiB sent", lambda cost: f"{cost.counters['step.all_to_all.bytes'] / GIB:.1f}"),
    _column("parameters sent\nZeRO-3 / FSDP2", _traffic),
    _column("peak GiB\nZeRO-3 / FSDP2", _peaks),
)
