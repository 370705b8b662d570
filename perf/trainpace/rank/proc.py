"""What the kernel tells of processes, and what it is asked to do with them."""

import ctypes
import os
import signal
from collections.abc import Collection, Iterator
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
    name: str
    """The command's, at most 15 characters, printable ones."""
    parent: int
    """Process id of its parent."""
    session: int
    """Process id of its session's leader."""
    cpu_seconds: float
    """CPU time of all its threads so far, without its children's."""
    started: str
    """When it began, in ticks since the machine's start: with its id that is one process for ever."""
    resident_bytes: int
    core: int
    """The number of the one that it ran on last."""


def stat(pid: int) -> Stat:
    """Read /proc/PID/stat.

    Raises:
        OSError: where there is no such process.
    """
    # The command's name is in brackets and may hold anything: the fields start behind the last one.
    name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    fields = rest.split()
    return Stat(
        pid=pid,
        name="".join(letter if letter.isprintable() else "?" for letter in name),
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICK,
        started=fields[19],
        resident_bytes=int(fields[21]) * _PAGE,
        core=int(fields[36]),
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


def busy_by_core() -> dict[int, float]:
    """CPU seconds of each core since the machine's start, by its number."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    # user, nice, system; the first line is the sum of all
    return {int(name[3:]): sum(map(int, fields[:3])) / _TICK for name, *fields in lines if name != "cpu"}


def busy_seconds(cores: Collection[int]) -> float | None:
    """CPU seconds of these cores since the machine's start; None where the kernel tells of none or not of all."""
    found = busy_by_core()
    return sum(found[core] for core in cores) if found.keys() >= set(cores) else None
