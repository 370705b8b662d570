"""Runs an external system's program in the place of a rank, and watches it from outside, by the wall clock.

Inside a run host, where the step loop (loop.py) is for a trainer that is an object; imports nothing else of
`trainpace`. Appends the same lines to `rank-0.jsonl` (protocol.py): begin, step for each step that the program's output
shows, and at the end samples with what was seen from outside.
"""

import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from . import proc
from .lines import Write, write_lines
from .protocol import RunRequest

_WATCH_SECONDS = 0.5
# What the run host told its own ranks is not meant for the program's.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def main(request: RunRequest, rank: int, _: int) -> int:
    """Run the program of `request` to its end. Returns its exit code."""
    return write_lines(request["folder"], rank, lambda write: _run(request, Path(request["folder"]), write))


def _run(request: RunRequest, folder: Path, write: Write) -> int:
    program = request["program"]
    environment = {name: value for name, value in os.environ.items() if name not in _RANK_VARIABLES}
    environment |= program["environment"]
    began = time.monotonic()
    process = subprocess.Popen(
        program["command"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    watch = _Watch(process.pid, request["watch"])
    seen = []
    pattern = re.compile(program["progress"].encode())
    with (folder / "output.log").open("wb") as log:
        for line in _lines(process):
            log.write(line)
            sys.stdout.buffer.write(line)  # to the rank's log, which is shown where the run fails
            for _ in pattern.finditer(line):
                seen.append(time.monotonic() - began)
                for step in range((len(seen) - 1) * program["accumulation"], len(seen) * program["accumulation"]):
                    write("step", step=step)
                watch.open = len(seen) * program["accumulation"] >= program["warmup"]
    code = process.wait()
    watch.close()
    if code == 0:
        write(
            "samples",
            place=socket.gethostname(),
            wall_seconds=time.monotonic() - began,
            seen_seconds=seen,
            peak_memory_bytes=watch.peak_bytes,
            **watch.window,
        )
    return code if code >= 0 else 128 - code


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What the program prints, a line at a time, until it ends: what it left behind may hold its output open longer."""
    assert process.stdout
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(ended, select.POLLIN)
    pending, running = b"", True
    while running:
        running = ended not in dict(poll.poll())
        while chunk := _read(output):
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if chunk == b"" and running:  # closed before the end
            poll.unregister(output)
    os.close(ended)
    if pending:
        yield pending


def _read(descriptor: int) -> bytes | None:
    """What there is to read; empty at the end, None where there is nothing now."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


class _Watch:
    """Samples memory and CPU time of the program's processes, and the CPU time of everybody."""

    def __init__(self, pid: int, watch: list[int]) -> None:
        self.open = False
        """Whether the measured window has begun."""
        self.peak_bytes = 0
        """Largest resident memory of one process, as far as samples saw it."""
        self.window = {"window_seconds": 0.0, "busy_cpu_seconds": 0.0, "own_cpu_seconds": 0.0}
        self._pid, self._others = pid, [*watch, os.getpid(), os.getppid()]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        before = None
        while not self._done.wait(_WATCH_SECONDS):
            busy = proc.busy_seconds(os.sched_getaffinity(0))
            if busy is None:  # the window stays without length: nothing is told
                self._own()
                continue
            now = time.monotonic(), busy, self._own()
            # A process that ended took the CPU time of its last moments with it: such an interval says nothing.
            if self.open and before is not None and before[2].keys() <= now[2].keys():
                self.window["window_seconds"] += now[0] - before[0]
                self.window["busy_cpu_seconds"] += now[1] - before[1]
                self.window["own_cpu_seconds"] += sum(now[2].values()) - sum(before[2].values())
            before = now

    def _own(self) -> dict[int, float]:
        """CPU seconds by process: of those below the program, and of the suite's."""
        every = {each.pid: each for each in proc.stats()}
        own = {pid for pid in every if self._below(pid, every)}
        self.peak_bytes = max([self.peak_bytes, *(every[pid].resident_bytes for pid in own)])
        return {pid: every[pid].cpu_seconds for pid in own.union(self._others) if pid in every}

    def _below(self, pid: int, every: dict[int, proc.Stat]) -> bool:
        while pid in every and pid != self._pid:
            pid = every[pid].parent
        return pid == self._pid
