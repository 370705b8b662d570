"""A published speed table: a header, and rows of which each is a case and a device.

The columns of a row are those of COLUMNS, further ones are refused. What a row does not say it has from its section in
the header, then from the header's defaults, then from the column. What lies in files is read by store/tables.py; what
the figures of a row say of each other is judge/tables.py's.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt

from trainpace.cases import models
from trainpace.cases.architectures import LACKING, TRAINED, cannot
from trainpace.cases.models import Model
from trainpace.cases.parameters import counted_parameters
from trainpace.cases.published import LENGTHS, Case
from trainpace.cases.scaling import mini_ranks, mini_sp
from trainpace.cases.workload import Dtype, Recompute, Shape, Sharding
from trainpace.errors import FileError
from trainpace.records import Record

OUT_OF_MEMORY = "OOM"
"""In the place of a TGS: the source says that the row does not fit."""
SIZES = ("tp", "cp", "pp", "ep")
"""Columns of parallel groups that the native trainer does not have; a row that says 1 says nothing."""
MATMUL_DTYPES = ("bf16", "fp8", "fp8-tensorwise", "fp8-rowwise", "mxfp8", "mxfp8-cublas", "mxfp8-cublas-rceil")


class TableDevice(Record):
    """What a table says of a device beyond its datasheet."""

    network_bytes_per_second: PositiveFloat | None = None
    """Between nodes, what a GPU gets, one direction; None: not stated."""
    network: Literal["stated", "assumed"] = "assumed"
    peak_tflops: PositiveFloat | None = None
    """By which the table divides for its MFU, of dense bf16; None: it prints none, or does not say."""
    name: str = ""
    """As the source writes it."""


class TableModel(Record):
    """A model of a table that is none of cases/models.py."""

    title: str
    hidden: PositiveInt
    layers: PositiveInt
    intermediate: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    """None: as many as heads."""
    head: PositiveInt | None = None
    vocabulary: PositiveInt
    architecture: str = "llama"
    config: dict[str, Any] = Field(default_factory=dict)
    tied: bool = False
    printed_parameters: PositiveFloat | None = None
    """As its makers print it, 46.7e9; it must follow from the numbers above to its last digit."""

    @property
    def shape(self) -> Shape:
        """The numbers as a case has them."""
        fields = self.model_dump(exclude={"title", "printed_parameters"})
        return Shape(**fields | {"kv_heads": self.kv_heads or self.heads})


class Header(Record):
    """What lies beside a table's rows, `NAME.toml`."""

    title: str = ""
    source: str = ""
    """Where its source files can be read."""
    revision: str = ""
    engine: Literal["deepspeed", "fsdp2"] = "deepspeed"
    """Which of the native trainer's engines does what the table's stack does."""
    stack: dict[str, str] = Field(default_factory=dict)
    """Versions that the table states, by package."""
    attention: str = ""
    """The attention kernel, as far as it is stated."""
    convention: str = ""
    """Of its TFLOPs and MFU: one of runs/flops.py, or `palm` (6 N + 12 L h S FLOPs a token)."""
    truncated: tuple[str, ...] = ()
    """Columns whose figures are cut instead of rounded."""
    tolerance: float = Field(default=0.0, ge=0, le=0.01)
    """Relative, of figures that the source computed from others than it prints, beyond the rounding of those."""
    repeats_kv: bool = False
    """Whether the stack repeats shared key/value heads before each exchange of a sequence's ranks."""
    partial_batches: bool = False
    """Whether the last micro-batch of a step may be smaller than the others."""
    devices: dict[str, TableDevice] = Field(default_factory=dict)
    models: dict[str, TableModel] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Values of columns, for all rows that do not say them."""
    sections: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The same for the rows of a section, before `defaults`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published figure: a case, a device, and all that the source prints beside them."""

    id: str
    """The case's; of a row without a case, what it says of itself."""
    model: Model
    case: Case | None
    """None: the row does not say enough to make one."""
    device: str | None
    """Slug; None: not stated."""
    tgs: float | None
    why_no_tgs: str = ""
    """`OOM`."""
    lacks: tuple[str, ...] = ()
    """What the native trainer lacks of the row, or the row of facts: `tp=8`, `fp8`; empty: executable."""
    printed: Mapping[str, float] = field(default_factory=dict)
    """Further numbers by the name of their column, without its `printed_`: tflops, mfu, global_batch, tp."""
    decimals: Mapping[str, int] = field(default_factory=dict)
    """Digits behind the point as printed, by the same names; of `tgs` too."""
    matmul_dtype: str = "bf16"
    ratio_of: str = ""
    """Id of the row that `printed["ratio"]` compares this one with."""
    line: int
    """Of the CSV file."""
    source: str
    """File of the source and its line."""
    section: str = ""
    note: str = ""
    doubt: str = ""
    """Why its figure is doubted, and who or what says so."""

    @property
    def executable(self) -> bool:
        """Whether the native trainer has every feature that the row names."""
        return self.case is not None and not self.lacks


@dataclass(frozen=True, kw_only=True)
class Table:
    """One published table."""

    name: str
    title: str
    source: str
    revision: str
    stack: Mapping[str, str]
    attention: str
    convention: str
    engine: str
    truncated: tuple[str, ...]
    tolerance: float
    repeats_kv: bool
    partial_batches: bool
    devices: Mapping[str, TableDevice]
    rows: tuple[Row, ...]

    @property
    def cases(self) -> tuple[Case, ...]:
        """Each once, in order of their first rows: rows that differ in device alone are one case."""
        return tuple({row.id: row.case for row in self.rows if row.case is not None}.values())

    def rows_of(self, case: Case) -> tuple[Row, ...]:
        """The rows of `case`, one a device."""
        return tuple(row for row in self.rows if row.case == case)


def features(case: Case) -> tuple[str, ...]:
    """What of `case` the mini scale has too, as words: cases with the same words run the same code there."""
    shape = case.model.shape
    if shape is None:
        return (case.id,)
    accumulation = case.accumulation or case.sp
    return (
        shape.architecture,
        *(("shared key/value heads",) if shape.kv_heads < shape.heads else ()),
        *(("tied",) if shape.tied else ()),
        *(("head size",) if shape.head else ()),
        *(name for name in sorted(shape.config) if name != "rope_parameters"),
        f"sp {mini_sp(case)}",
        f"{mini_ranks(case)} ranks",
        *(("micro-batch",) if case.micro_batch > 1 else ()),
        *(("accumulation",) if accumulation not in {1, case.sp} else ()),
        f"recompute {case.recompute}",
        f"sharding {case.sharding}",
        f"{case.param_dtype} parameters",
        *((f"{case.reduce_dtype} reduction",) if case.reduce_dtype else ()),
        *(("compile",) if case.compile else ()),
        *case.tags,
    )


# A column: how a cell of text is read. What a header says in TOML's own types is read as its text would be.


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]+)?", text) or float(text) <= 0:
        raise ValueError("a number above 0, without exponent")
    return float(text)


def _cut(text: str) -> float:
    return 0.0 if re.fullmatch(r"0(\.0+)?", text) else _number(text)  # what is cut may be cut to nothing


def _percent(text: str) -> float:
    number = _number(text)
    if number > 100:
        raise ValueError("a percentage above 0, at most 100")
    return number


def _tgs(text: str) -> float | None:
    if text == OUT_OF_MEMORY:
        return None
    try:
        return _number(text)
    except ValueError as error:
        raise ValueError(f"{error}, or {OUT_OF_MEMORY}") from None


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return text

    return read


def _yes(text: str) -> bool:
    _one_of("true", "false")(text)
    return text == "true"


def _length(text: str) -> str:
    if text not in LENGTHS and not (text.isdecimal() and text.isascii() and 0 < int(text[:18]) == int(text)):
        raise ValueError(f"one of {', '.join(LENGTHS)}, or a number of tokens")
    return text


COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "section": str,
    "model": str,
    "length": _length,
    "gpus": _whole,
    "sp": _whole,
    "micro_batch": _whole,
    "accumulation": _whole,
    "recompute": _one_of(*get_args(Recompute)),
    "sharding": _one_of(*get_args(Sharding)),
    "param_dtype": _one_of(*get_args(Dtype)),
    "reduce_dtype": _one_of(*get_args(Dtype)),
    "matmul_dtype": _one_of(*MATMUL_DTYPES),
    "attention": _one_of("causal", "varlen"),
    "compile": _yes,
    "async_tp": _yes,
    "tags": lambda text: tuple(text.split()),
    "name_gpus": _yes,
    **dict.fromkeys(SIZES, _whole),
    "dp": _whole,
    "schedule": str,
    "device": str,
    "tgs": _tgs,
    "printed_tflops": _number,
    "printed_mfu": _percent,
    "printed_hfu": _percent,
    "printed_memory_gib": _number,
    "printed_parameters": _whole,
    "printed_tokens_per_second": _number,
    "printed_sequences_per_second": _cut,
    "printed_ratio": _number,
    "printed_gpus": _whole,
    "global_batch": _whole,
    "batch_tokens": _whole,
    "ratio_of": str,
    "source": str,
    "source_line": _whole,
    "note": str,
    "doubt": str,
}
"""How a cell is read, by column; what is raised says what was expected."""
NUMBERS = ("global_batch", "batch_tokens", "dp", *SIZES)
"""Columns that stand among a row's printed numbers beside those named `printed_`."""
OF_CASE = ("micro_batch", "accumulation", "recompute", "sharding", "param_dtype", "reduce_dtype", "compile")


def make_table(
    name: str, header: Header, columns: Sequence[str], cells: Iterable[tuple[int, Sequence[str]]], *, path: str
) -> Table:
    """The table of a header and of the cells of its CSV file.

    Args:
        name: of the table.
        header: what its .toml says.
        columns: the CSV's first line.
        cells: each further line's number and its cells.
        path: the CSV's, for errors.

    Raises:
        FileError: with file, line, column, and value.
    """
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise FileError(f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, got {', '.join(unknown)}")
    if twice := [column for column in COLUMNS if list(columns).count(column) > 1]:
        raise FileError(f"{path}, line 1: column {twice[0]} stands there twice")
    toml = str(path).removesuffix(".csv") + ".toml"
    for where, given in (("defaults", header.defaults), *((f"sections.{k}", v) for k, v in header.sections.items())):
        for column, value in given.items():
            if column not in COLUMNS:
                raise FileError(f"{toml}: {where}: expected the columns {', '.join(COLUMNS)}, got {column!r}")
            _read(column, _as_text(value), f"{toml}: {where}")
    known = {**_shipped_models(), **{each: _model(each, header.models[each], toml) for each in header.models}}
    rows: list[Row] = []
    for line, texts in cells:
        if len(texts) != len(columns):
            raise FileError(f"{path}, line {line}: expected {len(columns)} cells as line 1 names, got {len(texts)}")
        rows.append(_row(dict(zip(columns, texts, strict=True)), header, known, path, line))
    _refuse_twice(rows, path)
    for row in rows:
        if row.ratio_of and not any(row.ratio_of == other.id for other in rows):
            raise FileError(f"{path}, line {row.line}, column ratio_of: expected the id of a row, got {row.ratio_of!r}")
    return Table(
        name=name,
        title=header.title or name,
        source=header.source,
        revision=header.revision,
        stack=header.stack,
        attention=header.attention,
        convention=header.convention,
        engine=header.engine,
        truncated=header.truncated,
        tolerance=header.tolerance,
        repeats_kv=header.repeats_kv,
        partial_batches=header.partial_batches,
        devices=header.devices or {row.device: TableDevice() for row in rows if row.device},
        rows=tuple(rows),
    )


def _refuse_twice(rows: Sequence[Row], path: str) -> None:
    """An id names one case, and with a device one row."""
    first: dict[tuple[str, str | None], int] = {}
    cases: dict[str, Case | None] = {}
    for row in rows:
        if cases.setdefault(row.id, row.case) != row.case:
            raise FileError(
                f"{path}, line {row.line}, column gpus: expected an id of its own, got {row.id} again with other GPUs: "
                "name_gpus true names them in it"
            )
        key = (row.id, row.device)
        if first.setdefault(key, row.line) != row.line:
            raise FileError(
                f"{path}, line {row.line}: expected one row of {row.id} on {row.device or 'a device not stated'}, got "
                f"a second one: line {first[key]} is the first; tell them apart by a column, or by `tags`"
            )


def _shipped_models() -> dict[str, Model]:
    """Those of cases/models.py, by name."""
    return {each.name: each for each in vars(models).values() if isinstance(each, Model)}


def _model(name: str, given: TableModel, toml: str) -> Model:
    try:
        made = Model(name=name, title=given.title, shape=given.shape)
    except ValueError as error:
        raise FileError(f"{toml}: models.{name}: {error}") from None
    counted = counted_parameters(made.decoder)
    if given.printed_parameters and counted and not _same_count(counted, given.printed_parameters):
        raise FileError(
            f"{toml}: models.{name}.printed_parameters: expected {counted:,} as follows from its numbers, got "
            f"{given.printed_parameters:,.0f}"
        )
    return made


def _same_count(counted: int, printed: float) -> bool:
    """Whether a count is the printed one, whose zeros at the end are no digits: 46.7e9 is any of 46.65e9 to 46.75e9."""
    digits = f"{printed:.0f}"
    return abs(counted - printed) <= 10.0 ** (len(digits) - len(digits.rstrip("0"))) / 2


def _as_text(value: Any) -> str:
    """A value of the header as a cell."""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _read(column: str, text: str, where: str) -> Any:
    try:
        return COLUMNS[column](text)
    except ValueError as error:
        raise FileError(f"{where}, column {column}: expected {error}, got {text!r}") from None


def _row(cells: Mapping[str, str], header: Header, known: Mapping[str, Model], path: str, line: int) -> Row:
    """The row of one line. An empty cell says nothing."""
    where = f"{path}, line {line}"
    section = cells.get("section", "") or _as_text(header.defaults.get("section", ""))
    if header.sections and section not in header.sections:
        raise FileError(f"{where}, column section: expected one of {', '.join(header.sections)}, got {section!r}")
    texts = {
        **{column: _as_text(value) for column, value in header.defaults.items()},
        **{column: _as_text(value) for column, value in header.sections.get(section, {}).items()},
        **{column: text.strip() for column, text in cells.items() if text.strip()},
    }
    # "-" in a cell takes back what the header says for all.
    said = {column: _read(column, text, where) for column, text in texts.items() if text != "-"}
    for column in ("model", "length", "tgs"):
        if column not in said:
            raise FileError(f"{where}, column {column}: expected a value, got an empty cell")
    if (model := known.get(said["model"])) is None:
        raise FileError(f"{where}, column model: expected one of {', '.join(sorted(known))}, got {said['model']!r}")
    device = said.get("device")
    if header.devices and device is not None and device not in header.devices:
        raise FileError(f"{where}, column device: expected one of {', '.join(header.devices)}, got {device!r}")
    case = _case(said, model, where)
    printed = {column.removeprefix("printed_"): value for column, value in said.items() if _is_number(column)}
    if counted := _printed_wrongly(said, model, case):
        raise FileError(
            f"{where}, column printed_parameters: expected {counted:,} as follows from the numbers of {model.name}, "
            f"got {said['printed_parameters']:,}"
        )
    return Row(
        id=case.id if case else "-".join([model.name, said["length"], *_tags(said)]),
        model=model,
        case=case,
        device=device,
        tgs=said["tgs"],
        why_no_tgs="" if said["tgs"] is not None else OUT_OF_MEMORY,
        lacks=_lacks(said, model),
        printed=printed,
        decimals={
            name: len(texts[column].partition(".")[2])
            for column in said
            if (name := column.removeprefix("printed_")) in {*printed, "tgs"}
        },
        matmul_dtype=said.get("matmul_dtype", "bf16"),
        ratio_of=said.get("ratio_of", ""),
        line=line,
        source=":".join(str(said[column]) for column in ("source", "source_line") if column in said) or where,
        section=section,
        note=said.get("note", ""),
        doubt=said.get("doubt", ""),
    )


def _is_number(column: str) -> bool:
    return column.startswith("printed_") or column in NUMBERS


def _printed_wrongly(said: Mapping[str, Any], model: Model, case: Case | None) -> int | None:
    """What the parameters printed in a row must be, where they are not."""
    counted = counted_parameters(model.decoder, case.sequence if case else 0)
    if "printed_parameters" not in said or counted is None or _same_count(counted, said["printed_parameters"]):
        return None
    return counted


def _case(said: Mapping[str, Any], model: Model, where: str) -> Case | None:
    """The row's case; None where it does not say its GPUs."""
    if "gpus" not in said:
        return None
    try:
        return Case(
            model=model,
            length=said["length"],
            sp=said.get("sp", 1),
            gpus=said["gpus"],
            name_gpus=said.get("name_gpus", True),
            tags=_tags(said),
            **{column: said[column] for column in OF_CASE if column in said},
        )
    except ValueError as error:
        column = "gpus" if "multiple of sp" in str(error) else "model"
        raise FileError(f"{where}, column {column}: {error}") from None


def _tags(said: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row has that no field of a case says, as words of its id; then its own tags."""
    dtype = said.get("matmul_dtype", "bf16")
    return (
        *((dtype,) if dtype != "bf16" else ()),
        *(f"{size}{said[size]}" for size in SIZES if said.get(size, 1) > 1),
        *(("asynctp",) if said.get("async_tp") else ()),
        *((re.sub(r"[^a-z0-9]+", "-", said["schedule"].lower()),) if "schedule" in said else ()),
        *(("varlen",) if said.get("attention") == "varlen" else ()),
        *said.get("tags", ()),
    )


def _lacks(said: Mapping[str, Any], model: Model) -> tuple[str, ...]:
    """Why the native trainer cannot run the row, a word each; the same words for rows that lack the same."""
    dtype = said.get("matmul_dtype", "bf16")
    return (
        *(() if "gpus" in said else ("GPUs not stated",)),
        *(_lacking(model.decoder)),
        *((dtype.partition("-")[0],) if dtype != "bf16" else ()),
        *(f"{size}={said[size]}" for size in SIZES if said.get(size, 1) > 1),
        *(("async TP",) if said.get("async_tp") else ()),
        *(("varlen",) if said.get("attention") == "varlen" else ()),
    )


def _lacking(shape: Shape) -> tuple[str, ...]:
    if cannot(shape) is None:
        return ()
    if shape.architecture in TRAINED:
        return tuple(what for name, what in LACKING.items() if shape.config.get(name))
    return (shape.architecture,)
