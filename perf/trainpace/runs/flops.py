"""FLOPs of a trained token, by named and versioned conventions: one TGS gives one TFLOPs per convention.

Every number that is stored or compared carries the name and the version of its convention, because the same run is
reported up to a third apart by the conventions in use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainpace.cases.workload import Shape, Workload

DEFAULT = "xtuner"
"""The convention of the published table, and so of what is judged against it."""


# Every convention is a sum over the matrix products of a decoder; one multiply-add is two FLOPs. Forward, one token:
#
#   query and output projection   2 * (2 h^2)       = 4 h^2
#   key and value projection      2 * (2 h^2 kv/a)  = 4 h^2 kv/a     h hidden, a heads, kv key/value heads
#   gated MLP                     3 * (2 h I)       = 6 h I          I intermediate
#   scores q k^T                  2 A h                              A keys that the token attends to, on average
#   weighted sum of values        2 A h
#   head                          2 h V                              V vocabulary; once, not per layer
#
# Plain causal attention: token i of S attends to i keys, so A = S / 2 (the exact (S + 1) / 2 differs by 1 / S).
# Backward is twice forward: one product for the gradient of the input, one for that of the weight. Norms, rotary
# embedding, softmax and the optimizer are below 1 % and counted by nobody.


def _xtuner(shape: Shape, attended: float) -> float:
    # 4 L (8 h^2 + 2 S h + 6 h I) + 6 h V, with 2 S h = 4 A h. Each layer 4 times its forward: forward, its recompute
    # (full activation checkpointing) and backward twice. Key/value heads are counted as if each head had its own.
    # Source: ThroughputHook of XTuner 0.1.18-0.2.0; 13 of the 14 published rows agree within 0.12 %.
    h = shape.hidden
    layer = 8 * h**2 + 4 * attended * h + 6 * h * shape.intermediate
    return 4 * shape.layers * layer + 6 * h * shape.vocabulary


def _megatron(shape: Shape, attended: float) -> float:
    # 12 L h^2 (1 + kv/a + 3/2 I/h + S/h + V / (2 L h)): model FLOPs, 3 times forward, recompute not counted; attention
    # over the whole square (S = 2 A keys a token), masked or not; key/value heads as they are.
    # Source: num_floating_point_operations of Megatron-LM's training.py as of core 0.6-0.10 (2024), which extends the
    # appendix of arXiv:2104.04473 by grouped queries and gated MLPs. Later releases halve causal attention: a change
    # like that is a new version here.
    h = shape.hidden
    layer = 1 + shape.kv_heads / shape.heads + 1.5 * shape.intermediate / h + 2 * attended / h
    return 12 * shape.layers * h**2 * (layer + shape.vocabulary / (2 * shape.layers * h))


def _exact(shape: Shape, attended: float) -> float:
    # What the kernels multiply under full activation checkpointing, by term (forward + recompute + backward):
    #   projections            1 + 1 + 2
    #   MLP, up and gate       1 + 1 + 2
    #   MLP, down              1 + 0 + 2    the recompute stops early: nothing behind the last product is needed again
    #   attention              1 + 1 + 2.5  the flash kernel's backward computes the scores again: 5 products for 2
    #   head                   1 + 0 + 2    it stands outside the checkpointed layers
    # Source: agrees to all four digits with a traced step (torch's FlopCounterMode, attention counted whole there):
    # 5.655e14 for Llama2-7B 8k and 2.110e17 for Llama2-70B 1M sp64, per rank and step.
    h = shape.hidden
    projections = 4 * h**2 * (1 + shape.kv_heads / shape.heads)
    product = 2 * h * shape.intermediate
    attention = 4 * attended * h
    layer = 4 * projections + 4 * 2 * product + 3 * product + 4.5 * attention
    return shape.layers * layer + 6 * h * shape.vocabulary


@dataclass(frozen=True)
class Convention:
    """One way of counting. A formula that changes gets a new version: numbers of two versions are not compared."""

    name: str
    version: int
    per_token: Callable[[Shape, float], float]
    """(shape, keys that a token attends to on average) -> FLOPs of one trained token, backward included."""


CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention("xtuner", 1, _xtuner),
        Convention("megatron", 1, _megatron),
        Convention("exact", 1, _exact),
    )
}


def convention(name: str) -> Convention:
    """Look up a convention by its name.

    Raises:
        ValueError: for a name that is none, naming those that are.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]


def mean_attended(documents: Sequence[int]) -> float:
    """Keys that a token attends to, averaged over packed documents of these lengths (tokens), causal within each.

    A document of n tokens has n^2 / 2 pairs, so the mean over all tokens is sum(n^2) / (2 sum(n)). One document that
    fills the sequence gives plain causal attention's S / 2.
    """
    return sum(n * n for n in documents) / (2 * sum(documents))


def flops_per_token(
    shape: Shape, sequence: int, convention_name: str = DEFAULT, *, mean_attended: float | None = None
) -> float:
    """FLOPs of training one token (forward, backward, and what the convention says of the recompute).

    Args:
        shape: of the model, with the layers that are trained.
        sequence: tokens of one packed sequence, S. Sequence parallel changes nothing per token.
        convention_name: a key of CONVENTIONS.
        mean_attended: keys that a token attends to on average; None for plain causal attention, S / 2. For document
            masks, what `mean_attended` gives for the documents.

    Raises:
        ValueError: for an unknown convention, or more attended keys than plain causal attention has.
    """
    attended = sequence / 2 if mean_attended is None else mean_attended
    if not 0 < attended <= sequence / 2:
        raise ValueError(f"mean_attended must be above 0 and at most S / 2 = {sequence / 2:g}, got {attended:g}")
    return convention(convention_name).per_token(shape, attended)


def tflops(
    tgs: float, workload: Workload, convention_name: str = DEFAULT, *, mean_attended: float | None = None
) -> float:
    """TFLOP/s of one GPU at `tgs` tokens per GPU per second: TGS x FLOPs per token / 1e12.

    Raises:
        ValueError: as flops_per_token, and for a document-masked workload without its `mean_attended`: counted as
            plain causal attention it would report work that nobody did.
    """
    if workload.attention == "varlen" and mean_attended is None:
        raise ValueError(f"{workload.case}: attention varlen needs mean_attended, got None")
    attended = mean_attended if workload.attention == "varlen" else None
    return tgs * flops_per_token(workload.shape, workload.sequence, convention_name, mean_attended=attended) / 1e12
