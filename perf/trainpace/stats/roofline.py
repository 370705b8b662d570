"""From counts to seconds: the floor that a device's datasheet sets, and what published rows suggest of real steps.

    python -m trainpace predict h100-sxm5-80gb

The floor needs nothing but counts and datasheets. The prediction adds three parameters, fitted on the published rows of
one cluster; how far it is off is measured by leaving out each row in turn. No test gates on a prediction.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from trainpace.cases.scaling import MEMORY_SHARE, NODE_GPUS
from trainpace.runs.cost import PRODUCTS, Cost
from trainpace.runs.datasheets import Datasheet

FAR_OFF = 0.10
"""Relative. A row that the prediction misses by more is named."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds that each part of one micro-step takes at least, at the datasheet's figures, were it alone."""

    matmul: float
    """Products of matrices, loss included, at the peak of bf16."""
    attention: float
    memory: float
    """What the operators read and write, each its own inputs and outputs, at the memory's bandwidth."""
    links: float
    """All-to-all, parameters and gradients within a node."""
    parameters: float
    """Parameters and gradients between nodes: each node receives what it does not hold, through all its adapters."""
    exchange: float
    """All-to-all between nodes, where a sequence is spread over several."""
    exchange_links: float
    """All-to-all within a node; part of `links`."""
    optimizer: float
    """The optimizer's step at the memory's bandwidth, over the accumulation."""

    @property
    def compute(self) -> float:
        """All products."""
        return self.matmul + self.attention

    @property
    def floor(self) -> float:
        """Seconds below which no step can be: everything overlaps but the optimizer, which waits for the gradients."""
        return max(self.compute, self.memory, self.links, self.parameters + self.exchange) + self.optimizer

    @property
    def binds(self) -> str:
        """What the floor comes from."""
        parts = {
            "compute": self.compute,
            "memory": self.memory,
            "links": self.links,
            "network": self.parameters + self.exchange,
        }
        return max(parts, key=parts.__getitem__)


def times(cost: Cost, sheet: Datasheet, engine: str = "deepspeed") -> Times:
    """The parts of a step of `cost` on the device of `sheet`.

    Raises:
        ValueError: for a datasheet without the network between nodes.
    """
    counters, workload = cost.counters, cost.workload
    tflops = sheet.bf16_tflops if workload.dtype == "bf16" else sheet.tf32_tflops
    if sheet.node_bytes_per_second is None or tflops is None:
        raise ValueError(f"expected a datasheet with the network between nodes and {workload.dtype}, got {sheet}")
    peak = 1e12 * tflops
    flops = {group: counters[f"step.flops.{group}"] / peak for group in PRODUCTS}
    nodes = math.ceil(workload.ranks / NODE_GPUS)
    sent = counters[f"{engine}.step.all_gather.bytes"] + counters[f"{engine}.step.reduce_scatter.bytes"]
    whole = sent * workload.ranks / max(1, workload.ranks - 1)
    exchanged = counters["step.all_to_all.bytes"]
    # Ranks of a sequence stand next to each other: of the sp - 1 others, those beyond the first eight are far.
    far = max(0, workload.sp - NODE_GPUS) / max(1, workload.sp - 1) * exchanged
    network = sheet.node_bytes_per_second
    return Times(
        matmul=flops["matmul"] + flops["loss"],
        attention=flops["attention_forward"] + flops["attention_backward"],
        memory=counters["step.operator_bytes"] / sheet.memory_bytes_per_second,
        links=(sent + exchanged - far) / sheet.link_bytes_per_second,
        parameters=whole * (nodes - 1) / nodes / NODE_GPUS / network,
        exchange=far / network,
        exchange_links=(exchanged - far) / sheet.link_bytes_per_second,
        optimizer=counters["optimizer.operator_bytes"] / sheet.memory_bytes_per_second / workload.accumulation,
    )


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the datasheet does not say: shares of its figures that real steps reach."""

    matmul: float
    """Of the peak, by products of matrices; everything that is no product takes its time from here."""
    attention: float
    """Of the peak, by the flash kernels, forward and backward."""
    network: float
    """Of the network between nodes. It belongs to a cluster, not to a device."""


def predicted(parts: Times, parameters: Parameters) -> float:
    """Seconds of one micro-step.

    Traffic of parameters hides behind the computation, or the computation behind it: the longer of the two counts.
    The all-to-all stands between operators that need each other's results and hides behind nothing.
    """
    computation = parts.matmul / parameters.matmul + parts.attention / parameters.attention
    exposed = parts.exchange / parameters.network + parts.exchange_links
    return max(computation, parts.parameters / parameters.network) + exposed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published row: its parts on the device that it was measured on, tokens of a rank, published TGS."""

    case: str
    parts: Times
    tokens: int
    tgs: float


def fit(rows: Sequence[Row]) -> Parameters:
    """The parameters with the least sum of absolute errors of log TGS over `rows`.

    Absolute and not squared: a row that cannot be explained (one is suspected to be wrong) then does not bend the rest.
    """
    import numpy as np
    from scipy.optimize import minimize

    def given(logarithms: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Parameters:
        matmul, attention, network = (math.exp(value) for value in logarithms.tolist())
        return Parameters(matmul=matmul, attention=attention, network=network)

    def error(logarithms: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
        parameters = given(logarithms)
        return sum(abs(math.log(row.tgs * predicted(row.parts, parameters) / row.tokens)) for row in rows)

    found = [
        minimize(
            error,
            np.log([0.55, 0.6, network]),
            method="Nelder-Mead",
            options={"maxiter": 5000, "xatol": 1e-7, "fatol": 1e-10},
        )
        for network in (0.03, 0.05, 0.1, 0.3)
    ]
    return given(min(found, key=lambda each: float(each.fun)).x)


def left_out(rows: Sequence[Row]) -> dict[str, float]:
    """Predicted TGS of each row, the parameters fitted on all the others."""
    found = {}
    for row in rows:
        parameters = fit([other for other in rows if other is not row])
        found[row.case] = row.tokens / predicted(row.parts, parameters)
    return found


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One case on one device."""

    case: str
    floor_tgs: float
    tgs: float
    binds: str
    """What the floor comes from."""
    held_by: str
    """What the prediction comes from: `compute` or `network`."""
    peak_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Every published case on one device, and how well the published rows predict each other."""

    device: str
    sheet: Datasheet
    """Of the device, with the network that was assumed."""
    as_published: bool
    """Whether device and network are those of the published rows; their parameters are then used as fitted."""
    parameters: Parameters
    """Fitted on the published rows."""
    costs: Sequence[Cost]
    """In the order of the table, as are rows and predictions."""
    rows: Sequence[Row]
    """The published rows, on their own device."""
    predictions: Sequence[Prediction]
    left_out: dict[str, float]
    """TGS of each row on its own device, predicted from the others, by case."""


def predictions(costs: Iterable[Cost], sheet: Datasheet, parameters: Parameters) -> list[Prediction]:
    """What each of `costs` could reach on the device of `sheet`."""
    found = []
    for cost in costs:
        parts = times(cost, sheet)
        tokens = cost.workload.rank_tokens
        seconds = predicted(parts, parameters)
        computation = parts.matmul / parameters.matmul + parts.attention / parameters.attention
        network = (parts.parameters + parts.exchange) / parameters.network
        peak = cost.peak("deepspeed")
        found.append(
            Prediction(
                case=cost.workload.case,
                floor_tgs=tokens / parts.floor,
                tgs=tokens / max(seconds, parts.floor),
                binds=parts.binds,
                held_by="network" if network > computation else "compute",
                peak_bytes=peak,
                fits=peak <= MEMORY_SHARE * (sheet.memory_bytes or 0),
            )
        )
    return found


def with_network(sheet: Datasheet, bytes_per_second: float) -> Datasheet:
    """`sheet` in a cluster whose network gives a GPU this much, one direction."""
    return replace(sheet, node_bytes_per_second=bytes_per_second, node_source="as given")
