"""A run: one fresh process group that trained one workload. Immutable; store/runs.py writes one file a run."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from trainpace.cases.machine import Device
from trainpace.cases.workload import Workload
from trainpace.records import Record

# 1: first format (2026-11).
SCHEMA = 1

SOFTWARE = (
    "python",
    "torch",
    "transformers",
    "datasets",
    "tokenizers",
    "deepspeed",
    "accelerate",
    "flash-attn",
    "liger-kernel",
    "triton",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "numpy",
)
"""Distributions (and `python`) whose versions decide speed. The run host looks them up in the measured interpreter."""

Seconds = Annotated[list[PositiveFloat], Field(min_length=1)]


class RankSamples(Record):
    """Every step of one rank as measured; the lists run over the measured steps, oldest first."""

    rank: NonNegativeInt
    place: str
    """`host/GPU uuid` or `host/cpu core`."""
    warmup_seconds: Seconds
    """The steps before the measured ones."""
    seconds: Seconds
    """Load, forward and backward of one micro-step."""
    data_seconds: list[NonNegativeFloat] | None
    """The part of `seconds` that loading a batch took; None where a program does not say."""
    optimizer_seconds: list[PositiveFloat]
    """One per optimizer step within the measured window (not per micro-step); none where `seconds` include them."""
    losses: list[float] | None
    """One per step, the warm-up's first; None where a program logs none."""
    peak_memory_bytes: PositiveInt
    """Largest over the measured window: allocated on the GPU, or resident on a CPU."""
    yardstick_seconds: PositiveFloat | None = None
    """What a fixed piece of the suite's own work took between the measured steps, median; None on a GPU."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        steps, warmup = len(self.seconds), len(self.warmup_seconds)
        for field, expected in (("data_seconds", steps), ("losses", warmup + steps)):
            values = getattr(self, field)
            if values is not None and len(values) != expected:
                raise ValueError(f"{field} must have {expected} entries, got {len(values)}")
        return self


class Health(Record):
    """What tells a run that can be trusted from one that cannot."""

    foreign_cores: float | None = None
    """Cores kept busy over the measured window by processes that are not the session's; None where it is not known."""
    faults: tuple[str, ...] = ()
    """Facts that make the run invalid, each a sentence with its figure (thermal slowdown, foreign load)."""
    notes: tuple[str, ...] = ()
    """Facts worth knowing that do not make it invalid (software power cap, warm-up too short)."""


class RunNode(Record):
    """One of several nodes that a run was spread over."""

    name: str
    ranks: PositiveInt
    gpu_uuids: tuple[str, ...] = ()
    links: str = ""
    """What joins its GPUs: `nvlink`, `pcie`, or nothing where there are not two."""
    network: str = ""
    """What joins it to the others: `infiniband`, `roce`, `ethernet`."""


class Preflight(Record):
    """What the nodes gave before anything was trained."""

    nodes: tuple[str, ...]
    all_reduce_bytes_per_second: PositiveFloat
    """Bus bandwidth of one rank, over all ranks of all nodes."""
    all_to_all_bytes_per_second: PositiveFloat
    product_seconds: tuple[PositiveFloat, ...]
    """What a fixed product took on the slowest rank of each node."""


class DataIdentity(Record):
    """What the losses depend on besides the workload: two runs with one identity must have near equal losses."""

    sources: tuple[str, ...]
    tokenizer: str
    fingerprint: str
    """Over the packed tokens' contents."""
    seed: int


class Run(Record):
    """One process group that trained one workload to its end: the unit of statistics."""

    schema_version: int = SCHEMA
    id: str
    started: str
    """UTC, ISO 8601."""
    workload: Workload
    source: Literal["measured", "reported"] = "measured"
    """`reported` by a program about itself, and checked by the wall clock: of all its ranks in one."""
    device: Device
    software: dict[str, str]
    """Versions of what decides speed, as the measured side's interpreter has them."""
    revision: str | None = None
    """The measured checkout's commit, `+dirty` appended where files differ from it."""
    nodes: tuple[RunNode, ...] = ()
    """In the order of their ranks; none where the run was not given to nodes."""
    preflight: Preflight | None = None
    """Of the session that made the run; None where it did none."""
    data: DataIdentity | None = None
    mean_attended: PositiveFloat | None = None
    """Keys that a token attends to, mean over the measured tokens; needed, and used, where attention is varlen."""
    startup_seconds: NonNegativeFloat
    """From the request for the run to the end of its first step."""
    compile_seconds: NonNegativeFloat = 0.0
    ranks: tuple[RankSamples, ...]
    stopped_after: PositiveInt | None = None
    """Measured steps after which no further one could change the verdict, and none was made; None: all were."""
    health: Health = Health()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.schema_version != SCHEMA:
            raise ValueError(f"schema_version must be {SCHEMA}, got {self.schema_version}")
        if self.workload.attention == "varlen" and self.mean_attended is None:
            raise ValueError("mean_attended must be given where attention is varlen, got None")
        expected = list(range(self.workload.ranks)) if self.source == "measured" else [0]
        got = [samples.rank for samples in self.ranks]
        if expected != got:
            raise ValueError(f"ranks must be 0..{expected[-1]} in order, got {got}")
        for samples in self.ranks:
            if self.source == "measured" and not samples.optimizer_seconds:
                raise ValueError(f"rank {samples.rank}: optimizer_seconds must have an entry at least, got none")
            for field in ("losses", "data_seconds"):
                if self.source == "measured" and getattr(samples, field) is None:
                    raise ValueError(f"rank {samples.rank}: {field} must be given where source is measured, got None")
            for field, wanted in (("seconds", self.steps), ("warmup_seconds", self.workload.warmup)):
                if len(getattr(samples, field)) != wanted:
                    raise ValueError(
                        f"rank {samples.rank}: {field} must have {wanted} entries, got {len(getattr(samples, field))}"
                    )
        return self

    @property
    def steps(self) -> int:
        """Measured steps that were made."""
        return self.stopped_after or self.workload.steps
