"""One step of the native trainer at full size, traced without a GPU: fake ranks, fake tensors, its own code.

    count(full_workload(case)) -> Cost

The process group is torch's `fake` backend, the tensors have shapes and no bytes. What runs is Native with its FSDP2
engine; what it does is counted by counter.py. Where the layers are identical, a few are traced and extended.
"""

import gc
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from platform import python_version
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp._fully_shard import _fsdp_param
from torch.testing._internal.distributed.fake_pg import FakeStore

from trainpace.cases.architectures import with_layers
from trainpace.cases.workload import Workload
from trainpace.cost.counter import Counter, in_backward
from trainpace.cost.memory import Memory, tensors
from trainpace.cost.zero3 import Event, Order, deepspeed_counters, fsdp2_memory
from trainpace.runs.cost import FEWEST_LAYERS, Cost, Traced, extended, sent
from trainpace.trainers.native import Native
from trainpace.trainers.native.loss import IGNORED
from trainpace.trainers.native.model import CausalLm

SOFTWARE = ("torch", "transformers")
"""Distributions whose code is traced."""


def count(workload: Workload, *, extend: bool = True) -> Cost:
    """Count one step of `workload`, per rank.

    Where every p-th layer is alike (all of them: p = 1), two depths that differ by p are traced and extended exactly; a
    model of other layers, of too few, or with `extend` false, is traced whole.

    Raises:
        CannotTrace: naming the operator that stopped it.
    """
    layers = workload.decoder.layers
    period = _period(workload) if extend else None
    # Each kind of layer stands between the first and the last.
    least = max(FEWEST_LAYERS, period + 2) if period else layers
    fewest = least + (layers - least) % (period or 1)
    depth = fewest + (period or 0)
    if period and depth < layers:
        fewer, _ = trace(workload, fewest)
        more, order = trace(workload, depth)
        traced, order = extended(fewer, more, layers), order.deeper(layers, period)
    else:
        depth = layers
        traced, order = trace(workload, layers)
    return Cost(
        workload=workload,
        traced_layers=depth,
        counters=sent(traced.counters) | fsdp2_memory(traced) | deepspeed_counters(traced, order, workload),
        operators=dict(sorted(traced.operators.items())),
        unknown=traced.unknown,
        products=traced.products,
        software={"python": python_version()} | {name: version(name) for name in SOFTWARE},
    )


def trace(workload: Workload, layers: int) -> tuple[Traced, Order]:
    """Trace one micro-step and one optimizer step with the first `layers` layers of the model.

    The state is that of a step in the middle of training: the optimizer has its moments, and where gradients are
    accumulated those of the micro-steps before are there.

    Raises:
        CannotTrace: naming the operator that stopped it.
    """
    workload = _cut(workload, layers).model_copy(update={"engine": "fsdp2"})
    memory = Memory()
    counter = Counter(memory)
    with fake_group(workload.ranks), collected():
        trainer = Fake(workload)
        mesh = init_device_mesh("cpu", (workload.ranks,))
        batch = trainer.load(0)
        with FakeTensorMode() as fake, memory.resizes(), counter:
            fake.allow_non_fake_inputs = True  # a model may make constants of its own
            with one_chunk():
                trainer.build(mesh)
            fake.allow_non_fake_inputs = False
            memory.claim_rest("parameters")
            trainer.fill_gradients()
            trainer.optimizer_step()  # makes the moments
            memory.claim_rest("optimizer")
            if workload.accumulation > 1:
                trainer.fill_gradients()
                memory.claim_rest("gradients")
            batch = {key: fake.from_tensor(each) if isinstance(each, Tensor) else each for key, each in batch.items()}
            memory.see(list(batch.values()))
            with _watched(trainer.model, memory) as watch:
                counter.part, memory.phase = "step", "forward"
                trainer.forward_backward(batch)
                memory.phase = None
            if memory.now["gradients"] == 0:
                memory.claim([parameter.grad for parameter in trainer.model.parameters()], "gradients")
            counter.part, memory.phase = "optimizer", "optimizer"
            trainer.optimizer_step()
            counter.part = memory.phase = None
    return as_traced(counter, memory, layers=layers), watch.order()


def as_traced(counter: Counter, memory: Memory, *, layers: int) -> Traced:
    """What was counted of one step of `layers` layers."""
    return Traced(
        layers=layers,
        counters=counter.named(),
        peaks=memory.peaks,
        works=memory.works,
        operators={name: (row[0], row[1], row[2]) for name, row in counter.operators.items()},
        unknown=dict(counter.unknown),
        products=dict(counter.products),
    )


@contextmanager
def one_chunk() -> Iterator[None]:
    """FSDP2 makes a view of a parameter for every rank, and takes its own: for 512 ranks that takes most of a trace."""
    whole = getattr(_fsdp_param, "_chunk_with_empty", None)
    if whole is None:  # another torch does it in another way
        yield
        return

    class Chunks:
        def __init__(self, tensor: Tensor, num_chunks: int, dim: int) -> None:
            self._tensor, self._dim = tensor, dim
            self._most = math.ceil(tensor.size(dim) / num_chunks)

        def __getitem__(self, rank: int) -> Tensor:
            size, start = self._tensor.size(self._dim), rank * self._most
            if rank and start >= size:
                return self._tensor.new_empty(0)
            return self._tensor.narrow(self._dim, start, min(self._most, size - start))

    _fsdp_param._chunk_with_empty = Chunks  # type: ignore[assignment]
    try:
        yield
    finally:
        _fsdp_param._chunk_with_empty = whole


class Fake(Native):
    """The native trainer as rank 0 of a group that does not exist, on tensors without bytes."""

    def __init__(self, workload: Workload) -> None:
        self._take_place(workload, 0, "cpu")
        self._data: Any = _Zeros(workload.sequence, workload.micro_batch)

    @property
    def model(self) -> CausalLm:
        """The sharded model."""
        return self._engine.model

    def build(self, mesh: Any) -> None:
        """Shard the model over `mesh`."""
        self._build(fake_mesh=mesh)

    def fill_gradients(self) -> None:
        """Give every parameter a gradient, as micro-steps before this one left it."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)


class _Zeros:
    """Stands for the packed data: a micro-batch of zeros, all judged, for every index."""

    def __init__(self, sequence: int, micro_batch: int) -> None:
        self.ids = np.broadcast_to(np.int32(0), (micro_batch, sequence))
        self.labels = self.ids
        assert IGNORED != 0


class _Watch:
    """Follows the modules of one step: which begin and end, and where the backward has come to."""

    def __init__(self, model: CausalLm, memory: Memory) -> None:
        self._layers = model.layers
        self._parameters = list(model.parameters())
        self._memory = memory
        self._events: list[tuple[int | None, Event]] = []
        self._recomputed = [False] * len(self._layers)
        self.handles = [layer.register_forward_hook(self._leave_layer) for layer in self._layers]
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        indices = {id(module): index for index, layer in enumerate(self._layers) for module in layer.modules()}
        for name, module in model.named_modules():
            own = {names[id(parameter)]: parameter.numel() for parameter in module.parameters(recurse=False)}
            begin, end = self._hooks(name, own, indices.get(id(module)))
            self.handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]

    def order(self) -> Order:
        """The events of the forward, layer by layer."""
        layers: list[list[Event]] = [[] for _ in self._layers]
        before: list[Event] = []
        after: list[Event] = []
        for index, event in self._events:
            if index is not None:
                layers[index].append(event)
            else:
                (after if any(layers) else before).append(event)
        return Order(before=before, layers=layers, after=after, recomputed=self._recomputed)

    def _hooks(self, name: str, own: dict[str, int], index: int | None) -> tuple[Any, Any]:
        def note(tensors: Any, *, begins: bool) -> None:
            if not in_backward():
                self._events.append((index, Event(name, own, begins, _differentiated(tensors))))
            elif index is not None:
                self._enter_backward_of(index)

        def begin(_: Any, inputs: Any) -> None:
            note(inputs, begins=True)

        def end(_: Any, __: Any, output: Any) -> None:
            note(output, begins=False)

        return begin, end

    def _enter_backward_of(self, index: int) -> None:
        # A module runs forward in the backward only where its layer is checkpointed, and then before anything else.
        self._recomputed[index] = True
        first, last = index == len(self._layers) - 1, index == 0
        self._memory.phase = "backward_first" if first else "backward_last" if last else "backward_middle"
        # Those that are there by now are FSDP2's own: ZeRO-3's are told by a formula, and would count twice.
        self._memory.claim([parameter.grad for parameter in self._parameters], "gradients")

    def _leave_layer(self, *_: Any) -> None:
        if not in_backward():
            self._memory.claim_rest("activations")


@contextmanager
def _watched(model: CausalLm, memory: Memory) -> Iterator[_Watch]:
    watch = _Watch(model, memory)
    starts = model.head.register_full_backward_pre_hook(lambda *_: setattr(memory, "phase", "backward_first"))
    try:
        yield watch
    finally:
        deque((handle.remove() for handle in [*watch.handles, starts]), maxlen=0)


@contextmanager
def collected() -> Iterator[None]:
    """Without garbage collection in between: when a storage in a cycle is freed would be left to chance, and it is
    faster."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _differentiated(tree: Any) -> bool:
    return any(tensor.requires_grad for tensor in tensors(tree))


def _cut(workload: Workload, layers: int) -> Workload:
    """The same workload with the model's first `layers` layers; settings that list something a layer are cut too."""
    return workload.model_copy(update={"shape": with_layers(workload.decoder, layers)})


def _period(workload: Workload) -> int | None:
    """The smallest p for which every p-th layer computes the same, also in a model cut to fewer; None: it has none."""
    kinds = _kinds(workload)
    for period in range(1, len(kinds) // 2 + 1):
        if kinds[period:] == kinds[:-period]:
            depth = FEWEST_LAYERS + 2 * period
            alike = depth >= len(kinds) or _kinds(_cut(workload, depth)) == kinds[:depth]
            # Every second layer is made again, whatever it computes.
            return math.lcm(period, 2 if workload.recompute == "selective_layer" else 1) if alike else None
    return None


def _kinds(workload: Workload) -> list[str]:
    with torch.device("meta"):
        return [_likeness(layer) for layer in CausalLm(workload.decoder, workload.sequence).layers]


def _likeness(layer: nn.Module) -> str:
    """What decides how a layer computes: its modules, their settings and the shapes of their parameters."""
    parts = []
    for name, module in layer.named_modules():
        settings = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, bool | int | float | str | tuple) and key != "layer_idx"
        }
        shapes = [(key, tuple(each.shape), each.dtype) for key, each in module.named_parameters(recurse=False)]
        parts.append((name, type(module).__qualname__, sorted(settings.items()), shapes))
    return repr(parts)


@contextmanager
def fake_group(ranks: int) -> Iterator[None]:
    """This process as rank 0 of `ranks`, of which the others do not exist."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
