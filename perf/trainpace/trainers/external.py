"""Other training systems, each described in a TOML file: its command, its files, and how its log is read.

An external system has a clock of its own. What it claims is read from its most exact source, brought to this suite's
definition of a step, and checked against the wall clock (launch/external.py).
"""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from trainpace.cases.workload import Workload
from trainpace.errors import FileError
from trainpace.records import Record
from trainpace.store.files import check_record

BUILT_IN = Path(__file__).parent / "systems"
"""The descriptions that the suite brings along, one file a system."""

EXPORTED = ("model", "tokens", "parquet", "parquet_folder")
"""Placeholders of what is written for other systems; a description without them takes a model and tokens of its own."""
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Number(Record):
    """One number of a step, as the program gives it."""

    key: str
    """In a JSON record; of a regular expression, the name of the group."""
    cumulative: bool = False
    """Whether it counts from the beginning of training."""
    summed: bool = False
    """Whether it is a sum over the ranks."""
    rate: bool = False
    """Of seconds, whether it is tokens a second: of the step's own tokens, or the workload's where none are logged."""


class Reading(Record):
    """Where a program says what it did, and how that is read."""

    format: Literal["json", "jsonl", "regex"]
    """A JSON file, a file of JSON lines, or text in which each match of `pattern` is a record."""
    path: str
    """The file, with placeholders; `*` stands for what is not known before: the newest match is read."""
    records: str | None = None
    """Of a JSON file: the key of the list of records."""
    pattern: str | None = None
    """Of text: a regular expression with a named group for each number."""
    record: Literal["optimizer_step", "micro_step"] = "optimizer_step"
    """What a record, and a match of `progress`, is of."""
    seconds: Number
    tokens: Number | None = None
    """Tokens that were trained: they must be the workload's."""
    loss: Number | None = None
    step: Number | None = None
    """The record's own number: each must be the one before and one. Without it a step that is logged twice in the place
    of another is not seen."""

    @property
    def numbers(self) -> tuple[Number, ...]:
        """What every record of a step has."""
        return tuple(filter(None, (self.seconds, self.tokens, self.loss, self.step)))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = {"json": "records", "regex": "pattern"}.get(self.format)
        if wanted and getattr(self, wanted) is None:
            raise ValueError(f"a reading of format {self.format} needs `{wanted}`")
        if rates := [number.key for number in self.numbers if number.rate and number is not self.seconds]:
            raise ValueError(f"`rate` says that seconds are given as tokens a second, got it of {', '.join(rates)}")
        if self.seconds.rate and self.seconds.cumulative:
            raise ValueError("seconds cannot be a `rate` and `cumulative`")
        if self.pattern is not None:
            groups = re.compile(self.pattern).groupindex
            named = [number.key for number in self.numbers]
            if missing := [name for name in named if name not in groups]:
                raise ValueError(f"pattern must have a named group for each number, {', '.join(missing)} missing")
        return self


class Trains(Record):
    """What a program trains whatever it is asked: its own model, and what else is said here. It need not be changed."""

    model: str | None = None
    """As cases name it; None: what a case without a shape says."""
    optimizer_steps: int | None = Field(default=None, ge=2)
    """Steps that it logs, the first ones being its warm-up; None: it takes $optimizer_steps."""
    sequence: PositiveInt | None = None
    """Tokens of one sequence; None: it takes $sequence."""
    ranks: PositiveInt | None = None
    """Processes that train; None: it takes $ranks."""


Limit = Literal["sequence_parallel", "varlen", "cpu", "fp32"]


class Description(Record):
    """One training system."""

    name: str
    folder: Path
    """That the description lies in."""
    title: str
    """For tables and charts."""
    module: str
    """The Python module without which it is not installed."""
    software: tuple[str, ...] = ()
    """Distributions whose versions decide its speed, besides those that decide ours."""
    install: str
    """The command that sets it up."""
    command: tuple[str, ...] = Field(min_length=1)
    """With placeholders (`$ranks`), see `placeholders`."""
    environment: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    """Written into the work folder before: name -> text with placeholders."""
    progress: str
    """A regular expression that matches once in its output for each record."""
    reading: Reading
    trains: Trains | None = None
    """What it does not let itself be told; None: it trains what it is given."""
    cannot: dict[Limit, str] = Field(default_factory=dict)
    """What it cannot do, and why: such a case is skipped, and never trained differently."""
    footnotes: tuple[str, ...] = ()
    """What differs from the native trainer all the same."""

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        re.compile(self.progress)
        return self


def names() -> list[str]:
    """Systems that the suite brings along."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def is_external(trainer: str) -> bool:
    """Whether a trainer's name is that of an external system: one of ours, or a TOML file."""
    return trainer.endswith(".toml") or trainer in names()


def _path(trainer: str) -> Path:
    return Path(trainer) if trainer.endswith(".toml") else BUILT_IN / f"{trainer}.toml"


def load(trainer: str) -> Description:
    """Read the description of `trainer`: the name of one of ours, or the path of a TOML file.

    Raises:
        FileError: naming the file, the field and what was expected.
    """
    path = _path(trainer)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path}: no such description; those that come along: {', '.join(names())}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: expected a description in TOML: {error}") from None
    try:
        return check_record(
            {**content, "name": path.stem, "folder": path.resolve().parent}, Description, where=str(path)
        )
    except re.error as error:
        raise FileError(f"{path}: {error.pattern!r} is no regular expression: {error}") from None


def cannot(description: Description, workload: Workload, *, device: str) -> str | None:
    """Why the system cannot train `workload` on a `device` (cpu or cuda) as it is; None where it can."""
    wanted: dict[Limit, bool] = {
        "sequence_parallel": workload.sp > 1,
        "varlen": workload.attention == "varlen",
        "cpu": device == "cpu",
        "fp32": workload.dtype == "fp32",
    }
    reasons = []
    if workload.shape is None and uses(description, *EXPORTED):
        reasons.append(
            "it is given a model of the case's shape, and the case does not say one: measure it with the trainer that "
            "has the model"
        )
    if description.trains and (why := _trains_another(description.trains, workload)):
        reasons.append(f"it trains {why}: give it a case of its own, Case.of")
    reasons += [description.cannot[limit] for limit, needed in wanted.items() if needed and limit in description.cannot]
    # A tag says nothing of what is computed. Of a program that is told nothing the case says what it does.
    told = [] if description.trains else workload.beyond_published
    if beyond := [field for field in told if not field.startswith("tags=")]:
        reasons.append(f"descriptions have no placeholder for {', '.join(beyond)}")
    return "; ".join(reasons) or None


def _trains_another(own: Trains, workload: Workload) -> str | None:
    """What a program with a model of its own trains, where that is not the workload's."""
    if own.model is not None and own.model != workload.model:
        return f"{own.model}, and the case is of {workload.model}"
    if workload.shape is not None and own.model is None:
        return "a model of its own, and the case has a shape"
    if workload.shape is not None and workload.scale != "full":
        return f"a model of its own, and the scale {workload.scale} is a cut of the case's"
    return None


def digest(trainer: str) -> str:
    """Eight hex digits over what a description starts and trains; where it lies and how its log is read are no part."""
    content = tomllib.loads(_path(trainer).read_text("utf-8"))
    decides = {name: content.get(name) for name in ("command", "environment", "files", "trains")}
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:8]


def has_own_steps(trainer: str) -> bool:
    """Whether a program decides how many steps it makes."""
    trains = load(trainer).trains if is_external(trainer) else None
    return trains is not None and trains.optimizer_steps is not None


def as_trained(description: Description, workload: Workload) -> Workload:
    """`workload` with the steps, the length and the ranks that the program has of its own.

    Of steps of its own at most half are warm-up: what the workload has, where it has fewer.
    """
    own = description.trains
    if own is None:
        return workload
    changed: dict[str, int] = {}
    if own.optimizer_steps:
        micro_steps = own.optimizer_steps * workload.accumulation
        warmup = min(workload.warmup, micro_steps // 2)
        changed |= {"warmup": warmup, "steps": micro_steps - warmup}
    changed |= {name: value for name in ("sequence", "ranks") if (value := getattr(own, name)) is not None}
    return Workload(**{**dict(workload), **changed})


def uses(description: Description, *placeholders: str) -> bool:
    """Whether one of `placeholders` stands anywhere in the description's texts."""
    texts = (*description.command, *description.environment.values(), *description.files.values())
    return any(name in placeholders for text in texts for name in Template(text).get_identifiers())


class Typed(NamedTuple):
    """A command as a person can type it."""

    command: str
    files: Mapping[str, str] = {}
    """Texts of the files that it names, by their paths below the report's folder."""


def filled(text: str, values: Mapping[str, str], *, where: str) -> str:
    """`text` with its placeholders filled in; `$$` is a dollar.

    Raises:
        FileError: for a placeholder that is none, naming those that are.
    """
    try:
        return Template(text).substitute(values)
    except KeyError as error:
        known = ", ".join(f"${name}" for name in sorted(values))
        raise FileError(f"{where}: no placeholder ${error.args[0]}; there are {known}") from None
    except ValueError as error:
        raise FileError(f"{where}: {error}; a dollar is written $$") from None


@dataclass(frozen=True, kw_only=True)
class ReportedSteps:
    """What a program says of its steps: one entry an optimizer step, oldest first."""

    seconds: tuple[float, ...]
    tokens: tuple[float, ...] | None
    """Trained by one rank in the step; None where it does not say."""
    losses: tuple[float, ...] | None

    def grouped(self, accumulation: int) -> Self:
        """The claims of micro-steps as those of optimizer steps, each of `accumulation`; one that is not whole is left.

        Seconds and tokens are summed, losses averaged.
        """

        def sums(values: tuple[float, ...] | None, share: int = 1) -> tuple[float, ...] | None:
            if values is None:
                return None
            ends = range(accumulation, len(values) + 1, accumulation)
            return tuple(sum(values[end - accumulation : end]) / share for end in ends)

        return replace(
            self, seconds=sums(self.seconds) or (), tokens=sums(self.tokens), losses=sums(self.losses, accumulation)
        )


def read_claims(reading: Reading, path: Path, *, ranks: int, tokens: int | None = None) -> ReportedSteps:
    """Read what the program wrote to `path`; `tokens` are those that one rank should train in a record's step.

    A record that lacks one of the numbers (a summary at the end, an evaluation) is no step. Colours are taken out of
    text, and lines that are torn or mixed with others' are left out: their steps are then missing, which the caller
    sees.

    Raises:
        FileError: for a file that is not there, holds no step, or says what cannot be.
    """
    keys = {number.key for number in reading.numbers}
    found = [record for record in _records(reading, path) if keys <= record.keys()]
    if not found:
        raise FileError(f"{path}: expected a record a step with {', '.join(sorted(keys))}, got none")
    if reading.step:
        steps = _column(found, reading.step, path, 1, positive=False)
        for index, (before, after) in enumerate(pairwise(steps), start=1):
            if after != before + 1:
                raise FileError(
                    f"{path}: record {index}: expected {reading.step.key} {before + 1:g} after {before:g}, got "
                    f"{after:g}: a step was repeated or skipped"
                )
    seconds = _column(found, reading.seconds, path, ranks, positive=True)
    logged = _column(found, reading.tokens, path, ranks, positive=True) if reading.tokens else None
    if reading.seconds.rate:
        trained = logged or [tokens or math.nan] * len(seconds)
        seconds = tuple(each / rate for each, rate in zip(trained, seconds, strict=True))
    return ReportedSteps(
        seconds=seconds,
        tokens=logged,
        losses=_column(found, reading.loss, path, 1, positive=False) if reading.loss else None,
    )


def newest(pattern: str) -> Path:
    """The newest file that a path with `*` stands for.

    Raises:
        FileError: where there is none.
    """
    path = Path(pattern)
    if "*" not in pattern:
        return path
    parts = path.parts
    first = next(index for index, part in enumerate(parts) if "*" in part)
    found = list(Path(*parts[:first]).glob(str(Path(*parts[first:]))))
    if not found:
        raise FileError(f"{pattern}: no such file")
    return max(found, key=lambda each: each.stat().st_mtime_ns)


def _records(reading: Reading, path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    if reading.format == "json":
        yield from _of_json(text, reading, path)
    elif reading.format == "jsonl":
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record
    else:
        assert reading.pattern is not None
        for match in re.finditer(reading.pattern, _COLOURS.sub("", text)):
            yield {name: value for name, value in match.groupdict().items() if value is not None}


def _of_json(text: str, reading: Reading, path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: expected JSON, whole: {error}") from None
    records = content.get(reading.records) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise FileError(f"{path}: expected a list under {reading.records!r}, got {type(records).__name__}")
    return [record for record in records if isinstance(record, dict)]


def _column(
    records: Sequence[Mapping[str, Any]], number: Number, path: Path, ranks: int, *, positive: bool
) -> tuple[float, ...]:
    """One number of every step, for one rank."""
    values: list[float] = []
    for index, record in enumerate(records):
        said = record.get(number.key)
        try:
            value = math.nan if said is None or isinstance(said, bool) else float(_without_thousands(said))
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise FileError(f"{path}: step {index}: expected a number as {number.key}, got {said!r:.60}")
        values.append(value)
    if number.cumulative:
        values = [value - before for before, value in zip([0.0, *values], values, strict=False)]
    if number.summed:
        values = [value / ranks for value in values]
    for index, value in enumerate(values):
        if positive and value <= 0:
            raise FileError(f"{path}: step {index}: expected {number.key} above 0, got {value:g}")
    return tuple(values)


def _without_thousands(said: Any) -> Any:
    """`1,234.5` as 1234.5; any other comma stays, and is no number."""
    return said.replace(",", "") if isinstance(said, str) and _THOUSANDS.fullmatch(said) else said
