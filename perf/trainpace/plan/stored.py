"""The stored gate: cases against stored baselines; what looks slow is measured again, beside the other cases.

A case is judged beside what the other cases of its session lost or gained. So the first test that asks has the first
runs of all of them made; a refresh makes all their runs, in rounds, so that the runs of one lie apart and their spread
holds what the machine does meanwhile. What looks slow is measured again for its own test.

Which case is to be run once more is decided on speeds alone, in plan/retest.py; here its decisions become tasks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from trainpace.cases.machine import Device
from trainpace.cases.workload import Workload
from trainpace.errors import RunFailed, Skipped
from trainpace.judge import baseline as baselines
from trainpace.judge.baseline import BaselineFile, Measured, Published
from trainpace.judge.command import Command
from trainpace.judge.refresh import MAX_SPREAD, Change, changes
from trainpace.judge.validity import core_fault
from trainpace.judge.verdict import Judgement, counts_memory, judge, judge_failure, runs_to_measure, unjudged
from trainpace.plan.budget import run_seconds
from trainpace.plan.retest import RetestPlan
from trainpace.plan.task import Task, attempts
from trainpace.runs import metrics
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.stats.retest import MIN_OTHER_CASES, decision_thresholds
from trainpace.stats.tolerance import CaseNoise, NoiseModel, runs_needed
from trainpace.text import count

DEFAULT_REFRESH_RUNS = 5
FEWEST_RECORDED = 3
"""Runs that record a missing baseline, where these are so alike that one run is judged by them; else up to
DEFAULT_REFRESH_RUNS."""
LONG_RUN_SECONDS = 120.0
"""From here on one run is recorded and no other is made: what judges by it is the next session."""
MEMORY_RUNS = 3
"""Runs whose median tells that a case's resident memory grew; what a GPU's allocator counts, one tells."""
LONG_STEP_SECONDS = 10.0
"""From here on a run ends as soon as its verdict is certain: shorter steps are not worth the asking between them."""


@dataclass(kw_only=True)
class StoredCase:
    """One case on its way: against what it is judged, and the runs that it has so far."""

    test: str
    """Id of the test that will report it."""
    case: str
    """Id of the case."""
    workload: Workload
    device: Device
    first_runs: int
    baseline: Published | Measured | None
    """Without the outliers among its runs; None where there is none."""
    command: Command = field(default_factory=Command)
    """What runs the test again."""
    outliers: Sequence[float] = ()
    """TGS of the baseline's runs that were set aside."""
    noise: CaseNoise | None = None
    """Between its runs and sessions; None where it is unknown."""
    runs: list[Run] = field(default_factory=list)
    failure: RunFailed | None = None
    skipped: Skipped | None = None
    """Why a training system cannot be run at all."""
    attempt: int = 1
    """Of the run that is under way."""
    again: int | None = None
    """The place in `runs` of one that is measured anew; None: the next run is a further one."""
    left_out: bool = False
    """Whether the time was up before its first run."""
    checked: int = 0
    """So many of `runs` were compared with what the cores gave to others of their workload since."""
    beside: Sequence[Published | Measured] = ()
    """Every baseline of its device."""
    wanted: int | None = None
    """Runs that the user asked for; None: what the noise needs."""
    records: bool = False
    """Whether it has no baseline, and its first runs become that."""
    change: Change | None = None
    """What came of that; None: nothing yet."""
    recorded_runs: list[Run] = field(default_factory=list)
    """The runs that are its baseline now."""
    fresh_runs: list[Run] = field(default_factory=list)
    """Of a session that was cut off: to be judged by what is recorded."""

    @property
    def stored(self) -> Sequence[Sequence[float]]:
        """TGS of each of the baseline's runs that count, by session."""
        if self.baseline is None:
            return ()
        return self.baseline.counted_tgs

    @property
    def peers(self) -> tuple[str, str]:
        """Device and scale."""
        return self.device.slug, self.workload.scale

    @property
    def tgs(self) -> list[float]:
        """Of each run so far."""
        return [metrics.tgs(run) for run in self.runs]

    @property
    def open(self) -> bool:
        """Whether further runs can be made of it."""
        return self.failure is None and self.skipped is None and not self.left_out

    @property
    def first_log_ratio(self) -> float | None:
        """log(TGS now / TGS stored) of its first runs; None where there is none, or one that cannot be trusted."""
        if self.baseline is None or not self.runs or self.failure:
            return None
        first = sorted(self.runs, key=lambda run: (run.started, run.id))[: self.first_runs]
        if any(run.health.faults for run in first):
            return None
        return fmean(math.log(metrics.tgs(run) / self.baseline.tgs) for run in first)


def stored_case(
    test: str,
    workload: Workload,
    device: Device,
    stored: Sequence[Published | Measured],
    *,
    noise: NoiseModel,
    wanted: int | None = None,
    refresh: bool = False,
    record: bool = False,
    command: Command = Command(),  # noqa: B008 - it is immutable
) -> StoredCase:
    """A case as the stored gate takes it up.

    Args:
        test: id of its test.
        workload: what is trained.
        device: what on.
        stored: every baseline of that device.
        noise: of the session; each case has its own.
        wanted: runs that the user asked for; None: what the noise between the baseline's runs needs.
        refresh: whether its runs are to become the baseline.
        record: whether they are where it has none, and fresh ones are judged by them.
        command: of its test.
    """
    found = baselines.find(stored, workload)
    baseline, outliers = baselines.without_outliers(found, stored) if found else (None, [])
    # With fewer cases nothing tells what they share, so that it is part of each one's noise.
    shared = noise.num_cases > MIN_OTHER_CASES
    own = baselines.case_noise(found, stored, shared=shared) if found else None
    if refresh:
        number = wanted or DEFAULT_REFRESH_RUNS
    elif found is None and record:
        number = FEWEST_RECORDED
    else:
        number = _runs_to_judge(baseline, noise.of(own), wanted)
    return StoredCase(
        test=test,
        case=workload.case,
        workload=workload,
        device=device,
        first_runs=number,
        baseline=baseline,
        command=command,
        outliers=outliers,
        noise=own,
        beside=stored,
        wanted=wanted,
        records=found is None and record and not refresh,
    )


def _runs_to_judge(baseline: Published | Measured | None, noise: NoiseModel, wanted: int | None) -> int:
    if noise.tolerance is not None:  # the user's own asks for no runs more
        return wanted or 1
    return runs_to_measure(baseline, noise, at_least=wanted or 1)


class StoredPlan:
    """Measures the cases of one session against stored baselines, or judges what was measured before."""

    def __init__(
        self,
        cases: Sequence[StoredCase | RunFailed],
        *,
        tests: Sequence[tuple[str, str]],
        noise: NoiseModel,
        refresh: bool = False,
        in_rounds: bool = False,
        measures: bool = True,
        own_steps: bool = False,
        max_minutes: float | None = None,
        core_seconds: dict[str, float] | None = None,
        recorded_at: str = "",
        max_spread: float = MAX_SPREAD,
    ) -> None:
        """Plan the runs of a session.

        Args:
            cases: of each test, the case, or why it cannot be cut to this machine.
            tests: id of the test and of its case, in the order of `cases`.
            noise: of the session; each case has its own spread.
            refresh: whether the runs are to become baselines.
            in_rounds: whether a refresh takes the cases in turn.
            measures: False: the cases have all the runs that there will be (a replay).
            own_steps: whether the user chose how many steps a run has: none ends early then.
            max_minutes: the user's limit, for the message of a case that did not fit; None: there is none.
            core_seconds: what the suite's fixed piece of work took where nothing disturbed it, by workload key.
            recorded_at: of the baselines that this session makes: UTC, ISO 8601.
            max_spread: between runs, above which they become no baseline.
        """
        self.to_store: list[StoredCase] = []
        """Whose `recorded_runs` are their baselines: to be stored by whoever drives the plan, who empties it."""
        self.messages: list[str] = []
        """What the user must be told, each once."""
        self.disturbed: list[tuple[str, str]] = []
        """Of each run that was made again, what it is of and its fault: for whoever drives the plan, who empties it."""
        self._cases = dict(zip([test for test, _ in tests], cases, strict=True))
        self._names = dict(tests)
        self._retests = RetestPlan([case for case in cases if isinstance(case, StoredCase)], noise)
        self._refresh, self._in_rounds, self._measures = refresh, in_rounds, measures
        self._own_steps, self._max_minutes = own_steps, max_minutes
        self._core_seconds = dict(core_seconds or {})
        self._recorded_at, self._max_spread = recorded_at, max_spread
        self._recorded: list[Measured] = []
        self._begun: dict[str, StoredCase | RunFailed] = {}
        self._closed = False

    def begin_no_more(self) -> None:
        """Finish the cases that have a run; begin no other."""
        self._closed = True
        for test, case in self._cases.items():
            if isinstance(case, StoredCase) and not case.runs and test not in self._begun:
                case.left_out = True

    def next(self, wanted: str) -> Task | None:
        """The next run for the test `wanted`: of its case, or of another that it must be compared with."""
        case = self._begin(wanted)
        if not isinstance(case, StoredCase) or not self._measures:
            return None
        if self._refresh and self._in_rounds and case.first_runs > 1 and (task := self._next_in_rounds()):
            return task
        return self._next_of(case)

    def examine(self, task: Task, run: Run) -> tuple[Run, bool]:
        """A run as it is to be kept, with what disturbed it; and whether another one takes its place."""
        case = self._cases[task.test]
        assert isinstance(case, StoredCase)
        told = self._with_core_fault(run)
        return told, bool(told.health.faults) and case.attempt < attempts(told)

    def add(self, task: Task, result: Run | RunFailed | Skipped) -> None:
        """Take one run; one that was disturbed is measured again."""
        case = self._cases[task.test]
        assert isinstance(case, StoredCase)
        if isinstance(result, RunFailed):
            case.failure = result
            return
        if isinstance(result, Skipped):
            case.skipped = result
            return
        run, again = self.examine(task, result)
        if again:
            if case.attempt == 1:  # a run that is disturbed to the last says so as its verdict's reason
                self.disturbed.append((f"{_title(case)}{_again(case)}", run.health.faults[0]))
            case.attempt += 1
            return
        case.attempt = 1
        if case.again is not None:
            case.runs[case.again] = run
            case.checked = case.again + 1
            case.again = None
        else:
            case.runs.append(run)
            case.checked = 0

    def judge_by(self, case: StoredCase, stored: Measured) -> None:
        """Judge a case by what another session has stored meanwhile, and not by the runs that this one made for it."""
        self._recorded = [each for each in self._recorded if each.key != stored.key]
        case.recorded_runs, case.change = [], None
        self._take(case, stored)

    def not_stored(self, case: StoredCase, why: str) -> None:
        """A case stays without a baseline, for its runs could not be stored."""
        self._recorded = [each for each in self._recorded if each.key != case.workload.key]
        case.change = Change(case.workload.key, None, None, why)
        case.baseline, case.noise = None, None
        case.runs, case.recorded_runs = [*case.recorded_runs, *case.runs], []
        case.first_runs = len(case.runs)

    def judgement(self, test: str) -> Judgement:
        """What is said of a test's case."""
        case, name = self._begun.get(test), self._names[test]
        if case is None:
            return unjudged(name, f"did not fit --perf-max-minutes {self._max_minutes or 0:g}")
        if isinstance(case, RunFailed):
            return judge_failure(name, None, case)
        if case.skipped:
            return unjudged(name, str(case.skipped))
        if case.failure:
            return judge_failure(name, case.workload, case.failure, case.command)
        return self._judged(case)

    def case(self, test: str) -> StoredCase | RunFailed | None:
        """A test's case as far as it has come; None where there was no time to begin it."""
        return self._begun.get(test)

    # What is wanted next

    def _begin(self, test: str) -> StoredCase | RunFailed | None:
        if test not in self._begun and not self._closed:
            self._begun[test] = self._cases[test]
        return self._begun.get(test)

    def _begin_all(self) -> list[StoredCase]:
        found = [self._begin(test) for test in self._cases]
        return [case for case in found if isinstance(case, StoredCase)]

    def _next_in_rounds(self) -> Task | None:
        """Every selected case's first runs, a run of each after the other; a case that fails drops out."""
        cases = self._begin_all()
        for index in range(max((case.first_runs for case in cases), default=0)):
            for case in cases:
                if case.open and len(case.runs) == index < case.first_runs:
                    return self._task(case)
        return None

    def _next_of(self, case: StoredCase) -> Task | None:
        """What a case needs to be judged: its first runs, and where it looks slow, further ones."""
        if not case.open:
            return None
        if case.records and any(run.health.faults for run in case.runs):
            self._record_undisturbed(case)
        if case.records and len(case.runs) == 1 and run_seconds(case.runs[0]) > LONG_RUN_SECONDS:
            case.first_runs = 1
        if case.attempt > 1 or len(case.runs) < case.first_runs:
            return self._task(case)
        if task := self._replacement(case):
            return task
        if case.records:
            self._record(case, most=DEFAULT_REFRESH_RUNS)
            return self._next_of(case)
        return None if case.baseline is None or self._refresh else self._further(case)

    def _record_undisturbed(self, case: StoredCase) -> None:
        """Do without the runs that were disturbed at every attempt; with too few others the case is invalid."""
        undisturbed = [run for run in case.runs if not run.health.faults]
        if len(undisturbed) < FEWEST_RECORDED:
            case.records, case.first_runs = False, len(case.runs)
            return
        case.runs = undisturbed
        self._record(case, most=len(undisturbed))

    def _record(self, case: StoredCase, *, most: int) -> None:
        """Make a case's runs its baseline, or go on: until a single run can be judged by them, or they are `most`.

        Runs that spread too far become none.
        """
        case.records = False
        (case.change,) = changes(
            BaselineFile(device=case.device.slug, baselines={}),
            case.runs,
            recorded=self._recorded_at,
            max_spread=self._max_spread,
            peak_tflops=peak_tflops(case.device, case.workload.dtype),
        )
        if (new := case.change.new) is None:
            case.first_runs = len(case.runs)
            return
        if run_seconds(case.runs[0]) > LONG_RUN_SECONDS:
            case.recorded_runs = case.runs
            self.to_store.append(case)
            return
        noise = self._retests.noise
        if noise.tolerance is None and len(case.runs) < most:
            own = baselines.case_noise(new, [*case.beside, *self._recorded], shared=noise.num_cases > MIN_OTHER_CASES)
            if runs_needed(noise.of(own)) != 1:
                case.records, case.change, case.first_runs = True, None, len(case.runs) + 1
                return
        case.recorded_runs, case.runs, case.checked = case.runs, list(case.fresh_runs), 0
        self._recorded.append(new)
        self._take(case, new)
        self.to_store.append(case)

    def _take(self, case: StoredCase, stored: Measured) -> None:
        """Judge a case by `stored` from here on."""
        noise, known = self._retests.noise, [stored, *case.beside, *self._recorded]
        case.baseline, case.outliers = baselines.without_outliers(stored, known)
        case.noise = baselines.case_noise(stored, known, shared=noise.num_cases > MIN_OTHER_CASES)
        case.first_runs = _runs_to_judge(case.baseline, noise.of(case.noise), case.wanted)

    def _further(self, case: StoredCase) -> Task | None:
        """A run that can change what is said of a case: its own, or the first ones of another."""
        judged = self._judged(case)
        if judged.verdict is Verdict.INVALID:
            return None
        doubted = judged.more_memory and len(case.runs) < MEMORY_RUNS and not counts_memory(case.runs[0])
        wanted, looks = self._retests.next(case), ""
        if wanted is case:
            looks = "looks slow" if self._retests.assess(case).looks_slow else "looks faster"
        elif wanted is None and doubted:
            wanted, looks = case, "takes more memory"
        if looks:
            self._say(f"{case.case}: {looks}, and is measured again")
        if wanted is None:
            return None
        assert isinstance(wanted, StoredCase)
        self._begin(wanted.test)
        return self._task(wanted)

    def _replacement(self, case: StoredCase) -> Task | None:
        """A run in place of one that turned out to be disturbed, now that more is known of the cores."""
        while case.checked < len(case.runs):
            run = case.runs[case.checked]
            told = self._with_core_fault(run)
            if not run.health.faults and told.health.faults:
                case.again = case.checked
                return self._task(case, replaces=told)
            case.checked += 1
        return None

    def _task(self, case: StoredCase, *, replaces: Run | None = None) -> Task:
        index = len(case.runs) if case.again is None else case.again
        nth = f", run {index + 1} of {case.first_runs}" if case.first_runs > 1 else ""
        if index >= case.first_runs:
            nth = f", looked at again, run {index + 1}"
        if case.records:
            nth = f", recorded{nth}"
        attempt = f", attempt {case.attempt}" if case.attempt > 1 else ""
        return Task(
            test=case.test,
            workload=case.workload,
            label=f"{_title(case)}{_again(case)}{nth}{attempt}",
            stop_at=self._stop_at(case),
            replaces=replaces,
            records=case.records,
        )

    def _stop_at(self, case: StoredCase) -> tuple[float, ...]:
        """Seconds of a micro-step at which something else is said of a case's only run, where its steps are long.

        With several runs it is their mean that is judged, and no single one is certain.
        """
        baseline, workload = case.baseline, case.workload
        if baseline is None or self._refresh or self._own_steps or case.first_runs > 1 or case.runs:
            return ()
        if workload.rank_tokens / baseline.tgs < LONG_STEP_SECONDS:
            return ()
        if workload.sharding == "zero2" and workload.accumulation > 1:
            return ()  # DeepSpeed must know before a backward whether the optimizer steps after it
        ratios = decision_thresholds(self._retests.noise.of(case.noise))
        return tuple(workload.rank_tokens / (baseline.tgs * ratio) for ratio in ratios)

    # What is said

    def _judged(self, case: StoredCase) -> Judgement:
        judged = self._against_baseline(case)
        if case.change is None or judged.verdict is Verdict.INVALID:
            return judged
        if case.change.new is None:
            why = f"no baseline for {case.change.key}, and none is recorded: {case.change.refused}"
            return judged.model_copy(update={"reasons": (why,)})
        if case.baseline is None:
            again = case.command.speed(case.workload)
            why = f"{case.case}: recorded, and nothing can be judged yet by one run that takes minutes: next `{again}`"
            return judged.model_copy(update={"reasons": (why,)})
        runs = count(len(case.recorded_runs), "run")
        note = f"its baseline is {runs} of this same session, which tell nothing of other days"
        return judged.model_copy(update={"notes": (*judged.notes, note)})

    def _against_baseline(self, case: StoredCase) -> Judgement:
        return judge(
            case.runs,
            case.baseline,
            noise=self._retests.noise.of(case.noise),
            peak_tflops=peak_tflops(case.device, case.workload.dtype),
            # A refresh is of its own level: the others are being recorded as well.
            others=() if self._refresh else self._retests.compared_with(case),
            first=case.first_runs,
            stored_outliers=case.outliers,
            command=case.command,
        )

    def _with_core_fault(self, run: Run) -> Run:
        """`run`, marked as disturbed if its fixed piece of work took over 10 % longer than the least of its workload.

        The least is that of this session so far, or of the baseline: asked again, more is known.
        """
        seconds, key = metrics.yardstick(run), run.workload.key
        # Where the load of others cannot be told the suite may share its cores, and this would tell that and no more.
        if seconds is None or run.health.foreign_cores is None:
            return run
        self._core_seconds[key] = least = min(seconds, self._core_seconds.get(key, seconds))
        fault = core_fault(seconds, least)
        if fault is None or run.health.faults:
            return run
        return run.model_copy(update={"health": run.health.model_copy(update={"faults": (fault,)})})

    def _say(self, text: str) -> None:
        if text not in self.messages:
            self.messages.append(text)


def _title(case: StoredCase) -> str:
    return f"{case.workload.case} {case.workload.scale}"


def _again(case: StoredCase) -> str:
    return ", again" if case.again is not None else ""
