"""The columns that several reports share: a figure is looked up, rounded and given its unit here alone."""

from typing import Protocol

from trainpace.report.table import Column
from trainpace.text import UNKNOWN, fixed_percent, gib, known, tflops


class Speed(Protocol):
    """A row with a speed. Here and below None means that the figure is not known."""

    @property
    def tgs(self) -> float | None:
        """Tokens per GPU per second."""


class Measured(Protocol):
    """A row with the figures of a measurement."""

    @property
    def tflops(self) -> float | None:
        """TFLOPs per GPU, in the convention of the report."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory of the rank with the largest, bytes."""

    @property
    def ratio(self) -> float | None:
        """TGS / TGS of the reference."""


class OfPeak(Protocol):
    """A row with the share of the device's peak that was reached."""

    @property
    def mfu(self) -> float | None:
        """Model FLOPs of a second / those that the device can do."""

    @property
    def hfu(self) -> float | None:
        """Executed FLOPs of a second, what is made again included / those that the device can do."""


def _share(value: float | None) -> str:
    return fixed_percent(value) if value else UNKNOWN


# On a page what is not known sorts below everything.
TGS: Column[Speed] = Column("TGS", lambda row: known(row.tgs, ".1f"), lambda row: row.tgs or 0.0, "right")
TFLOPS: Column[Measured] = Column("TFLOPs", lambda row: tflops(row.tflops), lambda row: row.tflops or 0.0, "right")
MFU: Column[OfPeak] = Column("MFU", lambda row: _share(row.mfu), lambda row: row.mfu or 0.0, "right")
HFU: Column[OfPeak] = Column("HFU", lambda row: _share(row.hfu), lambda row: row.hfu or 0.0, "right")
MEMORY: Column[Measured] = Column(
    "memory",
    lambda row: gib(row.peak_memory_bytes) if row.peak_memory_bytes else UNKNOWN,
    lambda row: row.peak_memory_bytes or 0.0,
    "right",
)
RATIO: Column[Measured] = Column("ratio", lambda row: known(row.ratio, ".3f"), lambda row: row.ratio or 0.0, "right")
