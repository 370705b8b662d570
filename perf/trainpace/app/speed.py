"""The speed tests of one session: cuts their cases to the machine, drives the plan that judges them, makes findings."""

import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from trainpace.app.driver import RECORDED, Driver
from trainpace.app.hours import Hours, Selected
from trainpace.app.kept import data_names, kept_runs
from trainpace.app.messages import Messages
from trainpace.app.options import Options
from trainpace.app.pull_request import explained
from trainpace.app.resources import INJECTED_SLOWDOWN, Resources, Show
from trainpace.app.workloads import Workloads
from trainpace.cases.machine import Device
from trainpace.cases.published import Case
from trainpace.cases.tables import features
from trainpace.cases.workload import Workload
from trainpace.errors import FileError, RunFailed, Skipped
from trainpace.judge import baseline as baselines
from trainpace.judge.finding import Finding, speed_finding
from trainpace.judge.noise import SessionNoise, prior
from trainpace.judge.refresh import Change
from trainpace.judge.verdict import Judgement, judge_failure, would_decide
from trainpace.judge.waivers import Quarantined, waive
from trainpace.plan.budget import run_seconds
from trainpace.plan.paired import PairedCase, PairedPlan, self_tested
from trainpace.plan.priority import rank
from trainpace.plan.resume import Now, resumed
from trainpace.plan.stored import StoredCase, StoredPlan, stored_case
from trainpace.plan.task import Task, drive
from trainpace.probe.device import revision
from trainpace.rank.host import versions
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import SOFTWARE, Run
from trainpace.runs.verdict import Verdict
from trainpace.stats.sequential import PAIRS
from trainpace.stats.tolerance import MOST_RUNS, NoiseModel
from trainpace.store.baselines import load_baselines, now, refresh
from trainpace.store.noise import keep_noise, load_noise, noise_path
from trainpace.store.priorities import load_priorities
from trainpace.store.runs import runs_in
from trainpace.text import percent
from trainpace.trainers.external import has_own_steps, is_external, load


@dataclass(kw_only=True)
class Speed:
    """Finds what is to be said of the speed tests of one session. Nothing is started before the first one asks."""

    options: Options
    root: Path
    """The tests' root."""
    resources: Resources
    workloads: Workloads
    hours: Hours
    driver: Driver
    messages: Messages
    show: Show
    selection: list[Selected] = field(default_factory=list)
    """The speed tests of this session: they share its chance of a false alarm."""
    quarantine: list[Quarantined] = field(default_factory=list)
    """Cases whose noise is waived for a while."""
    _announced: bool = False
    _alike: dict[str, str] = field(default_factory=dict)
    """Tests that are not run, and why: which case is run in their place."""
    _paired: dict[str, Finding] = field(default_factory=dict)
    _recorded_cases: list[StoredCase] = field(default_factory=list)
    """Whose runs are a baseline now."""
    _seen: set[Path] = field(default_factory=set)
    """Files and folders of baselines that were there at some time of the session."""

    def find(self, test: str) -> Finding:
        """Measure (or replay) the case of a test and judge it; in a refresh, record it.

        Against another revision the first test measures the cases of all of them, in rounds.

        Raises:
            BudgetExceeded: where the selection takes longer than --perf-max-hours.
            FileError: for baselines or sides that cannot be used.
            DeviceBusy: where another suite holds the device.
        """
        self._begin()
        if self.options.gate is not None:
            if not self._paired:
                self._paired = self._compare()
            found = self._paired[test]
        else:
            found = self._against_stored(test)
        judgement = found.judgement
        assert judgement is not None
        waived = waive(judgement, self.quarantine, self.options.accepted)
        return found if waived is judgement else replace(found, judgement=waived)

    def alike(self, test: str) -> str | None:
        """Which case runs in the place of this test's, and why; None: it is run itself.

        Where runs are measured: one whose proxy is the same computation; of a table that was asked for also one that
        has the same features at mini scale.
        """
        self._begin()
        return self._alike.get(test)

    def _begin(self) -> None:
        """Once: leave out what another case stands for, and say how long the rest takes."""
        if self._announced:
            return
        self._announced = True
        if not self.options.replay and (self.options.table is not None or self._on_gpus()):
            first: dict[tuple[str, ...], str] = {}
            for each in self.selection:
                with suppress(RunFailed):  # it will say so itself
                    workload = self.workloads.resolve(each.case, each.trainer).workload
                    if (found := same(each, workload, by_features=self.options.table is not None)) is None:
                        continue
                    what, why = found
                    name = first.setdefault(what, each.case.id)
                    self._alike |= {each.test: f"as {name}: {why}"} if name != each.case.id else {}
            self.selection = [each for each in self.selection if each.test not in self._alike]
        self.hours.announce(self.selection)

    def _on_gpus(self) -> bool:
        with suppress(RunFailed):  # each case says itself that there is no machine for it
            return bool(self.resources.allocate().gpus)
        return False

    @cached_property
    def replayed(self) -> dict[str, list[Run]]:
        """Recorded runs by case.

        Raises:
            FileError: for a file that holds no run.
        """
        found: dict[str, list[Run]] = {}
        for run in runs_in(self.options.replay):
            found.setdefault(run.workload.case, []).append(run)
        return found

    def _expect(self, cases: Iterable[StoredCase | PairedCase]) -> None:
        """Let the steps of all cases be counted at once, where they must be."""
        self.driver.step_flops.expect(case.workload for case in cases)

    # Against stored baselines

    def _against_stored(self, test: str) -> Finding:
        plan = self._plan

        def measure(task: Task) -> Run | RunFailed | Skipped:
            self._store_recorded(plan)
            return self.driver.measure(task, plan)

        drive(plan, measure, wanted=test, out_of_time=self.driver.out_of_time)
        self._store_recorded(plan)
        judgement = plan.judgement(test)
        for text in plan.messages:
            self.messages.say(text)
        while plan.disturbed:
            self.messages.say_disturbed(*plan.disturbed.pop(0))
        case = plan.case(test)
        if isinstance(case, RunFailed):
            return speed_finding(judgement, detail=case.detail)
        if case is None or case.skipped:
            return speed_finding(judgement)
        if case.failure:
            return speed_finding(judgement, runs=case.runs, detail=case.failure.detail)
        if case.recorded_runs:
            file = self.workloads.baselines_folder / f"{case.device.slug}.json"
            judgement = judgement.model_copy(
                update={"recorded_in": str(file.relative_to(self.root) if file.is_relative_to(self.root) else file)}
            )
        change = self._recorded(case) if self.options.refresh else None
        return speed_finding(judgement, runs=case.runs, change=change)

    @cached_property
    def _plan(self) -> StoredPlan:
        """The stored gate's plan for all selected cases."""
        options = self.options
        cases = [self._stored_case(each) for each in self.selection]
        self._expect(case for case in cases if isinstance(case, StoredCase))
        core_seconds: dict[str, float] = {}
        for case in cases:
            if isinstance(case, StoredCase) and isinstance(case.baseline, baselines.Measured) and not options.replay:
                core_seconds |= _core_seconds(case.workload, case.baseline)
        return StoredPlan(
            cases,
            tests=[(each.test, each.case.id) for each in self.selection],
            noise=self._noise,
            refresh=options.refresh,
            in_rounds=options.max_minutes is None,
            measures=not options.replay,
            own_steps=options.steps is not None,
            max_minutes=options.max_minutes,
            core_seconds=core_seconds,
            recorded_at=self._recorded_at,
            max_spread=options.max_spread,
        )

    def _stored_case(self, selected: Selected) -> StoredCase | RunFailed:
        options = self.options
        try:
            runs: list[Run] = []
            if options.replay:
                runs = self.replayed[selected.case.id]
                workload, device = _one_kind(selected.case, runs)
            else:
                workload = self.workloads.resolve(selected.case, selected.trainer).workload
                device = self.workloads.device_of(workload)
            case = stored_case(
                selected.test,
                workload,
                device,
                self.workloads.baselines(device),
                noise=self._noise,
                wanted=options.runs_per_case,
                refresh=options.refresh,
                record=options.records_missing,
                command=replace(selected.command, own_steps=not options.replay and has_own_steps(workload.trainer)),
            )
            case.runs = runs
            if not options.replay:
                self._see(self.workloads.baselines_folder / f"{device.slug}.json")
                if options.runs_per_case is None and case.first_runs > 1 and not (options.refresh or case.records):
                    self.messages.say(
                        f"{case.first_runs} runs a case: the noise between the baseline's runs needs as many"
                    )
                if options.resume:
                    case.runs = self._kept(case)
                if options.resume and case.records:
                    case.runs, case.fresh_runs = self._kept(case, RECORDED), case.runs
        except RunFailed as failure:
            return failure
        return case

    @property
    def _noise(self) -> NoiseModel:
        """What all cases of the session are judged by; each has its own spread."""
        return NoiseModel(num_cases=max(1, len(self.selection)), tolerance=self.options.tolerance)

    def _kept(self, case: StoredCase, folder: str = ".") -> list[Run]:
        """Runs of a session that was cut off, which need not be made again."""
        assert self.options.runs
        workload = case.workload
        runs = kept_runs(self.options.runs / folder, {workload.case}).get(workload.key, [])
        if not runs:
            return []
        software = versions(list(SOFTWARE))
        if is_external(workload.trainer):
            software = self.resources.start_programs().versions(load(workload.trainer)) or {}
        here = Now(
            workload=workload,
            device=case.device.slug,
            revision=revision(self.root),
            software=software,
            data=data_names(self.options, workload.trainer),
        )
        # A case that looked slow has more than it began with.
        most = case.first_runs if self.options.refresh else max(MOST_RUNS, 2 * case.first_runs)
        usable, said = resumed(runs, here, case.first_runs, most)
        for text in said:
            self.messages.say(text)
        return [self.driver.step_flops.added(run) for run in usable]

    @cached_property
    def _recorded_at(self) -> str:
        """One time for all cases that this session records: it tells which of a baseline's sessions are the same."""
        return now()

    def _store_recorded(self, plan: StoredPlan) -> None:
        """Store what the plan has made a missing baseline of; what another session stored meanwhile is kept."""
        while plan.to_store:
            case = plan.to_store.pop(0)
            change = self._recorded(replace(case, runs=case.recorded_runs), missing_only=True)
            if change.old is not None:
                plan.judge_by(case, change.old)
                self.messages.say(f"{case.case}: {change.refused}, and is judged by that")
            elif change.refused is not None:
                plan.not_stored(case, change.refused)

    def _recorded(self, case: StoredCase, *, missing_only: bool = False) -> Change:
        """Record its runs. A share that was lost meanwhile refuses this case, and not those that come after it."""
        file = self.workloads.baselines_folder / f"{case.device.slug}.json"
        # A refresh would make the folder of a share that is gone anew, with this case alone in it.
        if gone := [path for path in (file.parent, file) if path in self._seen and not path.exists()]:
            why = f"{gone[0]}: was there before and is gone: is its share still mounted?"
            return Change(case.workload.key, None, None, why)
        try:
            (change,) = refresh(
                file.parent,
                case.runs,
                recorded=self._recorded_at,
                num_cases=len(self.selection),
                max_spread=self.options.max_spread,
                accept_slower=self.options.accept_slower,
                peak_tflops=peak_tflops(case.device, case.workload.dtype),
                missing_only=missing_only,
            )
        except FileError as error:
            return Change(case.workload.key, None, None, str(error))
        self._see(file)
        if change.new is not None and not missing_only:
            self._recorded_cases.append(case)
        return change

    def say_undecidable(self) -> None:
        """Say by which of the recorded baselines nothing can be judged, however many runs are made.

        At the end of a session: the spread between the runs of all its cases tells how far those of one may lie apart.
        """
        for case in self._recorded_cases:
            try:
                stored = load_baselines([self.workloads.baselines_folder], case.device.slug)
            except FileError:  # it was there a moment ago; whoever judges by it is told
                continue
            again = stored_case(case.test, case.workload, case.device, stored, noise=self._noise, command=case.command)
            again.runs = case.runs
            plan = StoredPlan([again], tests=[(case.test, case.case)], noise=self._noise, measures=False)
            plan.next(case.test)
            judged = plan.judgement(case.test)
            if judged.what_decides == would_decide(None, "run"):
                self.messages.say(f"{case.case} is recorded, and nothing can be judged by it yet: {judged.reasons[0]}")

    def _see(self, file: Path) -> None:
        """Remember that a device's file, or the folder that it will be in, is there."""
        self._seen.update(path for path in (file.parent, file) if path.exists())

    # Head against base

    def _compare(self) -> dict[str, Finding]:
        """Measure and judge every selected case against the base; what is found, by test."""
        gate = self.options.gate
        assert gate is not None
        if gate.new_numerics:
            self.messages.say(f"the head's losses may differ: {gate.new_numerics}")
        found = self._paired_findings("head")
        if gate.self_test:
            injected = self._paired_findings("injected")
            slowdown = percent(INJECTED_SLOWDOWN)
            return {
                test: _judged(each, self_tested(_of(each), _of(injected[test]), slowdown))
                for test, each in found.items()
            }
        return {test: self._explained(test, each) for test, each in found.items()}

    def _paired_findings(self, head: str) -> dict[str, Finding]:
        """Every case, the side `head` against the base."""
        gate, sides = self.options.gate, self.resources.prepare_sides()
        assert gate is not None
        order = load_priorities(self.root)
        found: dict[str, Finding] = {}
        cases: list[PairedCase] = []
        for each in sorted(self.selection, key=lambda each: rank(each.case.id, sides.changed, order)):
            try:
                cases.append(self._paired_case(each))
            except RunFailed as failure:
                found[each.test] = speed_finding(judge_failure(each.case.id, None, failure), detail=failure.detail)
        self._expect(cases)
        plan = PairedPlan(cases, max_pairs=gate.max_pairs, head=head, new_numerics=gate.new_numerics is not None)

        def measure(task: Task) -> Run | RunFailed | Skipped:
            while plan.messages:
                self._tell(plan.messages.pop(0))
            return self.driver.measure(task, plan)

        # Head's build has run by now, and an earlier case of its head.
        if (spoilt := sides.spoilt()) is None:
            drive(plan, measure, out_of_time=self.driver.out_of_time)
            spoilt = sides.spoilt()
        if head == "head" and spoilt is None:
            self._keep_noise(cases)
        for case in cases:
            if spoilt is not None:
                found[case.test] = speed_finding(_invalid(case.workload.case, spoilt))
                continue
            if case.base and not case.open:
                seconds = max(0, (gate.max_pairs or PAIRS) - len(case.base)) * (
                    run_seconds(case.base[0]) + run_seconds(case.head[0])
                )
                self.driver.usage.save(seconds, case.workload.ranks, "pairs that no verdict needed")
            peak = peak_tflops(self.workloads.device_of(case.workload), case.workload.dtype)
            judgement = plan.judgement(case, names=(sides.base_name, sides.head_name), peak_tflops=peak)
            found[case.test] = speed_finding(
                judgement, runs=case.head, base_runs=case.base, detail=sides.named(case.detail)
            )
        return found

    def _paired_case(self, selected: Selected) -> PairedCase:
        """A case with the minimum effect that it is judged by, and what is known of its noise.

        Raises:
            RunFailed: where the asked-for scale cannot run here.
        """
        assert self.options.gate is not None
        workload = self.workloads.resolve(selected.case, selected.trainer).workload
        device, min_effects = self.workloads.device_of(workload), self.options.gate.detect
        min_effect = min_effects.of(workload.case)
        if min_effect != min_effects.share:
            self.messages.say(f"{workload.case}: judged by a minimum effect of its own, {percent(min_effect)}")
        stored = self.workloads.baselines(device)
        baseline = baselines.find(stored, workload)
        if baseline is not None:
            baseline, _ = baselines.without_outliers(baseline, stored)
        noise = self._noise_of_pairs(device.slug).get(workload.key, ())
        known = prior(noise, baselines.run_noise(baseline))
        return PairedCase(
            test=selected.test, workload=workload, min_effect=min_effect, prior=known, command=selected.command
        )

    def _noise_of_pairs(self, device: str) -> dict[str, tuple[SessionNoise, ...]]:
        """What the pairs of earlier sessions on a device spread, by key of the workload."""
        try:
            return load_noise(noise_path(device))
        except FileError as error:
            self.messages.say(f"what earlier sessions showed of the noise is not used: {error}")
            return {}

    def _keep_noise(self, cases: Sequence[PairedCase]) -> None:
        """Keep what the pairs of this session spread, for the next one."""
        found: dict[str, dict[str, SessionNoise]] = {}
        for case in cases:
            if case.failure is None and case.decision is not None and (own := case.decision.own) is not None:
                of_device = found.setdefault(self.workloads.device_of(case.workload).slug, {})
                of_device[case.workload.key] = SessionNoise(recorded=now(), sd=own.sd, dof=int(own.dof))
        for device, of_device in found.items():
            try:
                keep_noise(noise_path(device), of_device)
            except FileError as error:
                self.messages.say(f"the noise of this session is not kept: {error}")

    def _tell(self, text: str) -> None:
        """Say something at once, and in the report."""
        self.messages.tell(text)
        self.messages.say(text)

    def _explained(self, test: str, found: Finding) -> Finding:
        """The finding with where the time went on both sides, where it is red or the user asked for it."""
        gate = self.options.gate
        assert gate is not None
        if not found.runs or not (found.verdict is Verdict.REGRESSION or gate.explain):
            return found
        case = next(each.case for each in self.selection if each.test == test)
        lines = explained(found, case, options=self.options, resources=self.resources, show=self.show)
        return _judged(found, _of(found).model_copy(update={"explanation": tuple(lines)}))


def _one_kind(case: Case, runs: Sequence[Run]) -> tuple[Workload, Device]:
    kinds = sorted({f"{run.workload.key} on {run.device.slug}" for run in runs})
    if len(kinds) > 1:
        raise RunFailed(f"the replayed runs of {case.id} are of several workloads or devices: {', '.join(kinds)}")
    return runs[0].workload, runs[0].device


def _core_seconds(workload: Workload, baseline: baselines.Measured) -> dict[str, float]:
    """What the cores gave when the baseline was recorded, by the same Python; nothing where that is not known."""
    if is_external(workload.trainer) or not baseline.yardstick_seconds:
        return {}
    same = baseline.software.get("python") == platform.python_version()
    return {workload.key: baseline.yardstick_seconds} if same else {}


def _invalid(case: str, reason: str) -> Judgement:
    return Judgement(case=case, workload=None, verdict=Verdict.INVALID, reasons=(reason,))


def _of(found: Finding) -> Judgement:
    assert found.judgement is not None
    return found.judgement


def _judged(found: Finding, judgement: Judgement) -> Finding:
    return speed_finding(judgement, runs=found.runs, base_runs=found.base_runs, detail=found.detail)


def same(selected: Selected, workload: Workload, *, by_features: bool) -> tuple[tuple[str, ...], str] | None:
    """What a case has in common with those that need not be trained besides it, and why they need not.

    Args:
        selected: the test.
        workload: its case on this machine.
        by_features: whether at mini scale it is the features of the case.
    """
    if workload.scale == "proxy":
        return ("proxy", workload.computation), "cut to this machine it is the same computation, and is trained once"
    if workload.scale == "mini" and by_features:
        of_all = "at mini scale one case of each set of features is trained"
        return ("mini", selected.trainer, *features(selected.case)), of_all
    return None
