"""What the pairs of earlier sessions spread: a file a device in the user's state, `noise/<slug>.json`.

Nobody needs it: without it a case takes more pairs. So what cannot be read is said, and not used.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from trainpace.errors import FileError
from trainpace.judge.noise import SessionNoise, with_session
from trainpace.store.files import check_record, read_json, write_whole, writing
from trainpace.store.locks import file_lock

# 1: first format (2026-11).
SCHEMA = 1
MOST_CASES = 1000
"""Cases of a device: those that were measured last."""
MAX_BYTES = 64 << 20
"""Of a file: ten times what MOST_CASES take. More is refused at once."""


def noise_path(device: str) -> Path:
    """The file of `device`, a slug."""
    from platformdirs import user_state_path

    return user_state_path("trainpace") / "noise" / f"{device}.json"


def load_noise(path: Path) -> dict[str, tuple[SessionNoise, ...]]:
    """Sessions by the key of a workload, oldest first; none where there is no file.

    Raises:
        FileError: for a file that is there and cannot be used.
    """
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path}: expected at most {MAX_BYTES >> 20} MiB, got {path.stat().st_size >> 20}")
    content = read_json(path)
    if not isinstance(content, dict) or content.keys() != {"schema_version", "cases"}:
        raise FileError(f"{path}: expected an object with cases and schema_version")
    if content["schema_version"] != SCHEMA or isinstance(content["schema_version"], bool):
        raise FileError(f"{path}: expected schema_version {SCHEMA}, got {content['schema_version']!r}")
    cases = content["cases"]
    if not isinstance(cases, dict) or not all(isinstance(each, list) for each in cases.values()):
        raise FileError(f"{path}: cases: expected a list of sessions for each case")
    return {
        key: tuple(check_record(value, SessionNoise, where=f"{path}: {key}", strict=True) for value in values)
        for key, values in cases.items()
    }


def keep_noise(path: Path, found: Mapping[str, SessionNoise]) -> None:
    """Add one session, by the keys of its workloads.

    Raises:
        FileError: where the file is there and cannot be used, or cannot be written; it is left as it is.
    """
    with writing(path), file_lock(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        cases = load_noise(path)
        cases |= {key: with_session(cases.get(key, ()), new) for key, new in found.items()}
        newest = sorted(cases, key=lambda key: max(each.recorded for each in cases[key]), reverse=True)
        kept = {key: [each.model_dump(mode="json") for each in cases[key]] for key in newest[:MOST_CASES] if cases[key]}
        text = json.dumps({"schema_version": SCHEMA, "cases": kept}, indent=1, sort_keys=True, allow_nan=False)
        write_whole(path, text + "\n")
