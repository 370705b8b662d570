"""The part of the pytest plugin that compares trainers: its fixture and hooks. plugin.py registers it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest

from trainpace.app.session import Session
from trainpace.cases import Case
from trainpace.errors import RunFailed, UsageError
from trainpace.judge.systems import SideBySide
from trainpace.judge.verdict import outcome
from trainpace.runs.verdict import Verdict

if TYPE_CHECKING:
    from trainpace.report.record import CompareResult

CompareTrainers = Callable[[Case], SideBySide]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What came of one case. Nobody is judged for speed: `pass` says that every system that is there was measured."""

    case: str
    found: SideBySide | None
    """None where nothing could be measured."""
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    detail: str = ""
    """What failing programs printed."""


class ComparePlugin:
    """Measures and reports the cases of tests that use `compare_trainers`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.compared: dict[str, Compared] = {}
        """By test id."""

    @property
    def found(self) -> list[SideBySide]:
        """The tables."""
        return [each.found for each in self.compared.values() if each.found is not None]

    @property
    def verdicts(self) -> list[Verdict]:
        """Of every case."""
        return [each.verdict for each in self.compared.values()]

    @property
    def failures(self) -> int:
        """Tests that failed for their verdict."""
        return sum(self._outcome(each) == "failed" for each in self.compared.values())

    @property
    def results(self) -> "list[CompareResult]":
        """For the reports that are files."""
        from trainpace.report.record import compare_result

        return [compare_result(each, outcome=self._outcome(each)) for each in self.compared.values()]

    def write_report(self) -> None:
        """Write tables, charts and page, where a report was asked for.

        Raises:
            FileError: where one cannot be written.
        """
        if self.found and self._session.options.report:
            from trainpace.store.reports import write_compare

            write_compare(self.found, self._session.options.report, said=self._session.said)

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
            from trainpace.plan.systems import compare as measured

            try:
                found, detail = measured(self._session, case)
            except RunFailed as failure:
                compared = Compared(case=case.id, found=None, verdict=Verdict.INVALID, reasons=(str(failure),))
            except UsageError as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
            else:
                compared = judged(found, detail)
            self.compared[request.node.nodeid] = compared
            self._end(compared)
            assert compared.found is not None
            return compared.found

        return compare

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the tables."""
        if self.found:
            from trainpace.app.printing import print_section
            from trainpace.report.compare import render

            report = partial(render, self.found, said=self._session.said)
            print_section(terminalreporter, "trainpace, side by side", report)

    def _outcome(self, compared: Compared) -> Literal["passed", "failed", "skipped"]:
        return outcome(compared.verdict, require_verdict=self._session.options.require_verdict)

    def _end(self, compared: Compared) -> None:
        how, text = self._outcome(compared), "\n".join((f"{compared.verdict}: {compared.case}", *compared.reasons))
        if how == "failed":
            pytest.fail("\n".join(filter(None, (text, compared.detail))), pytrace=False)
        if how == "skipped":
            pytest.skip(text)


def judged(found: SideBySide, detail: str) -> Compared:
    """Invalid where a system that is there was not measured validly; without two that were there, nothing is said."""
    reasons = [
        f"{each.status}: {each.title}: {each.reason}"
        for each in found.systems
        if each.status in {"invalid", "out of memory"}
    ]
    verdict = Verdict.INVALID if reasons else Verdict.PASS
    if not reasons and found.reference is None:
        verdict = Verdict.INCONCLUSIVE
        absent = [f"{each.title}: {each.reason}" for each in found.systems]
        reasons = ["expected two systems at least to be compared, got fewer", *absent]
    return Compared(case=found.case, found=found, verdict=verdict, reasons=tuple(reasons), detail=detail)


def is_compare(item: pytest.Item) -> bool:
    """Whether a test compares trainers."""
    return _uses(item, "compare_trainers")


def _uses(item: pytest.Item, *fixtures: str) -> bool:
    names: Any = getattr(item, "fixturenames", ())
    return any(fixture in names for fixture in fixtures)
