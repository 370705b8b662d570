"""What the kernel tells of processes, and what it is asked to do with them."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def die_with_parent(how: int = signal.SIGKILL) -> None:
    """Ask the kernel for the signal `how` when the parent of this process dies, however that dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how)


def adopt_orphans(adopt: bool = True) -> None:
    """Become the parent of what is left behind below this process, so that it can be found and ended; or no more."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def adopts_orphans() -> bool:
    """Whether it is."""
    adopts = ctypes.c_int()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts))
    return bool(adopts.value)


class Stat(NamedTuple):
    """One process at one moment."""

    pid: int
    parent: int
    """Process id of its parent."""
    session: int
    """Process id of its session's leader."""
    cpu_seconds: float
    """CPU time of all its threads so far, without its children's."""
    started: str
    """When it began, in ticks since the machine's start: with its id that is one process for ever."""
    resident_bytes: int


def stat(pid: int) -> Stat:
    """Read /proc/PID/stat.

    Raises:
        OSError: where there is no such process.
    """
    # The command's name is in brackets and may hold anything: the fields start behind the last one.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Stat(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICK,
        started=fields[19],
        resident_bytes=int(fields[21]) * _PAGE,
    )


def pids() -> Iterator[int]:
    """The ids of all processes."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


def stats() -> Iterator[Stat]:
    """All processes; without those that end meanwhile."""
    for pid in pids():
        with suppress(OSError):
            yield stat(pid)


def descendants(pid: int) -> set[int]:
    """Every process below `pid`."""
    children: dict[int, list[int]] = {}
    for each in stats():
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    above = [pid]
    while above:
        below = children.get(above.pop(), [])
        found.update(below)
        above.extend(below)
    return found


def busy_seconds() -> float:
    """CPU seconds of all cores since the machine's start."""
    user, nice, system = (int(field) for field in Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / _TICK
