"""The part of the pytest plugin that gates counted costs: its fixture and hooks. plugin.py registers it."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest

from trainpace.app.cost_gate import CostGate, Counted
from trainpace.app.session import Session
from trainpace.cases import Case
from trainpace.errors import FileError
from trainpace.judge.verdict import outcome
from trainpace.runs.verdict import Verdict

if TYPE_CHECKING:
    from trainpace.report.record import CostResult

JudgeCost = Callable[[Case], Counted]


class StaleCost(UserWarning):
    """A step costs less than is stored, which hides the next regression until it is refreshed."""


class CostPlugin:
    """Counts, judges and reports the cases of tests that use `judge_cost`."""

    def __init__(self, session: Session) -> None:
        options = session.options
        self._require_verdict = options.require_verdict
        self._native = options.trainer == "native"
        # A replay and a comparison of two sides are about speed: the base's own cost says nothing of the head.
        self._speed_only = bool(options.replay) or options.gate is not None
        self.gate = CostGate(
            folder=session.baselines_folder, dtype=options.dtype, refresh=options.refresh, show=session.show
        )

    @property
    def verdicts(self) -> list[Verdict]:
        """Of every case that was judged and not refreshed."""
        return [each.judgement.verdict for each in self.gate.counted.values() if each.change is None]

    @property
    def failures(self) -> int:
        """Tests that failed for their verdict."""
        return sum(_outcome(each, self._require_verdict)[0] == "failed" for each in self.gate.counted.values())

    @property
    def results(self) -> "list[CostResult]":
        """For the reports that are files."""
        from trainpace.report.record import cost_result

        counted = self.gate.counted.values()
        return [cost_result(each, outcome=_outcome(each, self._require_verdict)[0]) for each in counted]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """A replay and a comparison count nothing."""
        counting = [item for item in items if is_cost(item)]
        if self._speed_only and counting:
            items[:] = [item for item in items if item not in counting]
            config.hook.pytest_deselected(items=counting)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember what is to be counted, so that it is counted at one go."""
        self.gate.cases = [_case(item) for item in session.items if is_cost(item)]

    @pytest.fixture
    def judge_cost(self, request: pytest.FixtureRequest) -> JudgeCost:
        """Count a case at full size, judge it against what is stored, and end the test as its verdict says."""

        def judge(case: Case) -> Counted:
            if not self._native:
                pytest.skip("only the native trainer is counted")
            try:
                result = self.gate.judge(request.node.nodeid, case)
            except FileError as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
            from trainpace.report.cost import properties

            request.node.user_properties += properties(result.judgement).items()
            self._end(result)
            return result

        return judge

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, below that of speed."""
        if self.gate.counted:
            from trainpace.app.printing import print_section
            from trainpace.report.cost import render

            report = partial(render, list(self.gate.counted.values()))
            print_section(terminalreporter, "trainpace: cost of a step, counted", report)

    def _end(self, result: Counted) -> None:
        how, text = _outcome(result, self._require_verdict)
        if how == "failed":
            pytest.fail("\n".join(filter(None, (text, result.detail))), pytrace=False)
        if how == "skipped":
            pytest.skip(text)
        if result.judgement.verdict is Verdict.IMPROVEMENT and result.change is None:
            warnings.warn(StaleCost(text), stacklevel=2)


def is_cost(item: pytest.Item) -> bool:
    """Whether a test counts."""
    return "judge_cost" in getattr(item, "fixturenames", ())


def _case(item: pytest.Item) -> Case:
    """The case of a cost test, its parameter `case`."""
    case: Any = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    if not isinstance(case, Case):
        raise pytest.UsageError(
            f"{item.nodeid}: a test that uses judge_cost takes a parameter `case`, a trainpace.cases.Case, got {case!r}"
        )
    return case


def _outcome(result: Counted, require_verdict: bool) -> tuple[Literal["passed", "failed", "skipped"], str]:
    if result.change is not None:
        return "passed", str(result.change)
    judgement = result.judgement
    text = "\n".join((f"{judgement.verdict}: {judgement.case}", *judgement.reasons))
    return outcome(judgement.verdict, require_verdict=require_verdict), text
