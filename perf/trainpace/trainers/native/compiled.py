"""Compiled layers of the native trainer: each decoder layer is one graph, in which attention stays one operator."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainpace.trainers.native.model import selective_contexts

Forward = Callable[..., Any]


def compile_layers(layers: nn.ModuleList, workload: Any) -> None:
    """Have every layer run compiled, from its first forward on; an operator that cannot be is an error.

    What is compiled is a layer's forward and not its call: FSDP2 and ZeRO-3 gather its parameters in hooks around the
    forward. What its backward makes again (`trainpace.trainers.native.model.recompute_layers`) is made within the
    graph, and joined with the backward's own work there. Layers that compute alike are compiled once.
    """
    if workload.attention == "varlen":
        # Documents are others in every step, and one code serves them all.
        torch.compiler.config.dynamic_sources = r".*\['(document_ends|longest)'\]"
    again = _again_selectively if workload.recompute == "selective_op" else _again_wholly
    layer: Any
    for layer in layers:
        forward = again(layer.forward) if layer.gradient_checkpointing else layer.forward
        layer.gradient_checkpointing = False
        layer.forward = torch.compile(forward, fullgraph=True, dynamic=False)


def _again_wholly(forward: Forward) -> Forward:
    def remade(*args: Any, **named: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **named)

    return remade


def _again_selectively(forward: Forward) -> Forward:
    def remade(*args: Any, **named: Any) -> Any:
        contexts = partial(selective_contexts)  # made here: a function that stands elsewhere is not taken
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **named)

    return remade
