"""The rows of the published speed table, as cases.

Source: XTuner's speed benchmark (A100-SXM4-80GB, Alpaca packed to the maximum length, full fine-tuning under
ZeRO-3). The figures that each row reached lie in baselines/a100-sxm4-80gb.json.
"""

from dataclasses import dataclass

from trainpace.cases.models import LLAMA2_7B, LLAMA2_70B, YI_34B_200K, Model, check_name

LENGTHS = {"8k": 8 << 10, "32k": 32 << 10, "128k": 128 << 10, "256k": 256 << 10, "1m": 1 << 20}
"""Tokens of a sequence, by the name that the table gives it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: a model, a sequence length, a sequence-parallel size and a number of GPUs."""

    model: Model
    length: str
    """A key of LENGTHS, or a number of tokens as text."""
    sp: int
    gpus: int

    def __post_init__(self) -> None:
        if self.length not in LENGTHS and not (self.length.isdecimal() and int(self.length) > 0):
            raise ValueError(f"length must be one of {', '.join(LENGTHS)} or a number of tokens, got {self.length!r}")
        if self.sp < 1 or self.gpus < 1 or self.gpus % self.sp:
            raise ValueError(f"gpus must be a positive multiple of sp, got gpus={self.gpus}, sp={self.sp}")
        check_name("a case's id", self.id)

    @property
    def sequence(self) -> int:
        """Tokens of one packed sequence."""
        return LENGTHS.get(self.length) or int(self.length)

    @property
    def id(self) -> str:
        """`llama2_7b-8k-sp1`."""
        return f"{self.model.name}-{self.length}-sp{self.sp}"

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
