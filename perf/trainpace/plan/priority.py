"""Which cases come first where a session is bounded in time: those that the changed files are known to touch."""

from collections.abc import Sequence
from fnmatch import fnmatch

from trainpace.records import Record


class Priority(Record):
    """Files, and the cases that a change to them is likely to slow."""

    paths: tuple[str, ...]
    """Globs of changed files."""
    cases: tuple[str, ...]
    """Globs of case ids."""


class Priorities(Record):
    """Priorities of a repository, the most important first."""

    priority: tuple[Priority, ...] = ()


def rank(case: str, changed: Sequence[str], priorities: Priorities) -> int:
    """Place of a case in the order, from 0: the first priority that both a changed file and the case match; behind all
    priorities where none does."""
    for place, each in enumerate(priorities.priority):
        touched = any(fnmatch(file, glob) for file in changed for glob in each.paths)
        if touched and any(fnmatch(case, glob) for glob in each.cases):
            return place
    return len(priorities.priority)
