"""From counts to seconds: the floor that a device's datasheet sets, and what five shares make of a real step.

    python -m trainpace predict h100-sxm5-80gb

The floor needs nothing but counts and datasheets. The prediction needs five parameters, which stats/learning.py takes
from the rows of published tables. No test gates on a prediction.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trainpace.cases.scaling import NODE_GPUS
from trainpace.cases.workload import Workload
from trainpace.runs.cost import PRODUCTS
from trainpace.runs.datasheets import Datasheet

LINKS_SHARE = 0.7
"""Of the links within a node that collectives reach: NCCL's bus bandwidth in all-gathers of tens of MiB, over NVLink's
datasheet. Fitted beside the five it comes out anywhere from 0.5 to 1: hardly a row is held by links."""
FORWARD = 1.3
"""How much faster than the backward the forward of attention's kernels is, a FLOP. Their authors measured up to 73 and
63 % of the peak (FlashAttention-2), and 30-50 and 25-35 % of the kernel before it."""
USUAL_ATTENTION = (1 / FORWARD + 2.5) / 3.5
"""Time of a FLOP without recompute, of one forward and 2.5 backward, over that of one of the backward."""
SCORE_BYTES = 66
"""What the native trainer's loss reads and writes for one score (a token's logit of one word) in bf16, operator by
operator as trainers/native/loss.py computes a chunk: the product 2, float 6, logsumexp 24, minus 8, exponential 8,
times 8, back to bf16 6, and 4 by the two products. Traced, the loss is one operator, of which one chunk is seen."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds that each part of one micro-step takes at least, at the datasheet's figures, were it alone."""

    matmul: float
    """Products of matrices, loss included, at the peak of bf16."""
    attention_forward: float
    """At the peak of bf16, as is the backward; the recompute's is in it."""
    attention_backward: float
    memory: float
    """What the operators read and write, each its own inputs and outputs, at the memory's bandwidth."""
    scores: float
    """What the loss reads and writes of its scores besides. Fused kernels need none of it: it is in no floor."""
    links: float
    """Parameters and gradients within a node."""
    parameters: float
    """Parameters and gradients between nodes: each node receives what it does not hold, through all its adapters."""
    exchange: float
    """All-to-all between nodes, where a sequence is spread over several."""
    exchange_links: float
    """All-to-all within a node."""
    optimizer: float
    """The optimizer's step at the memory's bandwidth, over the accumulation."""

    @property
    def compute(self) -> float:
        """All products."""
        return self.matmul + self.attention_forward + self.attention_backward

    @property
    def floor(self) -> float:
        """Seconds below which no step can be: everything overlaps but the optimizer, which waits for the gradients."""
        links = self.links + self.exchange_links
        return max(self.compute, self.memory, links, self.parameters + self.exchange) + self.optimizer

    @property
    def binds(self) -> str:
        """What the floor comes from."""
        parts = {
            "compute": self.compute,
            "memory": self.memory,
            "links": self.links + self.exchange_links,
            "network": self.parameters + self.exchange,
        }
        return max(parts, key=parts.__getitem__)


def times(
    counters: Mapping[str, int],
    workload: Workload,
    sheet: Datasheet,
    *,
    engine: str = "deepspeed",
    network: float | None = None,
    repeats_kv: bool = False,
) -> Times:
    """The parts of a step of `workload`, of which `counters` were counted, on the device of `sheet`.

    Args:
        counters: those of runs/cost.py.
        workload: what was counted.
        sheet: of the device.
        engine: whose collectives.
        network: between nodes, bytes per second that a GPU gets, one direction; None: the maker's own system.
        repeats_kv: whether the stack repeats shared key/value heads before each exchange of a sequence's ranks. The
            native trainer, which was counted, does so only as far as sp needs.

    Raises:
        ValueError: for a datasheet without the dtype's peak, or without the network where the step needs it.
    """
    tflops = sheet.bf16_tflops if workload.dtype == "bf16" else sheet.tf32_tflops
    if tflops is None:
        raise ValueError(f"expected a datasheet with a peak of {workload.dtype}, got {sheet}")
    nodes = math.ceil(workload.ranks / NODE_GPUS)
    network = network or sheet.node_bytes_per_second
    if network is None:
        if nodes > 1:
            raise ValueError(f"expected the network between nodes, which no datasheet of this device says: {sheet}")
        network = math.inf
    peak = 1e12 * tflops
    flops = {group: counters[f"step.flops.{group}"] / peak for group in PRODUCTS}
    kinds = ("all_gather", "reduce_scatter", "all_reduce")
    sent: float = sum(counters.get(f"{engine}.step.{kind}.bytes", 0) for kind in kinds)
    # What ZeRO-2 sends to all after its update.
    sent += counters.get(f"{engine}.optimizer.all_gather.bytes", 0) / workload.accumulation
    whole = sent * workload.ranks / max(1, workload.ranks - 1)
    exchanged: float = counters["step.all_to_all.bytes"]
    if repeats_kv:
        heads, kv_heads = workload.decoder.heads, math.lcm(workload.decoder.kv_heads, workload.sp)
        # Query and result go and come, and so do key and value.
        exchanged *= (2 * heads + 2 * heads) / (2 * heads + 2 * kv_heads)
    # Ranks of a sequence stand next to each other: of the sp - 1 others, those beyond the first eight are far.
    far = max(0, workload.sp - NODE_GPUS) / max(1, workload.sp - 1) * exchanged
    # 6 * tokens * hidden * vocabulary FLOPs: forward and two gradients, two a multiply-add.
    scores = counters["step.flops.loss"] / (6 * workload.decoder.hidden)
    return Times(
        matmul=flops["matmul"] + flops["loss"],
        attention_forward=flops["attention_forward"],
        attention_backward=flops["attention_backward"],
        memory=counters["step.operator_bytes"] / sheet.memory_bytes_per_second,
        scores=SCORE_BYTES * scores / sheet.memory_bytes_per_second,
        links=sent / sheet.link_bytes_per_second,
        parameters=whole * (nodes - 1) / nodes / NODE_GPUS / network,
        exchange=far / network,
        exchange_links=(exchanged - far) / sheet.link_bytes_per_second,
        optimizer=counters["optimizer.operator_bytes"] / sheet.memory_bytes_per_second / workload.accumulation,
    )


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the datasheet does not say: shares of its figures that a stack reaches on a device."""

    matmul: float
    """Of the peak, by products of matrices."""
    attention: float
    """Of the peak, by attention's kernels in a step without recompute. A property of the stack more than of the
    device."""
    memory: float
    """Of the memory's bandwidth, by everything that is no product, and by the optimizer. Operators are counted one by
    one, as eager: above one it says that the stack's are fused."""
    network: float
    """Of the network between nodes that is stated or assumed, in a cluster that is none of `networks`."""
    exposed: float
    """Of the shorter of computation and traffic of parameters: what does not hide behind the longer."""
    networks: Mapping[str, float] = field(default_factory=dict)
    """Of the network, by cluster: it belongs to a cluster, and never to a device."""

    def on(self, cluster: str) -> "Parameters":
        """The same with the network of one cluster."""
        return replace(self, network=self.networks.get(cluster, self.network))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Seconds of each part of a predicted micro-step, which add up to all of it."""

    products: float
    attention: float
    memory: float
    """Operators that are no products."""
    traffic: float
    """Parameters and gradients, as far as they do not hide behind the computation."""
    exchange: float
    """All-to-all. It stands between operators that need each other's results and hides behind nothing."""
    optimizer: float

    @property
    def seconds(self) -> float:
        """Of the whole micro-step."""
        return self.products + self.attention + self.memory + self.traffic + self.exchange + self.optimizer

    @property
    def shares(self) -> dict[str, float]:
        """By part, the largest first."""
        found = {name: value / self.seconds for name, value in vars(self).items()}
        return dict(sorted(found.items(), key=lambda each: -each[1]))


def parts_of(times: Times, parameters: Parameters) -> Parts:
    """What each part takes with the shares of `parameters`.

    Computation and the traffic of parameters overlap: of the shorter of the two, the share `exposed` is seen.
    """
    products = times.matmul / parameters.matmul
    attention = (times.attention_forward / FORWARD + times.attention_backward) / USUAL_ATTENTION / parameters.attention
    memory = (times.memory + times.scores) / parameters.memory
    computation = products + attention + memory
    traffic = times.parameters / parameters.network + times.links / LINKS_SHARE
    whole = max(computation, traffic) + parameters.exposed * min(computation, traffic)
    return Parts(
        products=products,
        attention=attention,
        memory=memory,
        traffic=whole - computation,
        exchange=times.exchange / parameters.network + times.exchange_links / LINKS_SHARE,
        optimizer=times.optimizer / parameters.memory,
    )


def predicted(times: Times, parameters: Parameters) -> float:
    """Seconds of one micro-step: never less than its floor."""
    return max(parts_of(times, parameters).seconds, times.floor)


def with_network(sheet: Datasheet, bytes_per_second: float) -> Datasheet:
    """`sheet` in a cluster whose network gives a GPU this much, one direction."""
    return replace(sheet, node_bytes_per_second=bytes_per_second, node_source="as given")
