"""What a finding does to its test, and all of them to the session's exit status."""

import pytest

from trainpace.judge.finding import Finding, exit_status, outcome
from trainpace.judge.refresh import Change
from trainpace.runs.verdict import Verdict

REFUSED = Change(key="a/mini", old=None, new=None, refused="too slow")


def finding(verdict, **fields):
    return Finding(case="ours-8k-sp1", verdict=verdict, **fields)


@pytest.mark.parametrize(
    ("verdict", "plain", "required"),
    [
        (Verdict.PASS, "passed", "passed"),
        (Verdict.IMPROVEMENT, "passed", "passed"),
        (Verdict.REGRESSION, "failed", "failed"),
        (Verdict.INVALID, "failed", "failed"),
        (Verdict.NO_BASELINE, "skipped", "failed"),
        (Verdict.INCONCLUSIVE, "skipped", "failed"),
    ],
)
def test_outcome_of_a_verdict(verdict, plain, required):
    """What was not judged never counts as passed, and fails where a verdict is required."""
    found = finding(verdict)

    assert (plain, required) == (outcome(found).status, outcome(found, require_verdict=True).status)


def test_outcome_of_a_refused_refresh():
    """A refresh fails where nothing was recorded, whatever the verdict of the old baseline is."""
    ended = outcome(finding(Verdict.PASS, change=REFUSED))

    assert (ended.status, ended.text) == ("failed", "a/mini: not recorded: too slow")


@pytest.mark.parametrize(
    ("verdicts", "status", "required"),
    [
        ([], 0, 0),
        ([Verdict.PASS, Verdict.IMPROVEMENT], 0, 0),
        ([Verdict.PASS, Verdict.NO_BASELINE], 0, 6),
        ([Verdict.INCONCLUSIVE], 0, 6),
        ([Verdict.INCONCLUSIVE, Verdict.INVALID], 7, 7),
        ([Verdict.INVALID, Verdict.REGRESSION], 1, 1),
    ],
)
def test_exit_status_of_a_session(verdicts, status, required):
    """1 a regression, else 7 something invalid, else 6 something unjudged where a verdict is required."""
    findings = [finding(verdict) for verdict in verdicts]

    assert (status, required) == (exit_status(findings), exit_status(findings, require_verdict=True))


@pytest.mark.parametrize(
    ("findings", "failed"),
    [([finding(Verdict.INVALID)], 2), ([finding(Verdict.PASS, change=REFUSED)], 1)],
    ids=["another test failed", "a refresh refused"],
)
def test_ordinary_failure_is_exit_status_one(findings, failed):
    """A failing test that is no verdict counts as in any pytest session, also beside something invalid."""
    assert exit_status(findings, failed_tests=failed) == 1
