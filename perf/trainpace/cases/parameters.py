"""How many parameters a model has, by architecture: transformers' own number, from a shape alone."""

from trainpace.cases.architectures import TRAINED
from trainpace.cases.workload import Shape

WITH_BIAS = ("gpt_neox", "gpt2")
"""Architectures whose norms, products and MLP have a bias, whose MLP has no gate, and whose heads are not grouped."""


def counted_parameters(shape: Shape, positions: int | None = None) -> int | None:
    """As `parameters`; None where that is a guess: an architecture that is not known here."""
    return parameters(shape, positions) if shape.architecture in TRAINED else None


def parameters(shape: Shape, positions: int | None = None) -> int:
    """Parameters of the model: its layers, embedding and head, the last norm.

    `positions` is the length of a table of learned positions where the config does not say it (`gpt2`); None: none. An
    architecture that is not known is taken for Llama.
    """
    tables = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden
    if shape.architecture == "gpt2":
        tables += (shape.config.get("n_positions") or positions or 0) * shape.hidden
    layers = sum(layer_parameters(shape, place) for place in range(shape.layers))
    return layers + tables + _norm(shape) * shape.hidden


def layer_parameters(shape: Shape, place: int = 0) -> int:
    """Parameters of one decoder layer, the `place`-th: attention, MLP or experts, norms.

    h hidden, I intermediate, q and k the widths of all query and of all key/value heads. Attention is 2 h (q + k). A
    gated MLP is 3 h I, gpt2's and gpt_neox's 2 h I; experts of width E are 3 h E each, and their router one row of h.
    """
    return attention_parameters(shape) + _mlp(shape, place) + _norms(shape)


def attention_parameters(shape: Shape) -> int:
    """Parameters of one layer's attention: query, key, value, output; their biases; norms of queries and keys."""
    name, config = shape.architecture, shape.config
    query, key = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    if name in WITH_BIAS:
        key = query
    found = 2 * shape.hidden * (query + key)
    if name in WITH_BIAS and config.get("attention_bias", True):
        found += query + 2 * key + shape.hidden
    elif name == "qwen2":
        found += query + 2 * key
    elif config.get("attention_bias"):
        found += query + 2 * key + shape.hidden
    if name in ("qwen3", "qwen3_moe", "gemma3_text"):
        found += 2 * shape.head_size
    if config.get("use_qk_norm"):
        found += query + key
    return found


def experts(shape: Shape) -> tuple[int, int, int]:
    """Experts of a layer, of which a token takes, and the width of one; (0, 0, 0) where the architecture has none.

    What a config does not say is as in transformers' class.
    """
    own = {
        "mixtral": (8, 2, shape.intermediate),
        "qwen3_moe": (128, 8, 768),
    }.get(shape.architecture)
    if own is None:
        return 0, 0, 0
    config = shape.config
    number = config.get("num_local_experts") or config.get("num_experts") or own[0]
    return number, config.get("num_experts_per_tok") or own[1], config.get("moe_intermediate_size") or own[2]


def active_parameters(shape: Shape, positions: int | None = None) -> int:
    """Parameters that one token goes through: of the experts those that it is sent to."""
    number, taken, width = experts(shape)
    idle = 3 * shape.hidden * width * (number - taken)
    return parameters(shape, positions) - idle * sum(_has_experts(shape, place) for place in range(shape.layers))


def _mlp(shape: Shape, place: int) -> int:
    hidden, intermediate = shape.hidden, shape.intermediate
    if shape.architecture in WITH_BIAS:
        return 2 * hidden * intermediate + intermediate + hidden
    if _has_experts(shape, place):
        number, _, width = experts(shape)
        return number * 3 * hidden * width + number * hidden
    bias = 2 * intermediate + hidden if shape.config.get("mlp_bias") else 0
    return 3 * hidden * intermediate + bias


def _has_experts(shape: Shape, place: int) -> bool:
    """Whether the `place`-th layer's MLP is a choice of experts."""
    every = shape.config.get("decoder_sparse_step", 1)
    dense = place in (shape.config.get("mlp_only_layers") or ()) or (place + 1) % every
    return experts(shape)[0] > 0 and not dense


def _norm(shape: Shape) -> int:
    """Vectors of one norm."""
    return 2 if shape.architecture in WITH_BIAS else 1


def _norms(shape: Shape) -> int:
    """Of a layer: before attention and MLP; of gemma3_text also behind them; of cohere one before both."""
    number = {"gemma3_text": 4, "cohere": 1}.get(shape.architecture, 2)
    return number * _norm(shape) * shape.hidden
