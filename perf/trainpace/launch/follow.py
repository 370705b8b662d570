"""Follows the ranks of a run by the lines that they append, and says how it ended."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from trainpace.cases.workload import Workload
from trainpace.errors import RunFailed, what_to_install
from trainpace.launch.host_client import POLL_SECONDS, Exit, Hosts, describe_exit
from trainpace.launch.rank_log import RankLog

FINE_SECONDS = 0.002
"""How often lines are looked for where the measured window opens or closes: when they come is the check on what ranks
claim, and must be known to a small part of a short window."""
START_SECONDS = 0.01
"""How often they are looked for at most while a run starts."""
LOOK_SHARE = 0.02
"""Part of a core that looking may take: with many ranks it is done less often."""
LATE_SECONDS = 5.0
"""How much later than a rank's end a shared file system may show its last lines."""
# A rank that loses another one fails with these: whoever did not was first, whatever the nodes' clocks say.
_CONSEQUENCES = ("connection closed by peer", "connection reset by peer", "broken pipe", "remote process exited")

Progress = Callable[[int, str], None]
"""Called with the number of steps done and what is being done."""


class Window(Protocol):
    """What watches a device while it is measured."""

    def open(self) -> None:
        """The measured window begins now; once more, and it begins anew."""


def follow(
    hosts: Hosts,
    logs: list[RankLog],
    workload: Workload,
    window: Window,
    *,
    progress: Progress,
    step_timeout: float,
) -> float:
    """Follow the ranks' lines until all have ended. Returns when the first step was done, monotonic seconds.

    Raises:
        RunFailed: where a rank failed, all hang, or a host or node is lost.
    """
    first_step, last_line, step = 0.0, time.monotonic(), -1
    pace = _Pace(logs, workload)
    while True:
        exits = hosts.exits(pace.wait())
        if pace.look():
            last_line = time.monotonic()
            before, step = step, min(rank.steps for rank in logs)
            if step and not first_step:
                first_step = last_line
            if before != step <= workload.warmup:
                window.open()  # again with every step of the warm-up: the last one opens the measured window
            progress(step, logs[0].note)
        if exits is not None:
            _read_to_the_end(logs, wait=not any(each.code for each in exits))
            _check_exits(exits, logs)
            return first_step or time.monotonic()
        if time.monotonic() - last_line > step_timeout:
            least = min(rank.progress for rank in logs)
            behind = [rank for rank in logs if rank.progress == least]
            raise RunFailed(
                f"hung: no step from any rank for {step_timeout:.0f} s; the run stands at {behind[0].where()} "
                f"of {workload.warmup + workload.steps} steps (--perf-step-timeout sets the limit)",
                # Ranks at one step wait for each other: which of them is at fault cannot be told.
                rank=behind[0].rank if len(behind) == 1 else None,
            )


class _Pace:
    """Looks for lines: finely where the measured window is about to open or to close, and seldom else."""

    def __init__(self, logs: list[RankLog], workload: Workload) -> None:
        self._logs, self._workload = logs, workload
        self._began = self._came = time.monotonic()
        """When it began, when the last line came."""
        self._first: float | None = None
        """When the first step was done; None: it is not."""
        self._took = 0.0
        """Seconds of a look."""

    def look(self) -> bool:
        """Read what has come; whether anything has."""
        began = time.monotonic()
        found = sum(rank.read() for rank in self._logs)
        now = time.monotonic()
        self._took = now - began
        if found:
            self._came = now
        if self._first is None and self._logs[0].steps:
            self._first = now
        return bool(found)

    def wait(self) -> float:
        """Seconds until the next look."""
        if not self._logs[0].warmup:
            return POLL_SECONDS
        finest = max(FINE_SECONDS, self._took / LOOK_SHARE)
        return min(POLL_SECONDS, max(finest, self._quiet()))

    def _quiet(self) -> float:
        """Seconds in which the window surely neither opens nor closes: a part of what is left, if steps go on so."""
        now, log, warmup = time.monotonic(), self._logs[0], self._workload.warmup
        if self._first is None:  # what takes long to start has no steps of a few milliseconds
            return min(START_SECONDS, (now - self._began) / 500)
        if log.opened is None:
            since, done, steps = self._first, log.steps - 1, warmup - 1
        else:
            since, done, steps = log.opened.by, log.steps - warmup, self._workload.steps
        if done <= 0:
            return (now - since) / 32
        return (since + steps * (self._came - since) / done - now) / 4


def _read_to_the_end(logs: list[RankLog], *, wait: bool) -> None:
    """Read what ranks that have ended wrote; where all ended well, `wait` for what a file system shows later."""
    deadline = time.monotonic() + LATE_SECONDS
    while True:
        for rank in logs:
            rank.read()
        late = any(rank.samples is None and rank.error is None for rank in logs)
        if not (wait and late and time.monotonic() < deadline):
            return
        time.sleep(POLL_SECONDS)


def _check_exits(exits: Sequence[Exit], logs: list[RankLog]) -> None:
    """Raise RunFailed for the rank whose fault it was: what dies of the clean-up is nobody's."""
    failed = [each for each in exits if each.code != 0 and not each.killed]
    by_signal = [each for each in failed if each.code < 0]
    if by_signal:
        culprit = by_signal[0]
        raise RunFailed(f"{describe_exit(culprit.code)} at {logs[culprit.rank].where()}", rank=culprit.rank)
    errors = sorted((_is_consequence(rank.error), rank.error["time"], rank.rank) for rank in logs if rank.error)
    if errors:
        rank = logs[errors[0][2]]
        assert rank.error
        if missing := what_to_install(rank.error["message"]):
            raise RunFailed(missing, rank=rank.rank)
        kind, message = rank.error["type"], rank.error["message"].strip().partition("\n")[0]
        cause = f"out of memory: {message}" if "OutOfMemory" in kind or kind == "MemoryError" else f"{kind}: {message}"
        raise RunFailed(f"{cause} (at {rank.where()})", rank=rank.rank, detail=rank.error["traceback"])
    if failed:
        raise RunFailed(f"{describe_exit(failed[0].code)} at {logs[failed[0].rank].where()}", rank=failed[0].rank)
    for rank in logs:
        if rank.samples is None:
            raise RunFailed(f"ended without its samples at {rank.where()}", rank=rank.rank)


def _is_consequence(error: dict[str, Any]) -> bool:
    return any(words in error["message"].lower() for words in _CONSEQUENCES)
