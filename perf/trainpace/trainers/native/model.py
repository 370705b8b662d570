"""The model of the native trainer: transformers' decoder from a shape, random weights, and a fused loss head."""

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import AutoConfig, AutoModel
from transformers.initialization import no_init_weights

from trainpace.trainers.native.attention import NAME
from trainpace.trainers.native.loss import LossHead

KEPT = {torch.ops.trainpace.attention.default, torch.ops._c10d_functional.all_to_all_single.default}
"""Operators whose results a layer keeps under `selective_op`, besides every second product."""


class CausalLm(nn.Module):
    """Token ids and labels in, summed loss out."""

    def __init__(self, shape: Any, sequence: int, recompute: str = "full") -> None:
        super().__init__()
        self.config = transformers_config(shape, sequence)
        with no_init_weights():
            self.body = AutoModel.from_config(self.config, attn_implementation=NAME)
        self.head = LossHead(shape.hidden, shape.vocabulary)
        if shape.tied:
            self.head.weight = self.body.get_input_embeddings().weight
        recompute_layers(self.body, recompute)
        self.train()

    def forward(self, tokens: Tensor, labels: Tensor, positions: Tensor, **attention: Any) -> Tensor:
        """Summed loss of one rank's part: tokens, labels and positions are int64 [S / sp]."""
        hidden = self.body(
            input_ids=tokens.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False, **attention
        )
        return self.head(hidden.last_hidden_state[0], labels)


def recompute_layers(body: Any, recompute: str) -> None:
    """Have the layers of `body` make again in their backward what `recompute` says (`trainpace.cases.workload`).

    full: a layer keeps its input alone. selective_op: besides the results of attention, of its exchanges, and of every
    second product from the first on, as torchtitan's selective checkpointing by operators does. selective_layer: every
    second layer, from the first on, is as with full, and the others keep everything.
    """
    if recompute == "none":
        return
    contexts = _products_kept if recompute == "selective_op" else _named_recompute
    body.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    for layer in body.layers[1::2] if recompute == "selective_layer" else ():
        layer.gradient_checkpointing = False


def _named_recompute() -> tuple[Any, Any]:
    """Contexts of a layer's forward and of its recompute, which a profile then tells apart."""
    return nullcontext(), torch.profiler.record_function("recompute")


def _products_kept() -> tuple[Any, Any]:
    """The same where KEPT and every second product are not made again."""
    products = {False: 0, True: 0}

    def policy(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        kept = operator in KEPT
        if operator is torch.ops.aten.mm.default:
            products[context.is_recompute] += 1
            kept = products[context.is_recompute] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    forward, again = create_selective_checkpoint_contexts(policy)
    return forward, _named(again)


@contextmanager
def _named(context: AbstractContextManager[Any]) -> Iterator[None]:
    with torch.profiler.record_function("recompute"), context:
        yield


def transformers_config(shape: Any, sequence: int) -> Any:
    """The transformers config of `shape` (a `trainpace.cases.Shape` or its like) for `sequence` tokens."""
    named = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": sequence,
        "tie_word_embeddings": False,
    }
    if shape.head is not None:
        named["head_dim"] = shape.head
    given = shape.config if isinstance(shape.config, dict) else vars(shape.config)
    return AutoConfig.for_model(shape.architecture, **{**named, **given})


def initial(name: str, shape: torch.Size, config: Any, device: str) -> Tensor:
    """The first value of a parameter, float32: normal, or ones for a norm's scale.

    Drawn by name and not in turn, so that every engine and every number of ranks starts from the same weights.
    """
    if len(shape) == 1:
        return torch.zeros(shape, device=device) if name.endswith("bias") else torch.ones(shape, device=device)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    return torch.empty(shape, device=device).normal_(0.0, config.initializer_range, generator=generator)
