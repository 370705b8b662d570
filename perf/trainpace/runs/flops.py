"""FLOPs of a trained token, by named and versioned conventions: one TGS gives one TFLOPs per convention.

Every number that is stored or compared carries the name and the version of its convention, because the same run is
reported up to a third apart by the conventions in use. A convention's formula is used only where it holds
(`why_not`); elsewhere FLOPs are those of the traced step (`StepFlops`), or they are not known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from trainpace.cases.workload import Shape, Workload
from trainpace.records import Record

DEFAULT = "xtuner"
"""The convention of the published table, and so of what is judged against it."""
COUNTED = "counted"
"""The convention of workloads for which DEFAULT has no formula, and of trainers whose step was counted."""
STATED = "stated"
"""The convention of trainers that say the FLOPs of their steps themselves."""


# Every formula is a sum over the matrix products of a decoder; one multiply-add is two FLOPs. Forward, one token:
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


def _model(shape: Shape, attended: float) -> float:
    # `exact` without what is made again, and without the scores that the flash kernel's backward computes a second
    # time: each product of the forward three times.
    h = shape.hidden
    projections = 4 * h**2 * (1 + shape.kv_heads / shape.heads)
    layer = projections + 6 * h * shape.intermediate + 4 * attended * h
    return 3 * shape.layers * layer + 6 * h * shape.vocabulary


@dataclass(frozen=True)
class Convention:
    """One way of counting. A formula that changes gets a new version: numbers of two versions are not compared."""

    name: str
    version: int
    per_token: Callable[[Shape, float], float] | None
    """(shape, keys that a token attends to on average) -> FLOPs of one trained token, backward included. None: the
    convention has no formula, it is what a trace counted."""
    full_recompute: bool = False
    """Whether the formula counts that every layer is made again in its backward."""


CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention("xtuner", 1, _xtuner, full_recompute=True),
        Convention("megatron", 1, _megatron),
        Convention("exact", 1, _exact, full_recompute=True),
        # All products that the trace of the native trainer's step executes: of layers, attention and loss, what is made
        # again included. Of another trainer, those of a real step of its own, by torch's formulas.
        Convention(COUNTED, 1, None),
        # Model FLOPs, forward and backward and nothing that is made again, as the trainer's `flops_per_step` says.
        Convention(STATED, 1, None),
    )
}

GATED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "cohere")
"""Architectures whose layers have the products of the formulas: four projections, a gated MLP, one kind of layer."""
WINDOWS = {"mistral": 4096}
"""Keys that a token attends to at most where the config does not say it; transformers' own defaults."""


class StepFlops(Record):
    """FLOPs of one micro-step of one rank, as they were counted: of the native trainer in a trace with plain causal
    attention, of another one in a step of its own."""

    model_products: PositiveInt
    """Three times the forward's products of layers, and the head's with its loss."""
    model_attention: NonNegativeInt
    """Three times the forward's attention."""
    products: PositiveInt
    """What is executed: forward, what is made again, backward, and the head with its loss."""
    attention: NonNegativeInt


class RankFlops(Record):
    """What a rank counted of one micro-step, by torch's formulas (rank/counted.py)."""

    event: Literal["counted"] = "counted"
    forward: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    """FLOPs of products and of attention."""
    recompute: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    backward: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    unknown: dict[str, PositiveInt] = Field(default_factory=dict)
    """Calls of operators that may multiply and have no formula."""
    compiled: bool = False
    error: str = ""
    """Why nothing was counted."""


def step_flops(ranks: Sequence[RankFlops]) -> StepFlops | str:
    """FLOPs of a micro-step, mean over the ranks; a sentence where they are not known.

    Model FLOPs are three times the forward's, and never more than what is executed and not made again: of a model that
    is trained in a part of its parameters the backward makes fewer.
    """
    if error := next((rank.error for rank in ranks if rank.error), None):
        return error
    unknown = {name: calls for rank in ranks for name, calls in rank.unknown.items()}
    if unknown:
        return f"no formula for {', '.join(f'{name} (called {calls} x)' for name, calls in sorted(unknown.items()))}"

    def mean(kind: int) -> tuple[int, int]:
        """Model FLOPs and executed ones, of products (0) or attention (1)."""
        forward, again, backward = (
            sum(part[kind] for part in parts) // len(ranks)
            for parts in zip(*((rank.forward, rank.recompute, rank.backward) for rank in ranks), strict=True)
        )
        return min(3 * forward, forward + backward), forward + again + backward

    (model_products, products), (model_attention, attention) = mean(0), mean(1)
    if not model_products:
        return "no product of matrices passed torch's dispatcher"
    return StepFlops(
        model_products=model_products, model_attention=model_attention, products=products, attention=attention
    )


def why_not(name: str, workload: Workload) -> str | None:
    """Why the formula of a convention does not hold for `workload`, `mixtral is not of the formulas' shape`; None where
    it does.

    Raises:
        ValueError: for an unknown convention.
    """
    chosen = convention(name)
    if chosen.per_token is None:
        return f"{name} has no formula"
    if chosen.full_recompute and workload.recompute != "full":
        return f"{name} counts that all is recomputed, this recomputes {workload.recompute}"
    return _another_shape(workload)


def _another_shape(workload: Workload) -> str | None:
    """What sets a model apart from what all formulas count; None where nothing does."""
    shape, sequence = workload.shape, workload.sequence
    if shape is None:
        return "the case does not say its model's shape"
    if shape.architecture not in GATED:
        return f"{shape.architecture} is none of {', '.join(GATED)}, whose products the formulas count"
    numbers = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "vocab_size": shape.vocabulary,
    }
    if other := [name for name, value in numbers.items() if shape.config.get(name, value) != value]:
        return f"its config has another {', '.join(other)} than its shape"
    if shape.heads * shape.head_size != shape.hidden:
        return f"its heads are {shape.heads * shape.head_size} wide together, its hidden size is {shape.hidden}"
    window = shape.config.get("sliding_window", WINDOWS.get(shape.architecture))
    if window and window < sequence:
        return f"attention may be cut to a window of {window} tokens, of {sequence}"
    return None


def chosen(workload: Workload, *, counted: StepFlops | None = None, stated: float | None = None) -> Convention:
    """The convention in which TFLOPs of `workload` are shown and stored.

    What is known of the very step stands above a formula: STATED where its trainer says its FLOPs, COUNTED where they
    were counted; else DEFAULT where that holds, else COUNTED.
    """
    if stated is not None:
        return CONVENTIONS[STATED]
    return CONVENTIONS[COUNTED if counted is not None or why_not(DEFAULT, workload) else DEFAULT]


def why_unknown(workload: Workload) -> str:
    """Why a run of `workload` without counts has no TFLOPs."""
    if workload.trainer == "native":
        return f"{why_not(DEFAULT, workload)}, and its step was not counted"
    why = why_not(DEFAULT, workload)
    return f"{why}; --perf-count-flops counts a step of {workload.trainer}, or it says `flops_per_step` itself"


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
        ValueError: for an unknown convention, one without a formula, or more attended keys than plain causal attention
            has.
    """
    attended = sequence / 2 if mean_attended is None else mean_attended
    if not 0 < attended <= sequence / 2:
        raise ValueError(f"mean_attended must be above 0 and at most S / 2 = {sequence / 2:g}, got {attended:g}")
    formula = convention(convention_name).per_token
    if formula is None:
        raise ValueError(f"the convention {convention_name} has no formula: its FLOPs are those of a traced step")
    return formula(shape, attended)


def tflops(
    tgs: float,
    workload: Workload,
    convention_name: str = DEFAULT,
    *,
    mean_attended: float | None = None,
    counted: StepFlops | None = None,
    stated: float | None = None,
) -> float | None:
    """TFLOP/s of one GPU at `tgs` tokens per GPU per second: TGS x FLOPs per token / 1e12.

    None where the convention's formula does not hold for the workload, where it is COUNTED and `counted` is None, and
    where it is STATED and `stated` is None: what the trainer says of its micro-steps on a rank.

    Raises:
        ValueError: as flops_per_token, and for a document-masked workload without its `mean_attended`: counted as
            plain causal attention it would report work that nobody did.
    """
    attended = _attended(workload, mean_attended)
    if convention_name == STATED:
        per_token = stated / workload.rank_tokens if stated else None
    elif convention(convention_name).per_token is None:
        per_token = _counted(workload, counted, counted.products, counted.attention, attended) if counted else None
    elif why_not(convention_name, workload):
        return None
    else:
        per_token = flops_per_token(workload.decoder, workload.sequence, convention_name, mean_attended=attended)
    return None if per_token is None else tgs * per_token / 1e12


def model_flops(
    workload: Workload,
    *,
    mean_attended: float | None = None,
    counted: StepFlops | None = None,
    stated: float | None = None,
) -> float | None:
    """Model FLOPs of a token: three times the forward's products and attention, and the head. What MFU counts.

    Whatever is recomputed, and whatever the trainer does: the same for every system that trains this model on these
    sequences; but where a trainer says them of its own micro-step (`stated`), those. None where neither a formula holds
    nor counts are given.

    Raises:
        ValueError: for a document-masked workload without its `mean_attended`.
    """
    attended = _attended(workload, mean_attended)
    if stated is not None:
        return stated / workload.rank_tokens
    if counted is not None:
        return _counted(workload, counted, counted.model_products, counted.model_attention, attended)
    if _another_shape(workload):
        return None
    return _model(workload.decoder, attended or workload.sequence / 2)


def hardware_flops(
    workload: Workload, *, mean_attended: float | None = None, counted: StepFlops | None = None
) -> float | None:
    """FLOPs of a token that are executed, what is made again included. What HFU counts.

    None where neither `exact` holds nor counts are given, and for another trainer than the native one without counts:
    what it recomputes is its own affair.

    Raises:
        ValueError: for a document-masked workload without its `mean_attended`.
    """
    attended = _attended(workload, mean_attended)
    if counted is not None:
        return _counted(workload, counted, counted.products, counted.attention, attended)
    if workload.trainer != "native" or why_not("exact", workload):
        return None
    return _exact(workload.decoder, attended or workload.sequence / 2)


def _attended(workload: Workload, mean_attended: float | None) -> float | None:
    """Keys that a token attends to on average; None for plain causal attention, S / 2."""
    if workload.attention == "varlen" and mean_attended is None:
        raise ValueError(f"{workload.case}: attention varlen needs mean_attended, got None")
    return mean_attended if workload.attention == "varlen" else None


def _counted(
    workload: Workload, counted: StepFlops, products: int, attention: int, attended: float | None
) -> float | None:
    """FLOPs of a token, from `products` and plain causal `attention` of a rank's micro-step; None: they do not tell.

    Documents cut attention in the proportion of the keys that a token attends to, but not one within a window; of
    another trainer than the native one they were in the step that was counted.
    """
    if attended is not None and workload.trainer == "native":
        shape = workload.decoder
        whole = 6 * workload.sequence * shape.heads * shape.head_size * shape.layers * workload.rank_tokens
        if counted.model_attention != whole:
            return None
        return (products + attention * 2 * attended / workload.sequence) / workload.rank_tokens
    return (products + attention) / workload.rank_tokens
