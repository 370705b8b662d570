"""What the engines add to a trace: FSDP2's memory as traced; for DeepSpeed's ZeRO-3 and ZeRO-2 what these make of it.

DeepSpeed cannot run under fake tensors. Which parameters it gathers and keeps is decided by its documented thresholds
and the order in which modules are used, which the trace gives: `_Coordinator` decides as DeepSpeed 0.19's
partitioned_param_coordinator.py does once it has recorded a step. Tests compare the bytes with real steps. Imports no
torch.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise
from math import ceil

from trainpace.cases.workload import Workload
from trainpace.runs.cost import CATEGORIES, Traced, collective_bytes

WIDTHS = {"bf16": 2, "fp32": 4}
"""Bytes of an element."""
NUM_MOMENTS = 2
"""Of AdamW, in the dtype of the parameters that it updates."""
ALIGNMENT = 2
"""A rank's part of ZeRO-2's parameters is a multiple of so many elements."""
SUB_GROUP = 1_000_000_000
"""Elements whose gradients the optimizer step holds in float32 at one time (sub_group_size, DeepSpeed's default)."""


@dataclass(frozen=True)
class Event:
    """A module's forward begins or ends."""

    module: str
    parameters: dict[str, int]
    """Elements of those that are the module's own, by name."""
    begins: bool
    grad: bool
    """Whether what goes in (where it begins) or comes out (where it ends) is differentiated."""

    def moved(self, old: int, new: int) -> "Event":
        """The same in layer `new`, given one in layer `old`."""

        def renamed(name: str) -> str:
            # The first number in a name is the layer's: `body.layers.0.mlp`, `body.h.0`.
            return re.sub(rf"\.{old}(?=\.|$)", f".{new}", name, count=1)

        parameters = {renamed(name): size for name, size in self.parameters.items()}
        return Event(renamed(self.module), parameters, self.begins, self.grad)


Visit = tuple[Event, bool]
"""A module and whether it is fetched, else released."""


@dataclass(frozen=True)
class Order:
    """The forward, event by event, and which layers' is run again in the backward."""

    before: list[Event]
    layers: list[list[Event]]
    """The first and last event of each are the layer's own."""
    after: list[Event]
    recomputed: list[bool]
    """Of each layer."""

    def deeper(self, layers: int, period: int) -> "Order":
        """The same with more layers, of which every `period`-th is alike."""
        like = [index % period for index in range(layers)]
        more = [[event.moved(old, new) for event in self.layers[old]] for new, old in enumerate(like)]
        return Order(self.before, more, self.after, [self.recomputed[old] for old in like])

    @property
    def forward(self) -> list[Event]:
        """All events of the forward."""
        return [*self.before, *(event for layer in self.layers for event in layer), *self.after]

    @property
    def parameters(self) -> dict[str, int]:
        """Elements of every parameter, in the order of their first use."""
        return {name: size for event in self.forward for name, size in event.parameters.items()}

    def visits(self) -> list[Visit]:
        """What DeepSpeed's hooks see of forward and backward."""
        found = [(event, event.begins) for event in self.forward]
        found += _mirrored(self.after)
        for layer, recomputed in zip(reversed(self.layers), reversed(self.recomputed), strict=True):
            backward = _mirrored(layer)
            if recomputed:
                # As soon as the backward needs a saved input; up to the last module, whose output nobody needs again.
                again = layer[1:-1]
                last = max(index for index, event in enumerate(again) if event.begins and event.parameters)
                first = next(index for index, (event, _) in enumerate(backward) if event.parameters)
                backward[first + 1 : first + 1] = [(event, event.begins) for event in again[: last + 1]]
            found += backward
        return found + _mirrored(self.before)


def _mirrored(forward: list[Event]) -> list[Visit]:
    """The backward of modules: fetched where gradients reach their output, released where they leave their input."""
    return [(event, not event.begins) for event in reversed(forward) if event.grad]


def fsdp2_memory(traced: Traced) -> dict[str, int]:
    """The counters `fsdp2.memory.*`: what is live when most is."""
    peak = max(traced.peaks.values(), key=lambda each: sum(each.values()))
    return _memory("fsdp2", peak)


def deepspeed_counters(traced: Traced, order: Order, workload: Workload) -> dict[str, int]:
    """The counters `deepspeed.*`: collectives of a step from the third on, and peak memory."""
    return (_zero2_counters if workload.sharding == "zero2" else _zero3_counters)(traced, order, workload)


def _zero2_counters(traced: Traced, order: Order, workload: Workload) -> dict[str, int]:
    """ZeRO-2: every rank holds all parameters; gradients are all-reduced a bucket at a time and a rank keeps its part.

    DeepSpeed 0.19 splits no reduction here, whatever its `reduce_scatter` says. After the optimizer's step each rank
    sends its part of the parameters to all; before it the norm (4 bytes) and a flag of overflow (1 byte) are summed.
    """
    width, reduced, master = (
        WIDTHS[dtype] for dtype in (workload.dtype, workload.reduce_dtype or workload.dtype, workload.param_dtype)
    )
    ranks, limit = workload.ranks, workload.thresholds["reduce_bucket_size"]
    whole = sum(order.parameters.values())
    held = ALIGNMENT * ceil(whole / ranks / ALIGNMENT)
    sums = _zero2_sums(order, limit, held)
    counters = {
        "deepspeed.step.all_reduce.calls": len(sums),
        "deepspeed.step.all_reduce.bytes": sum(collective_bytes("all_reduce", reduced * size, ranks) for size in sums),
        "deepspeed.optimizer.all_gather.calls": 1,
        "deepspeed.optimizer.all_gather.bytes": collective_bytes("all_gather", width * held * ranks, ranks),
        "deepspeed.optimizer.all_reduce.calls": 2,
        "deepspeed.optimizer.all_reduce.bytes": sum(collective_bytes("all_reduce", size, ranks) for size in (4, 1)),
    }
    states = {
        "parameters": width * whole,
        "gathered": width * limit,
        "gradients": width * held,
        "optimizer": (NUM_MOMENTS * master + (master if width < master else 0)) * held,
    }
    return counters | _memory("deepspeed", _peak(states, traced, master * held))


def _zero2_sums(order: Order, limit: int, held: int) -> list[int]:
    """Elements of each all-reduce: a bucket, split further where a parameter above the limit crosses rank borders."""
    begins = dict(zip(order.parameters, accumulate(order.parameters.values(), initial=0), strict=False))
    sums = []
    for names in _buckets(order, limit):
        filled = 0
        for name in names:
            begin, end = begins[name], begins[name] + order.parameters[name]
            borders = [begin, *range((begin // held + 1) * held, end, held), end]
            for first, last in pairwise(borders):
                filled += last - first
                if filled > limit:
                    sums.append(filled)
                    filled = 0
        if filled:
            sums.append(filled)
    return sums


def _zero3_counters(traced: Traced, order: Order, workload: Workload) -> dict[str, int]:
    """ZeRO-3.

    Memory of one rank of N, P parameters, w bytes of the dtype: parameters w P / N, whole for those under the
    persistence threshold; optimizer 8 P / N, and 4 P / N for the master copy of a dtype that is not fp32 (half of both
    where the optimizer updates bf16 parameters); gradients w P / N. Gathered: the most that the coordinator holds at
    one time, and the bucket of gradients. Activations and temporary bytes are the trace's own.
    """
    width = WIDTHS[workload.dtype]
    ranks, thresholds = workload.ranks, workload.thresholds
    sizes = order.parameters
    persistent = {name for name, size in sizes.items() if size <= thresholds["stage3_param_persistence_threshold"]}
    shard = {name: ceil(size / ranks) for name, size in sizes.items()}
    held = sum(shard.values())

    coordinator = _Coordinator(order, persistent, thresholds)
    gathered = [sum(shard[name] * ranks for name in names) * width for names in coordinator.gathers()]
    buckets = _buckets(order, thresholds["reduce_bucket_size"])
    reduced = WIDTHS[workload.reduce_dtype or workload.dtype]
    scattered = [sum(shard[name] * ranks for name in names) * reduced for names in buckets]
    after = [shard[name] * ranks * width for name in sorted(persistent)]
    counters = {
        "deepspeed.step.all_gather.calls": len(gathered),
        "deepspeed.step.all_gather.bytes": sum(collective_bytes("all_gather", size, ranks) for size in gathered),
        "deepspeed.step.reduce_scatter.calls": len(scattered),
        "deepspeed.step.reduce_scatter.bytes": sum(
            collective_bytes("reduce_scatter", size, ranks) for size in scattered
        ),
        "deepspeed.optimizer.all_gather.calls": len(after),
        "deepspeed.optimizer.all_gather.bytes": sum(collective_bytes("all_gather", size, ranks) for size in after),
        "deepspeed.optimizer.all_reduce.calls": 1,
        "deepspeed.optimizer.all_reduce.bytes": collective_bytes("all_reduce", 8, ranks),  # the norm, float64
    }
    master = WIDTHS[workload.param_dtype]
    states = {
        "parameters": width * (held + sum(sizes[name] - shard[name] for name in persistent)),
        "gathered": width * (coordinator.most_live + thresholds["reduce_bucket_size"]),
        "gradients": width * held,
        "optimizer": (NUM_MOMENTS * master + (master if width < master else 0)) * held,
    }
    return counters | _memory("deepspeed", _peak(states, traced, master * min(held, SUB_GROUP)))


def _peak(states: dict[str, int], traced: Traced, update: int) -> dict[str, int]:
    """Live bytes by category when most is live: in the step, or in the optimizer's, which takes `update` more."""
    works = [states | {name: work[name] for name in ("activations", "temporary")} for work in traced.works.values()]
    updating = states | {"gathered": 0, "activations": 0, "temporary": update}
    return max([*works, updating], key=lambda each: sum(each.values()))


def _memory(engine: str, peak: dict[str, int]) -> dict[str, int]:
    named = {f"{engine}.memory.{category}": peak[category] for category in CATEGORIES}
    return named | {f"{engine}.memory.peak": sum(peak.values())}


def _buckets(order: Order, limit: int) -> list[list[str]]:
    """The gradients that each reduce-scatter carries: filled in the order of the backward, sent before it overflows."""
    buckets: list[list[str]] = []
    filled = 0
    for name, size in reversed(order.parameters.items()):
        if not buckets or filled + size > limit:
            buckets.append([])
            filled = 0
        buckets[-1].append(name)
        filled += size
    return buckets


@dataclass
class _Coordinator:
    """Decides what is gathered and released, step by step, in the elements that DeepSpeed counts in."""

    order: Order
    persistent: set[str]
    thresholds: dict[str, int]
    most_live: int = 0
    """Most elements gathered at one time, without the persistent ones."""
    _available: set[str] = field(default_factory=set)
    _active: dict[str, set[str]] = field(default_factory=dict)
    _live: int = 0
    _fetched_for: dict[str, int] = field(default_factory=dict)
    """By parameter: the latest use that a fetch or a prefetch was made for."""

    def gathers(self) -> list[list[str]]:
        """The parameters of each all-gather of one step, in order."""
        visits = self.order.visits()
        ahead = [event for event, fetched in visits if fetched]
        sizes = self.order.parameters
        queue = deque((name, step) for step, event in enumerate(ahead) for name in sorted(event.parameters))
        self._available = set(self.persistent)
        calls: list[list[str]] = []
        step = 0
        for event, fetched in visits:
            if not fetched:
                self._release(event, ahead, step)
                continue
            self._gather([name for name in event.parameters if name not in self._available], sizes, calls)
            for name in event.parameters:
                self._active.setdefault(name, set()).add(event.module)
            self._prefetch(event, queue, sizes, step, calls)
            step += 1
        return calls

    def _gather(self, names: list[str], sizes: dict[str, int], calls: list[list[str]]) -> None:
        if names:
            calls.append(names)
            self._available.update(names)
            self._live += sum(sizes[name] for name in names)
            self.most_live = max(self.most_live, self._live)

    def _prefetch(
        self, event: Event, queue: deque[tuple[str, int]], sizes: dict[str, int], step: int, calls: list[list[str]]
    ) -> None:
        due = {name for name in event.parameters if self._fetched_for.get(name, -1) < step}
        found: set[str] = set()
        while queue and len(found) < len(due):
            name, last = queue.popleft()
            self._fetched_for[name] = last
            found.add(name)
        room = self.thresholds["stage3_max_live_parameters"] - self._live
        limit = min(room, self.thresholds["stage3_prefetch_bucket_size"])
        names: list[str] = []
        filled = 0
        while queue and filled < limit:
            name, last = queue.popleft()
            self._fetched_for[name] = max(self._fetched_for.get(name, -1), last)
            if name not in self._available and name not in names:
                names.append(name)
                filled += sizes[name]
        self._gather(names, sizes, calls)

    def _release(self, event: Event, ahead: list[Event], step: int) -> None:
        names = {name for name in event.parameters if name not in self.persistent}
        names -= {name for name in names if self._fetched_for.get(name, -1) > step}
        seen = 0
        for later in islice(ahead, step, None) if names else ():
            if seen >= self.thresholds["stage3_max_reuse_distance"]:
                break
            names -= later.parameters.keys()
            seen += sum(later.parameters.values())
        for name in event.parameters:
            self._active.get(name, set()).discard(event.module)
            if name in names and name in self._available and not self._active.get(name):
                self._available.discard(name)
                self._live -= event.parameters[name]
