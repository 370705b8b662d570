"""What measured rows teach of real steps: five shares of a stack on a device, and how far off a prediction is.

A group is the rows of one table on one device. Every error that is told is of rows that were left out: all of one
model, or in a group of too few models each by itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from trainpace.cases.architectures import has_experts
from trainpace.cases.workload import Workload
from trainpace.runs.datasheets import Datasheet
from trainpace.stats.roofline import (
    FORWARD,
    LINKS_SHARE,
    USUAL_ATTENTION,
    Parameters,
    Times,
    parts_of,
    predicted,
)

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

NOISE = 0.05
"""Relative. What a row may be off by without being an outlier, whose pull grows no more with its distance."""
HELD = 0.8
"""Share of the rows that an interval is to hold."""
FEWEST_MODELS = 3
"""Models of which a group must have rows, for all five parameters to be its own."""
FEWEST_ROWS = 8
"""Rows that it must have for that."""
REFITTED = ("matmul", "attention")
"""What a group of fewer is refitted in; the rest is as the nearest group taught."""
SHARES = ("matmul", "attention", "memory")
"""Parameters that are positive; the exposed share is fitted by its odds, networks are one a cluster."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured row on its device."""

    case: str
    model: str
    workload: Workload
    parts: Times
    tgs: float
    """Measured."""
    cluster: str = ""
    """Whose network it used."""

    @property
    def seconds(self) -> float:
        """Of the micro-step that was measured."""
        return self.workload.rank_tokens / self.tgs

    def predicted(self, parameters: Parameters) -> float:
        """TGS."""
        return self.workload.rank_tokens / predicted(self.parts, parameters.on(self.cluster))


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Where a parameter is sought while rows say nothing, and how far from there they must take it to be held back.

    The spread is relative (of the odds, for the exposed share): to move a parameter by it costs as much as one row that
    is off by NOISE.
    """

    centre: Parameters
    spread: Mapping[str, float]


USUAL = Prior(
    centre=Parameters(matmul=0.65, attention=0.4, memory=0.9, network=0.7, exposed=0.2),
    spread={"matmul": 1.0, "attention": 1.0, "memory": 0.25, "network": 1.5, "exposed": 0.5},
)
"""Of any stack. Weak, but for what a table of large models alone cannot tell from the products: eager operators reach
most of the memory's bandwidth, and most of the traffic hides. A network that nobody stated may be a tenth of the
maker's."""
KERNELS: Mapping[tuple[str, str], float] = {
    ("flash-attention 2", "a100"): 0.61,
    ("flash-attention 2", "h100"): 0.35,
}
"""Share of the peak by kernel and kind of device, as its authors measured: the middle of "50-73 % of the theoretical
maximum" on A100 (FlashAttention-2, abstract); 35 % on H100 (FlashAttention-3, abstract)."""
KERNEL_SPREAD = 0.1


def usual(attention: str, device: str) -> Prior:
    """USUAL, with what is known of a kernel on a device, both as a table names them."""
    for (kernel, kind), share in KERNELS.items():
        if attention == kernel and device.startswith(kind):
            centre = replace(USUAL.centre, attention=share)
            return Prior(centre=centre, spread={**USUAL.spread, "attention": KERNEL_SPREAD})
    return USUAL


def near(parameters: Parameters, spread: float) -> Prior:
    """A prior around what another group taught, but for its network, which is that group's alone."""
    centre = replace(parameters, network=USUAL.centre.network, networks={})
    return Prior(centre=centre, spread={**dict.fromkeys(SHARES, spread), "exposed": spread, "network": 1.5})


ALL = (*SHARES, "exposed", "network")


def fit(rows: Sequence[Row], prior: Prior = USUAL, free: Sequence[str] = ALL) -> Parameters:
    """The parameters `free` that fit `rows` best; the others are the prior's. With no rows all are.

    Least squares of log TGS, of which outliers pull no more than linearly (soft L1), and of the prior.
    """
    import numpy as np
    from scipy.optimize import least_squares

    if not rows:
        return prior.centre
    # A network that no row of its cluster uses is nobody's.
    clusters = sorted({row.cluster for row in rows if row.parts.parameters or row.parts.exchange})
    names = [*SHARES, "exposed", *(["network"] * len(clusters))]
    table, seconds = _table(rows, clusters), np.array([row.seconds for row in rows])
    start = _vector(prior.centre, clusters)
    chosen = [index for index, name in enumerate(names) if name in free]
    weight = np.array([NOISE / prior.spread[names[index]] for index in chosen])

    def whole(values: "Numbers") -> "Numbers":
        found = start.copy()
        found[chosen] = values
        return found

    def residuals(values: "Numbers") -> "Numbers":
        off = np.log(_seconds(table, whole(values)) / seconds)
        return np.concatenate([off, weight * (values - start[chosen])])

    found = least_squares(residuals, start[chosen], loss="soft_l1", f_scale=NOISE)
    *logarithms, odds = whole(found.x)[:4].tolist()
    networks = np.exp(whole(found.x)[4:]).tolist()
    return Parameters(
        **dict(zip(SHARES, map(math.exp, logarithms), strict=True)),
        exposed=1 / (1 + math.exp(-odds)),
        network=prior.centre.network,
        networks=dict(zip(clusters, networks, strict=True)) if "network" in free else {},
    )


@dataclass(frozen=True)
class _Table:
    parts: dict[str, "Numbers"]
    clusters: "Numbers"
    """Of each row the number of its cluster."""


def _table(rows: Sequence[Row], clusters: Sequence[str]) -> _Table:
    import numpy as np

    parts = {each.name: np.array([getattr(row.parts, each.name) for row in rows]) for each in fields(Times)}
    numbers = [clusters.index(row.cluster) if row.cluster in clusters else 0 for row in rows]
    return _Table(parts, np.array(numbers))


def _vector(parameters: Parameters, clusters: Sequence[str]) -> "Numbers":
    import numpy as np

    shares = [math.log(getattr(parameters, name)) for name in SHARES]
    networks = [math.log(parameters.network)] * len(clusters)
    return np.array([*shares, math.log(parameters.exposed / (1 - parameters.exposed)), *networks])


def _seconds(table: _Table, values: "Numbers") -> "Numbers":
    """`roofline.parts_of(..).seconds` of many rows at one time; a test holds them together."""
    import numpy as np

    parts = table.parts
    products, attention, bandwidth = np.exp(values[:3])
    exposed = 1 / (1 + np.exp(-values[3]))
    network = np.exp(values[4:])[table.clusters] if len(values) > 4 else 1.0
    flash = (parts["attention_forward"] / FORWARD + parts["attention_backward"]) / USUAL_ATTENTION
    computation = parts["matmul"] / products + flash / attention
    computation = computation + (parts["memory"] + parts["scores"]) / bandwidth
    traffic = parts["parameters"] / network + parts["links"] / LINKS_SHARE
    overlapped = np.maximum(computation, traffic) + exposed * np.minimum(computation, traffic)
    exchange = parts["exchange"] / network + parts["exchange_links"] / LINKS_SHARE
    return np.asarray(overlapped + exchange + parts["optimizer"] / bandwidth)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The rows of one table on one device, and what they teach."""

    table: str
    device: str
    rows: tuple[Row, ...]
    attention: str = ""
    """The kernel that the table names."""
    nearest: "Group | None" = None
    """Of the same table or another: what a group of too few rows has all but its products and attention from."""
    spread: float = 1.0
    """How far from those of `nearest` its products and attention may lie: see `spread_between`."""

    @property
    def name(self) -> str:
        """For keys: rows of models with experts are a group apart."""
        return f"{self.table} {self.device}{' experts' if has_experts(self.rows[0].workload.decoder) else ''}"

    @cached_property
    def models(self) -> list[str]:
        """Of its rows, each once."""
        return sorted({row.model for row in self.rows})

    @cached_property
    def is_own(self) -> bool:
        """Whether its rows are enough for all parameters."""
        return len(self.models) >= FEWEST_MODELS and len(self.rows) >= FEWEST_ROWS

    @cached_property
    def parameters(self) -> Parameters:
        """From all of its rows."""
        return self._fitted(self.rows)

    @cached_property
    def left_out(self) -> dict[str, float]:
        """TGS by case, predicted without the rows of its model; of few models, without itself alone."""
        if len(self.models) >= FEWEST_MODELS:
            sets = [[row for row in self.rows if row.model == model] for model in self.models]
        else:
            sets = [[row] for row in self.rows]
        found: dict[str, float] = {}
        for out in sets:
            parameters = self._fitted([row for row in self.rows if row not in out])
            found |= {row.case: row.predicted(parameters) for row in out}
        return found

    @cached_property
    def errors(self) -> dict[str, float]:
        """By case: left-out prediction / measured - 1."""
        return {row.case: self.left_out[row.case] / row.tgs - 1 for row in self.rows}

    @cached_property
    def width(self) -> float:
        """Of an interval, as a natural logarithm to either side; infinite of a single row."""
        return width([math.log1p(error) for error in self.errors.values()]) if len(self.rows) > 1 else math.inf

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """By case: the interval of its left-out prediction, as wide as the errors of the other models' rows say."""
        found: dict[str, tuple[float, float]] = {}
        for row in self.rows:
            others = [each for each in self.rows if each.model != row.model]
            others = others or [each for each in self.rows if each is not row]
            wide = math.exp(width([math.log1p(self.errors[each.case]) for each in others]))
            found[row.case] = (self.left_out[row.case] / wide, self.left_out[row.case] * wide)
        return found

    @property
    def within(self) -> dict[str, bool]:
        """By case, whether the measured TGS lies in its interval."""
        return {row.case: self.intervals[row.case][0] <= row.tgs <= self.intervals[row.case][1] for row in self.rows}

    def _fitted(self, rows: Sequence[Row]) -> Parameters:
        if self.is_own or self.nearest is None:
            return fit(rows, usual(self.attention, self.device))
        return refit(rows, self.nearest.parameters, self.spread)


LEAST_SPREAD = 0.05
"""Between devices of one peak."""


def spread_between(device: Datasheet, other: Datasheet) -> float:
    """How far apart, relatively, two devices' shares of products and attention may lie: as their peaks do.

    What takes the same kernels to another card of the same cores changes little; a card of three times the peak reaches
    another share of it.
    """
    if not device.bf16_tflops or not other.bf16_tflops:
        return 1.0
    return max(LEAST_SPREAD, abs(math.log(device.bf16_tflops / other.bf16_tflops)))


def distance(device: Datasheet, other: Datasheet) -> float:
    """How unlike two devices are: of the peaks and the memory's bandwidths, the larger ratio's logarithm."""
    bandwidth = math.log(device.memory_bytes_per_second / other.memory_bytes_per_second)
    return max(spread_between(device, other), abs(bandwidth))


def refit(rows: Sequence[Row], nearest: Parameters, spread: float) -> Parameters:
    """Products and attention from a few rows of a device; all else as the nearest taught, but for the network."""
    return fit(rows, near(nearest, spread), REFITTED)


def width(errors: Sequence[float], held: float = HELD) -> float:
    """The size of an error that holds the share `held` of errors like these, of which `errors` are a sample.

    The smallest of n that at least held (n + 1) are not above: so a new one is held with that probability, whatever
    their distribution. Of too few it is the largest.
    """
    sizes = sorted(abs(error) for error in errors)
    return sizes[min(len(sizes), math.ceil(held * (len(sizes) + 1))) - 1] if sizes else math.inf


# What a step could be on a device

UNGATED = ("gpt2", "gpt_neox")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One workload on one device."""

    tgs: float
    low: float
    high: float
    """Of the interval that holds HELD of rows like those learnt from."""
    floor_tgs: float
    floor_binds: str
    """What the floor comes from."""
    shares: Mapping[str, float]
    """Of the predicted step, by part, the largest first."""
    beyond: tuple[str, ...] = ()
    """In what it lies outside of the rows learnt from: `sequence 1048576 (rows: 512 to 65536)`."""

    @property
    def binds(self) -> str:
        """What the predicted step is held by: its largest part."""
        return next(iter(self.shares))


def predict(workload: Workload, parts: Times, parameters: Parameters, *, wide: float) -> Prediction:
    """The prediction of `workload`; `wide` is the interval's width to either side, as a natural logarithm."""
    tokens, seconds = workload.rank_tokens, predicted(parts, parameters)
    tgs = tokens / seconds
    return Prediction(
        tgs=tgs,
        low=tgs * math.exp(-wide),
        high=min(tgs * math.exp(wide), tokens / parts.floor),
        floor_tgs=tokens / parts.floor,
        floor_binds=parts.binds,
        shares=parts_of(parts, parameters).shares,
    )


def unlikeness(workload: Workload, other: Workload) -> float:
    """How far apart two steps are: doublings of width, sequence, tokens of a rank and GPUs; what differs in kind."""
    numbers = (
        (workload.decoder.hidden, other.decoder.hidden),
        (workload.sequence, other.sequence),
        (workload.rank_tokens, other.rank_tokens),
        (workload.ranks, other.ranks),
    )
    kinds = (
        workload.recompute != other.recompute,
        (workload.sp > 1) != (other.sp > 1),
        (workload.decoder.architecture in UNGATED) != (other.decoder.architecture in UNGATED),
        workload.sharding != other.sharding,
    )
    return sum(abs(math.log2(one / another)) for one, another in numbers) + sum(kinds)


def nearest_row(workload: Workload, rows: Sequence[Row]) -> Row:
    """The row that is most like `workload`."""
    return min(rows, key=lambda row: unlikeness(workload, row.workload))


def beyond(workload: Workload, rows: Sequence[Row]) -> tuple[str, ...]:
    """In what `workload` lies outside of all `rows`; empty where it lies among them."""
    found = []
    numbers: dict[str, Callable[[Workload], int]] = {
        "hidden": lambda each: each.decoder.hidden,
        "layers": lambda each: each.decoder.layers,
        "sequence": lambda each: each.sequence,
        "tokens of a rank": lambda each: each.rank_tokens,
        "GPUs": lambda each: each.ranks,
        "sp": lambda each: each.sp,
    }
    for name, number in numbers.items():
        values = [number(row.workload) for row in rows]
        if not min(values) <= number(workload) <= max(values):
            found.append(f"{name} {number(workload)} (rows: {min(values)} to {max(values)})")
    kinds: dict[str, Callable[[Workload], str]] = {
        "recompute": lambda each: each.recompute,
        "sharding": lambda each: each.sharding,
        "MLP": lambda each: "ungated" if each.decoder.architecture in UNGATED else "gated",
        "experts": lambda each: "experts" if has_experts(each.decoder) else "none",
    }
    for name, kind in kinds.items():
        seen = sorted({kind(row.workload) for row in rows})
        if kind(workload) not in seen:
            found.append(f"{name} {kind(workload)} (rows: {', '.join(seen)})")
    return tuple(found)


def transferred(groups: Sequence[Group], *, devices: bool) -> float:
    """Width of an interval where the parameters are another group's, as they are: the error of such predictions.

    `devices`: of another device of the same table; else of another table on the same device. Infinite where no two
    groups are so related.
    """
    errors = []
    for group in groups:
        for other in groups:
            related = group.table == other.table if devices else group.device == other.device
            if other is not group and related and other.is_own and group.is_own:
                parameters = replace(other.parameters, networks=group.parameters.networks)
                errors += [math.log(row.predicted(parameters) / row.tgs) for row in group.rows]
    return width(errors) if errors else math.inf
