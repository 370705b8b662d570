"""Three separate things of every published row: it agrees with itself, it lies where the predictor says, it can be run.

A check compares a printed figure with what follows from the row's others. Figures are intervals here: 41.25 is anything
that rounds to it, and what is cut instead of rounded is up to one digit more. A check fails where the two intervals do
not meet; what a header adds to that, its `tolerance`, has its reason beside it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trainpace.cases.parameters import parameters
from trainpace.cases.tables import Row, Table
from trainpace.judge.baseline import Published
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import CONVENTIONS, DEFAULT, flops_per_token
from trainpace.text import GIB

PALM = "palm"
"""6 N + 12 L h S FLOPs a token, N all parameters with every table, attention over the whole square; recompute not
counted. Source: PaLM (arXiv:2204.02311), appendix B, as llm-foundry and torchtitan apply it."""
OF_SPEED = ("tflops", "mfu", "hfu")
"""Columns that a source computes from a speed with more digits than it prints, or from another one."""
SLACK = 1e-9
"""Relative, of the arithmetic itself."""


@dataclass(frozen=True)
class Figure:
    """A number as far as it is known, from `low` to `high`."""

    low: float
    high: float

    def times(self, factor: float) -> "Figure":
        """Both ends times a positive number."""
        return Figure(self.low * factor, self.high * factor)

    def over(self, other: "Figure") -> "Figure":
        """The quotient of two positive ones."""
        return Figure(self.low / other.high, self.high / other.low)

    def meets(self, other: "Figure", tolerance: float = 0.0) -> bool:
        """Whether some number is in both, or in what `tolerance` adds to each."""
        more = 1 + SLACK + tolerance
        return self.low <= other.high * more and other.low <= self.high * more

    @property
    def middle(self) -> float:
        """Half way."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, kw_only=True)
class Check:
    """One printed figure against what follows from the row's others."""

    column: str
    printed: Figure
    follows: Figure
    value: float
    """As printed."""
    tolerance: float = 0.0
    """Relative, of the table."""
    words: str
    """`TGS x FLOPs a token by palm, of 989 TFLOPs`: what it follows from."""

    @property
    def agrees(self) -> bool:
        """Whether both can be of one truth."""
        return self.printed.meets(self.follows, self.tolerance)

    @property
    def off(self) -> float:
        """What follows / what is printed - 1."""
        return self.follows.middle / self.printed.middle - 1

    @property
    def text(self) -> str:
        """`mfu: 23.46 printed, 23.61 follows from ...`."""
        return f"{self.column}: {self.value:g} printed, {self.follows.middle:.6g} follows from {self.words}"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the predictor says of a row that it did not learn from."""

    low: float
    tgs: float
    high: float
    """The interval's ends, and its middle, TGS."""
    dense: bool = False
    """From formulas of a dense model, for a row that the trainer cannot count."""


Predictions = Mapping[tuple[str, str | None], Expected | str]
"""By a row's id and device; a text is why there is none."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A row and the three things that are said of it."""

    row: Row
    checks: tuple[Check, ...]
    expected: Expected | str
    """A text: why nothing is predicted."""

    @property
    def wrong(self) -> tuple[Check, ...]:
        """Checks that failed."""
        return tuple(check for check in self.checks if not check.agrees)

    @property
    def agrees(self) -> str:
        """`yes`, `no`, or `nothing to check`."""
        if not self.checks:
            return "nothing to check"
        return "no" if self.wrong else "yes"

    @property
    def why_unchecked(self) -> str:
        """Why there is nothing to check; empty where there is."""
        if self.checks:
            return ""
        return self.row.why_no_tgs or "nothing is printed beside its TGS"

    @property
    def predicted(self) -> str:
        """`within`, `faster`, `slower` than the interval; or why nothing is predicted."""
        if isinstance(self.expected, str):
            return self.expected
        if self.row.tgs is None:
            return self.row.why_no_tgs
        if self.row.tgs < self.expected.low:
            return "slower"
        return "faster" if self.row.tgs > self.expected.high else "within"

    @property
    def executable(self) -> str:
        """`yes`, or `no` and what is lacking."""
        return "yes" if self.row.executable else f"no: {', '.join(self.row.lacks)}"


def published(table: Table, device: str) -> list[Published]:
    """The figures of `table` on a device, as baselines of scale full."""
    convention = CONVENTIONS[DEFAULT]
    return [
        Published(
            origin="published",
            case=row.id,
            model=row.model.title,
            scale="full",
            sequence=row.case.sequence,
            sp=row.case.sp,
            gpus=row.case.gpus,
            tgs=row.tgs,
            printed_tflops=row.printed.get("tflops"),
            tflops=row.tgs * flops_per_token(row.model.decoder, row.case.sequence) / 1e12,
            convention=convention.name,
            convention_version=convention.version,
            hardware=table.devices[device].name or device,
            software=dict(table.stack),
            source=f"{table.title}, {row.source}",
        )
        for row in table.rows
        if row.executable and row.device == device and row.case is not None and row.tgs is not None
    ]


def examine(table: Table, predictions: Predictions | None = None) -> list[Examined]:
    """Every row of `table` with its checks, and what is predicted for it."""
    by_id = {(row.id, row.device): row for row in table.rows}
    none = "no predictions" if predictions is None else "not predicted"
    return [
        Examined(
            row=row,
            checks=tuple(checks(row, table, by_id.get((row.ratio_of, row.device)))),
            expected=(predictions or {}).get((row.id, row.device), none),
        )
        for row in table.rows
    ]


def checks(row: Row, table: Table, other: Row | None = None) -> Iterator[Check]:
    """The checks that a row's columns allow; `other` is the row that its ratio is of."""

    def check(column: str, follows: Figure | float | None, words: str) -> Iterator[Check]:
        if follows is not None and column in row.printed:
            given = Figure(follows, follows) if isinstance(follows, float | int) else follows
            yield Check(
                column=column,
                printed=_figure(row, table, column),
                follows=given,
                value=row.printed[column],
                tolerance=table.tolerance if column in OF_SPEED else 0.0,
                words=words,
            )

    case, tgs, flops = row.case, _tgs(row, table), _flops(row, table)
    speed = None if tgs is None or flops is None else tgs.times(flops / 1e12)
    by = f"TGS and the FLOPs a token of {table.convention}"
    yield from check("tflops", speed, by)
    device = table.devices.get(row.device or "")
    if device is not None and device.peak_tflops is not None:
        peak = device.peak_tflops * (1 if row.matmul_dtype == "bf16" else 2)
        yield from check("mfu", speed and speed.times(100 / peak), f"{by}, of {peak:g} TFLOPs")
    if "mfu" in row.printed and case is not None and case.recompute in {"full", "none"}:
        again = 4 / 3 if case.recompute == "full" else 1
        yield from check("hfu", _figure(row, table, "mfu").times(again), f"MFU x {again:.3g} of {case.recompute}")
    yield from _batches(row, table, check)
    yield from check("parameters", parameters(row.model.decoder, case.sequence if case else 0), "the model's numbers")
    if other is not None and (base := _tgs(other, table)) is not None and tgs is not None:
        yield from check("ratio", tgs.over(base), f"its TGS and {other.tgs:g} of {other.id}")
    sheet = DATASHEETS.get(row.device or "")
    if sheet is not None and sheet.memory_bytes:
        yield from check("memory_gib", Figure(0, sheet.memory_bytes / GIB), "the memory of the device, at most")


def _batches(row: Row, table: Table, check: object) -> Iterator[Check]:
    assert callable(check)
    case, printed = row.case, row.printed
    if case is None:
        return
    yield from check("gpus", float(case.gpus), "the row itself, the figure being of its heading")
    if row.tgs is not None:
        exact = Figure(*_ends(row.tgs, row.decimals.get("tgs", 0), cut="tgs" in table.truncated))
        yield from check("tokens_per_second", exact.times(case.gpus), f"TGS x {case.gpus} GPUs")
    if "tokens_per_second" in printed:
        tokens = _figure(row, table, "tokens_per_second")
        yield from check("sequences_per_second", tokens.times(1 / case.sequence), f"tokens a second / {case.sequence}")
    shared = math.prod(int(printed.get(size, 1)) for size in ("tp", "cp", "pp")) * case.sp
    replicas = case.gpus / shared
    yield from check("dp", replicas, f"{case.gpus} GPUs / {shared} that share a replica")
    batch = replicas * case.micro_batch
    steps = case.accumulation or case.sp
    least = batch * (steps - 1) + 1 if table.partial_batches else batch * steps
    yield from check(
        "global_batch",
        Figure(least, batch * steps),
        f"{replicas:g} replicas x micro-batch {case.micro_batch} x accumulation {steps}",
    )
    if "global_batch" in printed:
        yield from check("batch_tokens", printed["global_batch"] * case.sequence, f"batch x {case.sequence} tokens")


def _figure(row: Row, table: Table, column: str) -> Figure:
    cut = {column, f"printed_{column}"} & set(table.truncated)
    return Figure(*_ends(row.printed[column], row.decimals.get(column, 0), cut=bool(cut)))


def _ends(value: float, decimals: int, *, cut: bool) -> tuple[float, float]:
    unit = 10.0**-decimals
    return (value, value + unit) if cut else (value - unit / 2, value + unit / 2)


def _tgs(row: Row, table: Table) -> Figure | None:
    """Tokens a second and GPU; from those of all GPUs where they are printed, which have more digits."""
    if row.case is not None and "tokens_per_second" in row.printed:
        return _figure(row, table, "tokens_per_second").times(1 / row.case.gpus)
    if row.tgs is None:
        return None
    return Figure(*_ends(row.tgs, row.decimals.get("tgs", 0), cut="tgs" in table.truncated))


def _flops(row: Row, table: Table) -> float | None:
    """Of a token, by the table's convention; None where that is not known, or not for such a model."""
    if row.case is None:
        return None
    shape, sequence = row.model.decoder, row.case.sequence
    if table.convention in CONVENTIONS:
        return flops_per_token(shape, sequence, table.convention)
    counted = parameters(shape, sequence)
    if table.convention != PALM or counted is None:
        return None
    return 6 * counted + 12 * shape.layers * shape.heads * shape.head_size * sequence
