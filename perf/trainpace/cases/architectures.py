"""Architectures that the native trainer trains and counts, and why it cannot train others. Imports no transformers."""

import difflib

from trainpace.cases.workload import Shape

TRAINED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "gemma3_text",
    "cohere",
    "gpt_neox",
    "gpt2",
    "mixtral",
    "qwen3_moe",
)
"""By transformers' `model_type`. Tests hold the gradients of each against those of one rank, with both engines."""

LACKING = {
    "kv_lora_rank": "multi-head latent attention",
    "attn_logit_softcapping": "capped logits of attention",
    "final_logit_softcapping": "capped logits",
    "logit_scale": "scaled logits",
    "state_size": "state-space layers",
    "linear_num_key_heads": "linear attention",
    "n_shared_experts": "shared experts",
}
"""Fields of a config that ask for what the attention and the loss here do not compute, where they are set."""
FREE = {"cohere": ("logit_scale",)}
"""Fields that change no product: a scale of the logits takes the time that it takes, and that is none."""
KNOWN_OTHERS = {
    "deepseek_v2": "multi-head latent attention",
    "deepseek_v3": "multi-head latent attention",
    "gemma2": "capped logits of attention",
    "mamba": "state-space layers",
    "mamba2": "state-space layers",
    "jamba": "state-space layers",
    "falcon_mamba": "state-space layers",
    "mpt": "attention with a bias by distance (ALiBi); with learned positions, as in llm-foundry's table, it is `gpt2`",
    "bloom": "attention with a bias by distance (ALiBi)",
}
"""What some architectures need that is not built."""


def cannot(shape: Shape) -> str | None:
    """Why the native trainer cannot train `shape`: what it lacks, or the nearest that it knows; None where it can."""
    name = shape.architecture
    if name not in TRAINED:
        if name in KNOWN_OTHERS:
            return f"the native trainer cannot train {name}: it lacks {KNOWN_OTHERS[name]}"
        near = difflib.get_close_matches(name, TRAINED, n=1, cutoff=0.0)[0]
        return f"the native trainer cannot train {name}: it knows {', '.join(TRAINED)}; the nearest is {near}"
    free = FREE.get(name, ())
    lacks = [what for field, what in LACKING.items() if field not in free and shape.config.get(field)]
    return f"the native trainer cannot train this {name}: it lacks {', '.join(lacks)}" if lacks else None
