"""The loss of the native trainer: one named operator that multiplies by the head and takes the cross-entropy.

The logits of a long sequence do not fit: 1M tokens of a vocabulary of 32,000 are 122 GiB in float32. They are made a
chunk at a time, and the gradients with them, so that no chunk is made twice (the method of Liger's fused linear
cross-entropy, arXiv 2410.10989).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from trainpace.trainers.native.workspace import register_workspace

IGNORED = -100
"""Label of a token that is not judged."""

_CHUNK_LOGITS = 1 << 26  # of float32: 256 MiB
_TILE = 128
"""Rows of a tile of a GPU's products: a number of tokens that is no multiple leaves a part of the last one idle."""


def chunk_tokens(vocabulary: int) -> int:
    """Tokens whose logits exist at one time."""
    most = max(1, _CHUNK_LOGITS // vocabulary)
    return most - most % _TILE if most > _TILE else most


@torch.library.custom_op("trainpace::linear_cross_entropy", mutates_args=())
def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy of `hidden @ weight.T` against `labels`, and its gradients.

    Args:
        hidden: [tokens, h].
        weight: [vocabulary, h].
        labels: int64 [tokens]; IGNORED where nothing is judged.

    Returns:
        The sum, float32 scalar; its gradients for hidden and weight, in their shapes and dtypes.
    """
    tokens = hidden.shape[0]
    chunk = chunk_tokens(weight.shape[0])
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    grad_hidden = torch.empty_like(hidden)
    grad_weight = torch.zeros_like(weight, dtype=torch.float32)
    for begin in range(0, tokens, chunk):
        part, label = hidden[begin : begin + chunk], labels[begin : begin + chunk]
        judged = label != IGNORED
        scores = (part @ weight.t()).float()
        target = label.clamp(min=0).unsqueeze(1)
        log_sum = torch.logsumexp(scores, dim=1)
        total += ((log_sum - scores.gather(1, target).squeeze(1)) * judged).sum()
        # The gradient of cross-entropy is softmax - one-hot, made in place of the scores.
        grad = scores.sub_(log_sum.unsqueeze(1)).exp_()
        grad.scatter_add_(1, target, torch.full_like(target, -1, dtype=grad.dtype))
        grad = grad.mul_(judged.unsqueeze(1)).to(hidden.dtype)
        grad_hidden[begin : begin + chunk] = grad @ weight
        grad_weight += grad.t() @ part
    return total, grad_hidden, grad_weight.to(weight.dtype)


@linear_cross_entropy.register_fake
def _fake(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return hidden.new_empty((), dtype=torch.float32), torch.empty_like(hidden), torch.empty_like(weight)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
    grad_hidden, grad_weight = ctx.saved_tensors
    # A scalar, here of float32, changes no dtype; in bf16 it would itself be rounded, by up to 0.4 %.
    return grad_hidden * grad, grad_weight * grad, None


linear_cross_entropy.register_autograd(_backward, setup_context=_setup_context)


# Three products of 2 * tokens * h * vocabulary each: logits, gradient of hidden, gradient of weight.
@register_flop_formula(torch.ops.trainpace.linear_cross_entropy)
def linear_cross_entropy_flops(hidden: Any, weight: Any, *_: Any, **__: Any) -> int:
    """FLOPs of forward and backward together; `hidden` and `weight` are shapes."""
    return int(3 * 2 * hidden[0] * hidden[1] * weight[0])


# The weight's gradient in float32 all along. Of a chunk: the scores in float32, and beside them either one more such
# matrix (the exponentials within logsumexp), or their gradient in the dtype and a product to be added to the weight's.
@register_workspace(torch.ops.trainpace.linear_cross_entropy)
def linear_cross_entropy_workspace(hidden: Tensor, weight: Tensor, *_: Any) -> int:
    """Bytes that forward and backward together take at most."""
    width, scores = hidden.element_size(), min(hidden.shape[0], chunk_tokens(weight.shape[0])) * weight.shape[0]
    return 4 * weight.numel() + 4 * scores + max(4 * scores, width * (scores + weight.numel()))


class LossHead(nn.Module):
    """The language model's head and its loss in one, so that whatever shards the model sees one module."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, hidden))

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Summed loss, float32 scalar, of hidden [tokens, h] against labels [tokens]."""
        total, *_ = linear_cross_entropy(hidden, self.weight, labels)
        return total
