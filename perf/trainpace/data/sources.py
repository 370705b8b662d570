"""Sources of records: a local file or a data set on the hub, its kind told by its first record, bad records refused.

A file is of one kind. With `skip_bad` records that cannot be used are left out and counted.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from trainpace.data.cache import content_key, file_hash
from trainpace.data.kinds import CHINESE, ENGLISH, Dialogue, Kind, dialogue, kind_of
from trainpace.data.record_files import READERS, Item
from trainpace.data.tokenizer import first_line, is_hub_name
from trainpace.errors import DataError, what_to_install
from trainpace.text import count

ENDINGS = ".json, .jsonl or .parquet"
REASONS = 3
"""Skipped records that are named with their reasons."""
_HINT = "; --perf-skip-bad-records leaves out such records"


@dataclass(kw_only=True)
class Seen:
    """What was found in a source, complete when its last record was read."""

    kind: str = ""
    records: int = 0
    """Those that are used."""
    skipped: int = 0
    """Those left out: with `skip_bad`, and of a set on the hub those without an answer."""
    unanswered: int = 0
    """Those of a set on the hub without an answer, a part of `skipped`: they are left out in any case."""
    reasons: list[str] = field(default_factory=list)
    """`record 17: key 'output': ...` of the first that were skipped."""

    def skip(self, number: int, reason: object) -> None:
        """Count a record that is left out."""
        self.skipped += 1
        if len(self.reasons) < REASONS:
            self.reasons.append(f"record {number}: {reason}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of records."""

    name: str
    """As a run's record gives it; of a local file its name and the content's hash, no path."""
    key: str
    """Over the content: two sources with one key hold the same records."""
    dialogues: Callable[[Seen], Iterator[tuple[float, Dialogue]]]
    """Reads the records anew, each with the fraction of the source that is behind it; tells `Seen` what it found."""

    def name_of(self, seen: Seen) -> str:
        """The name, with the number of records that were skipped on request: without them it is other data."""
        asked_for = seen.skipped - seen.unanswered
        return f"{self.name} less {count(asked_for, 'record')}" if asked_for else self.name

    def whole_name(self) -> str:
        """`name_of` what is found by reading all records."""
        seen = Seen()
        for _ in self.dialogues(seen):
            pass
        return self.name_of(seen)


def source(name: str, *, skip_bad: bool = False) -> Source:
    """The records of a local .json (array of objects), .jsonl or .parquet file, or of a set on the hub (train split).

    Raises:
        DataError: where there is none. Records are checked as they are read.
    """
    path = Path(name)
    if not path.exists() and is_hub_name(name):
        return _hub(name, skip_bad=skip_bad)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{name}: expected a {ENDINGS} file or a name on the hub, got {got}")
    if path.suffix not in READERS:
        raise DataError(f"{name}: expected a file that ends in {ENDINGS}, got {path.suffix or 'no ending'!r}")
    try:
        content = file_hash(path)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    return Source(
        name=f"{path.name}@{content[:8]}",
        key=content_key(path.suffix, content, *(["skip"] if skip_bad else [])),
        dialogues=lambda seen: _usable(READERS[path.suffix](path), str(path), seen, skip_bad=skip_bad),
    )


def _usable(items: Iterable[Item], name: str, seen: Seen, *, skip_bad: bool) -> Iterator[tuple[float, Dialogue]]:
    """The records that can be used; one that cannot is refused, with `skip_bad` counted.

    Raises:
        DataError: naming the record; or where more records are bad than good, which is another file than was meant.
    """
    kind: Kind | None = None
    for item in items:
        try:
            if isinstance(item.record, DataError):
                raise item.record
            kind = kind or kind_of(item.record)
            made = dialogue(item.record, kind)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{name}, {item.where()}: {error}{_HINT}") from None
            seen.skip(item.number, error)
            continue
        seen.kind, seen.records = kind.name, seen.records + 1
        yield item.fraction, made
    if (bad := seen.skipped - seen.unanswered) > seen.records:
        raise DataError(
            f"{name}: expected no more than half of the records to be skipped, got {bad:,} of {bad + seen.records:,}: "
            f"{'; '.join(seen.reasons)}"
        )


def _hub(name: str, *, skip_bad: bool = False) -> Source:
    try:
        from datasets import load_dataset  # type: ignore[import-untyped]
        from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise DataError(f"{name}: {what_to_install(str(error)) or error}") from None

    try:
        rows = load_dataset(name, split="train")
    except (DatasetsError, OSError, ValueError) as error:
        raise DataError(f"{name}: neither a file here nor a data set on the hub: {first_line(error)}") from None
    # Follows from the data set's revision and configuration; the library offers it under no public name.
    fingerprint: str = rows._fingerprint  # noqa: SLF001
    return Source(
        name=f"{name}@{fingerprint[:8]}",
        key=content_key("hub", name, fingerprint, *(["skip"] if skip_bad else [])),
        dialogues=lambda seen: _usable(_rows(rows, len(rows), seen), name, seen, skip_bad=skip_bad),
    )


def _rows(rows: Iterable[dict[str, Any]], total: int, seen: Seen) -> Iterator[Item]:
    """Rows of a published set. What nobody here can mend is passed over and counted in any case.

    The English Alpaca set holds a few records with an empty output. A set may lack the column of inputs.
    """
    for number, row in enumerate(rows, start=1):
        keys = CHINESE if CHINESE[0] in row else ENGLISH
        record = row
        if keys[0] in row:
            _, extra, answer = keys
            if answer in row and (row[answer] is None or not str(row[answer]).strip()):
                seen.unanswered += 1
                seen.skip(number, f"key {answer!r}: expected text, got an empty one")
                continue
            record = {extra: "", **row}
        yield Item(number / total, number, partial("record {}".format, number), record)
