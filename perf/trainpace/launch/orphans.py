"""What is left of suites that were killed: folders, and processes that no run host was there any more to end.

A run host ends what its ranks start, and ends itself when the suite dies. Killed outright it can do neither: its ranks
die with it, by the kernel's hand, but a process that a rank had started and let go lives on. Every process below a host
inherits a tag in its environment, by which it is found: by the suite when its host dies, or, where both were killed at
once, by the next suite on this machine. A process that has cleared its environment is found by its own suite alone,
which is the parent of what its hosts lose (quiet.py).
"""

import os
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from trainpace.rank import proc

VARIABLE = "TRAINPACE_HOST"
_END_SECONDS = 5.0


def tag(host: str) -> str:
    """The tag of what a host of this process starts; `host` tells it from other hosts."""
    return f"{this_machine()} {os.getpid()} {_started(os.getpid())} {host}"


def end_tagged(wanted: str) -> None:
    """End every process that carries this tag, and wait until there is none."""
    deadline = time.monotonic() + _END_SECONDS
    while (pids := [pid for pid, found in _tags() if found == wanted]) and time.monotonic() < deadline:
        _kill(pids)
        time.sleep(0.01)


def sweep(parent: Path | None = None) -> None:
    """Remove what suites on this machine have left that are no more: processes first, then folders in `parent`."""
    _kill([pid for pid, found in _tags() if _is_orphan(found)])
    for folder in Path(parent or tempfile.gettempdir()).glob("trainpace-*-*"):
        _, owner, *host, _ = folder.name.split("-")
        here = "-".join(host) == socket.gethostname()
        if owner.isdecimal() and here and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_orphan(found: str) -> bool:
    machine, _, rest = found.partition(" ")
    pid, _, rest = rest.partition(" ")
    started, _, _ = rest.partition(" ")
    # Elsewhere (another node, another container) the same number is another process.
    return machine == this_machine() and pid.isdecimal() and _started(int(pid)) != started


def _tags() -> list[tuple[int, str]]:
    """Process id and tag of all that have one and may be looked at; without this process and those above it."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for pid in proc.pids():
        if pid not in ours:
            with suppress(OSError):
                for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    name, _, value = variable.partition(b"=")
                    if name == VARIABLE.encode():
                        found.append((pid, value.decode(errors="replace")))
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


@cache
def this_machine() -> str:
    """This start of this machine, and the namespace that process numbers are of."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: with its number that is one process for ever. Empty: no such one."""
    try:
        return proc.stat(pid).started
    except OSError:
        return ""
