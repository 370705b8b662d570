"""One workload on one device: what was predicted, from what, and whether it fits."""

from dataclasses import dataclass

from trainpace.cases.scaling import MEMORY_SHARE
from trainpace.cases.workload import Workload
from trainpace.runs.datasheets import Datasheet
from trainpace.stats.learning import Group, Prediction, Row
from trainpace.stats.roofline import Parameters


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whose parameters a prediction uses."""

    group: Group
    parameters: Parameters
    network: float | None
    """Between nodes, bytes per second that a GPU gets; None: the maker's."""
    near: Row
    """The row most like what is predicted."""
    width: float
    beyond: tuple[str, ...]
    """In what it is an extrapolation, the device first."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One workload on one device, and from what it was predicted."""

    device: str
    sheet: Datasheet
    workload: Workload
    choice: Choice
    prediction: Prediction
    peak_bytes: int
    """Peak memory of one rank, as counted."""
    model_flops: int | None
    """Of a micro-step on one rank: three times the forward; None where the counts do not tell it."""
    hardware_flops: int
    """Of the same, with what is made again."""

    @property
    def fits(self) -> bool:
        """Whether the peak leaves room for what no count sees: CUDA's context, NCCL's buffers, fragments."""
        return self.peak_bytes <= MEMORY_SHARE * (self.sheet.memory_bytes or 0)

    def of_peak(self, flops: int) -> float:
        """Share of the device's peak that `flops` a micro-step are at the predicted speed."""
        return flops * self.prediction.tgs / self.workload.rank_tokens / (1e12 * (self.sheet.bf16_tflops or 1))
