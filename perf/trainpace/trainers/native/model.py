"""The model of the native trainer: transformers' decoder from a shape, random weights, and a fused loss head."""

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import AutoConfig, AutoModel
from transformers.initialization import no_init_weights
from transformers.modeling_layers import GradientCheckpointingLayer

from trainpace.trainers.native.attention import NAME
from trainpace.trainers.native.loss import LossHead

KEPT = {torch.ops.trainpace.attention.default, torch.ops._c10d_functional.all_to_all_single.default}
"""Operators whose results a layer keeps under `selective_op`, besides every second product."""
RECOMPUTE = "recompute"
"""Name of the profiler's range around what a backward makes again."""


class CausalLm(nn.Module):
    """Token ids and labels in, summed loss out."""

    def __init__(self, shape: Any, sequence: int, recompute: str = "full") -> None:
        super().__init__()
        self.config = transformers_config(shape, sequence)
        with no_init_weights():
            self.body = AutoModel.from_config(self.config, attn_implementation=NAME)
        self.head = LossHead(shape.hidden, shape.vocabulary)
        for module in self.body.modules():
            if hasattr(module, "scalar_embed_scale"):  # filled later; made from a number it would be no fake tensor
                module.register_buffer("embed_scale", torch.empty(()), persistent=False)
        if shape.tied:
            self.head.weight = self.body.get_input_embeddings().weight
        recompute_layers(self.body, recompute)
        self.train()

    @property
    def layers(self) -> Any:
        """The decoder's layers, a ModuleList."""
        return layers_of(self.body)

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
    for layer in layers_of(body)[1::2] if recompute == "selective_layer" else ():
        layer.gradient_checkpointing = False


def _named_recompute() -> tuple[Any, Any]:
    """Contexts of a layer's forward and of its recompute, which a profile then tells apart."""
    return nullcontext(), torch.profiler.record_function(RECOMPUTE)


def _products_kept() -> tuple[Any, Any]:
    """The same where KEPT and every second product are not made again."""
    forward, again = selective_contexts()
    return forward, _named(again)


def selective_contexts() -> tuple[Any, Any]:
    """Contexts of a layer's forward and of its recompute where KEPT and every second product are not made again."""
    products = {False: 0, True: 0}

    def policy(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        kept = operator in KEPT
        if operator is torch.ops.aten.mm.default:
            products[context.is_recompute] += 1
            kept = products[context.is_recompute] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


@contextmanager
def _named(context: AbstractContextManager[Any]) -> Iterator[None]:
    with torch.profiler.record_function(RECOMPUTE), context:
        yield


def layers_of(body: nn.Module) -> Any:
    """The decoder's layers, whatever its module of them is called."""
    found = [
        each
        for each in body.children()
        if isinstance(each, nn.ModuleList) and all(isinstance(layer, GradientCheckpointingLayer) for layer in each)
    ]
    if len(found) != 1:
        raise ValueError(f"expected a decoder with one list of layers, got {type(body).__name__} with {len(found)}")
    return found[0]


# What a shape's numbers are called where it is not as Llama has it, and what is no part of a speed: dropout.
NAMES: dict[str, dict[str, str]] = {"gpt2": {"intermediate_size": "n_inner", "max_position_embeddings": "n_positions"}}
WITHOUT: dict[str, dict[str, Any]] = {"gpt2": dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)}


def transformers_config(shape: Any, sequence: int) -> Any:
    """The transformers config of `shape` (a `trainpace.cases.Shape` or its like) for `sequence` tokens."""
    numbers = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        # Some configs have a width of their own, whatever hidden and heads are.
        "head_dim": shape.head or shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": sequence,
        "tie_word_embeddings": False,
        # Ids of the original vocabulary may lie beyond one that was cut.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    names = NAMES.get(shape.architecture, {})
    named = {names.get(name, name): value for name, value in numbers.items()}
    without = WITHOUT.get(shape.architecture, {})
    # A copy: transformers writes its defaults into what it is given.
    return AutoConfig.for_model(shape.architecture, **{**named, **without, **plain(shape.config)})


def plain(value: Any) -> Any:
    """`value` with dictionaries where a rank has namespaces; a copy."""
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def initial(name: str, shape: torch.Size, config: Any, device: str) -> Tensor:
    """The first value of a parameter, float32: normal, or ones for a norm's scale.

    Drawn by name and not in turn, so that every engine and every number of ranks starts from the same weights.
    """
    if len(shape) == 1 or name.endswith("norm.weight"):  # a norm of queries may have a row a head
        # Gemma's norms multiply by 1 + weight.
        zero = name.endswith("bias") or config.model_type.startswith("gemma")
        return torch.zeros(shape, device=device) if zero else torch.ones(shape, device=device)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    return torch.empty(shape, device=device).normal_(0.0, config.initializer_range, generator=generator)
