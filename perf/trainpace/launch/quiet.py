"""Stops the processes of one side while the other one is measured, and ends what it leaves running.

What descends from a run host is all that its side has started, also what left its session and cleared its environment:
the host is the parent of what loses its own (rank/proc.py: adopt_orphans). Only what another service of the machine
starts for it (cron, systemd, a container engine) is out of reach.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from trainpace.errors import RunFailed
from trainpace.rank import proc

_STOP_SECONDS = 10.0
_REAP_SECONDS = 2.0
# Libraries start these when they are imported; they wait until they are asked. Stopped they are like all others.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "torch/_inductor/compile_worker")
_ENDED, _STOPPED = "ZX", "Tt"


class Scheduling(NamedTuple):
    """How the kernel lets a process run, and so the ranks that it forks."""

    nice: int
    policy: int
    cores: tuple[int, ...]

    @classmethod
    def of(cls, pid: int) -> "Scheduling":
        """That of a living process; 0 is this one."""
        return cls(
            os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid), tuple(sorted(os.sched_getaffinity(pid)))
        )

    def check(self, pid: int, whose: str) -> None:
        """See that nobody has changed it.

        Raises:
            RunFailed: with what it was and is.
        """
        if (now := Scheduling.of(pid)) != self:
            raise RunFailed(f"{whose} was given another priority or other cores: expected {self}, got {now}")

    def __str__(self) -> str:
        return f"nice {self.nice}, policy {self.policy}, cores {','.join(map(str, self.cores))}"


def stop(host: int) -> None:
    """Stop a host and all below it, and wait until none runs: what is stopped starts no other.

    Raises:
        RunFailed: naming what cannot be stopped.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    while running := [pid for pid in _tree(host) if _state(pid) not in _STOPPED + _ENDED]:
        _signal(running, signal.SIGSTOP)
        if time.monotonic() > deadline:
            raise RunFailed(f"{', '.join(map(_described, running))} cannot be stopped while the other side is measured")
        time.sleep(0.002)


def go_on(host: int) -> None:
    """Have a host that was stopped go on, and all below it."""
    _signal(_tree(host), signal.SIGCONT)


def end(host: int) -> set[int]:
    """End all below a host, and the host at last: until then what loses its parent stays below it.

    Returns:
        What was below it. It is for `reap` once the host is gone.
    """
    with suppress(RunFailed):  # what cannot be stopped may be ended all the same
        stop(host)
    below = proc.descendants(host)
    _signal(below, signal.SIGKILL)
    _signal([host], signal.SIGKILL)
    return below


def end_strays(pids: Iterable[int]) -> None:
    """End what this process has adopted, of a host that was gone first."""
    found = list(pids)
    _signal(found, signal.SIGKILL)
    reap(found)


@contextmanager
def nothing_left() -> Iterator[None]:
    """End what is started inside and lives on, whatever it did to its parent, session and environment."""
    adopted = proc.adopts_orphans()
    proc.adopt_orphans()
    before = proc.descendants(os.getpid())
    try:
        yield
    finally:
        end_strays(proc.descendants(os.getpid()) - before)
        proc.adopt_orphans(adopted)


def reap(pids: Iterable[int]) -> None:
    """Take the exits of what was ended and is this process's child by now; of what takes its time not."""
    deadline = time.monotonic() + _REAP_SECONDS
    for pid in pids:
        with suppress(ChildProcessError):
            while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.002)


def left(host: int) -> list[str]:
    """What lives below a host that has no rank, described; without what libraries start for themselves."""
    found = (pid for pid in sorted(proc.descendants(host)) if _state(pid) not in _ENDED)
    return [_described(pid) for pid in found if not any(helper in _command(pid) for helper in _HELPERS)]


def say_left(found: list[str]) -> str:
    """Why a run counts for nothing."""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        f"expected nothing to run when its ranks had ended, got {', '.join(found[:3])}{more}: it would run while the "
        "other side is measured; what the trainer's import starts belongs into setup(), where it ends with the run"
    )


def _tree(host: int) -> set[int]:
    return {host} | proc.descendants(host)


def _state(pid: int) -> str:
    """The letter of /proc/PID/stat; X where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def _described(pid: int) -> str:
    printable = "".join(each if each.isprintable() else " " for each in _command(pid))
    return f"process {pid} ({printable[:80]})" if printable else f"process {pid}"


def _command(pid: int) -> str:
    """The words that a process was started with; empty where there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
