"""Reading and writing of the suite's JSON files: strict on the way in, whole on the way out."""

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from trainpace.errors import FileError
from trainpace.records import Record

R = TypeVar("R", bound=Record)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` through a temporary file beside it, synced and renamed: whole or not at all.

    Raises:
        FileError: naming the file, and why the system does not take it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):  # where nothing can be written nothing can be removed, and nothing was made
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Let a disk that is full, cannot be written or is gone end in a FileError that names `path`."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file, refusing what JSON readers let through: NaN, infinities, duplicate keys.

    Raises:
        FileError: naming the file and the line or key.
    """

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise FileError(f"{path}: key {key!r} stands there twice")
            found[key] = value
        return found

    def no_constant(name: str) -> NoReturn:
        raise FileError(f"{path}: expected finite numbers, got {name}")

    try:
        text = path.read_bytes().decode("utf-8")
        return json.loads(text, object_pairs_hook=no_duplicates, parse_constant=no_constant)
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 (byte {error.start}: {error.reason})") from None
    except json.JSONDecodeError as error:
        raise FileError(f"{path}, line {error.lineno}: not JSON, or cut off: {error.msg}") from None
    except RecursionError:
        raise FileError(f"{path}: nested too deeply") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        # Python's own limit on the digits of an integer.
        raise FileError(f"{path}: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        FileError: naming the file, and the line where the parser says one.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise FileError(f"{path}: nested too deeply") from None
    except ValueError as error:  # not TOML, or not UTF-8, or an integer with more digits than Python reads
        raise FileError(f"{path}: not TOML: {error}") from None


def read_record(path: Path, record: type[R]) -> R:
    """Read a file that holds one record.

    Raises:
        FileError: naming the file, the field, what was expected and what came.
    """
    # A run of a thousand ranks is 70 MB. Pydantic reads that in a third of the time, and without a word on keys that
    # stand there twice: what it refuses, or might have passed over, is read again by the one that names it.
    with suppress(OSError, ValueError):
        content = path.read_bytes()
        found = record.model_validate_json(content)
        if content.count(b'":') == _num_keys(found):
            return found
    return check_record(read_json(path), record, where=str(path))


def _num_keys(value: Any) -> int:
    """Keys of all objects in the JSON that `value` was made of."""
    if isinstance(value, Record):
        return len(value.model_fields_set) + sum(_num_keys(getattr(value, name)) for name in value.model_fields_set)
    if isinstance(value, dict):
        return len(value) + sum(map(_num_keys, value.values()))
    # Of numbers there may be millions, and no list mixes them with objects.
    if isinstance(value, list | tuple) and value and isinstance(value[0], Record | dict | list | tuple):
        return sum(map(_num_keys, value))
    return 0


def check_record(value: Any, record: type[R], *, where: str, strict: bool = False) -> R:
    """Make a record of parsed JSON; `where` opens the message of the FileError raised where it is none.

    `strict` also refuses what pydantic would convert, `true` or `"1"` for a number: for files that people edit.
    """
    try:
        # Strict rules for JSON differ from those for Python's objects (a list is a tuple there): hence the detour.
        return record.model_validate_json(json.dumps(value), strict=True) if strict else record.model_validate(value)
    except ValidationError as error:
        raise FileError("\n".join(f"{where}: {_said(problem)}" for problem in error.errors()[:5])) from None
    except RecursionError:
        raise FileError(f"{where}: nested too deeply") from None


def _said(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "the record"
    value = repr(problem["input"])
    return f"{field}: {problem['msg']}, got {value if len(value) <= 80 else value[:77] + '...'}"
