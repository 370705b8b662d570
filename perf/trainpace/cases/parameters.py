"""Parameters of a decoder by its numbers, architecture by architecture: equal to what transformers builds."""

from trainpace.cases.workload import Shape

UNGATED = ("gpt2", "gpt_neox")
"""Two products in the MLP instead of three, biases everywhere, norms with a bias."""
KNOWN = (
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text", "cohere", "mixtral", "qwen3_moe"),
    *UNGATED,
)
"""Architectures that are counted here."""


def parameters(shape: Shape, sequence: int = 0) -> int | None:
    """Parameters of the model; None for an architecture that is not counted here.

    `sequence` is the number of learned positions, which gpt2 alone has.
    """
    name, config = shape.architecture, shape.config
    if name not in KNOWN:
        return None
    hidden, wide = shape.hidden, shape.heads * shape.head_size
    shared = shape.kv_heads * shape.head_size
    # Query and output; key and value.
    layer = 2 * hidden * wide + 2 * hidden * shared
    if name in UNGATED:
        biases = wide + 2 * shared + hidden + shape.intermediate + hidden
        layer += 2 * hidden * shape.intermediate + biases + 4 * hidden
        last, positions = 2 * hidden, sequence if name == "gpt2" else 0
    else:
        layer += _gated(shape) + {"cohere": 1, "gemma3_text": 4}.get(name, 2) * hidden
        # Biases of query, key and value, and of the output where a config asks for attention's.
        if name == "qwen2" or config.get("attention_bias"):
            layer += wide + 2 * shared + (hidden if name != "qwen2" else 0)
        # Norms of the heads: one for all of them, or one each.
        if name in {"qwen3", "qwen3_moe", "gemma3_text"}:
            layer += 2 * shape.head_size
        if name == "cohere" and config.get("use_qk_norm"):
            layer += wide + shared
        last, positions = hidden, 0
    tables = 1 if shape.tied else 2
    return shape.layers * layer + (tables * shape.vocabulary + positions) * hidden + last


def _gated(shape: Shape) -> int:
    """Of one layer's MLP: gate, up and down, of each expert, and the router's."""
    experts = {"mixtral": "num_local_experts", "qwen3_moe": "num_experts"}.get(shape.architecture)
    width = shape.config.get("moe_intermediate_size", shape.intermediate) if experts else shape.intermediate
    if experts is None:
        return 3 * shape.hidden * width
    count = int(shape.config.get(experts, 8 if shape.architecture == "mixtral" else 128))
    return count * (3 * shape.hidden * int(width) + shape.hidden)
