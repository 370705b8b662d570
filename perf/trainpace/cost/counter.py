"""Counts what passes torch's dispatcher: FLOPs, operators and their bytes, collectives.

One mode above FakeTensorMode (or above real tensors: a test counts a real step with it).
"""

from collections import Counter as Multiset
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from trainpace.cost.memory import Memory, tensors
from trainpace.errors import SuiteError
from trainpace.rank.counted import OURS, PRODUCTS
from trainpace.runs.cost import COLLECTIVES, FLOP_GROUPS
from trainpace.trainers.native.model import RECOMPUTE
from trainpace.trainers.native.workspace import WORKSPACES


class CannotTrace(SuiteError):
    """A step that cannot be traced; the message names the operator that stopped it."""


# Operators that launch nothing: they make no bytes, or only say where bytes lie. Views are told by their schema.
FREE = frozenset(
    (
        "aten.empty aten.empty_like aten.empty_strided aten.new_empty aten.new_empty_strided aten._unsafe_view "
        "aten.detach_ aten.set_ aten.resize_ aten.sym_size aten.sym_stride aten.sym_numel aten.sym_storage_offset "
        "aten.is_same_size aten.lift_fresh aten._reshape_alias aten.record_stream prim.device prim.layout "
        "profiler._record_function_enter_new profiler._record_function_exit aten._assert_async "
        "aten._assert_tensor_metadata"
    ).split()
)
# Operators that move, make or pick bytes and compute nothing.
MOVING = frozenset(
    (
        "aten.cat aten.stack aten.clone aten.copy_ aten._to_copy aten.zeros aten.zeros_like aten.ones "
        "aten.ones_like aten.full aten.full_like aten.new_zeros aten.new_ones aten.new_full aten.zero_ aten.fill_ "
        "aten.arange aten.embedding aten.index aten.index_select aten.gather aten.scatter aten.index_put_ "
        "aten.repeat aten.repeat_interleave aten.roll aten.flip aten.tril aten.triu aten.constant_pad_nd "
        "aten.slice_backward aten.select_backward aten.slice_scatter aten.select_scatter "
        "aten.index_put aten.split_with_sizes_copy aten._foreach_copy_ aten._foreach_zero_ aten.masked_fill_ "
        "aten.normal_ aten.uniform_ fsdp.all_gather_copy_in fsdp.split_with_sizes_copy fsdp.chunk_cat"
    ).split()
)
# FLOPs an element of the first argument, where neither torch's tags nor its registry tell. AdamW: decay, two moments
# (3 each), two corrections, root, sum, quotient, update.
PER_ELEMENT = {
    "aten.cumsum": 1,
    "aten.floor_divide": 1,
    "aten.histc": 1,
    "aten.sort": 1,
    "aten.topk": 1,
    "aten.embedding_dense_backward": 1,
    "aten.index_add": 1,
    "aten.index_add_": 1,
    "aten.scatter_add": 1,
    "aten._softmax": 4,
    "aten._softmax_backward_data": 4,
    "aten._log_softmax": 4,
    "aten._log_softmax_backward_data": 4,
    "aten.native_layer_norm": 8,
    "aten.native_layer_norm_backward": 12,
    "aten._fused_rms_norm": 4,
    "aten._fused_rms_norm_backward": 8,
    "aten.native_dropout": 2,
    "aten._foreach_norm": 2,
    "aten._fused_adamw_": 14,
    "aten._fused_adam_": 14,
}
# Of the rows of a table only those that are picked are read.
PICKING = frozenset({"aten.embedding", "aten.index", "aten.index_select", "aten.gather"})

# What is split or joined: the name -> (kind, which argument is the whole tensor: `out`put's or input's index).
_WHOLE: dict[str, tuple[str, int | None]] = {
    "c10d._allgather_base_": ("all_gather", 0),
    "c10d.allgather_into_tensor_coalesced_": ("all_gather", 0),
    "c10d.allgather_": ("all_gather", 0),
    "c10d._reduce_scatter_base_": ("reduce_scatter", 1),
    "c10d.reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1),
    "c10d.reduce_scatter_": ("reduce_scatter", 1),
    "c10d.allreduce_": ("all_reduce", 0),
    "c10d.allreduce_coalesced_": ("all_reduce", 0),
    "c10d.broadcast_": ("broadcast", 0),
    "c10d.alltoall_base_": ("all_to_all", 1),
    "c10d.alltoall_": ("all_to_all", 1),
    "_c10d_functional.all_gather_into_tensor": ("all_gather", None),
    "_c10d_functional.reduce_scatter_tensor": ("reduce_scatter", 0),
    "_c10d_functional.all_reduce": ("all_reduce", 0),
    "_c10d_functional.all_reduce_": ("all_reduce", 0),
    "_c10d_functional.all_to_all_single": ("all_to_all", 0),
    "_c10d_functional.broadcast": ("broadcast", 0),
    "_c10d_functional.broadcast_": ("broadcast", 0),
}
_NO_TRAFFIC = frozenset({"_c10d_functional.wait_tensor", "_c10d_functional._wrap_tensor_autograd", "c10d.barrier"})


# Experts' products. Of the two matrices one or both are split into groups, which take every row or column once:
# whatever the groups, 2 * rows * columns * inner FLOPs.
@register_flop_formula(torch.ops.aten._grouped_mm)
def grouped_mm_flops(left: Any, right: Any, *_: Any, **__: Any) -> int:
    """FLOPs of [rows, inner] by [groups, inner, columns], or of [rows, inner] by [inner, columns] cut along `inner`.

    `left` and `right` are the shapes. Rows are tokens x the experts of a token.
    """
    rows, inner, columns = left[-2], left[-1], right[-1]
    assert right[-2] == inner
    return int(2 * rows * inner * columns)


# What scaled_dot_product_attention calls on a CPU stands for the flash kernel that a GPU would run.
@register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)
def flash_flops(query: Any, key: Any, value: Any, dropout: float = 0.0, causal: bool = False, **_: Any) -> int:  # noqa: ARG001 - the operator's own arguments
    """FLOPs of attention, causal as half; `query`, `key` and `value` are the shapes."""
    return int(sdpa_flop_count(query, key, value)) // (2 if causal else 1)


@register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward)
def flash_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> int:
    """The same of its backward, five products for the forward's two; `rest` ends with whether it is causal."""
    return int(sdpa_backward_flop_count(gradient, query, key, value)) // (2 if rest[3] else 1)


_DEVICE = torch.ops.prim.device.default


class Counter(TorchDispatchMode):
    """Counts every operator while it is entered and `part` is not None."""

    def __init__(self, memory: Memory | None = None) -> None:
        super().__init__()
        self.memory = memory
        self.part: str | None = None
        """`step` or `optimizer`: where the next operators are counted. None counts nothing, and memory all the same."""
        self.counters: Multiset[str] = Multiset()
        self.operators: dict[str, list[int]] = {}
        self.unknown: Multiset[str] = Multiset()
        self.products: Multiset[str] = Multiset()
        """FLOPs of `step.flops.matmul` by where in the step: `forward`, `recompute`, `backward`."""
        self._records: list[str] = []
        """Names of the profiler's ranges that are open, the innermost last."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then count it."""
        if func is _DEVICE:
            return args[0].fake_device  # asked for thousands of times; the answer costs a dispatch
        if DTensor in types:
            return NotImplemented  # its own operators on the local tensors come here one by one
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
        except Exception as error:
            raise CannotTrace(f"operator {func} stopped the trace: {type(error).__name__}: {error}") from error
        if func.is_view:
            return out
        name = _name(func)
        if name in FREE:
            if name == "profiler._record_function_enter_new":
                self._records.append(args[0])
            elif name == "profiler._record_function_exit":
                self._records.pop()
            if self.memory is not None:
                self.memory.see(out)
            return out
        workspace = WORKSPACES.get(func._overloadpacket)
        spare = workspace(*args) if workspace else 0
        if self.memory is not None:
            self.memory.see(out)
            self._claim_buffers(name, args, kwargs)
            self.memory.peak(spare)
        if self.part is not None and name not in _NO_TRAFFIC:
            self._count(func, name, (args, kwargs), out, 2 * spare)
        return out

    def _claim_buffers(self, name: str, args: Any, kwargs: Any) -> None:
        """Tell the buffers of FSDP2's collectives and the gradients that they leave from temporary tensors."""
        assert self.memory is not None
        if name == "c10d._reduce_scatter_base_":
            self.memory.claim(args[0], "gradients")
        if name.startswith(("fsdp.", "c10d.")):
            self.memory.claim((args, kwargs), "gathered", only="temporary")

    def _count(self, func: Any, name: str, arguments: Any, out: Any, inside: int) -> None:
        """`inside` are the bytes that it reads and writes besides its arguments and `out`."""
        args, _ = arguments
        part = self.part
        self.counters[f"{part}.calls"] += 1
        if name.partition(".")[0] in {"c10d", "_c10d_functional"}:
            kind, size, ranks = self._collective(name, args, out)
            # Parameters and gradients move by c10d's own operators; what a model itself exchanges is functional.
            engine = "fsdp2." if name.startswith("c10d.") or part == "optimizer" else ""
            self.counters[f"{engine}{part}.{kind}.calls"] += 1
            self.counters[f"{engine}{part}.{kind}.whole.{ranks}"] += size
            flops = 0
        else:
            flops, group = self._flops(func, name, arguments, out)
            self.counters[f"{part}.flops.{group}"] += flops
            if group == "matmul" and part == "step":
                self.products[self._place()] += flops
            size = _nbytes(out) if name in PICKING else _nbytes(arguments)
            size += _nbytes(out if out is not None else _written(func, args)) + inside
            self.counters[f"{part}.operator_bytes"] += size
        row = self.operators.setdefault(f"{part} {name}", [0, 0, 0])
        for index, value in enumerate((1, flops, size)):
            row[index] += value

    def _flops(self, func: Any, name: str, arguments: Any, out: Any) -> tuple[int, str]:
        """FLOPs of one call and the group that they belong to."""
        args, kwargs = arguments
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            return int(formula(*args, **kwargs, out_val=out)), _group(name)
        if name in MOVING:
            return 0, "rest"
        if name in PER_ELEMENT:
            return PER_ELEMENT[name] * _elements(args[0]), "rest"
        if torch.Tag.reduction in func.tags or name.startswith("aten._foreach_"):
            return _elements(args[0]), "rest"
        if torch.Tag.pointwise not in func.tags and (name.partition(".")[0] not in OURS or PRODUCTS.search(name)):
            self.unknown[name] += 1
            return 0, "rest"
        return _elements(out), "rest"

    def _place(self) -> str:
        """Where in a step the operator stands that is counted now."""
        if not in_backward():
            return "forward"
        # What a checkpoint makes again is made as in a forward, with gradients enabled.
        return "recompute" if RECOMPUTE in self._records or torch.is_grad_enabled() else "backward"

    def _collective(self, name: str, args: Any, out: Any) -> tuple[str, int, int]:
        """Its kind, the bytes of the whole tensors, the ranks that take part."""
        if name not in _WHOLE:
            raise CannotTrace(f"operator {name} stopped the trace: no formula for what it sends")
        kind, index = _WHOLE[name]
        return kind, _nbytes(out if index is None else args[index]), _ranks(args)

    def named(self) -> dict[str, int]:
        """Every counter that a step has, zero where nothing was counted."""
        names = [f"step.flops.{group}" for group in FLOP_GROUPS] + ["optimizer.flops.rest"]
        names += [f"{part}.{what}" for part in ("step", "optimizer") for what in ("calls", "operator_bytes")]
        names += [f"step.{kind}.{what}" for kind in COLLECTIVES for what in ("calls", "bytes")]
        names += [
            f"fsdp2.{part}.{kind}.{what}"
            for part, kinds in (("step", ("all_gather", "reduce_scatter")), ("optimizer", ("all_gather", "all_reduce")))
            for kind in kinds
            for what in ("calls", "bytes")
        ]
        return {name: self.counters[name] for name in sorted({*names, *self.counters})}


@cache
def _name(func: Any) -> str:
    """`aten.mm` of an overload of it."""
    return str(func).rpartition(".")[0]


def in_backward() -> bool:
    """Whether autograd is at work: in the backward, and in what is made again for it."""
    return torch._C._current_graph_task_id() != -1


def _group(name: str) -> str:
    if "attention" in name:
        return "attention_backward" if "backward" in name else "attention_forward"
    return "loss" if "cross_entropy" in name else "matmul"


def _nbytes(tree: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(tree))


def _written(func: Any, args: Any) -> list[Any]:
    """The positional arguments that an operator without a result writes to: it reads them too."""
    declared = zip(func._schema.arguments, args, strict=False)
    return [value for argument, value in declared if argument.alias_info is not None and argument.alias_info.is_write]


def _elements(tree: Any) -> int:
    return sum(tensor.numel() for tensor in tensors(tree))


def _ranks(args: Any) -> int:
    """Ranks of a collective's group, which is among its arguments: an object, or a name."""
    for argument in args:
        if isinstance(argument, torch.ScriptObject):
            try:
                return dist.ProcessGroup.unbox(argument).size()
            except (RuntimeError, TypeError):
                continue  # the reduction's kind is such an object too
    names = [argument for argument in args if isinstance(argument, str)]
    return int(distributed_c10d._resolve_process_group(names[-1]).size())  # type: ignore[arg-type]
