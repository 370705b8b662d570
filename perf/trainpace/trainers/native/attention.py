"""Attention of the native trainer: one named operator, and Ulysses sequence parallelism around it.

The operator `trainpace::attention` is what a trace counts, whichever kernel implements it: flash-attn where it is
installed on a GPU, else torch's own flash kernel (called directly: where it cannot run, that is an error and never a
slower kernel in its place); on a CPU attention_cpu.py.
"""

import importlib.util
import math
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.utils.flop_counter import register_flop_formula
from transformers import AttentionInterface

from trainpace.trainers.native import attention_cpu
from trainpace.trainers.native.workspace import register_workspace

NAME = "trainpace"
"""Under which transformers knows this attention."""

aten = torch.ops.aten


@torch.library.custom_op("trainpace::attention", mutates_args=(), device_types="cpu")
def attention(
    query: Tensor, key: Tensor, value: Tensor, document_ends: Tensor, longest: int, scale: float, window: int = 0
) -> tuple[Tensor, Tensor]:
    """Causal attention within each document of one packed sequence.

    Args:
        query: [S, heads, d].
        key: [S, kv_heads, d]; heads must be a multiple of kv_heads.
        value: [S, kv_heads, d].
        document_ends: int32 [documents + 1], from 0 to S; [0, S] is plain causal attention over the sequence.
        longest: tokens of the longest document.
        scale: factor of the scores.
        window: keys that a token attends to at most, itself among them; 0: all before it.

    Returns:
        [S, heads, d], and the log-sum-exp of the scores, float32 [heads, S].
    """
    parts = [
        attention_cpu.forward(query[begin:end], key[begin:end], value[begin:end], scale, window)
        for begin, end in _documents(document_ends)
    ]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts], dim=1)


@torch.library.custom_op("trainpace::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    document_ends: Tensor,
    longest: int,
    scale: float,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, in their shapes."""
    grads = []
    for begin, end in _documents(document_ends):
        cut = slice(begin, end)
        parts = (grad[cut], query[cut], key[cut], value[cut], out[cut], lse[:, cut])
        grads.append(attention_cpu.backward(*parts, scale, window))
    joined = [torch.cat(each) for each in zip(*grads, strict=True)]
    return joined[0], joined[1], joined[2]


@attention.register_kernel("cuda")
def _attention_cuda(
    query: Tensor, key: Tensor, value: Tensor, document_ends: Tensor, longest: int, scale: float, window: int = 0
) -> tuple[Tensor, Tensor]:
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    ends = (document_ends, document_ends, longest, longest, 0.0)
    if (flash := _flash_attn()) is not None:
        left, right = _window(window)
        out, lse, *_ = flash._flash_attn_varlen_forward(
            query, key, value, *ends, scale, causal=True, window_size_left=left, window_size_right=right
        )
    else:
        out, lse, *_ = aten._flash_attention_forward(
            query, key, value, *ends, True, False, scale=scale, **_aten_window(window)
        )
    return out, lse


@attention_backward.register_kernel("cuda")
def _attention_backward_cuda(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    document_ends: Tensor,
    longest: int,
    scale: float,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    grad, query, key, value = (part.contiguous() for part in (grad, query, key, value))
    ends = (document_ends, document_ends, longest, longest, 0.0)
    if (flash := _flash_attn()) is not None:
        grads = [torch.empty_like(part) for part in (query, key, value)]
        flash._flash_attn_varlen_backward(
            grad, query, key, value, out, lse, *grads, *ends, scale, True, *_window(window), 0.0, None, False
        )
        return grads[0], grads[1], grads[2]
    # Without dropout the kernel reads neither of the two states that its forward hands over.
    state = torch.empty(2, dtype=torch.uint64, device=query.device)
    found = aten._flash_attention_backward(
        grad, query, key, value, out, lse, *ends, True, state, state, scale=scale, **_aten_window(window)
    )
    return found[0], found[1], found[2]


def _window(window: int) -> tuple[int, int]:
    """Keys to the left and to the right of a token, as flash kernels are told; -1: no limit."""
    return (window - 1, 0) if window else (-1, -1)


def _aten_window(window: int) -> dict[str, int]:
    left, right = _window(window)
    return {"window_size_left": left, "window_size_right": right} if window else {}


@attention.register_fake
def _attention_fake(
    query: Tensor, key: Tensor, value: Tensor, document_ends: Tensor, longest: int, scale: float, window: int = 0
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)


@attention_backward.register_fake
def _attention_backward_fake(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    document_ends: Tensor,
    longest: int,
    scale: float,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, document_ends, ctx.longest, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, document_ends)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, out, lse, document_ends = ctx.saved_tensors
    grads = attention_backward(grad, query, key, value, out, lse, document_ends, ctx.longest, ctx.scale, ctx.window)
    return (*grads, None, None, None, None)


attention.register_autograd(_backward, setup_context=_setup_context)


# Causal attention computes half of the n x n scores of a document of n tokens; with a window of w < n keys those of a
# band, n w - w^2 / 2. Two products of 2 d FLOPs a score and head in the forward (scores; weighted sum). Flash
# attention's backward does five (scores again; gradients of weights, value, query, key). Documents are taken as equally
# long as the longest: exact for plain causal attention, where there is one.
def _products(number: int, query: Any, longest: int, window: int) -> int:
    tokens, heads, size = query
    reach = min(window, longest) if window else longest
    twice_the_scores = tokens * (2 * longest * reach - reach**2) // longest
    return int(number * size * heads * twice_the_scores)


@register_flop_formula(torch.ops.trainpace.attention)
def attention_flops(
    query: Any, key: Any, value: Any, ends: Any, longest: int, scale: float, window: int = 0, **__: Any
) -> int:
    """FLOPs of the forward; `query` is the shape [S, heads, d]."""
    return _products(2, query, longest, window)


@register_flop_formula(torch.ops.trainpace.attention_backward)
def attention_backward_flops(
    grad: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    ends: Any,
    longest: int,
    scale: float,
    window: int = 0,
    **__: Any,
) -> int:
    """FLOPs of the backward; `query` is the shape [S, heads, d]."""
    return _products(5, query, longest, window)


# Flash attention 2 (mha_varlen_bwd): the query's gradient is summed up in float32, the sums of gradient * output too, a
# number a head and token; where key/value heads are shared, their gradients exist once a query head first.
@register_workspace(torch.ops.trainpace.attention_backward)
def attention_backward_workspace(grad: Tensor, query: Tensor, key: Tensor, *_: Any) -> int:
    """Bytes that the backward takes at most."""
    shared = 2 * query.numel() * query.element_size() if key.shape[1] < query.shape[1] else 0
    return 4 * query.numel() + 4 * query.shape[0] * query.shape[1] + shared


def _documents(ends: Tensor) -> list[tuple[int, int]]:
    marks = ends.tolist()
    return list(pairwise(marks))


@cache
def _flash_attn() -> Any:
    try:
        found = importlib.util.find_spec("flash_attn.flash_attn_interface")
    except ModuleNotFoundError:
        found = None
    if found is None:  # or there is the namespace alone, in which flash-attn-4 puts another one
        return None
    from flash_attn import flash_attn_interface

    return flash_attn_interface


def kernel(device: str) -> str:
    """What computes attention on a device: `flash-attn`, or `torch` for its own flash kernel, `cpu` for ours."""
    if device == "cpu":
        return "cpu"
    return "torch" if _flash_attn() is None else "flash-attn"


class Ulysses:
    """Sequence parallelism by all-to-all: each rank trades its part of the sequence for its part of the heads.

    Source: DeepSpeed-Ulysses (arXiv 2309.14509). Correct where the group is smaller than the world, and where it has
    more ranks than there are key/value heads: then, and only then, those are repeated before they are sent.
    """

    def __init__(self, group: dist.ProcessGroup | None, size: int) -> None:
        self.group = group
        self.size = size

    def gather(self, part: Tensor) -> Tensor:
        """[S / sp, heads, d] -> [S, heads / sp, d]. Key/value heads that sp does not divide are repeated first."""
        if self.size == 1:
            return part
        tokens, heads, width = part.shape
        if heads % self.size:
            part = part.repeat_interleave(math.lcm(heads, self.size) // heads, dim=1)
            heads = part.shape[1]
        sent = part.view(tokens, self.size, heads // self.size, width).transpose(0, 1).contiguous()
        return self._exchange(sent).view(tokens * self.size, heads // self.size, width)

    def scatter(self, whole: Tensor) -> Tensor:
        """[S, heads / sp, d] -> [S / sp, heads, d]."""
        if self.size == 1:
            return whole
        tokens, heads, width = whole.shape
        came = self._exchange(whole.view(self.size, tokens // self.size, heads, width).contiguous())
        return came.transpose(0, 1).reshape(tokens // self.size, heads * self.size, width)

    def _exchange(self, parts: Tensor) -> Tensor:
        assert self.group is not None
        return all_to_all_single_autograd(parts, None, None, self.group)


def _forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    ulysses: Ulysses,
    document_ends: Tensor,
    longest: int,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: [1, heads, S / sp, d] in, [1, S / sp, heads, d] out."""
    parts = (ulysses.gather(part[0].transpose(0, 1)) for part in (query, key, value))
    # A window that holds every document is none.
    window = sliding_window if sliding_window and sliding_window < longest else 0
    out, _lse = attention(*parts, document_ends, longest, scaling, window)
    return ulysses.scatter(out).unsqueeze(0), None


# The operator is causal by itself. No function is registered for its mask: with one, even if that made none,
# transformers would look at the positions for packed sequences first, and wait for the device in every forward.
AttentionInterface.register(NAME, _forward)
