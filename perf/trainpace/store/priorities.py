"""The priorities of a repository, a file that people edit: `perf-priorities.toml` at its root, most important first.

[[priority]]
paths = ["ours/attention/*"]      # globs of changed files
cases = ["*-128k-*", "*-1m-*"]    # globs of case ids
"""

from pathlib import Path

from trainpace.plan.priority import Priorities
from trainpace.store.files import check_record, read_toml

FILE = "perf-priorities.toml"


def load_priorities(root: Path) -> Priorities:
    """The priorities of the repository at `root`; none where it has no such file.

    Raises:
        FileError: for a file that cannot be used.
    """
    path = root / FILE
    if not path.exists():
        return Priorities()
    return check_record(read_toml(path), Priorities, where=str(path))
