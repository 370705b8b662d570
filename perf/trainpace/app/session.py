"""One session of the suite: measures cases, judges them, keeps what was said of each."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainpace.app.option_values import cache_folder
from trainpace.app.options import Options
from trainpace.cases import Case, Workload
from trainpace.cases.machine import Device, Machine
from trainpace.cases.scaling import Resolved, resolve
from trainpace.data.base import Data
from trainpace.errors import FileError, RunFailed
from trainpace.judge import baseline as baselines
from trainpace.judge.refresh import Change
from trainpace.judge.verdict import Judgement, command
from trainpace.judge.waivers import Quarantined, waive
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.launch.launcher import Launcher, Local, many_nodes
from trainpace.launch.preflight import PREFLIGHT_STEPS, look_over
from trainpace.plan.budget import Meter, announce, say_hours
from trainpace.runs import metrics
from trainpace.runs.run import Run
from trainpace.store.locks import device_lock
from trainpace.store.quarantine import load_quarantine
from trainpace.store.runs import read_runs, write_run
from trainpace.trainers.external import is_described, load

if TYPE_CHECKING:
    from trainpace.app.github_client import Log
    from trainpace.app.sides import Sides
    from trainpace.launch.external import Programs
    from trainpace.plan.stored import StoredGate
    from trainpace.report.record import CompareResult, CostResult, Results

PLANTED = 0.3
"""The slowdown that a self-test must find."""

Show = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]
"""Shows the progress of one run: given a title and the steps in all, a context that takes (step, text)."""


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
        """End every process that the session started, free the device; say what was spent."""
        say_hours(self)
        self._stack.close()

    @cached_property
    def machine(self) -> Machine:
        """The machine at hand, or all nodes as one.

        Raises:
            RunFailed: where the nodes cannot be had, or are not equal.
        """
        return self.launcher.machine()

    @cached_property
    def launcher(self) -> Launcher:
        """What starts the ranks; an allocation that it took is given back at the session's end."""
        if self.options.launcher == "local":
            return Local()
        if self._refused is not None:  # and does not queue again for every case
            raise self._refused
        try:
            cases = [each.case for each in self.selection]
            return self._stack.enter_context(closing(many_nodes(self.options, cases)))
        except RunFailed as failure:
            self._refused = failure
            raise

    @cached_property
    def distributed(self) -> Distributed:
        """Runs workloads in fresh process groups; the first use takes the device's lock.

        Raises:
            DeviceBusy: where another suite holds the device.
            RunFailed: where the nodes lack what every run needs.
        """
        if self._refused is not None:
            raise self._refused
        distributed = Distributed(sides=self._sides, launcher=self.launcher, **self._launching)
        self._stack.enter_context(distributed)
        if self.launcher.nodes:
            try:
                side = next(iter(self._sides))
                with self.show(f"preflight, {len(self.launcher.nodes)} nodes", PREFLIGHT_STEPS) as progress:
                    train = partial(distributed.run, side=side, progress=progress)
                    distributed.preflight, said = look_over(self.launcher.nodes, self.machine, train)
                for text in said:
                    self.say(text)
            except RunFailed as failure:
                self._refused = failure
                raise
        return distributed

    @cached_property
    def programs(self) -> "Programs":
        """Runs described programs; the first use takes the device's lock.

        Raises:
            DeviceBusy: where another suite holds the device.
        """
        from trainpace.launch.external import Programs

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
        from trainpace.app.sides import prepare

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

    @cached_property
    def stored(self) -> "StoredGate":
        """What measures and judges against stored baselines."""
        from trainpace.plan.stored import StoredGate

        return StoredGate(self)

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
            BudgetExceeded: where the selection takes longer than --perf-max-hours.
        """
        if not self._announced:
            self._announced = True
            announce(self)
        if self.options.gate is not None:
            if test not in self.measured:
                from trainpace.app.gate import compare

                self.measured = compare(self, self.selection)
            return self.measured[test]
        self.measured[test] = result = self.stored.measure(test, case, trainer)
        return result

    def resolve(self, case: Case, trainer: str) -> Resolved:
        """Cut `case` to this machine; the reason goes to the report.

        Raises:
            RunFailed: where the asked-for scale cannot run here.
        """
        options = self.options
        cuts = baselines.proxy_cuts(self.stored.baselines(self.machine.device), case.id)
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
        from trainpace.app.github_client import Log

        return Log()

    def say_quarantine(self) -> None:
        """Say what is excused, every time."""
        for entry in self.quarantine:
            self.say(str(entry))
        if self.options.accepted:
            self.say(f"slowdowns are accepted: {self.options.accepted}")

    def waive(self, measured: Measured) -> None:
        """Give a judgement its excuse, where it has one."""
        measured.judgement = waive(measured.judgement, self.quarantine, self.options.accepted)

    def report(
        self, status: int, costs: "Sequence[CostResult]" = (), comparisons: "Sequence[CompareResult]" = ()
    ) -> None:
        """Write the report, where one was asked for or a workflow's page takes it. `status` is the session's."""
        if not (self.measured or costs or comparisons or self.options.report):
            return
        from trainpace.report.record import Results, case_result, compare_summary, cost_summary
        from trainpace.report.terminal import last_line
        from trainpace.store.reports import write_results, write_summary

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
        page = os.environ.get("GITHUB_STEP_SUMMARY")
        write_summary(self.results, self.options.report, page=Path(page) if page else None)

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
            left = (workload.steps - run.stopped_after) * workload.rank_tokens / metrics.tgs(run)
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

    @cached_property
    def _memory(self) -> Callable[[Workload], int] | None:
        """Tells what fits a GPU; None where there is none, and nothing to fit."""
        from trainpace.cost.estimate import counted_memory
        from trainpace.store.costs import load_costs

        return counted_memory(load_costs(self.baselines_folder).values()) if self.machine.gpus else None

    @cached_property
    def _vocabulary(self) -> int:
        """Ids that the tokenizer can give.

        Raises:
            RunFailed: where it is no tokenizer.
        """
        from trainpace.data import vocabulary_size
        from trainpace.errors import DataError

        try:
            return vocabulary_size(self.options.tokenizer)
        except DataError as error:
            raise RunFailed(str(error)) from None
