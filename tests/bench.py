"""How fast the suite itself is. Prints figures beside what they should be; judges nothing.

python tests/bench.py            # or: tox run -e bench
python tests/bench.py --quick    # without the five mini cases and the data
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import psutil

from data.speed_of_data import main as data_bench
from factories import make_run, make_workload
from trainpace.app.option_values import cache_folder
from trainpace.cases import PUBLISHED, Workload
from trainpace.cases.scaling import resolve
from trainpace.launch.distributed import Distributed
from trainpace.probe.device import present
from trainpace.rank import loop
from trainpace.store.runs import write_run

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print every figure, the cheap ones first."""
    with tempfile.TemporaryDirectory() as folder:
        collecting_and_replaying(Path(folder))
    thousand_ranks()
    inside_a_step()
    first_step()
    counting()
    if "--quick" not in sys.argv:
        five_mini_cases()
        data_bench()


def collecting_and_replaying(folder: Path) -> None:
    """CPU seconds of the two commands that train nothing."""
    for case in PUBLISHED:
        write_run(make_run(case.id), folder)
    for what, arguments in (
        ("pytest perf --collect-only", ["--collect-only", "-q"]),
        ("replay of 14 recorded cases", [f"--perf-replay={folder}", "-k", "test_speed"]),
    ):
        seconds = min(cpu_seconds([sys.executable, "-m", "pytest", "perf", *arguments]) for _ in range(3))
        show(what, f"{seconds:.2f} s of CPU", "under 1.5 s")


def counting() -> None:
    """Wall seconds and memory of the two cost gates, imports included; memory that processes share counts once."""
    for what, arguments, limit in (("14 counted rows", [], 40), ("the 5 of llama2_7b", ["-k", "llama2_7b-"], 15)):
        begin = time.monotonic()
        process = psutil.Popen(
            [sys.executable, "-m", "pytest", "perf/test_cost.py", "--perf-recount", *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        peak = 0
        while process.poll() is None:
            with suppress(psutil.Error):
                family = [process, *process.children(recursive=True)]
                peak = max(peak, sum(each.memory_full_info().pss for each in family))
            time.sleep(0.2)
        show(f"judging {what}", f"{time.monotonic() - begin:.0f} s, {peak / 2**20:.0f} MiB", f"{limit} s, 1 GB")


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Idle:
    """A trainer that does nothing: what its steps take is the suite's own work."""

    def load(self, step: int) -> None:
        """Nothing."""

    def forward_backward(self, batch: None) -> float:
        """No loss."""
        return 1.0

    def optimizer_step(self) -> None:
        """Nothing."""


def thousand_ranks() -> None:
    """Seconds of wall time and peak memory, in a process of its own, for a run of 1,000 ranks with 1,000 steps each."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(workload=make_workload(ranks=1000, steps=1000), noise=0.02)
        path = write_run(run, Path(folder))
        for samples in run.ranks:
            steps = [json.dumps({"event": "step", "step": step}) for step in range(1003)]
            last = json.dumps({"event": "samples", **samples.model_dump()})
            Path(folder, f"rank-{samples.rank}.jsonl").write_text("\n".join([*steps, last, ""]))
        for what, code in (("a run's file read and judged", _JUDGE), ("its ranks' lines read at once", _FOLLOW)):
            command = [sys.executable, "-c", _PREPARE + code + _REPORT, str(path), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            show(f"1,000 ranks x 1,000 steps: {what}", done.stdout.strip(), "under 2 s and 500 MB")


_PREPARE = """
import resource, sys, time
from pathlib import Path
import numpy
from trainpace.judge.refresh import baseline_of
from trainpace.judge.verdict import judge
from trainpace.launch.rank_log import RankLog
from trainpace.store.runs import read_runs
begin = time.perf_counter()
"""
_JUDGE = """
(run,) = read_runs(Path(sys.argv[1]))
read = time.perf_counter()
baseline = baseline_of([run])
begin += time.perf_counter() - read
judge([run], baseline, peak_tflops=None)
"""
_FOLLOW = """
ranks = [RankLog(Path(sys.argv[2], f"rank-{rank}.jsonl"), rank) for rank in range(1000)]
assert all([rank.read() for rank in ranks]) and all(rank.samples for rank in ranks)
"""
_REPORT = """
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(f"{time.perf_counter() - begin:.2f} s, {megabytes} MB")
"""


def inside_a_step() -> None:
    """Seconds between two steps of a trainer that does nothing: timing, recording, writing the line."""
    times: list[float] = []
    with tempfile.TemporaryFile("w", buffering=1) as file:

        def write(event: str, **fields: object) -> None:
            file.write(json.dumps({"event": event, **fields}) + "\n")
            if event == "step":
                times.append(time.perf_counter())

        workload = SimpleNamespace(warmup=100, steps=2000, accumulation=1)
        loop.measure(Idle(), workload, loop.CpuClock(), write, watch=[os.getpid()])
    each = median(later - earlier for earlier, later in pairwise(times))
    show("the suite's own work inside a step", f"{each * 1e3:.4f} ms", "under 0.1 ms")


def first_step() -> None:
    """Seconds from the request for a run to the end of its first step, the run host warm."""
    with Distributed(machine=present(), cache=cache_folder(), step_timeout=300) as distributed:
        for engine in ("fsdp2", "deepspeed"):
            workload = mini(engine)
            distributed.run(workload)
            started = [distributed.run(workload).startup_seconds for _ in range(3)]
            show(f"request to first step, warm, mini, 2 ranks, {engine}", f"{median(started):.2f} s", "under 2.5 s")


def mini(engine: str) -> Workload:
    """The first row, small and short."""
    return resolve(PUBLISHED[0], present(), scale="mini", engine=engine, warmup=1, steps=3).workload


def five_mini_cases() -> None:
    """Wall seconds of the whole command."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "perf/test_speed.py", "-k", "llama2_7b", "--perf-scale=mini", "-q"]
    subprocess.run(command, cwd=ROOT, check=False)
    show("five mini Llama2-7B cases", f"{time.perf_counter() - begin:.0f} s", "under 90 s on 2 cores")


def show(what: str, figure: str, wanted: str) -> None:
    """One line."""
    print(f"{what}: {figure} ({wanted})", flush=True)  # noqa: T201 - this is what a bench is for


if __name__ == "__main__":
    main()
