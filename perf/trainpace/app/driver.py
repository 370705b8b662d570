"""Does the tasks of a plan: trains once, keeps the run as a file, counts what was spent."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from trainpace.app.options import Options
from trainpace.app.resources import Resources, Show
from trainpace.app.step_flops import StepsFlops
from trainpace.errors import FileError, RunFailed, Skipped
from trainpace.plan.budget import ResourceUsage
from trainpace.plan.task import Task
from trainpace.runs import metrics
from trainpace.runs.run import Run
from trainpace.store.runs import run_path, write_run
from trainpace.trainers.external import Typed, is_external, load

SIDES = ("base", "head", "injected")
"""Of a comparison of two revisions; every other task is of this checkout."""
RECORDED = "recorded"
"""Folder of the runs that became a missing baseline: a replay judges the others by it."""


class Examiner(Protocol):
    """A plan, as far as the driver needs it."""

    def examine(self, task: Task, run: Run) -> tuple[Run, bool]:
        """A run as it is to be kept, and whether another one takes its place."""


@dataclass(kw_only=True)
class Driver:
    """Does tasks with the resources of one session."""

    options: Options
    resources: Resources
    show: Show
    step_flops: StepsFlops
    usage: ResourceUsage = field(default_factory=ResourceUsage)
    commands: dict[str, Typed] = field(default_factory=dict)
    """The command of the program that trained last, by external system."""
    _began: float = field(default_factory=time.monotonic)

    def out_of_time(self) -> bool:
        """Whether nothing more is to be begun, under --perf-max-minutes."""
        limit = self.options.max_minutes
        return limit is not None and time.monotonic() - self._began > 60 * limit

    def measure(self, task: Task, plan: Examiner) -> Run | RunFailed | Skipped:
        """Do a task; the run as it was kept, or why there is none."""
        folder = task.side if task.side in SIDES else RECORDED if task.records else "."
        try:
            if task.replaces is not None:
                self._set_apart(task.replaces, folder)
            run, replaced = plan.examine(task, self.train(task))
            self._keep(run, replaced=replaced, folder=folder)
        except (RunFailed, Skipped) as failure:
            return failure
        return run

    def train(self, task: Task) -> Run:
        """Train a task's workload once with its trainer.

        Raises:
            RunFailed: where the run ended without its steps.
            Skipped: where the training system is not there.
        """
        workload = task.workload
        self.step_flops.of(workload)  # counted before the run: no process may be at work beside it
        begin = time.monotonic()
        try:
            with self.show(task.label, workload.warmup + workload.steps) as progress:
                if is_external(workload.trainer):
                    programs = self.resources.start_programs()
                    run, self.commands[workload.trainer] = programs.run(
                        workload, load(workload.trainer), progress=progress
                    )
                else:
                    side = task.side if task.side in SIDES else "here"
                    hosts = self.resources.start_hosts()
                    run = hosts.run(workload, side=side, progress=progress, borders=task.stop_at)
        finally:
            self.usage.spend(time.monotonic() - begin, workload.ranks)
        if run.stopped_after:
            left = (workload.steps - run.stopped_after) * workload.rank_tokens / metrics.tgs(run)
            self.usage.save(left, workload.ranks, "runs ended as soon as their verdict was certain")
        return self.step_flops.added(run)

    def _keep(self, run: Run, *, replaced: bool, folder: str) -> None:
        """Write a run where --perf-runs says; one that is measured again apart, so that a replay judges the others.

        Raises:
            RunFailed: where it cannot be written: a run that was to be kept and is not does not count.
        """
        if self.options.runs:
            try:
                write_run(run, self.options.runs / folder / ("disturbed" if replaced else "."))
            except FileError as error:
                raise RunFailed(f"the run could not be kept: {error}") from None

    def _set_apart(self, run: Run, folder: str) -> None:
        """Move a kept run that turned out to be disturbed to where a replay does not look."""
        if self.options.runs:
            run_path(run, self.options.runs / folder).unlink(missing_ok=True)
        self._keep(run, replaced=True, folder=folder)
