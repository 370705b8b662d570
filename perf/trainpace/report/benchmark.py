"""Cases as pytest-benchmark sees them: one benchmark a case, its steps replayed on a clock of our own.

pytest-benchmark is the table of other people's tools and the exchange format; the judging is ours. What it times is
a function that sets the clock forward by one recorded step, so its statistics are those of the real steps.
"""

import platform
from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from trainpace.cases.machine import Machine
from trainpace.judge.verdict import Judgement
from trainpace.runs import metrics
from trainpace.runs.run import Run


class Clock:
    """A timer that stands still until it is set forward. Each test needs its own: the timer is part of its marker."""

    __name__ = "recorded_steps"  # what pytest-benchmark writes as the timer's name

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds since the clock was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._now += seconds


class _NothingMeasuredError(Exception):
    """Ends a benchmark that has no steps, so that it is left out of every file."""


def export(benchmark: BenchmarkFixture, clock: Clock, runs: Sequence[Run], judgement: Judgement) -> None:
    """Hand the steps of `runs` to pytest-benchmark, all that was judged in `extra_info`.

    Where no run ended there is nothing to hand over, and the benchmark is marked as failed.
    """
    # A case as a parameter is an object, which pytest-benchmark would write as its whole repr.
    benchmark.params = benchmark.params and {name: str(value) for name, value in benchmark.params.items()}
    benchmark.extra_info.update(extra_info(runs, judgement))
    steps = [seconds for run in runs for seconds in step_seconds(run)]
    forward = iter(steps)

    def step() -> None:
        seconds = next(forward, None)
        if seconds is None:
            raise _NothingMeasuredError
        clock.advance(seconds)

    with suppress(_NothingMeasuredError):
        benchmark.pedantic(step, rounds=max(1, len(steps)), iterations=1)  # type: ignore[no-untyped-call]


def step_seconds(run: Run) -> list[float]:
    """Seconds of every measured step of the slowest rank, each with its share of the optimizer.

    Their median is what the run's TGS is made of: rank_tokens / median = TGS.
    """
    accumulation = run.workload.accumulation
    shares = [median(samples.optimizer_seconds or [0.0]) / accumulation for samples in run.ranks]
    slowest = max(zip(run.ranks, shares, strict=True), key=lambda pair: median(pair[0].seconds) + pair[1])
    return [seconds + slowest[1] for seconds in slowest[0].seconds]


def extra_info(runs: Sequence[Run], judgement: Judgement) -> dict[str, Any]:
    """What a benchmark's `extra_info` holds beside the steps: judgement, device, software, runs. Plain JSON."""
    return {
        # Readers outside know the reason of a waiver as `excused`; that memory is red stands in the reasons.
        "judgement": {
            **judgement.model_dump(mode="json", exclude={"waiver", "more_memory", "recorded_in"}),
            "excused": judgement.waiver,
        },
        "device": runs[0].device.model_dump(mode="json") if runs else None,
        "software": runs[0].software if runs else None,
        "runs": [
            {
                "id": run.id,
                "started": run.started,
                "revision": run.revision,
                "steps": run.workload.steps,
                "tgs": metrics.tgs(run),
                "tflops": metrics.tflops(run, judgement.convention),
                "mfu": metrics.mfu(run, judgement.peak_tflops),
                "hfu": metrics.hfu(run, judgement.peak_tflops),
                "peak_memory_bytes": metrics.peak_memory(run),
                "startup_seconds": run.startup_seconds,
                "compile_seconds": run.compile_seconds,
                "data_share": metrics.data_share(run),
                "health": run.health.model_dump(mode="json"),
            }
            for run in runs
        ],
    }


def properties(judgement: Judgement) -> dict[str, str]:
    """The judgement as JUnit properties of its test; what is not known is left out."""
    workload, baseline = judgement.workload, judgement.baseline
    values = {
        "case": judgement.case,
        "workload": workload and workload.key,
        "scale": workload and workload.scale,
        "ranks": workload and workload.ranks,
        "verdict": judgement.verdict.value,
        "reasons": "\n".join(judgement.reasons) or None,
        "tgs": judgement.tgs,
        "tflops": judgement.tflops,
        "convention": judgement.tflops and f"{judgement.convention} {judgement.convention_version}",
        "mfu": judgement.mfu,
        "hfu": judgement.hfu,
        "peak_memory_bytes": judgement.peak_memory_bytes,
        "startup_seconds": judgement.startup_seconds,
        "baseline_tgs": baseline and baseline.tgs,
        "baseline_origin": baseline and baseline.origin,
        "ratio": judgement.ratio,
        "tolerance": judgement.tolerance,
        "tolerance_source": judgement.tolerance_source or None,
    }
    return {f"perf.{name}": str(value) for name, value in values.items() if value is not None}


def machine_info(machine: Machine) -> dict[str, Any]:
    """pytest-benchmark's `machine_info`: its own takes over a second of py-cpuinfo, and knows no GPU.

    Holds no figure that changes from run to run, since pytest-benchmark warns where two machines differ.
    """
    return {
        "node": platform.node(),
        "machine": platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "python_implementation": platform.python_implementation(),
        "python_version": platform.python_version(),
        "cpu": {"brand_raw": machine.cpu.name, "count": machine.cpu.count},
        "gpus": machine.gpus.model_dump(mode="json") if machine.gpus else None,
    }


def silence_table(config: pytest.Config) -> None:
    """Keep pytest-benchmark's own table from being printed beside ours; `--benchmark-verbose` still shows it."""
    session = config.pluginmanager.getplugin("pytest-benchmark")
    if session is not None and not config.getoption("benchmark_verbose"):
        session.quiet = True
