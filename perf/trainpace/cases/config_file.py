"""Reads a model's config.json: the one file of the pure rooms that does, because no session has begun.

A user's test module calls it while pytest collects (`Model.from_config("config.json")`): there is nobody yet who could
hand a reader in.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

from trainpace.errors import FileError

LARGEST = 4 << 20
"""Bytes; the largest configs on the hub, which list something for every tensor, have a tenth of it."""


def read_config(path: str | Path) -> dict[str, Any]:
    """The object that stands in a JSON file.

    Raises:
        FileError: naming the file, what was expected and what came.
    """
    expected = f"{path}: expected the config.json of a transformers model"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        where = "" if Path(path).is_absolute() else ", a path from where pytest was started"
        raise FileError(f"{expected}{where}: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the path
        raise FileError(f"{expected}: {error}") from None
    if len(content) > LARGEST:
        raise FileError(f"{expected}, at most {LARGEST >> 20} MiB, got {len(content)} bytes")
    try:
        found = json.loads(content.decode(), parse_constant=_refuse)
    except RecursionError:
        raise FileError(f"{expected}, got JSON that is nested too deeply") from None
    except ValueError as error:  # no UTF-8, no JSON
        raise FileError(f"{expected}, got no JSON: {error}") from None
    if not isinstance(found, dict):
        raise FileError(f"{expected}, a JSON object, got {type(found).__name__}")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
