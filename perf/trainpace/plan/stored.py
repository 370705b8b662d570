"""The stored gate: measures cases against stored baselines, looks again at what looks slow, records what is refreshed.

A case is measured by its own test. Two things need the others too, and then the first test that asks measures them:
a refresh makes the runs of all cases in rounds, so that the runs of one lie apart and their spread holds what the
machine does meanwhile; and a case that looks slow is judged beside what the other cases of the session lost.
"""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from trainpace.app.options import DEFAULT_REFRESH_RUNS
from trainpace.app.session import Measured, Selected, Session
from trainpace.cases import Case, Workload
from trainpace.cases.machine import Device
from trainpace.errors import FileError, RunFailed, Skipped
from trainpace.judge import baseline as baselines
from trainpace.judge.refresh import Change, baselines_of
from trainpace.judge.validity import core_fault
from trainpace.judge.verdict import Judgement, judge, judge_failure, look_at, runs_to_measure, unjudged
from trainpace.probe.device import revision
from trainpace.runs import metrics
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import SOFTWARE, Run
from trainpace.runs.verdict import Verdict
from trainpace.stats.retest import MIN_OTHER_CASES, Assessment, decision_thresholds
from trainpace.stats.tolerance import MOST_RUNS, Spread
from trainpace.store.baselines import load_baselines, refresh
from trainpace.store.runs import read_runs, run_path
from trainpace.trainers.external import is_described, load

DISTURBED_ATTEMPTS = 3
"""Fresh runs in place of one that something disturbed, before the case is called invalid."""
LONG_STEP_SECONDS = 10.0
"""From here on a run ends as soon as its verdict is certain: what that takes between steps does not show in them."""
UNMOVED = {Verdict.INVALID, Verdict.NO_BASELINE}
"""What no other case changes."""


@dataclass(kw_only=True)
class _Entry:
    """One case on its way: against what it is judged, and the runs that it has so far."""

    case: Case
    workload: Workload
    device: Device
    number: int
    """Runs to begin with."""
    baseline: baselines.Published | baselines.Measured | None
    outliers: Sequence[float]
    """TGS of the baseline's runs that were set aside."""
    pool: Spread | None
    runs: list[Run] = field(default_factory=list)
    failure: RunFailed | None = None
    skipped: Skipped | None = None
    """Why a described program cannot be run at all."""

    @property
    def open(self) -> bool:
        """Whether further runs can be made of it."""
        return self.failure is None and self.skipped is None

    @property
    def title(self) -> str:
        return f"{self.workload.case} {self.workload.scale}"

    @property
    def first_log_ratio(self) -> float | None:
        """log(TGS now / TGS stored) of the first run; None where there is none to be trusted."""
        if self.baseline is None or not self.runs or self.failure:
            return None
        first = min(self.runs, key=lambda run: (run.started, run.id))
        return None if first.health.faults else math.log(metrics.tgs(first) / self.baseline.tgs)


class StoredGate:
    """Measures and judges the cases of one session against stored baselines."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.options = session.options
        self._entries: dict[str, _Entry] = {}
        """By test."""
        self._yardsticks: dict[str, float] = {}
        """What the suite's fixed piece of work takes where nothing disturbs it, by the key of the workload beside it:
        the least that was seen, in this session or when the baseline was recorded."""
        self._seen: set[Path] = set()
        """Files and folders of baselines that were there at some time of the session."""

    def measure(self, test: str, case: Case, trainer: str) -> Measured:
        """Measure (or replay) `case` and judge it; in a refresh, record it."""
        try:
            entry = self._begun(Selected(test=test, case=case, trainer=trainer))
        except RunFailed as failure:
            return Measured([], judge_failure(case.id, None, failure), failure.detail)
        if entry is None:
            return Measured([], unjudged(case.id, f"did not fit --perf-max-minutes {self.options.max_minutes:g}"))
        if not self.options.replay:
            if self.options.refresh and entry.number > 1 and self.options.max_minutes is None:
                self._in_rounds()
            self._complete(entry)
        if entry.skipped:
            return Measured([], unjudged(case.id, str(entry.skipped)))
        if entry.failure:
            return Measured(entry.runs, judge_failure(case.id, entry.workload, entry.failure), entry.failure.detail)
        judged = self._judgement(entry)
        return Measured(entry.runs, judged, change=self._recorded(entry) if self.options.refresh else None)

    def _begun(self, selected: Selected) -> _Entry | None:
        """The entry of a test, with the runs that are there already; None where there is no time to begin.

        Raises:
            RunFailed: where the case cannot be cut to this machine, or was not recorded.
        """
        entry = self._entries.get(selected.test)
        if entry is None and not self.session.time_is_up:
            entry = self._replayed(selected.case) if self.options.replay else self._cut(selected)
            self._entries[selected.test] = entry
        return entry

    def _cut(self, selected: Selected) -> _Entry:
        workload = self.session.resolve(selected.case, selected.trainer).workload
        entry = self._entry(selected.case, workload, self.session.device_of(workload))
        self._see(self.session.baselines_folder / f"{entry.device.slug}.json")
        if isinstance(entry.baseline, baselines.Measured) and not is_described(selected.trainer):
            self._remember_machine(workload, entry.baseline)
        if self.options.resume:
            entry.runs = self._kept(entry)
        return entry

    def _replayed(self, case: Case) -> _Entry:
        runs = self.session.replayed[case.id]
        kinds = sorted({f"{run.workload.key} on {run.device.slug}" for run in runs})
        if len(kinds) > 1:
            raise RunFailed(f"the replayed runs of {case.id} are of several workloads or devices: {', '.join(kinds)}")
        entry = self._entry(case, runs[0].workload, runs[0].device)
        entry.runs = runs
        return entry

    def _entry(self, case: Case, workload: Workload, device: Device) -> _Entry:
        stored = self.baselines(device)
        found, pool = baselines.find(stored, workload), baselines.pool(stored, workload.scale)
        settled, aside = baselines.without_outliers(found, stored) if found else (None, [])
        wanted = self.options.runs_per_case
        if self.options.refresh:
            number = wanted or DEFAULT_REFRESH_RUNS
        elif self.options.tolerance is not None:  # the user's own asks for no runs more
            number = wanted or 1
        else:
            number = runs_to_measure(settled, pool=pool, selected_cases=self._selected, at_least=wanted or 1)
            if wanted is None and number > 1 and not self.options.replay:
                self.session.say(f"{number} runs a case: the noise between the baseline's runs needs as many")
        return _Entry(
            case=case, workload=workload, device=device, number=number, baseline=settled, outliers=aside, pool=pool
        )

    @property
    def _selected(self) -> int:
        """Cases that share the session's chance of a false alarm."""
        return max(1, len(self.session.selection))

    # Measuring

    def _in_rounds(self) -> None:
        """Every selected case's first runs, a run of each after the other; a case that fails drops out."""
        entries = [entry for each in self.session.selection if (entry := self._other(each)) is not None]
        for index in range(max((entry.number for entry in entries), default=0)):
            for entry in entries:
                if entry.open and len(entry.runs) == index < entry.number:
                    self._add(entry)

    def _other(self, selected: Selected) -> _Entry | None:
        """The entry of another test, whose failure is its own to tell."""
        try:
            return self._begun(selected)
        except RunFailed:
            return None

    def _complete(self, entry: _Entry) -> None:
        """What a case needs to be judged: its first runs, and where it looks slow, further ones."""
        self._first_runs(entry)
        self._replace_disturbed(entry)
        if not entry.open or entry.baseline is None or self.options.refresh:
            return
        while self._judged(entry, ()).verdict is not Verdict.INVALID and self._looks_slow(entry):
            self.session.say(f"{entry.case.id}: looks slow, and is measured again")
            self._add(entry)
            self._replace_disturbed(entry)
            if entry.failure:
                return

    def _first_runs(self, entry: _Entry) -> None:
        while entry.open and len(entry.runs) < entry.number:
            self._add(entry)

    def _looks_slow(self, entry: _Entry) -> bool:
        """Whether a further run is wanted; the others are measured first where that can make a difference."""
        assert entry.baseline is not None
        alone = self._assess(entry, ())
        return alone.needs_another_run(entry.number) and self._assess(entry, self._others(entry)).needs_another_run(
            entry.number
        )

    def _assess(self, entry: _Entry, others: Sequence[float]) -> Assessment:
        assert entry.baseline is not None
        return look_at(
            entry.runs,
            entry.baseline,
            pool=entry.pool,
            selected_cases=self._selected,
            tolerance=self.options.tolerance,
            others=others,
        )

    def _others(self, entry: _Entry) -> list[float]:
        """The log ratio of the first run of every other case to its baseline; what was not measured yet, is now.

        Those of the same device and scale; none where they would say nothing.
        """
        selection, pool = self.session.selection, entry.pool
        known = isinstance(entry.baseline, baselines.Measured) and entry.baseline.spread(pool) is not None
        if len(selection) <= MIN_OTHER_CASES or not known or self.options.tolerance is not None:
            return []
        alike = entry.device.slug, entry.workload.scale
        others = [other for each in selection if (other := self._other(each)) is not None and other is not entry]
        others = [other for other in others if other.baseline and alike == (other.device.slug, other.workload.scale)]
        for other in others if not self.options.replay else ():
            self._first_runs(other)
        return [ratio for other in others if (ratio := other.first_log_ratio) is not None]

    def _add(self, entry: _Entry) -> None:
        """One run more, or the failure that ends the case."""
        try:
            entry.runs.append(self._run(entry, len(entry.runs)))
        except RunFailed as failure:
            entry.failure = failure
        except Skipped as reason:
            entry.skipped = reason

    def borders(self, entry: _Entry) -> list[float]:
        """Seconds of a micro-step at which something else is said of a case's only run, where its steps are long.

        With several runs it is their mean that is judged, and no single one is certain.
        """
        baseline, workload = entry.baseline, entry.workload
        if baseline is None or self.options.refresh or self.options.steps or entry.number > 1 or entry.runs:
            return []
        if workload.rank_tokens / baseline.tgs < LONG_STEP_SECONDS:
            return []
        ratios = decision_thresholds(
            baseline.num_runs,
            spread=baseline.spread(entry.pool),
            selected=self._selected,
            override=self.options.tolerance,
        )
        return [workload.rank_tokens / (baseline.tgs * ratio) for ratio in ratios]

    def _run(self, entry: _Entry, index: int, *, again: bool = False) -> Run:
        """One run that can be trusted; one that was disturbed is measured again, and counted."""
        title = f"{entry.title}{', again' if again else ''}"
        nth = f", run {index + 1} of {entry.number}" if entry.number > 1 else ""
        if index >= entry.number:
            nth = f", looked at again, run {index + 1}"
        for attempt in range(1, DISTURBED_ATTEMPTS + 1):
            attempts = f", attempt {attempt}" if attempt > 1 else ""
            run = self._told(self.session.once(entry.workload, title + nth + attempts, borders=self.borders(entry))[0])
            self.session.keep(run, replaced=bool(run.health.faults) and attempt < DISTURBED_ATTEMPTS)
            if not run.health.faults:
                break
            self.session.say(f"{title}: disturbed: {run.health.faults[0]}")
        return run

    def _replace_disturbed(self, entry: _Entry) -> None:
        """What the first runs had for quiet may turn out not to have been: such a run is measured again."""
        try:
            for index, run in enumerate(entry.runs):
                if not run.health.faults and (told := self._told(run)) is not run:
                    if self.options.runs:
                        run_path(run, self.options.runs).unlink(missing_ok=True)
                    self.session.keep(told, replaced=True)
                    entry.runs[index] = self._run(entry, index, again=True)
        except RunFailed as failure:
            entry.failure = failure

    def _remember_machine(self, workload: Workload, baseline: baselines.Measured) -> None:
        """Let runs be compared with what the cores gave when the baseline was recorded, by the same Python."""
        if baseline.yardstick_seconds and baseline.software.get("python") == platform.python_version():
            self._yardsticks[workload.key] = baseline.yardstick_seconds

    def _told(self, run: Run) -> Run:
        """`run`, with a fault where the cores gave it less than others of its workload; asked again, more is known."""
        seconds, key = metrics.yardstick(run), run.workload.key
        # Where the load of others cannot be told the suite may share its cores, and this would tell that and no more.
        if seconds is None or run.health.foreign_cores is None:
            return run
        self._yardsticks[key] = least = min(seconds, self._yardsticks.get(key, seconds))
        fault = core_fault(seconds, least)
        if fault is None or run.health.faults:
            return run
        return run.model_copy(update={"health": run.health.model_copy(update={"faults": (fault,)})})

    # What is there already

    def _kept(self, entry: _Entry) -> list[Run]:
        """Runs of a session that was cut off, which need not be made again."""
        from trainpace.plan.resume import Now, data_names, resumed
        from trainpace.rank.host import versions

        workload = entry.workload
        runs = self._kept_runs.get(workload.key, [])
        if not runs:
            return []
        software = versions(list(SOFTWARE))
        if is_described(workload.trainer):
            software = self.session.programs.versions(load(workload.trainer)) or {}
        now = Now(
            workload=workload,
            device=entry.device.slug,
            revision=revision(self.session.root),
            software=software,
            data=data_names(self.options, workload.trainer),
        )
        # A case that looked slow has more than it began with.
        most = entry.number if self.options.refresh else max(MOST_RUNS, 2 * entry.number)
        usable, said = resumed(runs, now, entry.number, most)
        for text in said:
            self.session.say(text)
        return usable

    @cached_property
    def _kept_runs(self) -> dict[str, list[Run]]:
        from trainpace.plan.resume import kept_runs

        assert self.options.runs
        return kept_runs(self.options.runs, {each.case.id for each in self.session.selection})

    # Judging and recording

    def _judgement(self, entry: _Entry) -> Judgement:
        alone = self._judged(entry, ())
        # The others are asked only where they can make a difference, in a replay as in the session.
        if alone.verdict in UNMOVED or self.options.refresh or not self._assess(entry, ()).slow:
            return alone
        return self._judged(entry, self._others(entry))

    def _judged(self, entry: _Entry, others: Sequence[float]) -> Judgement:
        return judge(
            entry.runs,
            entry.baseline,
            pool=entry.pool,
            selected_cases=self._selected,
            tolerance=self.options.tolerance,
            peak_tflops=peak_tflops(entry.device, entry.workload.dtype),
            others=others,
            stored_outliers=entry.outliers,
        )

    def baselines(self, device: Device) -> list[baselines.Published | baselines.Measured]:
        """Every baseline of `device` that this session judges against."""
        if self.options.against_runs:
            runs = [run for path in self.options.against_runs for run in read_runs(path)]
            return [*baselines_of(runs, device.slug)]
        return load_baselines([self.session.baselines_folder], device.slug)

    def _recorded(self, entry: _Entry) -> Change:
        """Record its runs. A share that was lost meanwhile refuses this case, and not those that come after it."""
        file = self.session.baselines_folder / f"{entry.device.slug}.json"
        # A refresh would make the folder of a share that is gone anew, with this case alone in it.
        if gone := [path for path in (file.parent, file) if path in self._seen and not path.exists()]:
            why = f"{gone[0]}: was there before and is gone: is its share still mounted?"
            return Change(entry.workload.key, None, None, why)
        try:
            (change,) = refresh(
                file.parent,
                entry.runs,
                max_spread=self.options.max_spread,
                accept_slower=self.options.accept_slower,
                peak_tflops=peak_tflops(entry.device, entry.workload.dtype),
            )
        except FileError as error:
            return Change(entry.workload.key, None, None, str(error))
        self._see(file)
        return change

    def _see(self, file: Path) -> None:
        """Remember that a device's file, or the folder that it will be in, is there."""
        self._seen.update(path for path in (file.parent, file) if path.exists())
