"""What is read of a run that failed."""

import os
import resource

import pytest

from trainpace.launch.folders import tail


@pytest.mark.parametrize(
    ("content", "shown"),
    [("", ""), ("one\ntwo\n", "one\ntwo"), ("\n".join(map(str, range(100))), "\n".join(map(str, range(70, 100))))],
)
def test_tail(tmp_path, content, shown):
    """The last thirty lines."""
    (tmp_path / "log").write_text(content)

    assert tail(tmp_path / "log") == shown


def test_tail_of_nothing(tmp_path):
    """A file that is not there has none."""
    assert tail(tmp_path / "log") == ""


def test_tail_of_gigabytes(tmp_path):
    """However large the log is, and without a newline, 64 KiB of its end are read."""
    os.truncate(os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY), 3 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert len(tail(tmp_path / "log")) == 64 << 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (20 << 10)
