"""Which cases come first where a session is bounded in time: those that the changed files are known to touch.

`perf-priorities.toml` at the tests' root, most important first:

    [[priority]]
    paths = ["ours/attention/*"]      # globs of changed files
    cases = ["*-128k-*", "*-1m-*"]    # globs of case ids
"""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from trainpace.records import Record
from trainpace.store.files import check_record, read_toml

FILE = "perf-priorities.toml"


class Priority(Record):
    """Files, and the cases that a change to them is likely to slow."""

    paths: tuple[str, ...]
    cases: tuple[str, ...]


class Priorities(Record):
    """The file: most important first."""

    priority: tuple[Priority, ...] = ()


def load_priorities(root: Path) -> Priorities:
    """The priorities of the repository at `root`; none where it has no such file.

    Raises:
        FileError: for a file that cannot be used.
    """
    path = root / FILE
    if not path.exists():
        return Priorities()
    return check_record(read_toml(path), Priorities, where=str(path))


def rank(case: str, changed: Sequence[str], priorities: Priorities) -> int:
    """Where a case stands, 0 first: the first priority that a changed file and the case both match, else behind all."""
    for place, each in enumerate(priorities.priority):
        touched = any(fnmatch(file, glob) for file in changed for glob in each.paths)
        if touched and any(fnmatch(case, glob) for glob in each.cases):
            return place
    return len(priorities.priority)
