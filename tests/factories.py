"""Records for tests, made from a few words: `make_run(tgs=900.0)` is a run whose value is 900 TGS."""

import random
from typing import Any

from trainpace.cases import PUBLISHED, Workload
from trainpace.cases.machine import Device, Machine
from trainpace.judge.systems import SideBySide, System, figures
from trainpace.report.record import CaseResult, CompareResult, CostResult, Reference, Results
from trainpace.runs.run import DataIdentity, RankSamples, Run

CPU = Device(slug="cpu-test-2c", name="Test CPU", kind="cpu", count=2, memory_bytes=8 << 30)
CARDS = {
    "l4": 24152899584,
    "a10": 24146608128,
    "geforce-rtx-4090": 25757220864,
    "a100-sxm4-40gb": 42949672960,
    "a100-sxm4-80gb": 85899345920,
    "h100-sxm5-80gb": 85520809984,
    "h200-sxm5-141gb": 150754820096,
}
"""Bytes that drivers tell of real cards, from 24 GB up."""
DATA = DataIdentity(sources=("generated",), tokenizer="bytes", fingerprint="0123abcd", seed=0)
LOSSES = (6.24, 6.21, 6.17, 6.14, 6.1)
"""First losses of every run that is not given others; the last one stays."""
OPTIMIZER_SHARE = 0.1
"""Of a step's time, optimizer included."""


def make_workload(case: str = "llama2_7b-8k-sp1", **overrides: Any) -> Workload:
    """The mini cut of a published case (or of any other name, as the first row is cut); `overrides` are its fields."""
    row = next((each for each in PUBLISHED if each.id == case), PUBLISHED[0])
    sp = min(row.sp, 4)
    fields: dict[str, Any] = {
        "case": case,
        "model": row.model.name,
        "scale": "mini",
        "shape": row.model.mini,
        "sequence": row.sequence // 64,
        "ranks": 2 if sp <= 2 else 4,
        "sp": sp,
        "accumulation": sp,
        "warmup": 3,
        "steps": 40,
    }
    return Workload(**{**fields, **overrides})


def make_gpus(slug: str = "h100-sxm5-80gb", count: int = 1, **overrides: Any) -> Machine:
    """A machine with `count` GPUs of a kind; `overrides` are its fields."""
    gpus = Device(slug=slug, name=f"NVIDIA {slug}", kind="cuda", count=count, memory_bytes=CARDS[slug])
    return Machine(gpus=gpus, cpu=CPU, free_bytes=1 << 40, **overrides)


def make_full_workload(case: str = "llama2_7b-8k-sp1", **overrides: Any) -> Workload:
    """A published row as it was run: full shape, all GPUs."""
    row = next(each for each in PUBLISHED if each.id == case)
    full = {"scale": "full", "shape": row.model.shape, "sequence": row.sequence, "ranks": row.gpus, "sp": row.sp}
    return make_workload(case, **{**full, "accumulation": row.sp, "steps": 64, **overrides})


def make_run(
    case: str = "llama2_7b-8k-sp1",
    tgs: float = 1000.0,
    noise: float = 0.0,
    *,
    workload: Workload | None = None,
    ranks: int | None = None,
    seed: int = 0,
    losses: tuple[float, ...] = LOSSES,
    peak_memory_bytes: int = 1 << 30,
    warmup_factor: float = 2.0,
    **overrides: Any,
) -> Run:
    """A run that trained `case` at `tgs`.

    Args:
        case: id of the case; its mini cut is what ran, unless `workload` says otherwise.
        tgs: the run's value, exact where `noise` is 0 (and up to a rounding of floats).
        noise: standard deviation of the log of a step's time within the run.
        ranks: processes, instead of the workload's.
        seed: of the noise, and part of the run's id.
        losses: the first ones of every rank; the last is repeated to the end.
        peak_memory_bytes: of every rank.
        warmup_factor: the warm-up's steps are this much slower.
        overrides: fields of the Run.
    """
    workload = workload or make_workload(case, **({} if ranks is None else {"ranks": ranks}))
    whole = workload.rank_tokens / tgs
    step, optimizer = whole * (1 - OPTIMIZER_SHARE), whole * OPTIMIZER_SHARE * workload.accumulation
    chance = random.Random(seed)  # noqa: S311 - noise, no secret
    num_losses = workload.warmup + workload.steps
    samples = []
    for rank in range(workload.ranks):
        seconds = [step * chance.lognormvariate(0, noise) for _ in range(workload.steps)]
        samples.append(
            RankSamples(
                rank=rank,
                place=f"host/cpu {rank}",
                warmup_seconds=[step * warmup_factor] * workload.warmup,
                seconds=seconds,
                data_seconds=[value / 100 for value in seconds],
                optimizer_seconds=[optimizer] * max(1, workload.steps // workload.accumulation),
                losses=[*losses, *[losses[-1]] * num_losses][:num_losses],
                peak_memory_bytes=peak_memory_bytes,
            )
        )
    fields: dict[str, Any] = {
        "id": f"run{seed}",
        "started": f"2026-11-25T00:00:{seed % 60:02d}+00:00",
        "workload": workload,
        "device": CPU,
        "software": {"python": "3.11.7", "torch": "2.13.0"},
        "data": DATA,
        "startup_seconds": 2.0,
        "ranks": tuple(samples),
    }
    return Run(**{**fields, **overrides})


def make_published_run() -> Run:
    """As quick as the first published row, on the device that it is of."""
    device = Device(slug="a100-sxm4-80gb", name="NVIDIA A100-SXM4-80GB", kind="cuda", count=8, memory_bytes=80 << 30)
    return make_run(tgs=3028.3, workload=make_full_workload(), device=device)


def make_runs(*tgs: float, **overrides: Any) -> list[Run]:
    """One run for each value, all of one workload."""
    return [make_run(tgs=value, seed=number, **overrides) for number, value in enumerate(tgs)]


def make_case_result(case: str = "llama2_7b-8k-sp1", **overrides: Any) -> CaseResult:
    """A case that passed against a measured baseline, as reports are given it; `overrides` are its fields."""
    fields: dict[str, Any] = {
        "case": case,
        "trainer": "native",
        "workload": f"{case}/mini/native/0123abcd",
        "scale": "mini",
        "ranks": 2,
        "device": "cpu-test-2c",
        "verdict": "pass",
        "outcome": "passed",
        "excused": None,
        "refresh": None,
        "change": None,
        "reasons": (),
        "notes": (),
        "version_differences": (),
        "tgs": 1000.0,
        "tgs_of_runs": (1000.0,),
        "tflops": 0.0123,
        "convention": "xtuner 1",
        "peak_memory_bytes": 1 << 30,
        "startup_seconds": 2.0,
        "versus": Reference(kind="baseline", name="measured", tgs=1001.0),
        "ratio": 0.999,
        "tolerance": 0.05,
        "tolerance_source": "5 runs, 1 now: 5 %",
        "explanation": (),
        "detail": "",
    }
    return CaseResult(**{**fields, **overrides})


def make_cost_result(case: str = "llama2_7b-8k-sp1", **overrides: Any) -> CostResult:
    """A case whose counted cost is what it was; `overrides` are its fields."""
    fields: dict[str, Any] = {
        "case": case,
        "workload": f"{case}/full/native/0123abcd",
        "verdict": "pass",
        "outcome": "passed",
        "refresh": None,
        "change": None,
        "reasons": (),
        "notes": (),
        "version_differences": (),
        "counters": {"step.flops.matmul": 5 * 10**14, "step.flops.loss": 10**13, "step.calls": 2400},
        "detail": "",
    }
    return CostResult(**{**fields, **overrides})


def make_slower(case: str = "llama2_7b-32k-sp1", **overrides: Any) -> CaseResult:
    """A case that is red."""
    why = "TGS 700.0 is 30 % below the base's 1000.0"
    red = {"verdict": "regression", "outcome": "failed", "tgs": 700.0, "ratio": 0.7, "reasons": (why,)}
    return make_case_result(case, **{**red, **overrides})


def make_results(*cases: CaseResult, **overrides: Any) -> Results:
    """The session of `cases`."""
    return Results(**{"exit_status": 0, "summary": f"{len(cases)} cases", "cases": cases, **overrides})


def make_system(
    trainer: str = "native", *tgs: float, first: tuple[float, ...] | None = None, **overrides: Any
) -> System:
    """A system of a comparison, measured where it is given its `tgs`, one a round, else skipped.

    Args:
        trainer: as it was asked for.
        tgs: of its rounds.
        first: of the first system's rounds; its own without.
        overrides: fields of the System.
    """
    fields: dict[str, Any] = {"trainer": trainer, "title": trainer}
    if tgs:
        fields |= {
            "status": "measured",
            "reference": first is None,
            "tgs_of_runs": tgs,
            **figures(tgs, first or tgs),
            "tflops": 0.0123,
            "peak_memory_bytes": 1 << 30,
            "startup_seconds": 2.0,
            "command": f"run {trainer}",
            "software": {"python": "3.11.7", trainer: "1.0"},
        }
    else:
        fields |= {"status": "skipped", "reason": f"{trainer} is not installed: `tox run -e peer-{trainer}`"}
    return System(**{**fields, **overrides})


def make_side_by_side(*systems: System, case: str = "llama2_7b-8k-sp1", **overrides: Any) -> SideBySide:
    """A comparison on the mini cut of a published case; `overrides` are its fields."""
    row = next(each for each in PUBLISHED if each.id == case)
    fields: dict[str, Any] = {
        "case": case,
        "title": row.model.title,
        "length": row.length,
        "workload": make_workload(case),
        "device": CPU,
        "rounds": 3,
        "convention": "xtuner",
        "systems": systems,
    }
    return SideBySide(**{**fields, **overrides})


def make_compare_result(*systems: System, **overrides: Any) -> CompareResult:
    """A comparison that was measured, as reports are given it; `overrides` are its fields."""
    found = make_side_by_side(*systems)
    fields: dict[str, Any] = {
        "case": found.case,
        "workload": found.workload.key,
        "verdict": "pass",
        "outcome": "passed",
        "refresh": None,
        "change": None,
        "reasons": (),
        "notes": (),
        "version_differences": (),
        "side_by_side": found,
        "detail": "",
    }
    return CompareResult(**{**fields, **overrides})
