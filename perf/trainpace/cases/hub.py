"""A transformers config, as it lies on the hub, as a Shape. No transformers is imported, nothing is downloaded."""

from collections.abc import Mapping
from typing import Any

from trainpace.cases.architectures import DROPOUTS, KNOWN, KNOWN_OTHERS
from trainpace.cases.workload import Shape

NAMES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "vocabulary": "vocab_size",
    "head": "head_dim",
    "tied": "tie_word_embeddings",
}
OTHER_NAMES = {
    "gpt2": {"hidden": "n_embd", "layers": "n_layer", "intermediate": "n_inner", "heads": "n_head"},
}
"""What a shape's numbers are called in a config, and where they are called otherwise."""

_LLAMA = {"hidden": 4096, "layers": 32, "intermediate": 11008, "heads": 32, "vocabulary": 32000}
_QWEN = {"hidden": 4096, "layers": 32, "intermediate": 22016, "heads": 32, "kv_heads": 32, "vocabulary": 151936}
CLASSES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "intermediate": 14336, "kv_heads": 8},
    "mixtral": {**_LLAMA, "intermediate": 14336, "kv_heads": 8},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head": 128},
    "qwen3_moe": {**_QWEN, "hidden": 2048, "layers": 24, "intermediate": 6144, "kv_heads": 4},
    "phi3": {"hidden": 3072, "layers": 32, "intermediate": 8192, "heads": 32, "vocabulary": 32064},
    "gemma3_text": {
        "hidden": 2304,
        "layers": 26,
        "intermediate": 9216,
        "heads": 8,
        "kv_heads": 4,
        "vocabulary": 262208,
        "head": 256,
        "tied": True,
    },
    "cohere": {"hidden": 8192, "layers": 40, "intermediate": 22528, "heads": 64, "vocabulary": 256000, "tied": True},
    "gpt_neox": {"hidden": 6144, "layers": 44, "intermediate": 24576, "heads": 64, "vocabulary": 50432},
    "gpt2": {"hidden": 768, "layers": 12, "heads": 12, "vocabulary": 50257, "tied": True},
}
"""What transformers' own class has where a config says nothing. A test holds them against it."""
FULL_LAYERS_EVERY = 6
"""Of gemma3_text: every sixth layer has no window, where the config says neither how many nor which."""
WINDOWS = {"gemma3_text": 4096, "mistral": 4096}
"""Windows that a class has where a config says nothing."""

WHOLE = {
    *("sliding_window", "sliding_window_pattern", "max_window_layers", "n_positions", "decoder_sparse_step"),
    *("num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size"),
}
LEAST = {"max_window_layers": 0}
"""Fields besides a shape's that are whole numbers where they are there, and the least of those that may be 0."""

_UNUSED = (
    # what the file is of
    "_name_or_path architectures auto_map model_type transformers_version _commit_hash name_or_path custom_pipelines "
    "_attn_implementation _attn_implementation_autoset attn_implementation _experts_implementation "
    # what the case says: dtype and length, and ids of single tokens
    "dtype torch_dtype bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id unk_token_id "
    "max_position_embeddings model_max_length max_sequence_length n_ctx "
    # what a forward returns, and to whom
    "use_cache use_return_dict return_dict output_attentions output_hidden_states torchscript is_decoder "
    "is_encoder_decoder chunk_size_feed_forward id2label label2id num_labels problem_type finetuning_task "
    "task_specific_params classifier_dropout summary_activation summary_first_dropout summary_proj_to_labels "
    "summary_type summary_use_proj keys_to_ignore_at_inference cross_attention_hidden_size tokenizer_class prefix "
    "pruned_heads tie_encoder_decoder use_bfloat16 tf_legacy_loss gradient_checkpointing cache_implementation "
    "router_aux_loss_coef unsloth_version unsloth_fixed "
    # how text is generated
    "assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty "
    "do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff "
    "exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams "
    "num_return_sequences output_scores remove_invalid_values repetition_penalty return_dict_in_generate "
    "suppress_tokens target_lookbehind temperature top_k top_p typical_p "
    # of tensor parallelism at inference; transformers reads it no more
    "pretraining_tp"
)
UNUSED = frozenset(_UNUSED.split())
"""Fields that change nothing of what a training step computes, and are not carried."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config describes; every field that may change the computation is carried in `Shape.config`.

    Of a model of text and images it is the text's: `text_config`. What a config does not say is as in transformers'
    class of its `model_type`; the numbers that make a size must stand there, except in a `text_config`. Dropout of
    GPT-2's class, 0.1 in each of its configs, is left out.

    Raises:
        ValueError: the field, what was expected and what came.
    """
    nested = config.get("text_config")
    if isinstance(nested, Mapping) and NAMES["hidden"] not in config:
        shared = {name: config[name] for name in (NAMES["tied"],) if name in config}
        architecture = _architecture({"model_type": "llama", **nested})
        own = CLASSES.get(architecture, {})
        return _shape(architecture, {**shared, **nested}, own)
    architecture = _architecture(config)
    own = CLASSES.get(architecture, {})
    optional: dict[str, Any] = {name: own[name] for name in ("kv_heads", "head", "tied") if name in own}
    return _shape(architecture, config, optional)


def _architecture(config: Mapping[str, Any]) -> str:
    name = config.get("model_type")
    if not isinstance(name, str) or not name:
        raise ValueError(f"model_type: expected the name of an architecture, such as llama, got {_shown(config, name)}")
    return name


def _shape(architecture: str, config: Mapping[str, Any], default: Mapping[str, Any]) -> Shape:
    names = NAMES | OTHER_NAMES.get(architecture, {})

    def number(field: str, otherwise: int | None = None) -> int:
        name = names[field] if names[field] in config else NAMES[field]
        value = config.get(name)
        if value is None:
            null = name in config and otherwise is not None
            value = otherwise if null else default.get(field, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            lacks = KNOWN_OTHERS.get(architecture)
            of = f" ({architecture} has {lacks}, which no Shape describes)" if lacks and value is None else ""
            wanted = f"{names[field]}: expected a whole number from 1 on"
            raise ValueError(f"{wanted}, got {_shown(config, config.get(name))}{of}")
        return value

    hidden, heads = number("hidden"), number("heads")
    head = number("head", 0) if config.get(names["head"]) is not None or "head" in default else None
    tied = config.get(names["tied"])
    if tied is None:
        tied = default.get("tied", False)
    if tied not in (True, False):
        raise ValueError(f"{names['tied']}: expected true or false, got {tied!r:.60}")
    layers, kv_heads = number("layers"), number("kv_heads", heads)
    if head is None and hidden % heads:
        raise ValueError(f"{names['hidden']}: expected a multiple of {names['heads']}, {heads}, got {hidden}")
    if heads % kv_heads:
        raise ValueError(f"{names['heads']}: expected a multiple of {names['kv_heads']}, {kv_heads}, got {heads}")
    return Shape(
        hidden=hidden,
        layers=layers,
        intermediate=number("intermediate", 4 * hidden if architecture == "gpt2" else None),
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=number("vocabulary"),
        architecture=architecture,
        config=_carried(architecture, config, layers, {*names.values(), *NAMES.values()}),
        head=None if head is not None and head * heads == hidden else head,
        tied=bool(tied),
    )


def _carried(architecture: str, config: Mapping[str, Any], layers: int, taken: set[str]) -> dict[str, Any]:
    """What changes the computation besides the shape's numbers; which layers have a window is written out."""
    for name in WHOLE & config.keys():
        value = config[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < LEAST.get(name, 1)):
            raise ValueError(f"{name}: expected a whole number from {LEAST.get(name, 1)} on, got {value!r:.60}")
    kinds = config.get("layer_types")
    if kinds is not None and not (isinstance(kinds, list) and len(kinds) == layers):
        raise ValueError(f"layer_types: expected a list of {layers}, one a layer, got {kinds!r:.60}")
    carried = {
        name: value
        for name, value in config.items()
        # Nothing is what most fields are where they are not there; of a window it is not what every class has.
        if name not in UNUSED | taken and (value is not None or name == "sliding_window")
    }
    if architecture == "gpt2":
        carried = {name: value for name, value in carried.items() if name not in DROPOUTS}
    for name in [name for name, value in carried.items() if not value]:
        # No dropout, and what other architectures have and this one has switched off.
        if name in DROPOUTS or (architecture in KNOWN and name not in KNOWN[architecture]):
            del carried[name]
    return _windows(architecture, carried, layers)


def _windows(architecture: str, carried: dict[str, Any], layers: int) -> dict[str, Any]:
    """`carried` with a window, and with the kind of each layer where kinds differ: both can then be cut."""
    if architecture in WINDOWS:
        carried.setdefault("sliding_window", WINDOWS[architecture])
    if architecture == "gemma3_text":
        every = carried.pop("sliding_window_pattern", FULL_LAYERS_EVERY)
        full = [(place + 1) % every == 0 for place in range(layers)]
        carried.setdefault("layer_types", [_kind(windowed=not each) for each in full])
    elif architecture in ("qwen2", "qwen3", "qwen3_moe"):
        first = carried.pop("max_window_layers", 28)
        used = carried.get("use_sliding_window") and carried.get("sliding_window")
        if not used:
            carried.pop("use_sliding_window", None)
            carried.pop("sliding_window", None)
        elif architecture != "qwen3_moe":  # which has the window in every layer
            carried.setdefault("layer_types", [_kind(windowed=place >= first) for place in range(layers)])
    kinds = carried.get("layer_types")
    if isinstance(kinds, list) and set(kinds) == {_kind(windowed=False)}:
        del carried["layer_types"]
    return carried


def _kind(*, windowed: bool) -> str:
    return "sliding_attention" if windowed else "full_attention"


def _shown(config: Mapping[str, Any], value: Any) -> str:
    """What came; where nothing did, which fields there are."""
    if value is not None:
        return f"{value!r:.60}"
    fields = ", ".join(sorted(map(str, config))[:8])
    return f"none; its fields are {fields}{', ...' if len(config) > 8 else ''}" if fields else "an empty config"
