"""The file of counted costs, cost.json: a row a case. It belongs to no device."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainpace.errors import FileError
from trainpace.judge.cost import CostChange
from trainpace.runs.cost import Cost
from trainpace.store.baselines import published_folder
from trainpace.store.files import check_record, read_json, write_whole, writing
from trainpace.store.locks import file_lock

# 1: first format (2026-11).
SCHEMA = 1
FILE = "cost.json"


def load_costs(folder: Path) -> dict[str, Cost]:
    """Every stored cost by key: those of `folder`, and the package's own where it has none of that key.

    Raises:
        FileError: for a file that is there and cannot be used: its place, what was expected and what came.
    """
    found: dict[str, Cost] = {}
    for path in dict.fromkeys((published_folder() / FILE, folder.resolve() / FILE)):
        if path.exists():
            found |= _read(path)
    return found


def refresh_costs(folder: Path, costs: Iterable[Cost]) -> list[CostChange]:
    """Store `costs` in `folder`'s file beside the rows that it holds; what was there and what is, a change a row.

    Raises:
        FileError: where the file is there and cannot be used, or cannot be written; it is left as it is.
    """
    path = folder / FILE
    with writing(path), file_lock(path):
        folder.mkdir(parents=True, exist_ok=True)
        stored = _read(path) if path.exists() else {}
        changes = [CostChange(stored.get(cost.key), cost) for cost in costs]
        # The other rows stand as they stood: a record of today has fields that an older file leaves out.
        rows = read_json(path)["costs"] if path.exists() else {}
        write_whole(path, _text(rows | {change.new.key: _row(change.new) for change in changes}))
    return changes


def _read(path: Path) -> dict[str, Cost]:
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA or isinstance(version, bool):
        raise FileError(
            f"{path}: expected schema_version {SCHEMA}, got {version!r}: use the trainpace that wrote it, or move the "
            "file away and record it again: the same command with --perf-refresh"
        )
    if content.keys() != {"schema_version", "costs"} or not isinstance(content["costs"], dict):
        raise FileError(f"{path}: expected the fields schema_version and costs, got {', '.join(sorted(content))}")
    rows = {key: check_record(row, Cost, where=f"{path}: {key}", strict=True) for key, row in content["costs"].items()}
    for key, row in rows.items():
        if row.key != key:
            raise FileError(f"{path}: expected the key {row.key!r} of what it holds, got {key!r}: record it again")
    return rows


def _row(cost: Cost) -> dict[str, Any]:
    """What is judged of a cost, and what explains it."""
    return cost.model_dump(mode="json", exclude={"products"})


def _text(rows: Mapping[str, dict[str, Any]]) -> str:
    """The file's content: sorted, a counter a line, an operator a line."""
    marked = {
        key: row | {"operators": {name: f"@{json.dumps(counts)}@" for name, counts in row["operators"].items()}}
        for key, row in rows.items()
    }
    content = {"schema_version": SCHEMA, "costs": marked}
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.replace('"@', "").replace('@"', "") + "\n"
