"""The rows of the published speed table, as cases.

Source: XTuner's speed benchmark (A100-SXM4-80GB, Alpaca packed to the maximum length, full fine-tuning under
ZeRO-3). The figures that each row reached lie in baselines/a100-sxm4-80gb.json.
"""

from dataclasses import dataclass
from typing import Any, Self, get_args

from trainpace.cases.models import LLAMA2_7B, LLAMA2_70B, YI_34B_200K, Model, check_name
from trainpace.cases.workload import Dtype, Recompute, Shape, Sharding

LENGTHS = {f"{size}k": size << 10 for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)} | {"1m": 1 << 20}
"""Tokens of a sequence, by the name that tables give it."""
RECOMPUTE_IDS = {"full": "", "selective_op": "selop", "selective_layer": "sellayer", "none": "norc"}
"""How an id names what is made again in the backward."""


@dataclass(frozen=True, kw_only=True)
class Mini:
    """A case's own small size, for a CPU. What it does not say follows by rule (`trainpace.cases.scaling`)."""

    shape: Shape | None = None
    """None: the model's `mini`."""
    sequence: int | None = None
    """Tokens of one sequence; None: by `mini_sequence`."""
    sp: int | None = None
    ranks: int | None = None
    micro_batch: int | None = None
    accumulation: int | None = None

    def __post_init__(self) -> None:
        for name in ("sequence", "sp", "ranks", "micro_batch", "accumulation"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"mini.{name} must be at least 1, got {number!r}")
        for name, whole in (("sequence", self.sequence), ("ranks", self.ranks)):
            if whole and self.sp and whole % self.sp:
                raise ValueError(f"mini.{name} must be a multiple of mini.sp, got {name}={whole}, sp={self.sp}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: a model, a sequence length, and how it is trained; what it does not say is as in the published table."""

    model: Model
    length: str
    """A key of LENGTHS, or a number of tokens as text."""
    sp: int
    gpus: int
    name_gpus: bool = False
    """Whether the id names the GPUs: where cases differ in nothing else."""
    micro_batch: int = 1
    """Sequences that one replica trains in one micro-step."""
    accumulation: int | None = None
    """Micro-steps between two optimizer steps; None: as many as sp."""
    recompute: Recompute = "full"
    sharding: Sharding = "full"
    param_dtype: Dtype = "fp32"
    """Of the parameters that the optimizer updates."""
    reduce_dtype: Dtype | None = None
    """In which gradients are summed over ranks; None: the engine's own choice."""
    compile: bool = False
    tags: tuple[str, ...] = ()
    """What tells variants of one trainer apart; in the id."""
    mini: Mini = Mini()
    """Its own small size, for a CPU."""

    def __post_init__(self) -> None:
        if self.length not in LENGTHS and not (self.length.isdecimal() and int(self.length) > 0):
            raise ValueError(f"length must be one of {', '.join(LENGTHS)} or a number of tokens, got {self.length!r}")
        self._check_numbers()
        if not isinstance(self.tags, tuple | list) or not all(isinstance(tag, str) for tag in self.tags):
            raise TypeError(f'tags must be a tuple of names, as ("lora",), got {self.tags!r}')
        object.__setattr__(self, "tags", tuple(self.tags))
        if not isinstance(self.mini, Mini):
            raise TypeError(f"mini must be a Mini, as Mini(sequence=256), got {self.mini!r}")
        for name, value, known in (
            ("recompute", self.recompute, get_args(Recompute)),
            ("sharding", self.sharding, get_args(Sharding)),
            ("param_dtype", self.param_dtype, get_args(Dtype)),
            ("reduce_dtype", self.reduce_dtype, (*get_args(Dtype), None)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
        if self.model.shape is None and self.mini_shape is not None:
            raise ValueError("a small shape needs a shape to be small of: give the model's, or leave both out")
        if self.mini.sp and self.mini_shape and self.mini_shape.heads % self.mini.sp:
            heads = self.mini_shape.heads
            raise ValueError(f"mini.sp must divide the heads of the small shape, got sp={self.mini.sp}, heads={heads}")
        check_name("a case's id", self.id)

    def _check_numbers(self) -> None:
        for name in ("sp", "gpus", "micro_batch", "accumulation"):
            number = getattr(self, name)
            if type(number) is not int and not (name == "accumulation" and number is None):
                raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
        if self.sp < 1 or self.gpus < 1 or self.gpus % self.sp:
            raise ValueError(f"gpus must be a positive multiple of sp, got gpus={self.gpus}, sp={self.sp}")
        for name, number in (("micro_batch", self.micro_batch), ("accumulation", self.accumulation)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if self.sequence % self.sp:
            raise ValueError(f"sp must divide the tokens of a sequence, got {self.sequence} tokens, sp={self.sp}")

    @classmethod
    def of(
        cls,
        name: str,
        *,
        tokens: int | str,
        gpus: int = 1,
        sp: int = 1,
        micro_batch: int = 1,
        title: str | None = None,
        **further: Any,
    ) -> Self:
        """A case whose model is its trainer's own affair: nothing is said of its shape, and nothing is made up.

        What follows from a shape is not known then: TFLOPs, MFU, HFU, memory before a run, predictions. It cannot be
        given to the native trainer.

        Args:
            name: of the model, for ids, files and `pytest -k`.
            tokens: of one sequence: 8192, "8192" or "8k".
            gpus: on which it is trained.
            sp: GPUs that share one sequence.
            micro_batch: sequences that one replica trains in one micro-step.
            title: of the model, for people; None: its name.
            further: fields of a case, as `tags=("compiled",)`, `accumulation=4`, `mini=Mini(sequence=256)`.

        Raises:
            ValueError: as the case itself, naming the field.
            TypeError: for a field that a case does not have or that is said otherwise here.
        """
        number = LENGTHS.get(tokens) if isinstance(tokens, str) else tokens
        if number is None and str(tokens).isascii() and str(tokens).isdecimal():
            number = int(tokens)
        if type(number) is not int or number < 1:
            raise ValueError(f"tokens must be a number of tokens, or one of {', '.join(LENGTHS)}, got {tokens!r}")
        length = next((short for short, each in LENGTHS.items() if each == number), str(number))
        model = Model(name=name, title=title or name, shape=None)
        if said := {"model", "length"} & further.keys():
            raise TypeError(f"Case.of takes name and tokens, and no {' or '.join(sorted(said))}")
        return cls(model=model, length=length, sp=sp, gpus=gpus, micro_batch=micro_batch, **further)

    @property
    def mini_shape(self) -> Shape | None:
        """The model with everything small; None: it is its trainer's own affair."""
        return self.mini.shape or self.model.mini

    @property
    def sequence(self) -> int:
        """Tokens of one packed sequence."""
        return LENGTHS.get(self.length) or int(self.length)

    @property
    def id(self) -> str:
        """`llama2_7b-8k-sp1`, then what differs from the published table: `-g64-mb4-ga2-norc-z2-bf16r-compile`."""
        accumulation = None if self.accumulation == self.sp else self.accumulation
        parts = (
            f"g{self.gpus}" if self.name_gpus else "",
            f"mb{self.micro_batch}" if self.micro_batch > 1 else "",
            f"ga{accumulation}" if accumulation else "",
            RECOMPUTE_IDS[self.recompute],
            "z2" if self.sharding == "zero2" else "",
            f"{self.param_dtype}p" if self.param_dtype != "fp32" else "",
            f"{self.reduce_dtype}r" if self.reduce_dtype else "",
            "compile" if self.compile else "",
            *self.tags,
        )
        return "-".join([f"{self.model.name}-{self.length}-sp{self.sp}", *filter(None, parts)])

    def __str__(self) -> str:
        return self.id


PUBLISHED_DEVICE = "a100-sxm4-80gb"
"""Slug of the device that every row was measured on."""
PUBLISHED = (
    Case(model=LLAMA2_7B, length="8k", sp=1, gpus=8),
    Case(model=LLAMA2_7B, length="32k", sp=1, gpus=8),
    Case(model=LLAMA2_7B, length="128k", sp=8, gpus=8),
    Case(model=LLAMA2_7B, length="256k", sp=8, gpus=8),
    Case(model=LLAMA2_7B, length="1m", sp=16, gpus=32),
    Case(model=YI_34B_200K, length="8k", sp=1, gpus=32),
    Case(model=YI_34B_200K, length="32k", sp=2, gpus=32),
    Case(model=YI_34B_200K, length="128k", sp=8, gpus=32),
    Case(model=YI_34B_200K, length="256k", sp=8, gpus=32),
    Case(model=LLAMA2_70B, length="8k", sp=1, gpus=32),
    Case(model=LLAMA2_70B, length="32k", sp=4, gpus=32),
    Case(model=LLAMA2_70B, length="128k", sp=8, gpus=32),
    Case(model=LLAMA2_70B, length="256k", sp=16, gpus=32),
    Case(model=LLAMA2_70B, length="1m", sp=64, gpus=64),
)
