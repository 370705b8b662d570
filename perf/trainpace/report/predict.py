"""The text of `python -m trainpace predict DEVICE`: floors, predictions, and the error of these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainpace.cases.published import PUBLISHED_DEVICE
from trainpace.cases.scaling import NODE_GPUS
from trainpace.report.console import PLAIN_WIDTH, as_text
from trainpace.report.table import Column, Table
from trainpace.runs.cost import Cost
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import flops_per_token
from trainpace.stats.roofline import FAR_OFF, Forecast, Parameters, Prediction
from trainpace.text import GIB, percent, signed_percent

# What the counts say of the rows that the prediction misses; found by reading, not computed.
REMARKS = {
    "llama2_70b-32k-sp4": (
        "doubt the row. At the network speed that the other rows held by it agree on, its parameters alone take 34 s; "
        "its step took 27 s. llama2_70b-8k-sp1, which moves the same parameters for as many tokens and does less, "
        "took 38 s"
    ),
    "llama2_70b-8k-sp1": (
        "believe it. It is held by the network alone, whose speed the rows that are left then tell only roughly"
    ),
    "yi_34b_200k-256k-sp8": (
        "no count sets it apart from yi_34b_200k-128k-sp8, which is predicted within 1 %, but twice the activations. "
        "Its peak, 60 GiB without fragments, makes an allocator that runs short the suspect; counts cannot show it"
    ),
}


@dataclass(frozen=True)
class Row:
    """A published case on the device asked for, and on the one that it was published for."""

    gpus: int
    prediction: Prediction
    published: float
    """Published TGS on PUBLISHED_DEVICE."""
    left_out: float
    """TGS on PUBLISHED_DEVICE, predicted from the other rows."""

    @property
    def off(self) -> float:
        """`left_out` / `published` - 1."""
        return self.left_out / self.published - 1


def _figure(title: str, text: Callable[[Row], str]) -> Column[Row]:
    return Column(title, text, align="right")


COLUMNS: tuple[Column[Row], ...] = (
    Column("case", lambda row: row.prediction.case),
    _figure("GPUs", lambda row: str(row.gpus)),
    _figure("floor\nTGS", lambda row: f"{row.prediction.floor_tgs:.1f}"),
    _figure("floor\nfrom", lambda row: row.prediction.binds),
    _figure("predicted\nTGS", lambda row: f"{row.prediction.tgs:.1f}"),
    _figure("held by", lambda row: row.prediction.held_by),
    _figure("peak\nGiB", lambda row: f"{row.prediction.peak_bytes / GIB:.1f}"),
    _figure("fits", lambda row: "yes" if row.prediction.fits else "no"),
    _figure("published\nTGS, A100", lambda row: f"{row.published:.1f}"),
    _figure("left out\nTGS, A100", lambda row: f"{row.left_out:.1f}"),
    _figure("off by", lambda row: signed_percent(row.off)),
)


def render(forecast: Forecast, *, width: int = PLAIN_WIDTH) -> str:
    """The report as text: a row a published case, then the assumptions and the errors."""
    published = {row.case: row.tgs for row in forecast.rows}
    rows = [
        Row(cost.workload.ranks, each, published[each.case], forecast.left_out[each.case])
        for cost, each in zip(forecast.costs, forecast.predictions, strict=True)
    ]
    lines = [
        "",
        f"{forecast.device}: {forecast.sheet.source}; between nodes {forecast.sheet.node_source}",
        *_assumed(forecast.parameters, as_published=forecast.as_published),
    ]
    for row in rows:
        if abs(row.off) > FAR_OFF:
            case = row.prediction.case
            remark = REMARKS.get(case, "the counts suggest nothing")
            lines.append(f"off by {signed_percent(row.off, 0)}: {case}: {remark}")
    lines.append(_peak_of_the_doubted(forecast.costs, published))
    mean = fmean(abs(row.off) for row in rows)
    lines.append(f"mean error of a published row that was left out of the fit: {percent(mean)} over {len(rows)} rows")
    return as_text(Table(COLUMNS, rows), [(line, "") for line in lines], width)


def _assumed(parameters: Parameters, *, as_published: bool) -> list[str]:
    network = parameters.network * (DATASHEETS[PUBLISHED_DEVICE].node_bytes_per_second or 0)
    node = 8 * NODE_GPUS * network / 1e9
    lines = [
        f"fitted on the published rows: products of matrices at {percent(parameters.matmul)} of the peak, attention at "
        f"{percent(parameters.attention)}, {network / 1e9:.2f} GB/s a GPU between nodes ({node:.0f} Gb/s a node of "
        f"{NODE_GPUS}: as one adapter of 100 Gb/s would give)"
    ]
    if not as_published:
        lines.append(
            "assumed here: the same shares of this device's peak, and all of its network; --network tells what yours "
            "gives"
        )
    return lines


def _peak_of_the_doubted(costs: Sequence[Cost], published: Mapping[str, float]) -> str:
    case = "llama2_70b-32k-sp4"
    cost = next(each for each in costs if each.workload.case == case)
    peak = DATASHEETS[PUBLISHED_DEVICE].bf16_tflops
    assert peak is not None
    per_token = flops_per_token(cost.workload.shape, cost.workload.sequence)
    exact = cost.flops / cost.workload.rank_tokens
    shares = [published[case] * flops / 1e12 / peak for flops in (per_token, exact)]
    return (
        f"{case} reaches {percent(shares[0])} of the peak by the table's formula, which takes shared key/value heads "
        f"for whole ones; {percent(shares[1])} as counted"
    )
