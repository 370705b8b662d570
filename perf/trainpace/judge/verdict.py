"""The judgement: the runs of one case and its baseline in, a verdict and its reasons out."""

import math
from collections.abc import Sequence
from statistics import median

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from trainpace.cases.workload import Workload
from trainpace.errors import RunFailed
from trainpace.judge.baseline import Baseline, Measured, Published, case_noise
from trainpace.judge.claims import tokens_note
from trainpace.judge.command import Command
from trainpace.judge.comparison import Comparison
from trainpace.judge.validity import core_fault, core_note, faults
from trainpace.records import Record
from trainpace.runs import flops, metrics
from trainpace.runs.run import DataIdentity, Run, TrainedOn
from trainpace.runs.verdict import Verdict
from trainpace.stats.memory import memory_tolerance
from trainpace.stats.retest import MIN_OTHER_CASES, Assessment, OtherCase, assess
from trainpace.stats.tolerance import (
    MOST_RUNS,
    NoiseModel,
    error_per_case,
    first_runs,
    geometric_mean,
    mean_if_known,
    runs_needed,
)
from trainpace.text import count, gib, percent, signed_percent, version_changes

RATIO_AGREEMENT = 1e-3
"""Relative. TGS and TFLOPs differ by a factor that both sides share: their ratios differ by rounding, or wrongly."""
OF_STEPS = {flops.COUNTED: "counted", flops.STATED: "as its trainer says"}
"""Conventions whose FLOPs are those of a run's own steps, and how they are known."""
ANOTHER_REVISION = "a comparison with another revision would decide"
"""Of what all cases lost or gained."""


class Figures(Record):
    """What was measured of one case, and how it stands to its baseline; nothing is said of it yet."""

    case: str
    workload: Workload | None
    """None where the case failed before it was cut to the machine."""
    notes: tuple[str, ...] = ()
    """Worth knowing, and no reason for the verdict."""
    tgs: PositiveFloat | None = None
    """Geometric mean over the runs that count; None where none ended."""
    tgs_of_runs: tuple[PositiveFloat, ...] = ()
    """Of all runs."""
    set_aside: NonNegativeInt = 0
    """Runs that were outliers and count in none of the speeds; a note names each."""
    tflops: PositiveFloat | None = None
    convention: str = flops.DEFAULT
    convention_version: PositiveInt = flops.CONVENTIONS[flops.DEFAULT].version
    """None where no formula holds for the workload and its step was not counted."""
    mfu: PositiveFloat | None = None
    """Model FLOPs that were trained in a second / those that the device can do; None where either is not known."""
    hfu: PositiveFloat | None = None
    """The same of all FLOPs that were executed, what is made again included; the native trainer's alone."""
    peak_tflops: PositiveFloat | None = None
    """What the device can do; None where that is unknown."""
    peak_memory_bytes: PositiveInt | None = None
    """Largest over runs and ranks."""
    startup_seconds: NonNegativeFloat | None = None
    """Median over the runs."""
    compile_seconds: NonNegativeFloat | None = None
    """Median over the runs."""
    data: DataIdentity | None = None
    """What was trained on; None where the trainer brings data that the suite does not know."""
    trained_on: tuple[TrainedOn, ...] = ()
    """What was found in each source of `data`; empty where the trainer does not say."""
    data_share: NonNegativeFloat | None = None
    """The part of the steps that loading took, of the run where it is largest; None where a program does not say."""
    baseline: Baseline | None = None
    comparison: Comparison | None = None
    """In the gate of a pull request, instead of a baseline."""
    ratio: PositiveFloat | None = None
    """TGS now / TGS of the baseline."""
    tflops_ratio: PositiveFloat | None = None
    """The same of TFLOPs: equal, or the formula is wrong."""
    tolerance: PositiveFloat | None = None
    tolerance_source: str = ""
    version_differences: tuple[str, ...] = ()
    """`torch 2.12.0 -> 2.13.0`, of what decides speed."""


LARGE_GAIN = 1.5
"""TGS / TGS of what a case was judged against, above which the gain is said aloud."""


class Judgement(Figures):
    """One case, judged: the verdict, its reasons, and the figures that it rests on. Made once, with its verdict."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Why it is not `pass`, each a sentence: what was expected, what came, and the next command."""
    what_decides: str = ""
    """Of a case that was measured and is inconclusive, `10 runs would decide`: in these words its reason, the last line
    and the summary say it; empty of any other."""
    explanation: tuple[str, ...] = ()
    """Where the time went, on both sides of a comparison."""
    more_memory: bool = False
    """Whether peak memory is a regression, by itself or besides speed."""
    recorded_in: str = ""
    """The file in which this session recorded the case's baseline, which was missing; empty of all others."""
    waiver: str | None = None
    """Why the verdict does not fail its test, though it would (judge/waivers.py); None where nothing is waived."""

    @property
    def large_gain(self) -> str | None:
        """What is said of a case that is LARGE_GAIN times as fast or more, for whoever decides; None of others.

        Few changes give that much, and doing less of the work does.
        """
        if self.verdict is Verdict.INVALID or self.ratio is None or self.ratio <= LARGE_GAIN:
            return None
        of = "the base" if self.comparison else "its baseline"
        return f"{self.case} is {self.ratio:.2f} times as fast as {of}: see that it does the same work"


def judgement(figures: Figures, verdict: Verdict, *reasons: str, what_decides: str = "") -> Judgement:
    """The judgement of what was measured."""
    return Judgement(**dict(figures), verdict=verdict, reasons=reasons, what_decides=what_decides)


def would_decide(number: int | None, unit: str) -> str:
    """`10 runs would decide`; None: no number of them does. `unit` is `run` or `pair`."""
    if number is None:
        return f"no number of {unit}s would decide"
    return f"{count(number, unit)} would decide"


def judge(
    runs: Sequence[Run],
    baseline: Published | Measured | None,
    *,
    noise: NoiseModel = NoiseModel(),  # noqa: B008 - it is immutable
    peak_tflops: float | None = None,
    others: Sequence[OtherCase] = (),
    first: int | None = None,
    stored_outliers: Sequence[float] = (),
    command: Command = Command(),  # noqa: B008 - it is immutable
) -> Judgement:
    """Judge the runs of one workload, at least one, against its baseline.

    Args:
        runs: measured now, oldest first, all of one workload; the geometric mean of those that count is judged.
        baseline: what `find` gave for the workload.
        noise: with that of the case among the device's baselines; where that is None, the baseline's own runs serve.
        peak_tflops: what one device can do in the workload's dtype; None where it is unknown.
        others: the other cases of the session, as far as they tell what the machine did.
        first: how many of the runs are those that every case makes; None: all.
        stored_outliers: TGS of the runs that `without_outliers` left out of the baseline.
        command: of its test.

    Raises:
        ValueError: for no run, runs of several workloads, or a baseline of another workload.
    """
    keys = {run.workload.key for run in runs}
    if len(keys) != 1 or (isinstance(baseline, Measured) and baseline.key not in keys):
        against = baseline.key if baseline else "none"
        raise ValueError(f"expected runs of one workload and its baseline, got {sorted(keys)} against {against}")
    workload = runs[0].workload
    seen = None
    if baseline is not None:
        noise = _noise_of(baseline, noise)
        seen = assess([metrics.tgs(run) for run in runs], baseline.counted_tgs, noise, others=others, first=first)
    figures = gather(runs, baseline, peak_tflops, seen)
    if stored_outliers and baseline is not None:
        named = ", ".join(f"{tgs:.1f}" for tgs in stored_outliers)
        note = f"of the baseline's {baseline.num_runs + len(stored_outliers)} runs, set aside as outliers: TGS {named}"
        figures = figures.model_copy(update={"notes": (*figures.notes, note)})
    wrong = _faults(runs, baseline, peak_tflops, figures.convention)
    if baseline is not None:
        wrong += _formula_faults(figures, baseline, runs)
    if wrong:
        return judgement(figures, Verdict.INVALID, *wrong, f"measure again with `{command.speed(workload)}`")
    if baseline is None or seen is None:
        where = f"{workload.key} on {runs[0].device.slug}"
        record = command.speed(workload, refresh=True)
        return judgement(figures, Verdict.NO_BASELINE, f"no baseline for {where}: record it with `{record}`")
    judged = _against(
        figures,
        workload,
        baseline,
        seen,
        needed=runs_needed(noise),
        more_memory=_more_memory(runs, baseline, noise.num_cases),
        command=command,
    )
    if seen.regression and (slow := dict.fromkeys(filter(None, map(metrics.slow_node, runs)))):
        # A finding of its own: nothing was changed there.
        out = "take it out (Slurm's --exclude) and measure again"
        return judgement(figures, Verdict.INVALID, f"{'; '.join(slow)}: {judged.reasons[0]}", out)
    return judged


def judge_failure(
    case: str,
    workload: Workload | None,
    failure: RunFailed,
    command: Command = Command(),  # noqa: B008 - it is immutable
) -> Judgement:
    """A run that ended without its steps: invalid, with its cause. `failure.detail` is the caller's to show."""
    reasons = [f"expected a run of all its steps, got none: {failure}"]
    if workload is not None:
        reasons.append(f"measure again with `{command.speed(workload)}`")
    return Judgement(case=case, workload=workload, verdict=Verdict.INVALID, reasons=tuple(reasons))


def unjudged(case: str, reason: str) -> Judgement:
    """A case that was not measured: inconclusive, with the reason."""
    return Judgement(case=case, workload=None, verdict=Verdict.INCONCLUSIVE, reasons=(reason,))


def runs_to_measure(baseline: Published | Measured | None, noise: NoiseModel, *, at_least: int = 1) -> int:
    """Runs of a case to measure now, so that its bound comes below the cap: `at_least`, by itself up to five."""
    return at_least if baseline is None else first_runs(_noise_of(baseline, noise), at_least=at_least)


def gather(
    runs: Sequence[Run],
    baseline: Published | Measured | None,
    peak_tflops: float | None,
    seen: Assessment | None = None,
) -> Figures:
    """What was measured, and how it stands to the baseline."""
    workload = runs[0].workload
    convention = _convention(baseline, runs[0])
    counted = [run for run, kept in zip(runs, seen.kept, strict=True) if kept] if seen else runs
    tgs = geometric_mean([metrics.tgs(run) for run in counted])
    tflops = mean_if_known(metrics.tflops(run, convention.name) for run in counted)
    stored = _tflops_of(baseline, convention, counted[0]) if baseline else None
    figures = Figures(
        case=workload.case,
        workload=workload,
        notes=_notes(runs, baseline) + tuple(_outlier_note(run, tgs) for run in runs if run not in counted),
        tgs=tgs,
        tgs_of_runs=tuple(metrics.tgs(run) for run in runs),
        set_aside=len(runs) - len(counted),
        tflops=tflops,
        mfu=mean_if_known(metrics.mfu(run, peak_tflops) for run in counted),
        hfu=mean_if_known(metrics.hfu(run, peak_tflops) for run in counted),
        convention=convention.name,
        convention_version=convention.version,
        peak_tflops=peak_tflops,
        peak_memory_bytes=max(metrics.peak_memory(run) for run in runs),
        startup_seconds=median(run.startup_seconds for run in runs),
        compile_seconds=median(run.compile_seconds for run in runs),
        data=runs[0].data,
        trained_on=runs[0].trained_on,
        data_share=max((share for share in map(metrics.data_share, runs) if share is not None), default=None),
        baseline=baseline,
        ratio=tgs / baseline.tgs if baseline else None,
        tflops_ratio=tflops / stored if tflops and stored else None,
        tolerance=seen.tolerance.value if seen else None,
        tolerance_source=seen.tolerance.source if seen else "",
        version_differences=_version_differences(baseline, runs[0]) if baseline else (),
    )
    if note := _flops_note(figures):
        figures = _noted(figures, note)
    return figures


def _noise_of(baseline: Published | Measured, noise: NoiseModel) -> NoiseModel:
    """`noise`, with that of the baseline's own runs where it has none."""
    return noise.of(None if isinstance(baseline, Published) else noise.case or case_noise(baseline, [], shared=False))


def _against(
    figures: Figures,
    workload: Workload,
    baseline: Published | Measured,
    seen: Assessment,
    *,
    needed: int | None,
    more_memory: list[str],
    command: Command,
) -> Judgement:
    # The ratios of TGS and of TFLOPs agree, or the case would be invalid: TGS speaks for both.
    slower = [_below(figures, baseline, seen)] if seen.regression else []
    if slower and isinstance(baseline, Measured) and seen.num_others < MIN_OTHER_CASES:
        slower.append(f"with fewer than {MIN_OTHER_CASES + 1} cases a slow machine looks the same as slower code")
    if regressions := slower + more_memory:
        more = command.speed(workload, runs_per_case=max(3, 2 * len(figures.tgs_of_runs)))
        found = judgement(figures, Verdict.REGRESSION, *regressions, f"look closer with `{more}`")
        return found.model_copy(update={"more_memory": bool(more_memory)})
    if seen.unclear or not seen.tolerance.decides:
        return _undecided(figures, workload, baseline, seen, needed=needed, command=command)
    above = f"TGS {figures.tgs:.1f} is {percent(math.expm1(seen.log_ratio))} above {_stored(baseline)}"
    if seen.improvement:
        refresh = command.speed(workload, refresh=True)
        stale = f"a stale baseline hides the next regression, record it with `{refresh}`"
        return judgement(figures, Verdict.IMPROVEMENT, f"{above} (tolerance {seen.tolerance.source}): {stale}")
    if seen.gained_with_all:
        gained = percent(math.expm1(seen.common_shift))
        why = f"all cases gained about {gained}: the machine did, or a change that meets every case"
        figures = _noted(figures, f"{why}: {_against_another(baseline, command)}")
    elif seen.faster:
        figures = _noted(figures, f"{above}, in too few runs, or too uneven ones, to call it an improvement")
    return judgement(figures, Verdict.PASS)


def _undecided(
    figures: Figures,
    workload: Workload,
    baseline: Published | Measured,
    seen: Assessment,
    *,
    needed: int | None,
    command: Command,
) -> Judgement:
    """Inconclusive, with what would decide."""
    stands, decides = f"TGS {figures.tgs:.1f} is {percent(figures.ratio or 0)} of {_stored(baseline)}", ANOTHER_REVISION
    if seen.lags:
        gained = f"the other cases gained about {percent(math.expm1(seen.others_gained))}"
        why = f"{stands} (tolerance {seen.tolerance.source}), but {gained}: it may have lost what the machine gained"
        why += f": {_against_another(baseline, command)}"
    elif seen.unclear and seen.common_shift < 0:
        why = f"{_below(figures, baseline, seen)}: {_what_all_lost(seen, baseline, command)}"
    elif seen.unclear:
        more_runs = 2 * max(MOST_RUNS, len(figures.tgs_of_runs))
        decides = would_decide(more_runs, "run")
        look = f"{decides}, `{command.speed(workload, runs_per_case=more_runs)}`"
        why = f"{_below(figures, baseline, seen)}: {_uneven(figures, baseline)}: {look}"
    else:
        decides = would_decide(needed, "run")
        why = f"{stands}, too close to tell ({seen.tolerance.source}): {decides}"
        why += _how(workload, baseline, needed, command)
    return judgement(figures, Verdict.INCONCLUSIVE, why, what_decides=decides)


def _stored(baseline: Published | Measured) -> str:
    return f"the {baseline.origin} baseline's {baseline.tgs:.1f}"


def _below(figures: Figures, baseline: Published | Measured, seen: Assessment) -> str:
    lost = percent(-math.expm1(seen.log_ratio))
    return f"TGS {figures.tgs:.1f} is {lost} below {_stored(baseline)} (tolerance {seen.tolerance.source})"


def _noted(figures: Figures, note: str) -> Figures:
    return figures.model_copy(update={"notes": (*figures.notes, note)})


def _what_all_lost(seen: Assessment, baseline: Published | Measured, command: Command) -> str:
    lost = percent(-math.expm1(seen.common_shift))
    return (
        f"most of the {seen.num_others + 1} cases lost about {lost}: the machine did, or a change that meets every "
        f"case: {_against_another(baseline, command)}"
    )


def _against_another(baseline: Published | Measured, command: Command) -> str:
    recorded = baseline.revision if isinstance(baseline, Measured) else None
    if recorded is None or recorded.endswith("+dirty"):
        return f"{ANOTHER_REVISION}, --perf-against with the one that the baseline was recorded of"
    return f"{ANOTHER_REVISION}, `{command.session(against=recorded[:10])}`"


def _uneven(figures: Figures, baseline: Published | Measured) -> str:
    runs = len(figures.tgs_of_runs) + baseline.num_runs
    return f"its own {runs} runs, then and now, spread too far to call it slower"


def _outlier_note(run: Run, tgs: float) -> str:
    value = metrics.tgs(run)
    off = f"{percent(abs(1 - value / tgs))} {'below' if value < tgs else 'above'}"
    return f"run {run.id} is set aside as an outlier: TGS {value:.1f}, {off} the others"


def _said(run: Run) -> tuple[str | None, ...]:
    ended = f"ended after {run.stopped_after} of {run.workload.steps} steps: its verdict was certain"
    return (
        *run.health.notes,
        metrics.tail_note(run),
        metrics.falling_note(run),
        tokens_note(run),
        metrics.slow_node(run) or metrics.slow_rank_note(run),
        ended if run.stopped_after else None,
    )


def _notes(runs: Sequence[Run], baseline: Published | Measured | None) -> tuple[str, ...]:
    notes = [note for run in runs for note in _said(run) if note]
    if short := metrics.warmup_note(runs):
        notes.append(short)
    if any(samples.losses is None for run in runs for samples in run.ranks):
        notes.append("losses not logged: not compared")
    elif isinstance(baseline, Measured) and not baseline.first_losses:
        notes.append("losses not compared: the baseline was recorded from a program that logged none")
    if isinstance(baseline, Measured):
        notes += [note for run in runs if (note := core_note(*_yardsticks(run, baseline)))][:1]
    if isinstance(baseline, Measured) and (other := _other_data(runs[0].data, baseline.data)):
        notes.append(other)
    if isinstance(baseline, Published):
        notes.append("judged against a published row: measured by others, on another machine of this kind")
    elif baseline is not None and baseline.accepted_slower:
        notes.append(f"the baseline was recorded slower than before on purpose: {baseline.accepted_slower}")
    return tuple(dict.fromkeys(notes))


def _other_data(now: DataIdentity | None, then: DataIdentity | None) -> str | None:
    """That the speed is judged, and the losses are not; None where the data are the same, or unknown on both sides."""
    if now == then:
        return None
    was = f"on {then}" if then else "on data that the suite does not know"
    if now and then and str(now) == str(then):
        was = f"on other tokens of {then}"
    return f"the baseline was recorded {was}: speeds are compared, losses are not"


def _faults(
    runs: Sequence[Run], baseline: Published | Measured | None, peak_tflops: float | None, convention: str
) -> list[str]:
    reference = (baseline.data, baseline.first_losses) if isinstance(baseline, Measured) else None
    found = []
    for run in runs:
        said = faults(run, peak_tflops=peak_tflops, reference=reference, convention=convention)
        if isinstance(baseline, Measured) and (fault := _machine_fault(run, baseline)):
            said.append(fault)
        found += [f"run {run.id}: {fault}" if len(runs) > 1 else fault for fault in dict.fromkeys(said)]
    return found


def _machine_fault(run: Run, baseline: Measured) -> str | None:
    """Why the machine gives less than when the baseline was recorded; None where it does not, or that is unknown."""
    return core_fault(*_yardsticks(run, baseline))


def _yardsticks(run: Run, baseline: Measured) -> tuple[float | None, float | None]:
    """Of a run and of the baseline; None where they say nothing of each other."""
    # The piece of work is Python's: another Python takes another time. Where the load of others cannot be told, the
    # suite may share its cores, and this would tell that and no more.
    if run.health.foreign_cores is None or run.software.get("python") != baseline.software.get("python"):
        return None, None
    return metrics.yardstick(run), baseline.yardstick_seconds


def _formula_faults(figures: Figures, baseline: Published | Measured, runs: Sequence[Run]) -> list[str]:
    assert figures.ratio is not None
    if figures.tflops_ratio is None or abs(figures.tflops_ratio / figures.ratio - 1) <= RATIO_AGREEMENT:
        return []
    if isinstance(baseline, Measured) and baseline.mean_attended is not None:
        attended = ", ".join(f"{run.mean_attended:.6g}" for run in runs if run.mean_attended)
        return [
            f"expected documents in which a token attends to {baseline.mean_attended:.6g} keys as in the baseline, got "
            f"{attended}: other data are other work, give the baseline's with --perf-data"
        ]
    if figures.convention in OF_STEPS:  # a step that does more or less is no wrong formula: a note says it
        return []
    return [
        f"expected one ratio to the baseline for TGS and TFLOPs, got {figures.ratio:.4f} and "
        f"{figures.tflops_ratio:.4f}: the formula or the baseline's TFLOPs are wrong ({baseline.convention}, version "
        f"{baseline.convention_version})"
    ]


def _convention(baseline: Published | Measured | None, run: Run) -> flops.Convention:
    """In which both sides are compared: the baseline's, unless its formula does not hold for what it is of, or more is
    known of the run's own steps."""
    own, workload = metrics.convention_of(run), run.workload
    if baseline is None or flops.STATED in (own.name, baseline.convention):
        return own
    if own.name == flops.COUNTED and workload.trainer != "native":
        return own
    if baseline.convention != flops.COUNTED and flops.why_not(baseline.convention, workload):
        return own
    return flops.convention(baseline.convention)


def _tflops_of(baseline: Published | Measured, convention: flops.Convention, run: Run) -> float | None:
    # TFLOPs of another formula, or another version of it, cannot be compared: the stored TGS gives them in today's.
    if (baseline.convention, baseline.convention_version) == (convention.name, convention.version):
        return baseline.tflops
    attended = baseline.mean_attended if isinstance(baseline, Measured) else None
    return flops.tflops(
        baseline.tgs,
        run.workload,
        convention.name,
        mean_attended=attended,
        counted=run.step_flops,
        stated=run.flops_per_step,
    )


def _flops_note(figures: Figures) -> str | None:
    """Why there are no TFLOPs, or that those of a token are others than the baseline's; None where all is as ever."""
    if figures.tflops is None:
        assert figures.workload is not None
        return f"TFLOPs are not known: {flops.why_unknown(figures.workload)}"
    if figures.tflops_ratio is None or figures.ratio is None or figures.convention not in OF_STEPS:
        return None
    more = figures.tflops_ratio / figures.ratio - 1
    if abs(more) <= RATIO_AGREEMENT:
        return None
    how = OF_STEPS[figures.convention]
    return f"a token takes {signed_percent(more)} FLOPs, {how}, against the baseline's"


def _more_memory(runs: Sequence[Run], baseline: Published | Measured, num_cases: int) -> list[str]:
    if isinstance(baseline, Published):
        return []
    allocated = counts_memory(runs[0])
    now, then = [metrics.peak_memory(run) for run in runs], baseline.sessions[-1].peak_memory_bytes
    allowed = memory_tolerance(
        [now, *(session.peak_memory_bytes for session in baseline.sessions)],
        allocated=allocated,
        error=error_per_case(num_cases),
    )
    # What is resident varies: a run in a dozen keeps a fifth more than the others (measured on a CPU).
    memory = max(now) if allocated else int(median(now))
    stored = int(median(then)) if then and not allocated else baseline.peak_memory_bytes
    if memory <= stored * (1 + allowed):
        return []
    return [
        f"peak memory {gib(memory)} is {percent(memory / stored - 1)} above the baseline's "
        f"{gib(stored)} (tolerance of memory: {percent(allowed)})"
    ]


def counts_memory(run: Run) -> bool:
    """Whether a GPU's allocator counted its peak memory; else that is resident memory, or what a program said of it."""
    return run.device.kind == "cuda" and run.source == "measured"


def _how(workload: Workload, baseline: Published | Measured, needed: int | None, command: Command) -> str:
    if needed is not None:
        return f", `{command.speed(workload, runs_per_case=needed)}`"
    stored = baseline.num_runs
    record = command.speed(workload, refresh=True, runs_per_case=2 * stored)
    return f" against {stored} stored, record more with `{record}`"


def _version_differences(baseline: Published | Measured, run: Run) -> tuple[str, ...]:
    then, now = baseline.software, run.software
    # A table names a few versions only; what it does not name is no difference.
    return tuple(version_changes(then, now, then.keys() & now.keys() if isinstance(baseline, Published) else None))
