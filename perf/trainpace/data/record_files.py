"""Records of a local file, one after the other, each with its number: a JSON array, JSON lines, Parquet.

A record that cannot be read while those after it can comes as the error that it is; the caller refuses it or skips it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trainpace.data.kinds import KINDS, RECORD_BYTES, too_long, unknown
from trainpace.data.tokenizer import first_line
from trainpace.errors import DataError, what_to_install

_SPACE = re.compile(r"[ \t\n\r]*")
_ESCAPED = re.compile("[\udc80-\udcff]")
"""How a byte that is not UTF-8 is held in a text."""
_ROWS = 1024
"""Rows of a Parquet file that are decoded at once."""


class Item(NamedTuple):
    """One record."""

    fraction: float
    """Of the file that is behind it, 0..1."""
    number: int
    """From 1."""
    where: Callable[[], str]
    """`record 3 (line 7)`: lines are counted only where somebody asks."""
    record: object
    """What it holds, or the DataError with which it was refused."""


def lines(path: Path) -> Iterator[Item]:
    """The records of a .jsonl file, one a line; blank lines are let be."""
    size, read, number = max(path.stat().st_size, 1), 0, 0
    with path.open("rb") as file:
        # No more of a line than a record may have, and what shows that it is longer.
        for place, line in enumerate(iter(lambda: file.readline(RECORD_BYTES + (1 << 20)), b""), start=1):
            read += len(line)
            if line.isspace():
                continue
            number += 1
            record: object
            if len(line) > RECORD_BYTES:
                record, rest = too_long(), line
                while rest and not rest.endswith(b"\n"):
                    rest = file.readline(1 << 20)
                    read += len(rest)
            else:
                record = _of_line(line, "utf-8-sig" if place == 1 else "utf-8")
            yield Item(read / size, number, lambda n=number, p=place: f"record {n} (line {p})", record)  # type: ignore[misc]
    if not number:
        raise DataError(f"{path}: expected one record a line, got an empty file")


def _of_line(line: bytes, encoding: str) -> object:
    twice: list[DataError] = []
    try:
        record = json.loads(line.decode(encoding), object_pairs_hook=_objects(twice))
    except (ValueError, RecursionError) as error:
        return _worded(error)
    return twice[0] if twice else record


def array(path: Path) -> Iterator[Item]:
    """The records of a .json file, which is one array of them.

    One record after the other is decoded: the text is in memory (up to five bytes for a byte of the file where it is
    read), the records never all at once.
    """
    # Bytes that are not UTF-8 are found again in their record.
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    escaped = _ESCAPED.search(text) is not None
    number = 0

    def place(position: int, number: int) -> str:
        line = text.count("\n", 0, position) + 1
        return f"record {number} (line {line})" if number else f"line {line}"

    def skip(position: int) -> int:
        space = _SPACE.match(text, position)
        assert space
        return space.end()

    def refused(position: int, expected: str, hint: str = "") -> DataError:
        got = text[position : position + 1]
        if _ESCAPED.match(got):
            return DataError(f"{path}, {place(position, number)}: {_not_utf8(got)}")
        return DataError(f"{path}, {place(position, number)}: {expected}, got {got!r}{hint}")

    twice: list[DataError] = []
    decode = json.JSONDecoder(object_pairs_hook=_objects(twice)).raw_decode
    at = skip(0)
    if at == len(text):
        raise DataError(f"{path}: expected an array of records, got an empty file")
    if text[at] != "[":
        hint = " (one record a line belongs into a .jsonl file)" if text[at] == "{" else ""
        raise refused(at, "expected an array of records", hint)
    at = skip(at + 1)
    if text.startswith("]", at):
        raise DataError(f"{path}: expected an array of records, got an empty one")
    while True:
        number += 1
        start = at
        record: object
        try:
            record, at = decode(text, start)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, {place(getattr(error, 'pos', start), number)}: {_worded(error)}") from None
        if twice:
            record = twice[0]
            twice.clear()
        if at - start > RECORD_BYTES:
            record = too_long()
        elif escaped and (found := _ESCAPED.search(text, start, at)):
            record = _not_utf8(found[0])
        yield Item(at / len(text), number, lambda p=start, n=number: place(p, n), record)  # type: ignore[misc]
        at = skip(at)
        if text.startswith("]", at):
            break
        if not text.startswith(",", at):
            raise refused(at, "not JSON, or cut off: expected ',' or ']' after it")
        at = skip(at + 1)
    number = 0
    at = skip(at + 1)
    if at < len(text):
        raise refused(at, "expected the file's end after the array")


def parquet(path: Path) -> Iterator[Item]:
    """The rows of a Parquet file; only the columns that some kind of record has are read."""
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: {what_to_install(str(error)) or error}") from None

    broken = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
    try:
        with ParquetFile(path) as file:
            names, count = file.schema_arrow.names, file.metadata.num_rows
            wanted = _columns(path, names)
            if not count:
                raise DataError(f"{path}: expected rows, got none")
            number = 0
            for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                for row in range(batch.num_rows):
                    number += 1
                    record: object
                    try:
                        record = {name: column[row].as_py() for name, column in columns.items()}
                    except broken as error:
                        record = DataError(f"cannot be decoded: {first_line(error)}")
                    yield Item(number / max(count, number), number, lambda n=number: f"record {n}", record)  # type: ignore[misc]
    except broken as error:
        raise DataError(f"{path}: not Parquet, or cut off: {first_line(error)}") from None


def _columns(path: Path, names: list[str]) -> list[str]:
    known = [key for kind in KINDS for key in kind.columns]
    wanted = [name for name in names if name in known]
    if not any(kind.fits(names) for kind in KINDS):
        raise DataError(f"{path}, columns: {unknown(names)}")
    for name, times in Counter(wanted).items():
        if times > 1:
            raise DataError(f"{path}, columns: {_twice(name, times)}")
    return wanted


def _objects(twice: list[DataError]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Makes JSON objects. Of a key that is there twice the last would win, without a word: `twice` takes the error."""

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            ((key, times),) = Counter(key for key, _ in pairs).most_common(1)
            twice.append(DataError(_twice(key, times)))
        return found

    return made


def _twice(key: str, times: int) -> str:
    return f"key {key[:40]!r}: expected it once, got it {times} times"


def _not_utf8(escaped: str) -> DataError:
    return DataError(f"not UTF-8 (byte {ord(escaped) - 0xDC00:#04x})")


def _worded(error: Exception) -> DataError:
    if isinstance(error, UnicodeDecodeError):
        return DataError(f"not UTF-8 (byte {error.object[error.start]:#04x})")
    if isinstance(error, RecursionError):
        return DataError("nested too deeply")
    return DataError(f"not JSON, or cut off: {getattr(error, 'msg', error)}")


READERS: dict[str, Callable[[Path], Iterator[Item]]] = {".json": array, ".jsonl": lines, ".parquet": parquet}
"""By the ending of a file's name."""
