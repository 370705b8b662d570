"""Many runs in a row in one session: prints what the suite and its run host hold on to, and fails where it grows.

python tests/soak.py                  # or: tox run -e soak; 200 runs of two ranks at the smallest mini size
python tests/soak.py --runs 20

A figure may rise while the first runs load what they need; from the tenth run on it must stay. Not part of the suite's
own tests: it takes minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import resolve
from trainpace.data.base import Data
from trainpace.launch.distributed import Distributed
from trainpace.probe.device import present

SETTLED = 10
"""Runs after which nothing may grow any more."""
ALLOWED_MEMORY = 16 << 20
"""Bytes that an allocator may still take from the system after that; a leak of 100 kB a run is more."""


def main() -> int:
    """Run, print, judge; the exit status."""
    parser = argparse.ArgumentParser(
        description="200 runs in a row: prints what grows, and fails where something does."
    )
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    if runs <= SETTLED:
        parser.error(f"--runs: expected more than {SETTLED}, got {runs}")
    workload = resolve(PUBLISHED[0], present(), scale="mini", engine="fsdp2", warmup=1, steps=2).workload
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        data = Data()
        with Distributed(machine=present(), data=data, cache=Path(folder, "cache"), step_timeout=300.0) as distributed:
            begin, settled = time.monotonic(), {}
            for number in range(1, runs + 1):
                distributed.run(workload)
                found = figures(distributed, Path(folder))
                if number == SETTLED:
                    settled = found
                if number in {1, SETTLED, runs} or number % 50 == 0:
                    show(f"after run {number:4}, {time.monotonic() - begin:5.0f} s: {described(found)}")
        left = [path.name for path in Path(folder).iterdir() if path.name != "cache"]
    grown = [name for name, value in found.items() if value > settled[name] + allowed(name)]
    for name in grown:
        show(f"GREW: {name}: {settled[name]} -> {found[name]}")
    if left:
        show(f"LEFT: {', '.join(left)}")
    show(f"{runs} runs: {'something grows' if grown or left else 'nothing grows'}")
    return int(bool(grown or left))


def figures(distributed: Distributed, folder: Path) -> dict[str, int]:
    """What the suite (this process) and the run host hold."""
    (host,) = distributed.pool.pids
    found = {"processes": len(psutil.Process().children(recursive=True))}
    for name, process in (("suite", psutil.Process()), ("host", psutil.Process(host))):
        found[f"{name}: open files"] = process.num_fds()
        found[f"{name}: threads"] = process.num_threads()
        found[f"{name}: memory"] = process.memory_full_info().uss
    found["shared memory"] = len(os.listdir("/dev/shm"))  # noqa: PTH208, S108 - the system's own, and a number
    found["temporary files"] = sum(len(files) + len(folders) for _, folders, files in os.walk(folder))
    return found


def allowed(name: str) -> int:
    """How much a figure may grow."""
    return ALLOWED_MEMORY if name.endswith("memory") and name != "shared memory" else 0


def described(found: dict[str, int]) -> str:
    """The figures in a line."""
    return ", ".join(
        f"{name} {value / 2**20:.1f} MiB" if allowed(name) else f"{name} {value}" for name, value in found.items()
    )


def show(text: str) -> None:
    """One line."""
    print(text, flush=True)  # noqa: T201 - what a command prints


if __name__ == "__main__":
    sys.exit(main())
