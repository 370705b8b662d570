"""Counts of a table's rows: a line a row, found by the workload's key."""

import pytest

from trainpace.errors import FileError
from trainpace.store.table_counts import counts_path, load_counts, write_counts

COUNTS = {"b/full/native/1": {"step.calls": 2}, "a/full/native/2": {"step.calls": 1}}


@pytest.fixture(name="table")
def _table(tmp_path):
    return str(tmp_path / "mine.csv")


def test_counts_are_read_as_written(table):
    """Beside the table, sorted, a line a row; none where there is no file."""
    assert load_counts(table) == {}

    path = write_counts(table, COUNTS, {"torch": "2.12.0"})

    assert path == counts_path(table)
    assert load_counts(table) == COUNTS
    assert [line[:6] for line in path.read_text().splitlines() if "step.calls" in line] == ['  "a/f', '  "b/f']


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema_version": 2, "software": {}, "counts": {}}', "expected schema_version 1, got 2"),
        ('{"schema_version": 1, "software": {}, "counts": {"a": {"step.calls": -1}}}', "step.calls"),
        ("[]", "mine.counts.json"),
    ],
)
def test_a_broken_file(table, content, said):
    """Its place, what was expected and what came."""
    counts_path(table).write_text(content)

    with pytest.raises(FileError, match=said):
        load_counts(table)
