"""Counted costs of a published table's rows, NAME.counts.json beside NAME.csv: counters alone, a line a row.

    python -m trainpace count llm-foundry

They are found by the workload's key, so that a changed row is one that was never counted.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import NonNegativeInt

from trainpace.errors import FileError
from trainpace.records import Record
from trainpace.store.files import check_record, read_json, write_whole
from trainpace.store.tables import tables_folder

# 1: first format (2026-11).
SCHEMA = 1


class TableCounts(Record):
    """What the file holds."""

    schema_version: int
    software: dict[str, str]
    """Versions of what was traced."""
    counts: dict[str, dict[str, NonNegativeInt]]
    """By key of the workload: the counters of runs/cost.py."""


def counts_path(table: str | Path) -> Path:
    """Where the counts of a table lie, by its name or by the path of its .csv file."""
    path = Path(table) if str(table).endswith(".csv") else tables_folder() / f"{table}.csv"
    return path.with_suffix(".counts.json")


def load_counts(table: str | Path) -> dict[str, dict[str, int]]:
    """Counters by the workload's key; none where the table was not counted.

    Raises:
        FileError: for a file that is there and cannot be used.
    """
    path = counts_path(table)
    if not path.exists():
        return {}
    found = check_record(read_json(path), TableCounts, where=str(path))
    if found.schema_version != SCHEMA:
        raise FileError(f"{path}: expected schema_version {SCHEMA}, got {found.schema_version}: count the table again")
    return found.counts


def write_counts(table: str | Path, counts: Mapping[str, Mapping[str, int]], software: Mapping[str, str]) -> Path:
    """Write the counts of a table, sorted, a line a row; where they lie.

    Raises:
        FileError: where the file cannot be written.
    """
    path = counts_path(table)
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(dict(sorted(counts[key].items())))}" for key in sorted(counts))
    head = (
        f'{{\n "schema_version": {SCHEMA},\n "software": {json.dumps(dict(sorted(software.items())))},\n "counts": {{'
    )
    write_whole(path, f"{head}\n{rows}\n }}\n}}\n")
    return path
