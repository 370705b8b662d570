"""A case at a scale, resolved to the last number: what a rank is asked to train."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from trainpace.records import Record

Scale = Literal["full", "proxy", "mini"]
Dtype = Literal["bf16", "fp32"]
Attention = Literal["causal", "varlen"]


class Shape(Record):
    """The numbers that decide what a decoder computes."""

    hidden: PositiveInt
    layers: PositiveInt
    intermediate: PositiveInt
    """Width of the gated MLP."""
    heads: PositiveInt
    kv_heads: PositiveInt
    vocabulary: PositiveInt
    architecture: str = "llama"
    """The `model_type` that transformers knows."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the transformers config, passed through as they are."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got hidden={self.hidden}, heads={self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, got heads={self.heads}, kv_heads={self.kv_heads}")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head, d."""
        return self.hidden // self.heads


class Workload(Record):
    """What one run trains. Plain JSON; `key` and `hash` name its baseline."""

    case: str
    """The id of the case it was cut from, `llama2_7b-8k-sp1`."""
    model: str
    scale: Scale
    shape: Shape
    sequence: PositiveInt
    """Tokens of one packed sequence, S. A rank holds S / sp of them."""
    ranks: PositiveInt
    sp: PositiveInt
    """Ranks that share one sequence (sequence parallel)."""
    dtype: Dtype = "bf16"
    attention: Attention = "causal"
    accumulation: PositiveInt
    """Micro-steps between two optimizer steps; the cut sp, as published."""
    warmup: PositiveInt
    steps: PositiveInt
    """Measured micro-steps, after the warm-up."""
    nodes: PositiveInt = 1
    """Machines that the ranks are spread over, equally."""
    network: str = ""
    """What joins the nodes: `infiniband`, `roce`, `ethernet`; nothing on one."""
    trainer: str = "native"
    """`native`, or `package.module:object`."""
    engine: str = "deepspeed"
    """What shards the native trainer; of a user's trainer, its own affair."""
    thresholds: dict[str, int] = Field(default_factory=dict)
    """Settings of the engine that decide what is communicated."""

    @model_validator(mode="after")
    def _sp_divides(self) -> Self:
        for what, whole in (("ranks", self.ranks), ("sequence", self.sequence), ("heads", self.shape.heads)):
            if whole % self.sp:
                raise ValueError(f"{what} must be a multiple of sp, got {what}={whole}, sp={self.sp}")
        if self.ranks % self.nodes:
            raise ValueError(f"ranks must be a multiple of nodes, got ranks={self.ranks}, nodes={self.nodes}")
        return self

    @property
    def rank_tokens(self) -> int:
        """Tokens that one rank holds in one step, S / sp."""
        return self.sequence // self.sp

    @property
    def hash(self) -> str:
        """Eight hex digits over every field: two workloads with one hash train the same."""
        fields = self.model_dump()
        if self.nodes == 1:  # as before there were several: what is stored for one machine stays valid
            del fields["nodes"], fields["network"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def key(self) -> str:
        """The name of its baseline in a device's file."""
        return f"{self.case}/{self.scale}/{self.trainer}/{self.hash}"
