"""Causal attention on a CPU, a block of queries at a time, with the long side of every product last.

With heads of size 8, as at mini scale, a product [queries, keys] @ [keys, 8] runs at a quarter of the speed of its
transpose, and torch's own flash kernel for CPUs multiplies that way, in bf16 at half its float32 speed. This computes
in float32; against that kernel in bf16 it is 3 times faster at 8k tokens, forward, recompute and backward together.
"""

import math

import torch
from torch import Tensor

_BLOCK = 64  # queries at a time: measured best from 512 to 8,192 tokens, of 32, 64, 128 and 256
_LOG2_E = math.log2(math.e)


def forward(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int = 0) -> tuple[Tensor, Tensor]:
    """One document: query [n, heads, d], key and value [n, kv_heads, d] -> like query; log-sum-exp [heads, n].

    `window` keys at most are attended to, the token's own among them; 0: all before it.
    """
    tokens, heads, size = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    queries = _by_group(query, kv_heads) * (scale * _LOG2_E)
    keys = key.float().transpose(0, 1).contiguous()
    values = value.float().permute(1, 2, 0).contiguous()
    out = queries.new_empty(kv_heads, size, group, tokens)
    log_sum = queries.new_empty(kv_heads, group, tokens)
    for begin in range(0, tokens, _BLOCK):
        end = min(begin + _BLOCK, tokens)
        block = (kv_heads, size, group, end - begin)
        first = max(0, begin - window + 1) if window else 0
        scores = _scores(queries, keys, first, begin, end, window)
        largest = scores.amax(1, keepdim=True)
        weights = scores.sub_(largest).exp2_()
        total = weights.sum(1, keepdim=True)
        out[..., begin:end] = (torch.bmm(values[:, :, first:end], weights) / total).view(block)
        log_sum[..., begin:end] = (largest + total.log2()).view(kv_heads, group, end - begin)
    return _ungrouped(out).to(query.dtype), log_sum.view(heads, tokens) / _LOG2_E


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float, window: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value of one document, in their shapes and dtypes."""
    tokens, heads, size = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    # One more row and column each subtract the log-sum-exp from the scores, and from the weights' gradient what the
    # softmax's normalisation takes off (the sum of grad * out), within the products themselves.
    log_sum = (lse * _LOG2_E).view(kv_heads, 1, group, tokens)
    taken = (grad.float() * out.float()).sum(-1).t().reshape(kv_heads, 1, group, tokens)
    queries = torch.cat([_by_group(query, kv_heads) * (scale * _LOG2_E), -log_sum], dim=1)
    grads = torch.cat([_by_group(grad, kv_heads), -taken], dim=1)
    keys_last = key.float().permute(1, 2, 0).contiguous()
    ones = keys_last.new_ones(kv_heads, tokens, 1)
    keys = torch.cat([key.float().transpose(0, 1), ones], dim=2)
    values = torch.cat([value.float().transpose(0, 1), ones], dim=2)
    grad_query = queries.new_empty(kv_heads, size, group, tokens)
    grad_key, grad_value = torch.zeros_like(keys_last), torch.zeros_like(keys_last)
    for begin in range(0, tokens, _BLOCK):
        end = min(begin + _BLOCK, tokens)
        query_block = queries[..., begin:end].reshape(kv_heads, size + 1, -1)
        grad_block = grads[..., begin:end].reshape(kv_heads, size + 1, -1)
        first = max(0, begin - window + 1) if window else 0
        weights = _scores(queries, keys, first, begin, end, window).exp2_()
        grad_value[:, :, first:end].baddbmm_(grad_block[:, :-1], weights.transpose(1, 2))
        grad_scores = torch.bmm(values[:, first:end], grad_block).mul_(weights)
        of_queries = torch.bmm(keys_last[:, :, first:end], grad_scores)
        grad_query[..., begin:end] = of_queries.view(kv_heads, size, group, end - begin)
        grad_key[:, :, first:end].baddbmm_(query_block[:, :-1], grad_scores.transpose(1, 2))
    # The queries carry scale * log2(e): the scores' gradient is in units of the scores themselves.
    return (
        _ungrouped(grad_query).mul_(scale).to(query.dtype),
        grad_key.permute(2, 0, 1).div(_LOG2_E).to(key.dtype),
        grad_value.permute(2, 0, 1).to(value.dtype),
    )


def _scores(queries: Tensor, keys: Tensor, first: int, begin: int, end: int, window: int) -> Tensor:
    """Scores in powers of two, [kv_heads, end - first, group * queries]: keys from `first` to `end`, queries from
    `begin` to `end`."""
    kv_heads, rows, group, _ = queries.shape
    number = end - begin
    scores = torch.bmm(keys[:, first:end], queries[..., begin:end].reshape(kv_heads, rows, -1))
    later = torch.ones(number, number, dtype=torch.bool).tril(-1)  # keys behind their query
    scores[:, begin - first :].view(kv_heads, number, group, number).masked_fill_(later[:, None, :], -math.inf)
    if window:
        behind = torch.arange(begin, end) - torch.arange(first, end)[:, None]  # how far a key lies before its query
        far = (behind >= window)[:, None, :]
        scores.view(kv_heads, end - first, group, number).masked_fill_(far, -math.inf)
    return scores


def _by_group(part: Tensor, kv_heads: int) -> Tensor:
    """[n, heads, d] -> float32 [kv_heads, d, heads / kv_heads, n]."""
    tokens, heads, size = part.shape
    return part.float().view(tokens, kv_heads, heads // kv_heads, size).permute(1, 3, 2, 0).contiguous()


def _ungrouped(part: Tensor) -> Tensor:
    """[kv_heads, d, group, n] -> [n, heads, d]."""
    kv_heads, size, group, tokens = part.shape
    return part.permute(3, 0, 2, 1).reshape(tokens, kv_heads * group, size)
