"""Architectures that the native trainer trains and counts, and why it cannot train others. Imports no transformers."""

import difflib
from typing import Any

from trainpace.cases.workload import Shape

_OF_ALL = "attention_dropout hidden_act initializer_range max_position_embeddings"
_ROTARY = "rope_parameters rope_scaling rope_theta"
"""How positions turn queries and keys; `rope_parameters` is the newer name of the other two."""
_WINDOWS = "layer_types max_window_layers sliding_window use_sliding_window"
_EXPERTS = "num_experts_per_tok output_router_logits router_aux_loss_coef"
_FIELDS = {
    "llama": f"{_OF_ALL} {_ROTARY} attention_bias mlp_bias rms_norm_eps",
    "mistral": f"{_OF_ALL} {_ROTARY} rms_norm_eps sliding_window",
    "qwen2": f"{_OF_ALL} {_ROTARY} {_WINDOWS} rms_norm_eps",
    "qwen3": f"{_OF_ALL} {_ROTARY} {_WINDOWS} attention_bias rms_norm_eps",
    "phi3": f"{_OF_ALL} {_ROTARY} embd_pdrop original_max_position_embeddings partial_rotary_factor resid_pdrop "
    "rms_norm_eps sliding_window",
    "gemma3_text": "attention_bias attention_dropout attn_logit_softcapping final_logit_softcapping hidden_activation "
    "initializer_range layer_types max_position_embeddings query_pre_attn_scalar rms_norm_eps rope_local_base_freq "
    f"{_ROTARY} sliding_window sliding_window_pattern use_bidirectional_attention",
    "cohere": f"{_OF_ALL} {_ROTARY} attention_bias layer_norm_eps logit_scale use_qk_norm",
    "gpt_neox": f"{_OF_ALL} {_ROTARY} attention_bias hidden_dropout layer_norm_eps rotary_emb_base rotary_pct "
    "use_parallel_residual",
    "gpt2": "activation_function add_cross_attention attn_pdrop embd_pdrop initializer_range layer_norm_epsilon "
    "n_positions reorder_and_upcast_attn resid_pdrop scale_attn_by_inverse_layer_idx scale_attn_weights",
    "mixtral": f"{_OF_ALL} {_ROTARY} {_EXPERTS} num_experts num_local_experts rms_norm_eps router_jitter_noise "
    "sliding_window",
    "qwen3_moe": f"{_OF_ALL} {_ROTARY} {_EXPERTS} attention_bias decoder_sparse_step max_window_layers mlp_only_layers "
    "moe_intermediate_size norm_topk_prob num_experts num_local_experts rms_norm_eps sliding_window use_sliding_window",
}
KNOWN = {name: frozenset(fields.split()) for name, fields in _FIELDS.items()}
"""The fields of `Shape.config` that decide what a model of each architecture computes, by transformers' `model_type`.

What a Shape says itself is not among them. A test holds them against transformers' own classes.
"""
TRAINED = tuple(KNOWN)
"""Tests hold the gradients of each against those of one rank, with both engines."""

OF_SHAPE = {
    "hidden_size": "hidden",
    "n_embd": "hidden",
    "num_hidden_layers": "layers",
    "n_layer": "layers",
    "intermediate_size": "intermediate",
    "n_inner": "intermediate",
    "num_attention_heads": "heads",
    "n_head": "heads",
    "num_key_value_heads": "kv_heads",
    "vocab_size": "vocabulary",
    "head_dim": "head",
    "tie_word_embeddings": "tied",
}
"""Fields of a config that a Shape has a number of its own for, which is what counts."""

_ACTIVATIONS = (
    "gelu gelu_10 gelu_accurate gelu_fast gelu_new gelu_python gelu_python_tanh gelu_pytorch_tanh hardswish laplace "
    "leaky_relu linear mish prelu quick_gelu relu relu2 relu6 sigmoid silu sqrtsoftplus swish tanh xielu"
)
ACTIVATIONS = frozenset(_ACTIVATIONS.split())
"""The names that transformers knows."""
DROPOUTS = ("attention_dropout", "attn_pdrop", "embd_pdrop", "hidden_dropout", "resid_pdrop")

LACKING = {
    "kv_lora_rank": "multi-head latent attention",
    "attn_logit_softcapping": "capped logits of attention",
    "final_logit_softcapping": "capped logits",
    "logit_scale": "scaled logits",
    "state_size": "state-space layers",
    "linear_num_key_heads": "linear attention",
    "n_shared_experts": "shared experts",
    "alibi": "attention with a bias by distance (ALiBi)",
    "attention_chunk_size": "attention in chunks",
    "quantization_config": "quantized weights",
    "add_cross_attention": "attention across two sequences",
    "use_bidirectional_attention": "attention to later tokens",
    "reorder_and_upcast_attn": "attention in float32",
    "output_router_logits": "the router's own loss",
    **dict.fromkeys(DROPOUTS, "dropout"),
}
"""Fields of a config that ask for what the attention and the loss here do not compute, where they are set."""
FREE = {"cohere": ("logit_scale",)}
"""Fields that change no product: a scale of the logits takes the time that it takes, and that is none."""
KNOWN_OTHERS = {
    "deepseek_v2": "multi-head latent attention",
    "deepseek_v3": "multi-head latent attention",
    "minicpm3": "multi-head latent attention",
    "gemma2": "capped logits of attention",
    "mamba": "state-space layers",
    "mamba2": "state-space layers",
    "jamba": "state-space layers",
    "bamba": "state-space layers",
    "zamba2": "state-space layers",
    "falcon_mamba": "state-space layers",
    "falcon_h1": "state-space layers",
    "nemotron_h": "state-space layers",
    "granitemoehybrid": "state-space layers",
    "qwen3_next": "linear attention",
    "gpt_oss": "attention with sinks",
    "llama4_text": "attention in chunks",
    "cohere2": "layers without positions between layers with windows",
    "falcon": "attention with a bias by distance (ALiBi), or one key/value head that is no part of its own",
    "mpt": "attention with a bias by distance (ALiBi); with learned positions, as in llm-foundry's table, it is `gpt2`",
    "bloom": "attention with a bias by distance (ALiBi)",
}
"""What some architectures need that is not built."""
EXPERTS_ALIGN = 8
"""Elements that a width of experts is a multiple of: 16 bytes in bf16."""


def cannot(shape: Shape, sequence: int | None = None) -> str | None:
    """Why the native trainer cannot train `shape`: what it lacks, or the nearest that it knows; None where it can.

    `sequence` is the number of tokens that it would be trained with; None: any.
    """
    name = shape.architecture
    if name not in KNOWN:
        if name in KNOWN_OTHERS:
            return f"the native trainer cannot train {name}: it lacks {KNOWN_OTHERS[name]}"
        near = difflib.get_close_matches(name, TRAINED, n=1, cutoff=0.0)[0]
        return f"the native trainer cannot train {name}: it knows {', '.join(TRAINED)}; the nearest is {near}"
    return _lacks(shape) or _not_known(shape) or _experts_that_do_not_align(shape) or _too_long(shape, sequence)


def _lacks(shape: Shape) -> str | None:
    """What the config asks for that is not built."""
    name = shape.architecture
    asked = {field: value for field, value in shape.config.items() if value and field not in FREE.get(name, ())}
    lacks = [f"{LACKING[field]} ({field}={value!r:.40})" for field, value in asked.items() if field in LACKING]
    return f"the native trainer cannot train this {name}: it lacks {', '.join(lacks)}" if lacks else None


def _not_known(shape: Shape) -> str | None:
    """What the config names that there is not: a field, an activation."""
    name, config = shape.architecture, shape.config
    if unknown := [_unknown(name, field) for field in config if field not in KNOWN[name] | LACKING.keys()]:
        return f"the config of {name} has no field {', '.join(unknown)}"
    for field in ("hidden_act", "hidden_activation", "activation_function"):
        if config.get(field) and config[field] not in ACTIVATIONS:
            near = difflib.get_close_matches(str(config[field]), ACTIVATIONS, n=1, cutoff=0.0)[0]
            return f"{field}: the native trainer knows no {config[field]!r}; the nearest is {near}"
    return None


def _experts_that_do_not_align(shape: Shape) -> str | None:
    """Widths that the grouped product of experts does not take: its rows are multiples of 16 bytes, in bf16 too."""
    if not has_experts(shape):
        return None
    width = "moe_intermediate_size" if shape.config.get("moe_intermediate_size") else "intermediate"
    widths = {"hidden": shape.hidden, width: shape.config.get("moe_intermediate_size") or shape.intermediate}
    off = [f"{name}={value}" for name, value in widths.items() if value % EXPERTS_ALIGN]
    if not off:
        return None
    return f"the widths of {shape.architecture}'s experts must be multiples of {EXPERTS_ALIGN}, got {', '.join(off)}"


def has_experts(shape: Shape) -> bool:
    """Whether some of its layers choose among experts."""
    return "num_experts_per_tok" in KNOWN.get(shape.architecture, ())


def _too_long(shape: Shape, sequence: int | None) -> str | None:
    positions = shape.config.get("n_positions")
    if sequence is None or positions is None or sequence <= positions:
        return None
    return (
        f"{sequence} tokens are more than the {positions} learned positions (n_positions) of this {shape.architecture}"
    )


def _unknown(name: str, field: str) -> str:
    """`slidng_window (the nearest is sliding_window)`."""
    if field in OF_SHAPE:
        return f"{field} besides Shape.{OF_SHAPE[field]}, which says it"
    near = difflib.get_close_matches(field, sorted(KNOWN[name]), n=1)
    return f"{field} (the nearest is {near[0]})" if near else field


def with_layers(shape: Shape, layers: int) -> Shape:
    """`shape` with its first `layers` layers; what its config lists something a layer of is cut too."""
    config: dict[str, Any] = {
        name: value[:layers] if isinstance(value, list) and len(value) == shape.layers else value
        for name, value in shape.config.items()
    }
    return shape.model_copy(update={"layers": layers, "config": config})
