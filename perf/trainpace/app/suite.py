"""One session of the suite: what its tests find, and the reports that say so."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainpace.app.costs import Costs
from trainpace.app.driver import Driver
from trainpace.app.hours import Hours, Selected
from trainpace.app.messages import Messages
from trainpace.app.option_values import Export, cache_folder
from trainpace.app.options import Options
from trainpace.app.printing import print_section
from trainpace.app.resources import Resources, Show
from trainpace.app.speed import Speed
from trainpace.app.step_flops import StepsFlops
from trainpace.app.systems import compare
from trainpace.app.workloads import Workloads
from trainpace.cases.published import Case
from trainpace.cost.own_model import OwnModel
from trainpace.judge.command import Command
from trainpace.judge.finding import Finding, Outcome, exit_status, outcome
from trainpace.judge.refresh import Change
from trainpace.judge.systems import SideBySide
from trainpace.runs.verdict import Verdict
from trainpace.store.quarantine import load_quarantine
from trainpace.store.reports import write_compare, write_export, write_results, write_summary

if TYPE_CHECKING:
    import pytest

    from trainpace.app.github_client import Log
    from trainpace.report.record import Results


@dataclass(kw_only=True)
class Suite:
    """What one pytest session shares. Nothing is started before the first test asks."""

    options: Options
    root: Path
    """The tests' root: baselines/ lies in it, and a user's trainer is imported from it."""
    show: Show
    messages: Messages
    commands: dict[str, Command] = field(default_factory=dict)
    """What runs a test of cost, or a comparison, again."""
    findings: dict[str, Finding] = field(default_factory=dict)
    """By test id, in the order in which they were made."""
    results: "Results | None" = None
    """What was reported; None: nothing yet."""
    resources: Resources = field(init=False)
    workloads: Workloads = field(init=False)
    hours: Hours = field(init=False)
    speed: Speed = field(init=False)
    costs: Costs = field(init=False)

    def __post_init__(self) -> None:
        options, show = self.options, self.show
        self.resources = Resources(options=options, root=self.root, show=show, say=self.messages.say)
        self.workloads = Workloads(options=options, root=self.root, resources=self.resources, messages=self.messages)
        step_flops = StepsFlops(
            show=show,
            messages=self.messages,
            cache=None if options.recount else cache_folder(),
            environment=options.environment,
        )
        self.hours = Hours(options=options, resources=self.resources, workloads=self.workloads, messages=self.messages)
        self.speed = Speed(
            options=options,
            root=self.root,
            resources=self.resources,
            workloads=self.workloads,
            hours=self.hours,
            driver=Driver(options=options, resources=self.resources, show=show, step_flops=step_flops),
            messages=self.messages,
            show=show,
        )
        self.costs = Costs(
            folder=self.workloads.baselines_folder,
            dtype=options.dtype,
            refresh=options.refresh,
            show=show,
            cache=None if options.recount else cache_folder(),
            environment=options.environment,
        )

    def select(self, speed: list[Selected], costs: list[Case], commands: Mapping[str, Command] | None = None) -> None:
        """Take the tests that this session runs, and what runs each of the others again."""
        self.speed.selection, self.costs.cases, self.commands = speed, costs, dict(commands or {})
        self.resources.cases = [each.case for each in speed]

    def find_speed(self, test: str) -> Finding:
        """Measure and judge the case of a speed test; `Speed.find` says what it raises."""
        self.findings[test] = found = self.speed.find(test)
        return found

    def find_cost(self, test: str, case: Case, own: OwnModel | None = None) -> Finding:
        """Count and judge the case of a cost test, with the model of `own` if it brings one; `Costs.find` says what it
        raises."""
        self.findings[test] = found = self.costs.find(case, self.commands.get(test, Command()), own)
        return found

    def find_systems(self, test: str, case: Case) -> Finding:
        """Measure every trainer of the session on a case; `compare` says what it raises."""
        self.findings[test] = found = compare(test, case, self.speed, self.commands.get(test, Command()))
        return found

    def outcome(self, finding: Finding) -> Outcome:
        """What a finding does to its test."""
        return outcome(finding, require_verdict=self.options.require_verdict)

    def exit_status(self, failed_tests: int) -> int:
        """The session's exit status; `failed_tests` are all that failed."""
        required = self.options.require_verdict
        return exit_status(self.findings.values(), require_verdict=required, failed_tests=failed_tests)

    @property
    def of_speed(self) -> list[Finding]:
        """Findings of speed tests."""
        return [each for each in self.findings.values() if each.judgement is not None]

    @property
    def of_cost(self) -> list[Finding]:
        """Findings of cost tests."""
        return [each for each in self.findings.values() if each.cost is not None]

    @property
    def of_systems(self) -> list[Finding]:
        """Findings of comparisons of training systems."""
        return [each for each in self.findings.values() if each.judgement is None and each.cost is None]

    @property
    def compared(self) -> list[SideBySide]:
        """Comparisons that could be measured."""
        return [each.systems for each in self.of_systems if each.systems is not None]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a report says first."""
        gains = [each.judgement.large_gain for each in self.of_speed if each.judgement and each.judgement.large_gain]
        return (*self.resources.warnings, *gains) if self.of_speed else ()

    @cached_property
    def log(self) -> "Log":
        """The log of the workflow that the session runs in, if it does."""
        from trainpace.app.github_client import Log

        return Log()

    def say_waivers(self) -> None:
        """Say what is waived in this session, every time.

        Raises:
            FileError: for a quarantine that cannot be used, or holds what has expired.
        """
        self.speed.quarantine = load_quarantine(self.workloads.baselines_folder, datetime.now(UTC).date())
        for entry in self.speed.quarantine:
            self.messages.say(str(entry))
        if self.options.accepted:
            self.messages.say(f"slowdowns are accepted: {self.options.accepted}")

    def close(self) -> None:
        """Say what was recorded in vain, what is missing, what was spent; end every process, free the device."""
        missing = sum(each.verdict is Verdict.NO_BASELINE and each.change is None for each in self.of_speed)
        if missing > 1 and self.options.missing == "skip" and self.options.can_record:
            record = self.speed.selection[0].command.session(missing="record")
            self.messages.say(f"one command records all {missing} baselines that are missing: `{record}`")
        self.speed.say_undecidable()
        self.hours.say_usage(self.speed.driver.usage)
        self.resources.close()

    def print_reports(self, terminal: "pytest.TerminalReporter") -> None:
        """Print the tables, and what must be said beside them."""
        said = self.messages.said
        if speed := self.of_speed:
            from trainpace.report import terminal as of_speed

            judgements = [each.judgement for each in speed if each.judgement]
            if any(each.workload and each.workload.scale == "full" for each in judgements):
                from trainpace.app.prediction import beside_predictions

                said = [*said, *beside_predictions(speed)]
            report = partial(of_speed.render, judgements, changes=_changes(speed), said=said)
            print_section(terminal, "trainpace", report, warnings=self.warnings)
        if self.of_cost:
            from trainpace.report import cost

            print_section(terminal, "trainpace: cost of a step, counted", partial(cost.render, self.of_cost))
        if self.compared:
            from trainpace.report import compare as of_systems

            report = partial(of_systems.render, self.compared, said=said)
            print_section(terminal, "trainpace, side by side", report)

    def report_systems(self) -> None:
        """Write the report of compared systems, where one was asked for.

        Raises:
            FileError: where it cannot be written.
        """
        if self.compared and self.options.report:
            write_compare(self.compared, self.options.report, said=self.messages.said)

    def report(self, status: int) -> None:
        """Write the report, where one was asked for or a workflow's page takes it. `status` is the session's.

        Raises:
            FileError: where it cannot be written.
        """
        if not (self.findings or self.options.report or self.options.exports):
            return
        from trainpace.report.record import (
            Results,
            case_result,
            compare_result,
            compare_summary,
            cost_result,
            cost_summary,
        )
        from trainpace.report.terminal import last_line

        costs = tuple(cost_result(each, self.outcome(each)) for each in self.of_cost)
        comparisons = tuple(compare_result(each, self.outcome(each)) for each in self.of_systems)
        speed = self.of_speed
        summary = last_line([each.judgement for each in speed if each.judgement], _changes(speed)) if speed else ""
        self.results = Results(
            exit_status=status,
            summary="; ".join(filter(None, (summary, cost_summary(costs), compare_summary(comparisons)))),
            warnings=self.warnings,
            said=tuple(self.messages.said),
            costs=costs,
            comparisons=comparisons,
            cases=tuple(case_result(each, self.outcome(each)) for each in speed),
        )
        if self.options.report:
            write_results(self.results, self.options.report)
        page = os.environ.get("GITHUB_STEP_SUMMARY")
        write_summary(self.results, self.options.report, page=Path(page) if page else None)

    def export(self, to: Export) -> None:
        """Hand what was reported to another tool.

        Raises:
            FileError: where it does not take it.
        """
        if self.results is None:
            return
        if isinstance(to.where, Path):
            write_export(self.results, to.format, to.where)
        else:
            from trainpace.app.services import SEND

            SEND[to.format](self.results, to.where)


def _changes(speed: list[Finding]) -> list[Change]:
    return [each.change for each in speed if isinstance(each.change, Change)]
