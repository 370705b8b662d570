"""Alpaca records: read from a local .json or .jsonl file or the hub, checked, and set in the published prompt.

A record that is not Alpaca is refused with its file, line and key: training on half a file measures another workload.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from trainpace.data.base import Progress
from trainpace.data.cache import content_key, file_hash
from trainpace.data.tokenizer import first_line, is_hub_name
from trainpace.errors import DataError, what_to_install

ENGLISH = ("instruction", "input", "output")
CHINESE = ("instruction_zh", "input_zh", "output_zh")
"""The keys of the two published sets; a record that has both is read in Chinese, as published."""

RECORD_BYTES = 16 << 20
"""A record above this is refused: four million tokens, say. Tokenizing takes some twenty times its size of memory."""
_MISSING = object()
_SPACE = re.compile(r"[ \t\n\r]*")


class Dialogue(NamedTuple):
    """One record as the model sees it: the prompt, which is not judged, and the answer, which is."""

    prompt: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of records."""

    name: str
    """As a run's record gives it; of a local file its name and the content's hash, no path."""
    key: str
    """Over the content: two sources with one key hold the same records."""
    dialogues: Callable[[Progress], Iterator[tuple[float, Dialogue]]]
    """Reads the records anew: each with the fraction of the source that is behind it."""


def source(name: str) -> Source:
    """The records of a local .json (array of objects) or .jsonl file, or of a data set on the hub (its train split).

    Raises:
        DataError: where there is none. Records are checked as they are read.
    """
    path = Path(name)
    if not path.exists() and is_hub_name(name):
        return _hub(name)
    if not path.is_file():
        came = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{name}: expected a .json or .jsonl file or a name on the hub, got {came}")
    if path.suffix not in {".json", ".jsonl"}:
        raise DataError(f"{name}: expected a file that ends in .json or .jsonl, got {path.suffix or 'no ending'!r}")
    read = _array if path.suffix == ".json" else _lines
    try:
        content = file_hash(path)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    return Source(
        name=f"{path.name}@{content[:8]}",
        key=content_key(path.suffix, content),
        dialogues=lambda _progress: read(path),
    )


def dialogue(record: object) -> Dialogue:
    """Check one record and set it in the llama2-chat template, which the published rows use for every model.

    Raises:
        DataError: naming the key, what was expected and what came, but not the place, which only a reader knows.
    """
    if not isinstance(record, dict):
        raise DataError(f"expected an object with {', '.join(ENGLISH)}, got {_came(record)}")
    keys = CHINESE if CHINESE[0] in record else ENGLISH
    instruction, extra, answer = (_text(record, key, may_be_empty=key == keys[1]) for key in keys)
    user = f"{instruction}\n{extra}" if extra else instruction
    return Dialogue(f"[INST] {user} [/INST]", answer)


def _text(record: dict[str, Any], key: str, *, may_be_empty: bool) -> str:
    value = record.get(key, _MISSING)
    if value is _MISSING:
        raise DataError(
            f"key {key!r}: expected text, got no such key (there are {', '.join(map(repr, record)) or 'none'})"
        )
    if not isinstance(value, str):
        raise DataError(f"key {key!r}: expected text, got {_came(value)}")
    if not may_be_empty and (not value or value.isspace()):
        raise DataError(f"key {key!r}: expected text, got {'only spaces' if value else 'an empty one'}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which is no character.
        raise DataError(f"key {key!r}: expected text, got a lone surrogate at character {error.start}") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of a key that is there twice the last would win, without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, times),) = Counter(key for key, _ in pairs).most_common(1)
        raise DataError(f"key {twice[:40]!r}: expected it once, got it {times} times")
    return found


def _check_size(size: int) -> None:
    if size > RECORD_BYTES:
        raise DataError(f"expected a record of at most {RECORD_BYTES >> 20} MiB, got a longer one: split it")


def _came(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"


def _lines(path: Path) -> Iterator[tuple[float, Dialogue]]:
    size, read, found = max(path.stat().st_size, 1), 0, False
    with path.open("rb") as file:
        # No more of a line than a record may have, and what shows that it is longer.
        for number, line in enumerate(iter(lambda: file.readline(RECORD_BYTES + (1 << 20)), b""), start=1):
            read += len(line)
            if line.isspace():
                continue
            found = True
            try:
                _check_size(len(line))
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield read / size, dialogue(json.loads(text, object_pairs_hook=_object))
            except (DataError, ValueError, RecursionError) as error:
                _refuse(error, f"{path}, line {number}")
    if not found:
        raise DataError(f"{path}: expected one record a line, got an empty file")


def _array(path: Path) -> Iterator[tuple[float, Dialogue]]:
    """Decode one record after the other: the text is in memory, the records never all at once."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        _refuse(error, f"{path}, line {number}")
    del data

    def line(position: int) -> str:
        number = text.count("\n", 0, position) + 1
        return f"{path}, line {number}"

    def skip(position: int) -> int:
        space = _SPACE.match(text, position)
        assert space
        return space.end()

    decode = json.JSONDecoder(object_pairs_hook=_object).raw_decode
    at = skip(0)
    if at == len(text):
        raise DataError(f"{path}: expected an array of records, got an empty file")
    if text[at] != "[":
        hint = " (one record a line belongs into a .jsonl file)" if text[at] == "{" else ""
        raise DataError(f"{line(at)}: expected an array of records, got {text[at]!r}{hint}")
    at = skip(at + 1)
    if text.startswith("]", at):
        raise DataError(f"{path}: expected an array of records, got an empty one")
    while True:
        start = at
        try:
            record, at = decode(text, start)
        except (DataError, ValueError, RecursionError) as error:
            _refuse(error, line(getattr(error, "pos", start)))
        try:
            _check_size(at - start)
            yield at / len(text), dialogue(record)
        except DataError as error:
            _refuse(error, line(start))
        at = skip(at)
        if text.startswith("]", at):
            break
        if not text.startswith(",", at):
            raise DataError(f"{line(at)}: not JSON, or cut off: expected ',' or ']', got {text[at : at + 1]!r}")
        at = skip(at + 1)
    at = skip(at + 1)
    if at < len(text):
        raise DataError(f"{line(at)}: expected the file's end after the array, got {text[at]!r}")


def _refuse(error: Exception, where: str) -> NoReturn:
    """Raise `error` as a DataError that opens with its place."""
    if isinstance(error, DataError):
        raise DataError(f"{where}: {error}") from None
    if isinstance(error, UnicodeDecodeError):
        raise DataError(f"{where}: not UTF-8 (byte {error.object[error.start]:#04x}: {error.reason})") from None
    if isinstance(error, RecursionError):
        raise DataError(f"{where}: nested too deeply") from None
    raise DataError(f"{where}: not JSON, or cut off: {getattr(error, 'msg', error)}") from None


def _hub(name: str) -> Source:
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
        key=content_key("hub", name, fingerprint),
        dialogues=lambda progress: _rows(rows, len(rows), name, progress),
    )


def _rows(
    rows: Iterable[dict[str, Any]], count: int, name: str, progress: Progress
) -> Iterator[tuple[float, Dialogue]]:
    """Records of a published set: what nobody here can mend is passed over and counted, the rest refused as in a file.

    The English set holds a few records with an empty output. Columns make a missing input a null.
    """
    skipped = 0
    for number, row in enumerate(rows):
        _, extra, answer = CHINESE if CHINESE[0] in row else ENGLISH
        if answer in row and not (row[answer] or "").strip():
            skipped += 1
            continue
        try:
            yield (number + 1) / count, dialogue(row | {extra: row.get(extra) or ""})
        except DataError as error:
            _refuse(error, f"{name}, record {number}")
    if skipped:
        progress(1.0, f"{name}: left out {skipped} records with an empty output")
