"""Runs a described program in the place of a rank, and watches it from outside: the wall clock's side of the story.

Loaded by file path inside a run host, where the step loop is for a trainer that is an object; imports nothing of
`perf`. Appends the same JSON lines to `rank-0.jsonl` (rank/loop.py): begin, step for each step that the
program's output shows, and at the end samples with what was seen from outside.
"""

import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_WATCH_SECONDS = 0.5
# What the run host told its own ranks is not meant for the program's.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def main(request: dict[str, Any], rank: int, _: int) -> int:
    """Run the program of `request` to its end. Returns its exit code."""
    folder = Path(request["folder"])
    with (folder / f"rank-{rank}.jsonl").open("a", buffering=1) as lines:

        def write(event: str, **fields: Any) -> None:
            lines.write(json.dumps({"event": event, **fields}) + "\n")

        write("begin")
        try:
            return _run(request, folder, write)
        except BaseException as error:  # noqa: BLE001 - whatever ends it is written down
            write(
                "error",
                type=type(error).__name__,
                message=str(error),
                traceback=traceback.format_exc(),
                time=time.time(),
            )
            return 1


def _run(request: dict[str, Any], folder: Path, write: Any) -> int:
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
        """Stop."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        before = None
        while not self._done.wait(_WATCH_SECONDS):
            now = time.monotonic(), _busy_seconds(), self._own()
            # A process that ended took the CPU time of its last moments with it: such an interval says nothing.
            if self.open and before is not None and before[2].keys() <= now[2].keys():
                self.window["window_seconds"] += now[0] - before[0]
                self.window["busy_cpu_seconds"] += now[1] - before[1]
                self.window["own_cpu_seconds"] += sum(now[2].values()) - sum(before[2].values())
            before = now

    def _own(self) -> dict[int, float]:
        """CPU seconds by process: of those below the program, and of the suite's."""
        parents, seconds, memory = {}, {}, {}
        tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError):
                    # The command's name is in brackets and may hold anything: the fields start behind the last one.
                    fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                    pid = int(entry.name)
                    parents[pid], memory[pid] = int(fields[1]), int(fields[21]) * page
                    seconds[pid] = (int(fields[11]) + int(fields[12])) / tick
        own = {pid for pid in parents if self._below(pid, parents)}
        self.peak_bytes = max([self.peak_bytes, *(memory[pid] for pid in own)])
        return {pid: seconds[pid] for pid in own.union(self._others) if pid in seconds}

    def _below(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents and pid != self._pid:
            pid = parents[pid]
        return pid == self._pid


def _busy_seconds() -> float:
    user, nice, system = (int(field) for field in Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")
