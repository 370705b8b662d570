"""The text of `python -m trainpace predict DEVICE`: what a case, or every published one, could reach there, and how far
to trust it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median

from trainpace.cases.scaling import MEMORY_SHARE, NODE_GPUS
from trainpace.report.console import PLAIN_WIDTH, as_text
from trainpace.report.table import Column, Table
from trainpace.stats.forecast import Forecast
from trainpace.stats.learning import HELD, Group
from trainpace.text import GIB, UNKNOWN, count, fixed_percent, gib, percent

PARTS = {
    "products": "products of matrices",
    "attention": "attention",
    "memory": "operators that read and write memory",
    "traffic": "traffic of parameters and gradients that nothing hides",
    "exchange": "exchange of sequence parallelism",
    "optimizer": "the optimizer",
}
"""What a step is made of, for people."""


def interval(forecast: Forecast) -> str:
    """`2712 .. 3302`."""
    low, high = forecast.prediction.low, forecast.prediction.high
    digits = 0 if low >= 1000 else 1
    return f"{low:.{digits}f} .. {high:.{digits}f}"


def _figure(title: str, text: Callable[[Forecast], str]) -> Column[Forecast]:
    return Column(title, text, align="right")


COLUMNS: tuple[Column[Forecast], ...] = (
    Column("case", lambda row: row.workload.case),
    _figure("GPUs", lambda row: str(row.workload.ranks)),
    _figure("floor\nTGS", lambda row: f"{row.prediction.floor_tgs:.1f}"),
    _figure("floor\nfrom", lambda row: row.prediction.floor_binds),
    _figure("predicted\nTGS", lambda row: f"{row.prediction.tgs:.1f}"),
    _figure("80 %\ninterval", interval),
    _figure("most time\nin", lambda row: row.prediction.binds),
    _figure("peak\nGiB", lambda row: f"{row.peak_bytes / GIB:.1f}"),
    _figure("fits", lambda row: "yes" if row.fits else "no"),
)


SETTINGS: tuple[Column[Forecast], ...] = (
    _figure("TGS", lambda row: f"{row.prediction.tgs:.1f}"),
    _figure("80 %\ninterval", interval),
    _figure("micro-\nbatch", lambda row: str(row.workload.micro_batch)),
    Column("recompute", lambda row: row.workload.recompute),
    _figure("sp", lambda row: str(row.workload.sp)),
    Column("sharding", lambda row: row.workload.sharding),
    _figure("peak\nGiB", lambda row: f"{row.peak_bytes / GIB:.1f}"),
    _figure("HFU", lambda row: fixed_percent(row.of_peak(row.hardware_flops), 0)),
    _figure("most time\nin", lambda row: row.prediction.binds),
)


def render(forecasts: Sequence[Forecast], *, width: int = PLAIN_WIDTH) -> str:
    """The report of every published case as text: a row each, then from what they were predicted."""
    first = forecasts[0]
    lines = ["", f"{first.device}: {first.sheet.source}", *_network(first)]
    for group in dict.fromkeys(each.choice.group.name for each in forecasts):
        mine = [each for each in forecasts if each.choice.group.name == group]
        lines += _learnt(mine[0], [each.workload.case for each in mine] if len(mine) < len(forecasts) else [])
    beyond = {each.prediction.beyond for each in forecasts if each.prediction.beyond}
    if beyond:
        said = sorted({reason.partition(" (")[0].partition(" ")[0] for reasons in beyond for reason in reasons})
        lines.append(
            f"extrapolated in {', '.join(said)}: the intervals are as wide as such predictions were off elsewhere"
        )
    return as_text(Table(COLUMNS, forecasts), [(line, "") for line in lines], width)


def render_one(forecast: Forecast) -> str:
    """The report of one case as text."""
    found, workload = forecast.prediction, forecast.workload
    lines = [
        f"{workload.case} on {workload.ranks} x {forecast.device}",
        f"TGS {found.tgs:.1f} ({interval(forecast)}), an interval that is to hold {fixed_percent(HELD, 0)}",
        f"MFU {_share(forecast, forecast.model_flops)}, HFU {_share(forecast, forecast.hardware_flops)} of "
        f"{forecast.sheet.bf16_tflops:g} TFLOP/s",
        fits(forecast),
        f"floor {found.floor_tgs:.1f} TGS, from {found.floor_binds}: no step of these counts is faster on this device",
        f"binds: {PARTS[found.binds]}; "
        + ", ".join(f"{name} {fixed_percent(share, 0)}" for name, share in found.shares.items() if share >= SHOWN),
        *_network(forecast),
        *_learnt(forecast, []),
    ]
    if found.beyond:
        lines.append(f"an extrapolation: {'; '.join(found.beyond)}")
    return "\n".join(lines) + "\n"


FASTEST = 20
"""Settings of a sweep that are shown."""


def render_sweep(forecasts: Sequence[Forecast], *, width: int = PLAIN_WIDTH) -> str:
    """Every setting of a sweep that fits, the fastest first; the others are counted."""
    fitting = [each for each in forecasts if each.fits]
    if not forecasts:
        return "no setting of this model could be counted\n"
    first = forecasts[0]
    lines = [
        "",
        f"{first.workload.model}, {first.workload.sequence} tokens, on {first.workload.ranks} x {first.device}: "
        f"{count(len(forecasts), 'setting')}, {len(fitting)} fit, {len(forecasts) - len(fitting)} do not",
    ]
    if len(fitting) > FASTEST:
        lines.append(f"shown: the fastest {FASTEST}")
    if fitting:
        lines += [*_network(fitting[0]), *_learnt(fitting[0], [])]
        if fitting[0].prediction.beyond:
            lines.append(f"the fastest is an extrapolation: {'; '.join(fitting[0].prediction.beyond)}")
    return as_text(Table(SETTINGS, fitting[:FASTEST]), [(line, "") for line in lines], width)


SHOWN = 0.005
"""A part of a step with a smaller share is not named."""


def fits(forecast: Forecast) -> str:
    """`peak memory 61.2 GiB of 80: fits`."""
    memory = forecast.sheet.memory_bytes or 0
    verdict = "fits" if forecast.fits else "does not fit"
    said = f"peak memory {gib(forecast.peak_bytes)} of {memory / GIB:.0f}: {verdict}"
    if forecast.fits:
        return said
    less = f"micro_batch {forecast.workload.micro_batch}" if forecast.workload.micro_batch > 1 else "the case"
    return (
        f"{said}: {less} needs more than the {fixed_percent(MEMORY_SHARE, 0)} of the memory that a step may fill; the "
        "TGS is that of a card with enough"
    )


def _error(title: str, of: Callable[[Iterable[float]], float]) -> Column[Group]:
    def value(group: Group) -> float:
        return of([abs(error) for error in group.errors.values()])

    return Column(title, lambda group: percent(value(group)), value, "right")


def _within(group: Group) -> float:
    return fmean(group.within.values())


ERRORS: tuple[Column[Group], ...] = (
    Column("table", lambda group: group.table),
    Column("device", lambda group: group.device, too_long="fold"),
    Column("rows", lambda group: str(len(group.rows)), lambda group: len(group.rows), "right"),
    Column("models", lambda group: str(len(group.models)), lambda group: len(group.models), "right"),
    _error("mean", fmean),
    _error("median", median),
    _error("worst", max),
    Column("in 80 %\ninterval", lambda group: fixed_percent(fmean(group.within.values()), 0), _within, "right"),
    Column("learnt", lambda group: "all" if group.is_own else "in part"),
)
HOW = "each row is predicted without the rows of its model (docs/prediction.md); learnt in part: products and attention"


def render_errors(groups: Sequence[Group], *, width: int = PLAIN_WIDTH) -> str:
    """How far off the rows of each table and device are, predicted without the rows of their model."""
    return as_text(Table(ERRORS, groups), [("", ""), (HOW, "")], width)


def _share(forecast: Forecast, flops: int | None) -> str:
    return UNKNOWN if flops is None else percent(forecast.of_peak(flops))


def _network(forecast: Forecast) -> list[str]:
    if forecast.workload.ranks <= NODE_GPUS and forecast.workload.sp <= NODE_GPUS:
        return []
    speed = (forecast.sheet.node_bytes_per_second or 0) / 1e9
    share = fixed_percent(forecast.choice.parameters.network, 0)
    said = "as given" if forecast.choice.network else f"assumed: {forecast.sheet.node_source}; --network says yours"
    return [f"between nodes {speed:g} GB/s a GPU, {said}; {share} of it is reckoned with"]


def _learnt(forecast: Forecast, cases: Sequence[str]) -> list[str]:
    group, near = forecast.choice.group, forecast.choice.near
    errors = [abs(error) for error in group.errors.values()]
    of = f" ({', '.join(cases)})" if cases else ""
    kernel = f", attention by {group.attention}" if group.attention else ""
    return [
        f"learnt from {count(len(group.rows), 'row')} of {group.table} on {group.device}{kernel}{of}: left out, they "
        f"are off by {percent(fmean(errors))} on average, {percent(max(errors))} at worst",
        *([] if cases else [f"the row most like it: {near.case}, {near.tgs:.1f} TGS"]),
    ]


def parameters_text(group: Group) -> str:
    """`products 79 %, attention 31 %, ..` of a group, for documents."""
    found: Mapping[str, float] = {
        "products": group.parameters.matmul,
        "attention": group.parameters.attention,
        "memory": group.parameters.memory,
        "exposed": group.parameters.exposed,
    }
    return ", ".join(f"{name} {fixed_percent(value, 0)}" for name, value in found.items())
