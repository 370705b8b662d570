"""One session of the suite: measures cases, judges them, keeps what was said of each."""

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.cases import Case, Workload
from perf.cases.scales import NODE_GPUS, Resolved, mini_ranks, resolve
from perf.files import FileError
from perf.hours import Duration, Meter
from perf.judge import baseline as baselines
from perf.judge.excused import Quarantined, excuse, load_quarantine
from perf.judge.refresh import Change, baseline_of, refresh
from perf.judge.verdict import Judgement, command, judge, judge_failure, runs_to_measure, unjudged
from perf.launch.distributed import Data, Distributed
from perf.launch.hosts import Side
from perf.launch.launcher import Launcher, Local
from perf.launch.lock import device_lock
from perf.measure import throughput
from perf.measure.device import SOFTWARE, Machine, core_fault, peak_tflops, revision
from perf.measure.run import Device, Run, RunFailed, read_runs, run_path, write_run
from perf.options import DEFAULT_REFRESH_RUNS, Options, cache_folder
from perf.trainers.described import Skipped, is_described, load

if TYPE_CHECKING:
    from perf.gate.sides import Sides
    from perf.launch.programs import Programs
    from perf.report.github import Log
    from perf.report.results import CompareResult, CostResult, Results

PLANTED = 0.3
"""The slowdown that a self-test must find."""
DISTURBED_ATTEMPTS = 3
"""Fresh runs in place of one that something disturbed, before the case is called invalid."""

Show = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]
"""Shows the progress of one run: given a title and the steps in all, a context that takes (step, text)."""


class TooLong(ValueError):
    """The selection takes longer than is allowed."""


@dataclass
class Measured:
    """What came of one case: its runs (none where it failed), the judgement, and in a refresh what was recorded."""

    runs: list[Run]
    judgement: Judgement
    detail: str = ""
    """The failing rank's traceback or log."""
    change: Change | None = None
    base_runs: list[Run] = field(default_factory=list)
    """The other side's, in a comparison."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """One speed test of this session: the case that it measures, and with which trainer."""

    test: str
    case: Case
    trainer: str


@dataclass(kw_only=True)
class Session:
    """Holds what the cases of a session share. Nothing is started before the first case asks for it."""

    options: Options
    root: Path
    """The tests' root: baselines/ lies in it, and a user's trainer is imported from it."""
    show: Show
    tell: Callable[[str], None] = lambda _: None
    """Says something at once, before the report."""
    selection: list[Selected] = field(default_factory=list)
    """The speed tests of this session: they share its chance of a false alarm."""
    said: list[str] = field(default_factory=list)
    """Choices that the suite made by itself, with their reasons, for the report."""
    meter: Meter = field(default_factory=Meter)
    """What was spent and saved."""
    measured: dict[str, Measured] = field(default_factory=dict)
    """By test id."""
    results: "Results | None" = None
    """What was reported, once it was."""
    _yardsticks: dict[str, float] = field(default_factory=dict)
    """What the suite's fixed piece of work takes where nothing disturbs it, by the key of the workload beside it: the
    least that was seen, in this session or when the baseline was recorded."""
    _seen: set[Path] = field(default_factory=set)
    """Files and folders of baselines that were there at some time of the session."""
    _announced: bool = False
    _refused: RunFailed | None = None
    """Why the nodes cannot be had, or not be used."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _began: float = field(default_factory=time.monotonic)

    @property
    def time_is_up(self) -> bool:
        """Whether nothing more is to be started, under --perf-max-minutes."""
        limit = self.options.max_minutes
        return limit is not None and time.monotonic() - self._began > 60 * limit

    def close(self) -> None:
        """End every process that the session started, free the device."""
        self._stack.close()

    @cached_property
    def machine(self) -> Machine:
        """The machine at hand, or all nodes as one.

        Raises:
            RunFailed: where the nodes cannot be had, or are not equal.
        """
        return self._launcher.machine()

    @cached_property
    def _launcher(self) -> Launcher:
        """What starts the ranks; an allocation that it took is given back at the session's end."""
        if self.options.launcher == "local":
            return Local()
        if self._refused is not None:  # and does not queue again for every case
            raise self._refused
        try:
            return self._stack.enter_context(closing(self._many_nodes()))
        except RunFailed as failure:
            self._refused = failure
            raise

    def _many_nodes(self) -> Launcher:
        shared = self.options.shared
        assert shared is not None
        if self.options.launcher == "torchrun":
            from perf.launch.torchrun import Torchrun

            return Torchrun(shared=shared)
        from perf.launch.slurm import Slurm

        return Slurm(shared=shared, options=self.options.slurm, nodes=self._nodes_wanted)

    @property
    def _nodes_wanted(self) -> int:
        """Nodes that the largest selected case is spread over where each has as many GPUs as is usual."""
        cases = [each.case for each in self.selection]
        if self.options.scale == "mini":
            return max(map(mini_ranks, cases), default=1)
        return max((-(-case.gpus // NODE_GPUS) for case in cases), default=1)

    @cached_property
    def distributed(self) -> Distributed:
        """Runs workloads in fresh process groups; the first use takes the device's lock.

        Raises:
            DeviceBusy: where another suite holds the device.
            RunFailed: where the nodes lack what every run needs.
        """
        if self._refused is not None:
            raise self._refused
        distributed = Distributed(sides=self._sides, launcher=self._launcher, **self._launching)
        self._stack.enter_context(distributed)
        if self._launcher.nodes:
            try:
                self._look_over(distributed)
            except RunFailed as failure:
                self._refused = failure
                raise
        return distributed

    def _look_over(self, distributed: Distributed) -> None:
        """Look at several nodes before anything expensive runs on them.

        Raises:
            RunFailed: where they lack what every run needs.
        """
        from perf.launch.preflight import look_over

        nodes, side = self._launcher.nodes, next(iter(self._sides))

        def train(workload: Workload) -> Run:
            with self.show(f"preflight, {len(nodes)} nodes", workload.warmup + workload.steps) as progress:
                return distributed.run(workload, side=side, progress=progress)

        distributed.preflight, said = look_over(nodes, self.machine, train)
        for text in said:
            self.say(text)

    @cached_property
    def programs(self) -> "Programs":
        """Runs described programs; the first use takes the device's lock.

        Raises:
            DeviceBusy: where another suite holds the device.
        """
        from perf.launch.programs import Programs

        return self._stack.enter_context(Programs(pythons=self.options.pythons, **self._launching))

    @cached_property
    def _launching(self) -> dict[str, Any]:
        """What every launcher is given; the device is this session's from here on."""
        if self.options.launcher == "local":  # nodes are a scheduler's to give
            self._stack.enter_context(device_lock(self.machine.device.slug))
        return {
            "machine": self.machine,
            "data": Data(sources=self.options.data, tokenizer=self.options.tokenizer),
            "cache": self.options.shared or cache_folder(),
            "step_timeout": self.options.step_timeout or (1800.0 if self.machine.gpus else 300.0),
        }

    @cached_property
    def sides(self) -> "Sides":
        """Base and head of a comparison, ready to be measured.

        Raises:
            FileError: where one of them cannot be had.
        """
        from perf.gate.sides import prepare

        gate = self.options.gate
        assert gate is not None
        try:
            return prepare(
                self._stack,
                self.root,
                head=gate.head,
                python=gate.python,
                build=gate.build,
                folder=gate.folder,
                within=self.options.shared,
            )
        except ValueError as error:
            raise FileError(str(error)) from None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a report says first."""
        return self.sides.warnings if self.measured and self.options.gate else ()

    @property
    def _sides(self) -> dict[str, Side]:
        if self.options.gate is None:
            return {"here": Side(checkout=self.root)}
        planted = replace(self.sides.head, planted=PLANTED)
        return {"base": self.sides.base, "head": self.sides.head, "planted": planted}

    @cached_property
    def replayed(self) -> dict[str, list[Run]]:
        """Recorded runs by case.

        Raises:
            FileError: for a file that holds no run.
        """
        found: dict[str, list[Run]] = {}
        for path in self.options.replay:
            for run in read_runs(path):
                found.setdefault(run.workload.case, []).append(run)
        return found

    @property
    def baselines_folder(self) -> Path:
        """Where this session reads and refreshes baselines."""
        return self.options.baselines or self.root / "baselines"

    def device_of(self, workload: Workload) -> Device:
        """What `workload` is measured on."""
        return self.machine.cpu if workload.scale == "mini" else self.machine.device

    def measure(self, test: str, case: Case, trainer: str) -> Measured:
        """Measure (or replay) `case` and judge it; in a refresh, record it. Remembered under `test`.

        Against another revision the first case measures all of them, in rounds.

        Raises:
            TooLong: where the selection takes longer than --perf-max-hours.
        """
        self._announce()
        if self.options.gate is not None:
            if test not in self.measured:
                from perf.gate.compare import compare

                self.measured = compare(self, self.selection)
            return self.measured[test]
        try:
            if self.time_is_up:
                result = Measured([], unjudged(case.id, f"did not fit --perf-max-minutes {self.options.max_minutes:g}"))
            else:
                result = self._measure(case, trainer)
        except RunFailed as failure:
            result = Measured([], judge_failure(case.id, None, failure), failure.detail)
        except Skipped as reason:
            result = Measured([], unjudged(case.id, str(reason)))
        self.measured[test] = result
        return result

    @property
    def _is_expensive(self) -> bool:
        """Whether hours are counted: of GPUs, or of several nodes."""
        return self.options.launcher != "local" or self.machine.gpus is not None

    @property
    def _unit(self) -> str:
        return "GPU" if self.machine.gpus else "rank"

    def _announce(self) -> None:
        """Say once, before anything runs, how long the selection takes.

        Raises:
            TooLong: where that is longer than --perf-max-hours.
        """
        if self._announced or self.options.replay:
            return
        self._announced = True
        most = self.options.max_hours
        if most is None and not self._is_expensive:
            return
        from perf.hours import total, words

        names = [each.case.id for each in self.selection]
        try:
            estimate = total([self._duration(each) for each in self.selection], names, unit=self._unit)
        except RunFailed:  # there are no nodes: every case will say so
            return
        self.tell(str(estimate))
        self.say(str(estimate))
        if most is not None and estimate.hours > most:
            raise TooLong(
                f"--perf-max-hours {most:g}: the selection takes about {words(estimate.hours)}: select fewer cases "
                "with -k, or allow more"
            )

    def _duration(self, selected: Selected) -> Duration | None:
        """What a selected case takes, at most; None where nothing is known of it."""
        from perf.hours import of_case, predicted

        try:
            workload = self.resolve(selected.case, selected.trainer).workload
        except RunFailed:  # it will say so itself
            return None
        device = self.device_of(workload)
        found = baselines.find(self._baselines(device), workload)
        runs = self.options.runs_per_case or (DEFAULT_REFRESH_RUNS if self.options.refresh else 1)
        if self.options.gate is not None:
            runs = 2 * self.options.gate.max_pairs
        return of_case(workload, found, predicted(workload, device.slug), runs)

    def say_hours(self) -> None:
        """Say what was spent and saved, where that is counted."""
        if self.meter.spent and self._is_expensive:
            self.say(self.meter(self._unit))

    def resolve(self, case: Case, trainer: str) -> Resolved:
        """Cut `case` to this machine; the reason goes to the report.

        Raises:
            RunFailed: where the asked-for scale cannot run here.
        """
        options = self.options
        cuts = baselines.proxy_cuts(self._baselines(self.machine.device), case.id)
        try:
            resolved = resolve(
                case,
                self.machine,
                scale=options.scale,
                dtype=options.dtype,
                attention="varlen" if options.varlen else "causal",
                trainer=trainer,
                engine=options.engine if trainer == "native" else "own",
                warmup=options.warmup,
                steps=options.steps,
                # A user's own trainer has its own tokens.
                vocabulary=self._vocabulary if trainer == "native" else None,
                stored_cut=cuts[0] if cuts else None,
                memory=self._memory,
            )
        except ValueError as error:
            raise RunFailed(str(error)) from None
        for text in (resolved.reason, *resolved.warnings):
            self.say(f"{case.id}: {text}" if text in resolved.warnings else text)
        return resolved

    def say(self, text: str) -> None:
        """Say something once in the report."""
        if text not in self.said:
            self.said.append(text)

    @cached_property
    def quarantine(self) -> list[Quarantined]:
        """Cases whose noise is excused for a while.

        Raises:
            FileError: for a file that cannot be used, or holds what has expired.
        """
        return load_quarantine(self.baselines_folder, datetime.now(UTC).date())

    @cached_property
    def log(self) -> "Log":
        """The log of the workflow that the session runs in, if it does."""
        from perf.report.github import Log

        return Log()

    def say_quarantine(self) -> None:
        """Say what is excused, every time."""
        for entry in self.quarantine:
            self.say(str(entry))
        if self.options.accepted:
            self.say(f"slowdowns are accepted: {self.options.accepted}")

    def excuse(self, measured: Measured) -> None:
        """Give a judgement its excuse, where it has one."""
        measured.judgement = excuse(measured.judgement, self.quarantine, self.options.accepted)

    def report(
        self, status: int, costs: "Sequence[CostResult]" = (), comparisons: "Sequence[CompareResult]" = ()
    ) -> None:
        """Write the report, where one was asked for or a workflow's page takes it. `status` is the session's."""
        if not (self.measured or costs or comparisons or self.options.report):
            return
        from perf.report import markdown
        from perf.report.results import Results, case_result, compare_summary, cost_summary, write_results
        from perf.report.terminal import last_line

        measured = self.measured.values()
        changes = [each.change for each in measured if each.change]
        summary = last_line([each.judgement for each in measured], changes) if measured else ""
        self.results = Results(
            exit_status=status,
            summary="; ".join(filter(None, (summary, cost_summary(costs), compare_summary(comparisons)))),
            warnings=self.warnings,
            said=tuple(self.said),
            costs=tuple(costs),
            comparisons=tuple(comparisons),
            cases=tuple(
                case_result(
                    each.judgement,
                    runs=each.runs,
                    detail=each.detail,
                    change=each.change,
                    explanation=each.judgement.explanation,
                    require_verdict=self.options.require_verdict,
                )
                for each in measured
            ),
        )
        if self.options.report:
            write_results(self.results, self.options.report)
        markdown.write(self.results, self.options.report)

    def _measure(self, case: Case, trainer: str) -> Measured:
        if self.options.replay:
            return self._replay(case)
        workload = self.resolve(case, trainer).workload
        device = self.device_of(workload)
        self._see(self.baselines_folder / f"{device.slug}.json")
        stored = self._baselines(device)
        found = baselines.find(stored, workload)
        pool = baselines.pool(stored, workload.scale)
        wanted = self.options.runs_per_case
        if self.options.refresh:
            number = wanted or DEFAULT_REFRESH_RUNS
        else:
            number = runs_to_measure(found, pool=pool, selected_cases=max(1, len(self.selection)), at_least=wanted or 1)
            if wanted is None and number > 1:
                self.say(f"{number} runs a case: the noise between the baseline's runs needs as many")
        if isinstance(found, baselines.Measured) and not is_described(trainer):
            self._remember_machine(workload, found)
        runs = self._kept(workload, device, number) if self.options.resume else []
        try:
            for index in range(len(runs), number):
                runs.append(self._run(workload, f"{case.id} {workload.scale}", index, number))
            # What the first runs had for quiet may turn out not to have been.
            for index, run in enumerate(runs):
                if not run.health.faults and (told := self._told(run)) is not run:
                    if self.options.runs:
                        run_path(run, self.options.runs).unlink(missing_ok=True)
                    self.keep(told, replaced=True)
                    runs[index] = self._run(workload, f"{case.id} {workload.scale}, again", index, number)
        except RunFailed as failure:
            return Measured(runs, judge_failure(case.id, workload, failure), failure.detail)
        judged = self._judged(runs, device, stored)
        if not self.options.refresh:
            return Measured(runs, judged)
        return Measured(runs, judged, change=self._recorded(runs, device))

    def _kept(self, workload: Workload, device: Device, number: int) -> list[Run]:
        """Runs of a session that was cut off, at most `number`, which need not be made again."""
        from perf.launch.host import versions
        from perf.resume import Now, resumed

        runs = self._kept_runs.get(workload.key, [])
        if not runs:
            return []
        software = versions(list(SOFTWARE))
        if is_described(workload.trainer):
            software = self.programs.versions(load(workload.trainer)) or {}
        now = Now(
            workload=workload,
            device=device.slug,
            revision=revision(self.root),
            software=software,
            data=self._data_names(workload.trainer),
        )
        usable, said = resumed(runs, now, number)
        for text in said:
            self.say(text)
        return usable

    @cached_property
    def _kept_runs(self) -> dict[str, list[Run]]:
        from perf.resume import kept_runs

        assert self.options.runs
        return kept_runs(self.options.runs, {each.case.id for each in self.selection})

    def _data_names(self, trainer: str) -> tuple[tuple[str, ...], str] | None:
        """What runs of this session train on; None where a trainer that brings its own was told nothing else.

        Raises:
            RunFailed: where there is no such data.
        """
        from perf.data import DataError
        from perf.data.packing import sources_named
        from perf.data.tokenizer import BYTES, tokenizer_named

        own = trainer != "native" and not is_described(trainer)
        if own and not self.options.data and self.options.tokenizer == BYTES:
            return None
        try:
            names = tuple(each.name for each in sources_named(self.options.data))
            return names, tokenizer_named(self.options.tokenizer).name
        except DataError as error:
            raise RunFailed(str(error)) from None

    def _recorded(self, runs: list[Run], device: Device) -> Change:
        """Record `runs`. A share that was lost meanwhile refuses this case, and not those that come after it."""
        file = self.baselines_folder / f"{device.slug}.json"
        # A refresh would make the folder of a share that is gone anew, with this case alone in it.
        if gone := [path for path in (file.parent, file) if path in self._seen and not path.exists()]:
            why = f"{gone[0]}: was there before and is gone: is its share still mounted?"
            return Change(runs[0].workload.key, None, None, why)
        try:
            (change,) = refresh(
                file.parent,
                runs,
                max_spread=self.options.max_spread,
                accept_slower=self.options.accept_slower,
                peak_tflops=peak_tflops(device, runs[0].workload.dtype),
            )
        except FileError as error:
            return Change(runs[0].workload.key, None, None, str(error))
        self._see(file)
        return change

    def _see(self, file: Path) -> None:
        """Remember that a device's file, or the folder that it will be in, is there."""
        self._seen.update(path for path in (file.parent, file) if path.exists())

    def _replay(self, case: Case) -> Measured:
        runs = self.replayed[case.id]
        kinds = sorted({f"{run.workload.key} on {run.device.slug}" for run in runs})
        if len(kinds) > 1:
            raise RunFailed(f"the replayed runs of {case.id} are of several workloads or devices: {', '.join(kinds)}")
        return Measured(runs, self._judged(runs, runs[0].device, self._baselines(runs[0].device)))

    def _judged(self, runs: list[Run], device: Device, stored: list[Any]) -> Judgement:
        workload = runs[0].workload
        return judge(
            runs,
            baselines.find(stored, workload),
            pool=baselines.pool(stored, workload.scale),
            selected_cases=max(1, len(self.selection)),
            tolerance=self.options.tolerance,
            peak_tflops=peak_tflops(device, workload.dtype),
        )

    def _run(self, workload: Workload, title: str, index: int, number: int) -> Run:
        """One run that can be trusted; one that was disturbed is measured again, and counted."""
        for attempt in range(1, DISTURBED_ATTEMPTS + 1):
            nth = f", run {index + 1} of {number}" if number > 1 else ""
            again = f", attempt {attempt}" if attempt > 1 else ""
            run = self._told(self.once(workload, title + nth + again)[0])
            self.keep(run, replaced=bool(run.health.faults) and attempt < DISTURBED_ATTEMPTS)
            if not run.health.faults:
                break
            self.say(f"{title}: disturbed: {run.health.faults[0]}")
        return run

    def _remember_machine(self, workload: Workload, baseline: baselines.Measured) -> None:
        """Let runs be compared with what the cores gave when the baseline was recorded, by the same Python."""
        if baseline.yardstick_seconds and baseline.software.get("python") == platform.python_version():
            self._yardsticks[workload.key] = baseline.yardstick_seconds

    def _told(self, run: Run) -> Run:
        """`run`, with a fault where the cores gave it less than others of its workload; asked again, more is known."""
        seconds, key = throughput.yardstick(run), run.workload.key
        # Where the load of others cannot be told the suite may share its cores, and this would tell that and no more.
        if seconds is None or run.health.foreign_cores is None:
            return run
        self._yardsticks[key] = least = min(seconds, self._yardsticks.get(key, seconds))
        fault = core_fault(seconds, least)
        if fault is None or run.health.faults:
            return run
        return run.model_copy(update={"health": run.health.model_copy(update={"faults": (fault,)})})

    def once(
        self, workload: Workload, title: str, *, side: str = "here", borders: Sequence[float] = ()
    ) -> tuple[Run, str]:
        """Train `workload` once with its trainer; the run, and the command that a described program was run by.

        Raises:
            RunFailed: where the run ended without its steps, or the program is not there.
        """
        begin = time.monotonic()
        try:
            with self.show(title, workload.warmup + workload.steps) as progress:
                if is_described(workload.trainer):
                    return self.programs.run(workload, load(workload.trainer), progress=progress)
                run = self.distributed.run(workload, side=side, progress=progress, borders=borders)
        finally:
            self.meter.spend(time.monotonic() - begin, workload.ranks)
        if run.stopped_after:
            left = (workload.steps - run.stopped_after) * workload.rank_tokens / throughput.tgs(run)
            self.meter.save(left, workload.ranks, "runs ended as soon as their verdict was certain")
        return run, command(workload)

    def keep(self, run: Run, *, replaced: bool, folder: str = ".") -> None:
        """Write a run where --perf-runs says; one that is measured again apart, so that a replay judges the others.

        Raises:
            RunFailed: where it cannot be written: a run that was to be kept and is not does not count.
        """
        if self.options.runs:
            try:
                write_run(run, self.options.runs / folder / ("disturbed" if replaced else "."))
            except FileError as error:
                raise RunFailed(f"the run could not be kept: {error}") from None

    def _baselines(self, device: Device) -> list[Any]:
        if self.options.against_runs:
            groups: dict[str, list[Run]] = {}
            for path in self.options.against_runs:
                for run in read_runs(path):
                    if run.device.slug == device.slug:
                        groups.setdefault(run.workload.key, []).append(run)
            return [baseline_of(runs) for runs in groups.values()]
        return baselines.load([self.baselines_folder], device.slug)

    @cached_property
    def _memory(self) -> Callable[[Workload], int] | None:
        """Tells what fits a GPU; None where there is none, and nothing to fit."""
        from perf.cost.estimate import counted_memory
        from perf.judge.cost import load_costs

        return counted_memory(load_costs(self.baselines_folder).values()) if self.machine.gpus else None

    @cached_property
    def _vocabulary(self) -> int:
        """Ids that the tokenizer can give.

        Raises:
            RunFailed: where it is no tokenizer.
        """
        from perf.data import DataError, vocabulary_size

        try:
            return vocabulary_size(self.options.tokenizer)
        except DataError as error:
            raise RunFailed(str(error)) from None
