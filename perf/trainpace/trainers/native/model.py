"""The model of the native trainer: transformers' decoder from a shape, random weights, and a fused loss head."""

import zlib
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.initialization import no_init_weights

from trainpace.trainers.native.attention import NAME
from trainpace.trainers.native.loss import LossHead


class CausalLm(nn.Module):
    """Token ids and labels in, summed loss out."""

    def __init__(self, shape: Any, sequence: int) -> None:
        super().__init__()
        self.config = transformers_config(shape, sequence)
        with no_init_weights():
            self.body = AutoModel.from_config(self.config, attn_implementation=NAME)
        self.head = LossHead(shape.hidden, shape.vocabulary)
        # Full checkpointing: a layer's activations are made again in its backward.
        self.body.activation_checkpointing_enable({"use_reentrant": False, "context_fn": _named_recompute})
        self.train()

    def forward(self, tokens: Tensor, labels: Tensor, positions: Tensor, **attention: Any) -> Tensor:
        """Summed loss of one rank's part: tokens, labels and positions are int64 [S / sp]."""
        hidden = self.body(
            input_ids=tokens.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False, **attention
        )
        return self.head(hidden.last_hidden_state[0], labels)


def _named_recompute() -> tuple[Any, Any]:
    """Contexts of a layer's forward and of its recompute, which a profile then tells apart."""
    return nullcontext(), torch.profiler.record_function("recompute")


def transformers_config(shape: Any, sequence: int) -> Any:
    """The transformers config of `shape` (a `trainpace.cases.Shape` or its like) for `sequence` tokens."""
    return AutoConfig.for_model(
        shape.architecture,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=sequence,
        tie_word_embeddings=False,
        **vars(shape.config) if not isinstance(shape.config, dict) else shape.config,
    )


def initial(name: str, shape: torch.Size, config: Any, device: str) -> Tensor:
    """The first value of a parameter, float32: normal, or ones for a norm's scale.

    Drawn by name and not in turn, so that every engine and every number of ranks starts from the same weights.
    """
    if len(shape) == 1:
        return torch.zeros(shape, device=device) if name.endswith("bias") else torch.ones(shape, device=device)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    return torch.empty(shape, device=device).normal_(0.0, config.initializer_range, generator=generator)
