"""A case at a scale, resolved to the last number: what a rank is asked to train."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from trainpace.records import Record

Scale = Literal["full", "proxy", "mini"]
Dtype = Literal["bf16", "fp32"]
Attention = Literal["causal", "varlen"]
Recompute = Literal["full", "selective_op", "selective_layer", "none"]
"""What is not kept of a layer's forward, and so made again in its backward: everything between two layers; all but the
results of products and attention; everything, in every second layer; nothing."""
Sharding = Literal["full", "zero2"]
"""What a rank holds a part of: parameters, gradients and optimizer; gradients and optimizer alone."""
ADDED = (
    "micro_batch",
    "recompute",
    "param_dtype",
    "reduce_dtype",
    "sharding",
    "compile",
    "tags",
    "mini_on",
    "description",
)
ADDED_TO_SHAPE = ("head", "tied")
"""Fields that are left out of a workload's hash at their default, as every field must be that is added from now on."""


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
    head: PositiveInt | None = None
    """Width of one attention head; None: hidden / heads."""
    tied: bool = False
    """Whether the head multiplies by the embedding's weights, instead of weights of its own."""

    @model_validator(mode="before")
    @classmethod
    def _tied_is_a_field(cls, given: Any) -> Any:
        """What a config of the hub calls `tie_word_embeddings` is `tied` here, said in one place."""
        config = given.get("config") if isinstance(given, dict) else None
        if not isinstance(config, dict) or "tie_word_embeddings" not in config:
            return given
        rest = {name: value for name, value in config.items() if name != "tie_word_embeddings"}
        said = config["tie_word_embeddings"]
        if given.get("tied", said) != said:
            raise ValueError(f"tied must be as config's tie_word_embeddings, got {given['tied']} and {said}")
        return {**given, "config": rest, "tied": said}

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.head is None and self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got hidden={self.hidden}, heads={self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, got heads={self.heads}, kv_heads={self.kv_heads}")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head, d."""
        return self.head or self.hidden // self.heads


def is_own_trainer(trainer: str) -> bool:
    """Whether it is a user's own, `package.module:object`: neither the native one nor an external system."""
    return ":" in trainer and not trainer.endswith(".toml")


class Workload(Record):
    """What one run trains. Plain JSON; `key` and `hash` name its baseline."""

    case: str
    """The id of the case it was cut from, `llama2_7b-8k-sp1`."""
    model: str
    scale: Scale
    shape: Shape | None
    """None: the model is its trainer's own affair (`Case.of`)."""
    sequence: PositiveInt
    """Tokens of one packed sequence, S. A rank holds S / sp of them."""
    ranks: PositiveInt
    sp: PositiveInt
    """Ranks that share one sequence (sequence parallel)."""
    dtype: Dtype = "bf16"
    attention: Attention = "causal"
    accumulation: PositiveInt
    """Micro-steps between two optimizer steps."""
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
    micro_batch: PositiveInt = 1
    """Sequences that the ranks of one replica train in one micro-step."""
    recompute: Recompute = "full"
    param_dtype: Dtype = "fp32"
    """Of the parameters that the optimizer updates, and of its moments."""
    reduce_dtype: Dtype | None = None
    """In which gradients are summed over ranks; None: the engine's own choice, `dtype` of DeepSpeed, fp32 of FSDP2."""
    sharding: Sharding = "full"
    compile: bool = False
    """Whether the layers are compiled."""
    tags: tuple[str, ...] = ()
    """What tells variants of one trainer apart."""
    mini_on: Literal["cpu", "cuda"] = "cpu"
    """What ranks of the scale `mini` run on; those of other scales run on GPUs."""
    description: str = ""
    """Eight hex digits over what a described system's own file starts and trains; empty: another trainer."""

    @model_validator(mode="after")
    def _sp_divides(self) -> Self:
        heads = self.shape.heads if self.shape else None
        for what, whole in (("ranks", self.ranks), ("sequence", self.sequence), ("heads", heads)):
            if whole is not None and whole % self.sp:
                raise ValueError(f"{what} must be a multiple of sp, got {what}={whole}, sp={self.sp}")
        if self.ranks % self.nodes:
            raise ValueError(f"ranks must be a multiple of nodes, got ranks={self.ranks}, nodes={self.nodes}")
        return self

    @property
    def decoder(self) -> Shape:
        """Its shape, for what is computed of one.

        Raises:
            ValueError: where it has none.
        """
        if self.shape is None:
            raise ValueError(f"{self.case}: expected the shape of its model, which is its trainer's own affair")
        return self.shape

    @property
    def rank_tokens(self) -> int:
        """Tokens that one rank holds in one step, micro-batch x S / sp."""
        return self.micro_batch * self.sequence // self.sp

    @property
    def beyond_published(self) -> list[str]:
        """`micro_batch=4` of each field that is not as in the published table, which is all that some systems know."""
        fields = type(self).model_fields
        names = [name for name in ADDED if name not in ("mini_on", "description")]
        return [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != fields[name].default]

    @property
    def hash(self) -> str:
        """Eight hex digits over every field: two workloads with one hash train the same."""
        fields = self.model_dump() | {"trainer": self._trainer_name}
        if self.nodes == 1:
            del fields["nodes"], fields["network"]
        # What is stored was named before these fields existed, and stays valid.
        for found, record, names in ((fields, Workload, ADDED), (fields["shape"], Shape, ADDED_TO_SHAPE)):
            for name in names if found else ():
                if found[name] == record.model_fields[name].default:
                    del found[name]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def computation(self) -> str:
        """The same without the case: proxies of several cases may be one computation."""
        return self.model_copy(update={"case": ""}).hash

    @property
    def key(self) -> str:
        """The name of its baseline in a device's file."""
        return f"{self.case}/{self.scale}/{self._trainer_name}/{self.hash}"

    @property
    def _trainer_name(self) -> str:
        """Of a described system the file's name: where it lies differs from checkout to checkout."""
        return self.trainer.rpartition("/")[2] if self.trainer.endswith(".toml") else self.trainer
