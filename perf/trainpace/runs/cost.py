"""The counts of one step, and how those of a few layers become those of all. Imports no torch.

Everything is per rank. `step` is one micro-step: forward, recompute, backward. `optimizer` is what every
`accumulation`-th micro-step adds: clipping and the update. A counter's name says where it belongs:

    step.flops.matmul                   FLOPs; attention_forward, attention_backward and loss beside it: together the
                                        convention `exact`
    step.flops.rest                     one per element of what is computed element by element; in no convention
    step.calls                          operators that the host issues: on a GPU about as many kernel launches. Views
                                        and empty allocations launch nothing and are not counted
    step.operator_bytes                 bytes that these operators read and write, each its own inputs and outputs
    step.all_to_all.calls, .bytes       sequence parallelism
    fsdp2.step.all_gather.calls, ..     an engine's own: all_gather and reduce_scatter of parameters and gradients
    fsdp2.optimizer.all_reduce.calls    ..
    fsdp2.memory.peak                   largest sum of live bytes; the categories beside it are those of that moment

Bytes of a collective are those that leave the rank in the ring or pairwise algorithm, over n ranks: (n - 1) / n of the
whole tensor for all-gather (its output), reduce-scatter and all-to-all (their input), twice that for all-reduce, and
the tensor once for broadcast.
"""

from collections.abc import Mapping

from pydantic import Field, NonNegativeInt, PositiveInt

from trainpace.cases.workload import Workload
from trainpace.records import Record
from trainpace.runs.flops import StepFlops

PRODUCTS = ("matmul", "attention_forward", "attention_backward", "loss")
"""The groups of FLOPs that the convention `exact` counts."""
FLOP_GROUPS = (*PRODUCTS, "rest")
CATEGORIES = ("parameters", "gathered", "gradients", "optimizer", "activations", "temporary")
"""Of memory. `gathered` are whole parameters while a layer needs them, and the buffers of their collectives."""
COLLECTIVES = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast")
PHASES = ("forward", "backward_first", "backward_middle", "backward_last", "optimizer")
"""Stretches of a step with a peak of their own: the backward of the first layer that it reaches, of those between, of
the last. Each peak is affine in the number of layers; the largest of them need not be."""
ENGINES = ("fsdp2", "deepspeed")

FEWEST_LAYERS = 3
"""Layers from which every counter is affine: one that is first, one between, one that is last."""

Counters = dict[str, int]
Operators = dict[str, tuple[int, int, int]]
"""By `step aten.mm` or `optimizer aten._fused_adamw_`: calls, FLOPs, bytes read and written."""


def collective_bytes(kind: str, whole: int, ranks: int) -> int:
    """Bytes that leave one rank of `ranks`, where the tensors have `whole` bytes before or after being split."""
    if kind == "broadcast":
        return whole if ranks > 1 else 0
    return (2 if kind == "all_reduce" else 1) * whole * (ranks - 1) // ranks


def sent(counters: Mapping[str, int]) -> Counters:
    """The counters with `<kind>.whole.<ranks>`, bytes of whole tensors, turned into `<kind>.bytes`.

    Last, once all layers are there: rounded for each operator, the bytes would not be affine.
    """
    found = {name: value for name, value in counters.items() if ".whole." not in name}
    for name, whole in counters.items():
        if ".whole." in name:
            collective, ranks = name.split(".whole.")
            size = collective_bytes(collective.rsplit(".", 1)[1], whole, int(ranks))
            found[f"{collective}.bytes"] = found.get(f"{collective}.bytes", 0) + size
    return found


class Traced(Record):
    """What one trace of a workload counted, before the layers left out are added and the engines told apart."""

    layers: PositiveInt
    counters: dict[str, NonNegativeInt]
    """Of the step and the optimizer, and of the FSDP2 engine that was traced."""
    peaks: dict[str, dict[str, NonNegativeInt]]
    """By phase: live bytes by category at the phase's own peak."""
    works: dict[str, dict[str, NonNegativeInt]]
    """By phase: the same where activations and temporary bytes together peak."""
    operators: dict[str, tuple[int, int, int]]
    unknown: dict[str, NonNegativeInt]
    """Operators that compute something and whose FLOPs nobody knows: calls of each."""
    products: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """As `Cost.products`."""


class Cost(Record):
    """The counts of one workload at its full depth: a row of baselines/cost.json."""

    workload: Workload
    """Its engine and thresholds say what `deepspeed` counters stand for; every row holds both engines."""
    traced_layers: PositiveInt
    """The deepest trace that it rests on; all layers where they are not identical."""
    counters: dict[str, NonNegativeInt]
    operators: dict[str, tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]]
    unknown: dict[str, NonNegativeInt]
    software: dict[str, str]
    products: dict[str, NonNegativeInt] | None = None
    """FLOPs of `step.flops.matmul` by where in the step: `forward`, `recompute`, `backward`. Nothing is judged by them,
    and cost.json has them not: None there."""

    @property
    def key(self) -> str:
        """Its name in the file: that of its workload."""
        return self.workload.key

    @property
    def flops(self) -> int:
        """FLOPs of one micro-step in the convention `exact`."""
        return sum(self.counters[f"step.flops.{group}"] for group in PRODUCTS)

    @property
    def step_flops(self) -> StepFlops | None:
        """Model FLOPs and executed ones of one micro-step; None for a row of cost.json."""
        if self.products is None:
            return None
        matmul, forward, backward, loss = (self.counters[f"step.flops.{group}"] for group in PRODUCTS)
        return StepFlops(
            model_products=3 * self.products["forward"] + loss,
            # A flash kernel's backward has five products for the forward's two, and none is made from anything else.
            model_attention=3 * 2 * backward // 5,
            products=matmul + loss,
            attention=forward + backward,
        )

    def peak(self, engine: str) -> int:
        """Peak memory of one rank under `engine`, bytes."""
        return self.counters[f"{engine}.memory.peak"]


def extended(fewer: Traced, more: Traced, layers: int) -> Traced:
    """The trace of `layers` identical layers, from two traces that differ in depth. Every count is affine in it.

    Exact, not fitted: a layer more adds the same operators, collectives and bytes wherever it stands between the first
    and the last. A test compares it with the trace of all layers.
    """
    assert FEWEST_LAYERS <= fewer.layers < more.layers
    times, remainder = divmod(layers - more.layers, more.layers - fewer.layers)
    assert not remainder

    def grown(before: int, after: int) -> int:
        return after + times * (after - before)

    def counts(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
        names = sorted(before.keys() | after.keys())
        return {name: grown(before.get(name, 0), after.get(name, 0)) for name in names}

    def nested(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        return {phase: counts(before.get(phase, {}), after[phase]) for phase in after}

    names = sorted(fewer.operators.keys() | more.operators.keys())
    none = (0, 0, 0)
    operators = {}
    for name in names:
        pairs = zip(fewer.operators.get(name, none), more.operators.get(name, none), strict=True)
        calls, flops, size = (grown(before, after) for before, after in pairs)
        operators[name] = (calls, flops, size)
    return Traced(
        layers=layers,
        counters=counts(fewer.counters, more.counters),
        peaks=nested(fewer.peaks, more.peaks),
        works=nested(fewer.works, more.works),
        operators=operators,
        unknown=counts(fewer.unknown, more.unknown),
        products=counts(fewer.products, more.products),
    )
