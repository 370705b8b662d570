"""Forks the ranks of a run from the warm run host: all of them, or on one of several nodes those of this node.

Inside the run host, which is loaded by path: imports nothing else of `trainpace`.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .load import quiet_cores
from .proc import descendants, die_with_parent
from .protocol import Placed, RunRequest

_SWEEP_SECONDS = 5.0


class Launch:
    """The ranks of one run on this machine, in a process group of their own."""

    def __init__(self, request: RunRequest, rank_main: Callable[[int, int], int]) -> None:
        self._ranks: dict[int, int] = {}  # pidfd -> local rank
        self._first = _placed(request)["first"]
        self._pids: list[int] = []
        self._exits: list[dict[str, Any]] = []
        self._killed = False
        self._before = descendants(os.getpid())
        self._cores = [{core} for core in quiet_cores(_placed(request)["count"])] if request["pin"] else []
        if not self._cores:
            self._cores = [set(near) & os.sched_getaffinity(0) for near in request.get("gpu_cores", ())]
        for local_rank in range(_placed(request)["count"]):
            self._fork(local_rank, request, rank_main)

    def fds(self) -> list[int]:
        """Descriptors that become readable when a rank ends, one a rank."""
        return list(self._ranks)

    def pids(self) -> list[int]:
        """Process ids in the order of their ranks."""
        return list(self._pids)

    def reap(self, fd: int) -> bool:
        """Take the exit of the rank behind `fd`; kill the others if it failed. True when the last one has ended."""
        local_rank = self._ranks.pop(fd)
        os.close(fd)
        _, status = os.waitpid(self._pids[local_rank], 0)
        code = os.waitstatus_to_exitcode(status)
        # What dies after the kill died of the kill: only the exits before it say anything.
        self._exits.append({"rank": self._first + local_rank, "code": code, "killed": self._killed})
        if code != 0 and not self._killed:
            self.kill()
        if not self._ranks:
            self.sweep()
            return True
        return False

    def exits(self) -> list[dict[str, Any]]:
        """Exit codes (negative: a signal) in the order in which the ranks ended."""
        return self._exits

    def kill(self) -> None:
        """End every rank: at once, since one may be waited for by the others."""
        self._killed = True
        with suppress(ProcessLookupError):
            os.killpg(self._pids[0], signal.SIGKILL)

    def sweep(self) -> None:
        """End what the ranks started and left behind, whatever group it moved to, and wait until it is gone.

        The host has adopted it: it is whatever descends from the host and did not when the run began.
        """
        deadline = time.monotonic() + _SWEEP_SECONDS
        while (left := descendants(os.getpid()) - self._before) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.002)

    def _fork(self, local_rank: int, request: RunRequest, rank_main: Callable[[int, int], int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _enter(local_rank, request, host, group=self._pids[0] if self._pids else 0, cores=self._cores)
                code = rank_main(self._first + local_rank, local_rank)
            except BaseException:  # noqa: BLE001 - whatever it was, it must not go on as a second host
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                # Not sys.exit: the host's own exit handlers are the host's.
                os._exit(code)
        # Set on both sides: neither may be first, and both must find it set.
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, self._pids[0] if self._pids else pid)
        self._pids.append(pid)
        self._ranks[os.pidfd_open(pid)] = local_rank


def _placed(request: RunRequest) -> Placed:
    """Which ranks are this node's: how many, from which on, on which node."""
    return request.get("placed") or {"node": 0, "first": 0, "count": request["workload"]["ranks"]}


def _enter(local_rank: int, request: RunRequest, host: int, *, group: int, cores: list[set[int]]) -> None:
    """What a forked process does before it is a rank: its group, its output, its environment, its cores."""
    os.setpgid(0, group)
    die_with_parent()
    if os.getppid() != host:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    placed, ranks = _placed(request), request["workload"]["ranks"]
    rank = placed["first"] + local_rank
    log = os.open(Path(request["folder"]) / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(local_rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(placed["count"]),
        GROUP_RANK=str(placed["node"]),
    )
    if local_rank < len(cores) and cores[local_rank]:
        os.sched_setaffinity(0, cores[local_rank])
