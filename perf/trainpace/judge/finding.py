"""What is said of one case: one record, made once, with one rule for what it does to its test."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trainpace.judge.cost import CostChange, CostJudgement
from trainpace.judge.refresh import Change
from trainpace.judge.systems import SideBySide
from trainpace.judge.verdict import Judgement
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.text import command_apart

Status = Literal["passed", "failed", "skipped", "excused"]
"""What becomes of a test. `excused`: it would fail, and a waiver says why it does not."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One case of one test: measured, counted or compared, and judged."""

    case: str
    """Id of the case."""
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Why it is not `pass`, each a sentence."""
    detail: str = ""
    """What a failing rank or program printed."""
    change: Change | CostChange | None = None
    """What a refresh recorded, or why it did not; None: the session records nothing."""
    judgement: Judgement | None = None
    """Of speed; None: the case was not a matter of speed."""
    runs: tuple[Run, ...] = ()
    """That the judgement is of; in the gate of a pull request the head's."""
    base_runs: tuple[Run, ...] = ()
    cost: CostJudgement | None = None
    """Of counted cost; None: nothing was counted."""
    systems: SideBySide | None = None
    """Training systems side by side; None: none were compared, or nothing could be measured."""

    @property
    def waiver(self) -> str | None:
        """Why the test does not fail though its verdict says so; None where nothing is waived."""
        return self.judgement.waiver if self.judgement else None

    @property
    def explanation(self) -> tuple[str, ...]:
        """Where the time went on both sides; empty where nobody asked."""
        return self.judgement.explanation if self.judgement else ()


@dataclass(frozen=True)
class Outcome:
    """What a finding does to its test."""

    status: Status
    text: str
    """The test's message."""


def speed_finding(
    judgement: Judgement,
    *,
    runs: Iterable[Run] = (),
    base_runs: Iterable[Run] = (),
    detail: str = "",
    change: Change | None = None,
) -> Finding:
    """The finding of a case whose speed was judged."""
    return Finding(
        case=judgement.case,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        detail=detail,
        change=change,
        judgement=judgement,
        runs=tuple(runs),
        base_runs=tuple(base_runs),
    )


def cost_finding(judgement: CostJudgement, *, detail: str = "", change: CostChange | None = None) -> Finding:
    """The finding of a case whose step was counted."""
    return Finding(
        case=judgement.case,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        detail=detail,
        change=change,
        cost=judgement,
    )


def systems_finding(compared: SideBySide, detail: str) -> Finding:
    """The finding of systems side by side. Nobody is judged for speed: `pass` says that each was measured validly.

    Invalid where a system that is there was not; without two that are there, nothing is said.
    """
    reasons = [
        f"{each.status}: {each.title}: {each.reason}"
        for each in compared.systems
        if each.status in {"invalid", "out of memory"}
    ]
    verdict = Verdict.INVALID if reasons else Verdict.PASS
    if not reasons and compared.reference is None:
        verdict = Verdict.INCONCLUSIVE
        absent = [f"{each.title}: {each.reason}" for each in compared.systems]
        reasons = ["expected two systems at least to be compared, got fewer", *absent]
    return Finding(case=compared.case, verdict=verdict, reasons=tuple(reasons), detail=detail, systems=compared)


def outcome(finding: Finding, *, require_verdict: bool = False) -> Outcome:
    """What becomes of the test, and why.

    A refresh passes when it recorded: its verdict is of the old baseline. Under `require_verdict` a case that could not
    be judged fails.
    """
    change = finding.change
    if change is not None:
        return Outcome("failed" if change.new is None else "passed", str(change))
    lines = [line for reason in finding.reasons for line in command_apart(reason) if line]
    text = "\n".join((f"{finding.verdict}: {finding.case}", *lines, *finding.explanation))
    if finding.verdict in {Verdict.REGRESSION, Verdict.INVALID}:
        failed = True
    elif finding.verdict in {Verdict.NO_BASELINE, Verdict.INCONCLUSIVE}:
        failed = require_verdict
        if not failed:
            return Outcome("skipped", text)
    else:
        failed = False
    if failed and finding.waiver:
        return Outcome("excused", f"{text}\n{finding.waiver}")
    return Outcome("failed" if failed else "passed", text)


def exit_status(findings: Iterable[Finding], *, require_verdict: bool = False, failed_tests: int = 0) -> int:
    """The session's exit status. pytest owns 0 to 5, which is why ours start at 6.

    1: a regression, a refused refresh or an ordinary failing test; else 7: something invalid; else 6: something
    unjudged under `require_verdict`; else 0.

    Args:
        findings: of every test that made one.
        require_verdict: whether a case that could not be judged fails.
        failed_tests: tests of the session that failed, whether or not they made a finding.
    """
    all_findings = list(findings)
    failures = sum(outcome(each, require_verdict=require_verdict).status == "failed" for each in all_findings)
    refused = any(each.change is not None and each.change.new is None for each in all_findings)
    counted = {each.verdict for each in all_findings if each.change is None and not each.waiver}
    if failed_tests > failures or refused or Verdict.REGRESSION in counted:
        return 1
    if Verdict.INVALID in counted:
        return 7
    if require_verdict and counted & {Verdict.NO_BASELINE, Verdict.INCONCLUSIVE}:
        return 6
    return 0
