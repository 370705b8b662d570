"""The part of the pytest plugin that compares trainers: its fixture and hooks. perf/plugin.py registers it."""

from collections.abc import Callable
from typing import Any

import pytest

from perf.cases import Case
from perf.compare.side_by_side import SideBySide
from perf.files import FileError
from perf.judge.verdict import Verdict
from perf.launch.lock import DeviceBusy
from perf.measure.run import RunFailed
from perf.session import Session

CompareTrainers = Callable[[Case], SideBySide]


class ComparePlugin:
    """Measures and reports the cases of tests that use `compare_trainers`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.found: dict[str, SideBySide] = {}
        """By test id."""
        self.failures = 0
        """Tests that failed because a system was not measured validly."""

    @property
    def verdicts(self) -> list[Verdict]:
        """For the exit status: invalid, for each test that failed."""
        return [Verdict.INVALID] * self.failures

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """With several trainers these tests alone are run, with one trainer all others."""
        several = len(self._session.options.trainers) > 1
        others = [item for item in items if _uses(item, "judge_speed", "judge_cost")]
        leave = others if several else [item for item in items if _uses(item, "compare_trainers")]
        if leave:
            items[:] = [item for item in items if item not in leave]
            config.hook.pytest_deselected(items=leave)

    @pytest.fixture
    def compare_trainers(self, request: pytest.FixtureRequest) -> CompareTrainers:
        """Measure a case with every trainer of the session; the test passes when all that are present were measured."""

        def compare(case: Case) -> SideBySide:
            from perf.compare.rounds import compare as measured

            try:
                found, detail = measured(self._session, case)
            except RunFailed as failure:
                self.failures += 1
                pytest.fail(f"invalid: {case.id}: {failure}", pytrace=False)
            except (DeviceBusy, FileError) as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
            self.found[request.node.nodeid] = found
            self._end(found, detail)
            return found

        return compare

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the tables."""
        if self.found:
            from perf.report.compare import print_report

            print_report(list(self.found.values()), said=self._session.said, terminal=terminalreporter)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write tables, charts and page, where a report was asked for."""
        if self.found and self._session.options.report:
            from perf.report.compare import write_report

            write_report(list(self.found.values()), self._session.options.report, said=self._session.said)

    def _end(self, found: SideBySide, detail: str) -> None:
        absent = [f"{each.title}: {each.reason}" for each in found.systems if each.status == "skipped"]
        wrong = [
            f"{each.status}: {each.title}: {each.reason}"
            for each in found.systems
            if each.status in {"invalid", "out of memory"}
        ]
        if wrong:
            self.failures += 1
            pytest.fail("\n".join(filter(None, (*wrong, detail))), pytrace=False)
        if not found.measured or not any(each.tgs for each in found.systems):
            pytest.skip("\n".join(("fewer than two systems are there to be compared", *absent)))


def is_compare(item: pytest.Item) -> bool:
    """Whether a test compares trainers."""
    return _uses(item, "compare_trainers")


def _uses(item: pytest.Item, *fixtures: str) -> bool:
    names: Any = getattr(item, "fixturenames", ())
    return any(fixture in names for fixture in fixtures)
