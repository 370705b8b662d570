"""What a user sees of counted costs: a table below that of speed, what must be said beside it, a last line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainpace.judge.cost import CostJudgement
from trainpace.report.terminal import GIB, PLAIN_WIDTH, STYLES, as_text
from trainpace.runs.cost import Cost
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import flops_per_token
from trainpace.runs.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table

    from trainpace.app.cost_gate import Counted

ENGINES = ("deepspeed", "fsdp2")
DEVICE = "a100-sxm4-80gb"
"""The published rows' own: whether the peak fits is said of its memory."""
MEMORY_SHARE = 0.9
"""Of a GPU's memory that a peak may fill: the rest is CUDA's context, buffers of NCCL, fragments."""


def render(results: "Sequence[Counted]", *, width: int = PLAIN_WIDTH, colour: bool = False) -> str:
    """The whole report as text, ending with its last line."""
    lines: list[tuple[str, str]] = [("", "")]
    judgements = [result.judgement for result in results]
    for result in results:
        judgement = result.judgement
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
    return as_text(table(judgements, refreshed=any(result.change for result in results)), lines, width, colour=colour)


def table(judgements: Sequence[CostJudgement], *, refreshed: bool = False) -> "Table":
    """A line a case: per rank and step."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("case", no_wrap=True)
    drawn.add_column("GPUs", justify="right")
    for header in ("PFLOPs\nof a step", "of xtuner's\nformula", "operators\ncalled"):
        drawn.add_column(header, justify="right")
    for header in ("sequence\nGiB sent", "parameters sent\nZeRO-3 / FSDP2", "peak GiB\nZeRO-3 / FSDP2"):
        drawn.add_column(header, justify="right")
    drawn.add_column("verdict", no_wrap=True)
    for judgement in judgements:
        cells = _cells(judgement.cost) if judgement.cost else ["-"] * 7
        said = "recorded" if refreshed and judgement.cost else judgement.verdict
        drawn.add_row(judgement.case, *cells, Text(said, style=STYLES[said]))
    return drawn


def last_line(results: "Sequence[Counted]") -> tuple[str, str]:
    """The counts of verdicts and their style: `14 costs: 13 pass, 1 regression (llama2_7b-8k-sp1)`."""
    said = ["recorded" if result.change else result.judgement.verdict for result in results]
    parts = []
    for outcome in STYLES:
        names = [result.judgement.case for result, each in zip(results, said, strict=True) if each == outcome]
        if names:
            named = "" if outcome in {Verdict.PASS, "recorded"} else f" ({', '.join(names)})"
            parts.append(f"{len(names)} {outcome}{named}")
    worst = next((each for each in (Verdict.REGRESSION, Verdict.INVALID, Verdict.NO_BASELINE) if each in said), None)
    return f"{len(results)} cost{'' if len(results) == 1 else 's'}: {', '.join(parts)}", STYLES[worst or Verdict.PASS]


def properties(judgement: CostJudgement) -> dict[str, str]:
    """The judgement as JUnit properties of its test."""
    found = {"case": judgement.case, "verdict": judgement.verdict.value}
    if judgement.reasons:
        found["reasons"] = " ".join(judgement.reasons)
    if judgement.cost is not None:
        found |= {"workload": judgement.cost.key, "flops": str(judgement.cost.flops)}
        found |= {name: str(value) for name, value in judgement.cost.counters.items()}
    return {f"perf.cost.{name}": value for name, value in found.items()}


def xtuner_ratio(cost: Cost) -> float:
    """FLOPs as counted / those of the published table's formula."""
    workload = cost.workload
    return cost.flops / (flops_per_token(workload.shape, workload.sequence) * workload.rank_tokens)


def _cells(cost: Cost) -> list[str]:
    counters = cost.counters
    moved = [
        sum(counters[f"{engine}.step.{kind}.bytes"] for kind in ("all_gather", "reduce_scatter")) for engine in ENGINES
    ]
    peaks = [cost.peak(engine) for engine in ENGINES]
    usable = MEMORY_SHARE * (DATASHEETS[DEVICE].memory_bytes or 0)
    fits = "" if max(peaks) <= usable else " (over 80 GB)"
    return [
        str(cost.workload.ranks),
        f"{cost.flops / 1e15:.4g}",
        f"{xtuner_ratio(cost):.3f}",
        f"{counters['step.calls']:,}",
        f"{counters['step.all_to_all.bytes'] / GIB:.1f}",
        " / ".join(f"{size / GIB:.1f}" for size in moved),
        " / ".join(f"{peak / GIB:.1f}" for peak in peaks) + fits,
    ]
