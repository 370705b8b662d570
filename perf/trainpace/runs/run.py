"""A run: one fresh process group that trained one workload. Immutable; store/runs.py writes one file a run."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from trainpace.cases.machine import Device
from trainpace.cases.workload import Workload
from trainpace.records import Record
from trainpace.runs.flops import StepFlops

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
    "nvidia-cublas",
    "nvidia-cublas-cu12",
    "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "numpy",
)
"""Distributions (and `python`) whose versions decide speed. The run host looks them up in the measured interpreter."""

Seconds = Annotated[list[PositiveFloat], Field(min_length=1)]


class TokenRange(Record):
    """The tokens of a rank's measured micro-steps."""

    least: NonNegativeInt
    least_step: NonNegativeInt
    """The first step that had so few; steps count from 0, the warm-up's first."""
    most: NonNegativeInt
    most_step: NonNegativeInt
    sequences: PositiveInt
    """Of the step with the most: each may hold a token more or less, the one that is to be predicted."""


class BatchTokens(Record):
    """How many tokens the batches had."""

    counted: TokenRange | None
    """By the shapes of the integer arrays that `load` returned; None where it returned none."""
    said: TokenRange | None
    """As the trainer's `tokens(batch)` says; None where it has none."""


class Observed(Record):
    """Seconds from the line that opens a rank's measured window to the one that closes it, by the judging side's clock.

    A line is seen when it is looked for: the length lies between the two.
    """

    least: float
    """May be negative: both lines were found by one look."""
    most: NonNegativeFloat


class RankSamples(Record):
    """Every step of one rank as measured; the lists run over the measured steps, oldest first."""

    rank: NonNegativeInt
    place: str
    """`host/GPU uuid` or `host/cpu core`."""
    warmup_seconds: Seconds
    """Seconds of each step before the measured ones."""
    seconds: Seconds
    """Seconds of each measured micro-step: load, forward and backward."""
    data_seconds: list[NonNegativeFloat] | None
    """The part of `seconds` that loading a batch took; None where an external system does not report it."""
    optimizer_seconds: list[PositiveFloat]
    """Seconds of each optimizer step within the measured window; empty where `seconds` include them."""
    losses: list[float] | None
    """Loss of each step, the warm-up's first; None where an external system logs none."""
    peak_memory_bytes: PositiveInt
    """Peak over the measured window: allocated on the GPU, or resident on a CPU."""
    yardstick_seconds: PositiveFloat | None = None
    """Seconds of a fixed piece of work, done between the measured steps, median: a CPU's speed. None on a GPU."""
    tokens: BatchTokens | None = None
    """None in runs recorded before tokens were looked at, and of an external system."""
    observed: Observed | None = None
    """None in runs recorded before, and of an external system, whose claims are checked when they are read."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        steps, warmup = len(self.seconds), len(self.warmup_seconds)
        for field, expected in (("data_seconds", steps), ("losses", warmup + steps)):
            values = getattr(self, field)
            if values is not None and len(values) != expected:
                raise ValueError(f"{field} must have {expected} entries, got {len(values)}")
        return self

    @property
    def claimed_seconds(self) -> float:
        """Seconds of the measured window that the rank gives account of: its steps and the optimizer's."""
        return sum(self.seconds) + sum(self.optimizer_seconds)


class OtherProcess(Record):
    """A process that is not the session's."""

    pid: PositiveInt
    name: str
    """Of its command, at most 15 characters."""
    cores: NonNegativeFloat
    """Cores that it kept busy over the measured window."""


class Health(Record):
    """What disturbed a run."""

    foreign_cores: float | None = None
    """Cores kept busy over the measured window by processes that are not the session's, of those that a rank ran on;
    of the rank where it is most. None where unknown."""
    others: tuple[OtherProcess, ...] = ()
    """Those that kept the ranks' cores busiest, where that made the run invalid, and as far as they could be read."""
    faults: tuple[str, ...] = ()
    """Sentences, with figures, on what makes the run invalid: thermal slowdown, foreign load."""
    notes: tuple[str, ...] = ()
    """Sentences on what does not make it invalid: software power cap, a warm-up that was too short."""


class RunNode(Record):
    """A node that a run had ranks on."""

    name: str
    ranks: PositiveInt
    gpu_uuids: tuple[str, ...] = ()
    links: str = ""
    """Links between its GPUs: `nvlink` or `pcie`; empty with fewer than two GPUs."""
    network: str = ""
    """Network to the other nodes: `infiniband`, `roce` or `ethernet`; empty for a single node."""


class Preflight(Record):
    """Bandwidth and speed of the nodes, measured before anything was trained."""

    nodes: tuple[str, ...]
    all_reduce_bytes_per_second: PositiveFloat
    """Bus bandwidth of one rank, over all ranks of all nodes."""
    all_to_all_bytes_per_second: PositiveFloat
    """The same of all-to-all."""
    product_seconds: tuple[PositiveFloat, ...]
    """Seconds of a fixed product of matrices on the slowest rank of each node."""


class DataIdentity(Record):
    """The training data: two runs of one workload on equal data must have near equal losses."""

    sources: tuple[str, ...]
    tokenizer: str
    fingerprint: str
    """Hash of the packed tokens."""
    seed: int

    def __str__(self) -> str:
        return f"{' + '.join(self.sources)}, tokenizer {self.tokenizer}"


class TrainedOn(Record):
    """What was found in one source of the training data."""

    name: str
    """As the data's identity gives it."""
    kind: str
    """Of its records: `alpaca`, `messages` or `text`."""
    records: PositiveInt
    """Those that are used."""
    tokens: PositiveInt
    """Of one pass over the records."""
    skipped: NonNegativeInt = 0
    """Records that were left out."""
    reasons: tuple[str, ...] = ()
    """`record 17: key 'output': ...`, of the first that were left out."""

    def __str__(self) -> str:
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        records = f"{self.records:,} record{'' if self.records == 1 else 's'}"
        return f"{self.name} ({self.kind}, {records}, {self.tokens:,} tokens{skipped})"

    @property
    def left_out(self) -> str | None:
        """What was left out and why, a sentence; None where nothing was."""
        if not self.skipped:
            return None
        more = f"; and {self.skipped - len(self.reasons):,} more" if self.skipped > len(self.reasons) else ""
        return f"{self.name}: skipped {'; '.join(self.reasons)}{more}"


def described(data: DataIdentity, trained_on: Iterable[TrainedOn]) -> str:
    """What was trained on: each source, with what was found in it where that is known, and the tokenizer."""
    found = " + ".join(map(str, trained_on))
    return f"{found}, tokenizer {data.tokenizer}" if found else str(data)


class Run(Record):
    """One process group that trained one workload to its end: the unit of statistics."""

    schema_version: int = SCHEMA
    id: str
    started: str
    """Time of the start: UTC, ISO 8601."""
    workload: Workload
    source: Literal["measured", "reported"] = "measured"
    """`reported`: an external system's own numbers, checked by the wall clock, of all its ranks in one."""
    device: Device
    software: dict[str, str]
    """Versions, by name, of what decides speed, in the measured side's interpreter; the driver's; and settings of
    CUDA and NCCL in the environment, by their own names."""
    kernels: dict[str, str] = Field(default_factory=dict)
    """Which of several kernels ran, by operator, as the trainer says; empty where it says nothing."""
    revision: str | None = None
    """Commit of the measured checkout, `+dirty` appended where files differ from it; None outside a checkout."""
    nodes: tuple[RunNode, ...] = ()
    """Nodes in the order of their ranks; empty for a run on this machine alone."""
    preflight: Preflight | None = None
    """Measured by the session that made the run; None where it measured none."""
    data: DataIdentity | None = None
    """None where the trainer brings data that the suite does not know."""
    trained_on: tuple[TrainedOn, ...] = ()
    """What was found in each source of `data`; empty where the trainer does not say. It follows from `data`."""
    mean_attended: PositiveFloat | None = None
    """Keys that a token attends to, mean over the measured tokens; None where attention is causal."""
    step_flops: StepFlops | None = None
    """As the native trainer's step was traced, or another trainer's counted; None where formulas hold, and where it was
    not counted."""
    flops_per_step: PositiveFloat | None = None
    """Model FLOPs of a micro-step on one rank, mean over the ranks, as the trainer says; None where it does not."""
    startup_seconds: NonNegativeFloat
    """Seconds from the request for the run to the end of its first step."""
    compile_seconds: NonNegativeFloat = 0.0
    ranks: tuple[RankSamples, ...]
    stopped_after: PositiveInt | None = None
    """Number of measured steps after which the run was ended, because no further one could change the verdict; None
    where all steps were made."""
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
