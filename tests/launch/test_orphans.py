"""What suites have left that are no more is found and ended; what belongs to anybody else is not."""

import os
import socket
import subprocess
import sys
import tempfile

import pytest

from trainpace.launch import orphans

FORGET = """
import os, subprocess, sys
from trainpace.launch import orphans
environment = os.environ | {orphans.VARIABLE: orphans.tag("host")}
child = subprocess.Popen(["sleep", "600"], env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
print(child.pid, environment[orphans.VARIABLE], flush=True)
"""


@pytest.fixture
def orphan(started):
    """A process of a suite that is no more: its pid, and its tag."""
    done = subprocess.run([sys.executable, "-c", FORGET], stdout=subprocess.PIPE, check=True, text=True)
    pid, _, tag = done.stdout.strip().partition(" ")
    return int(pid), tag


def tagged(tag):
    """A process with this tag."""
    return subprocess.Popen(["sleep", "600"], env=os.environ | {orphans.VARIABLE: tag}).pid  # noqa: S607


def test_orphans_are_ended(started, orphan):
    """A process whose suite has ended is ended by the next one."""
    orphans.sweep()

    assert started.left() == []


def test_tags_of_living_suites_are_left_alone(started):
    """What a suite that is alive has started goes on."""
    child = tagged(orphans.tag("host"))
    orphans.sweep()

    assert started.pids() == [child]


def test_tags_of_other_machines_are_left_alone(started, orphan):
    """A number of another machine or container says nothing about the processes of this one."""
    _, tag = orphan
    other = tagged(tag.replace(tag.split()[0], "another-boot:4026531836"))
    orphans.sweep()

    assert started.left(besides=[other]) == []
    assert started.pids() == [other]


@pytest.mark.parametrize("tag", ["", "x", "x y", "x y z host"])
def test_odd_tags_are_left_alone(started, tag):
    """A variable of that name which is no tag is no error."""
    child = tagged(tag)
    orphans.sweep()

    assert started.pids() == [child]


def test_one_host_is_ended_alone(started):
    """The end of a host ends what carries its tag, and what carries another's not."""
    one, other = orphans.tag("one"), orphans.tag("other")
    tagged(one)
    child = tagged(other)
    orphans.end_tagged(one)

    assert [child] == [pid for pid in started.pids() if pid == child or not is_zombie(pid)]


def is_zombie(pid):
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_folders_of_dead_suites_are_removed(tmp_path, monkeypatch):
    """Where a suite was killed its folder goes; that of one which is alive stays, and that of another machine's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    here, elsewhere = socket.gethostname(), "another-machine"
    (tmp_path / f"trainpace-{int(dead.stdout)}-{here}-a").mkdir()
    (tmp_path / f"trainpace-{int(dead.stdout)}-{elsewhere}-a").mkdir()
    (tmp_path / f"trainpace-{os.getpid()}-{here}-b").mkdir()
    (tmp_path / "trainpace-notes-c").mkdir()
    orphans.sweep()

    stays = {f"trainpace-{int(dead.stdout)}-{elsewhere}-a", f"trainpace-{os.getpid()}-{here}-b", "trainpace-notes-c"}
    assert stays == {path.name for path in tmp_path.iterdir()}
