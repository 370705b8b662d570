"""Annotations in a workflow's log, and what the comment says."""

import re

import pytest

from factories import make_case_result, make_cost_result, make_results, make_slower
from trainpace.report.github import COMMENT_LENGTH, annotations, comment


def understood(value):
    """What the runner makes of an escaped value."""
    for escaped, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        value = value.replace(escaped, character)
    return value


def test_annotations():
    """Each red case is an error with its reasons, an excused one a warning; the others are silent."""
    excused = make_slower("excused", outcome="excused", excused="accepted: exact softmax")
    refused = make_case_result(outcome="failed", refresh="refused", change="a: not recorded: too slow")

    costs = [make_cost_result(verdict="regression", outcome="failed", reasons=("step.calls 1 -> 2",))]

    assert annotations(make_results(make_slower(), excused, refused, make_case_result(), costs=costs)) == [
        "::error title=llama2_7b-32k-sp1%3A regression::TGS 700.0 is 30 %25 below the base's 1000.0",
        "::warning title=excused%3A regression::TGS 700.0 is 30 %25 below the base's 1000.0%0Aaccepted: exact softmax",
        "::error title=llama2_7b-8k-sp1%3A refused::a: not recorded: too slow",
        "::error title=cost of llama2_7b-8k-sp1%3A regression::step.calls 1 -> 2",
    ]


@pytest.mark.parametrize("hostile", ["a\n::error::b", "a\r\n::set-output name=x::b", "a,file=b::c%0A::error::d"])
def test_annotations_hold_no_other_command(hostile):
    """What is quoted ends neither the line nor the title."""
    (line,) = annotations(make_results(make_slower(hostile, reasons=(hostile,))))

    title, data = re.fullmatch(r"::error title=([^:,]*)::(.*)", line).groups()

    assert (understood(title), understood(data)) == (f"{hostile}: regression", hostile)


PASSED, SLOWER = make_results(make_case_result()), make_results(make_slower(), exit_status=1)


@pytest.mark.parametrize(("results", "job"), [(PASSED, "failure"), (PASSED, "cancelled"), (SLOWER, "success")])
def test_results_that_contradict_the_job(results, job):
    """Results come from the machine that ran the pull request's code; the job's own result outranks them."""
    text = comment(results, run="x", job=job)

    assert text.startswith(f"## ❌ The job's result is {job}, but results.json says that the session ended ")
    assert "The job's is what counts." in text


@pytest.mark.parametrize(("results", "job"), [(PASSED, "success"), (SLOWER, "failure"), (SLOWER, ""), (PASSED, "")])
def test_results_that_agree_with_the_job(results, job):
    """Nothing is said of a contradiction where there is none, or nobody told how the job ended."""
    assert "The job" not in comment(results, run="x", job=job)


def test_contradiction_fits_into_a_comment():
    """Also above results that alone fill one."""
    results = make_results(*[make_case_result(f"case-{number}" * 20) for number in range(90)], said=("n " * 20_000,))

    assert len(comment(results, run="x", job="failure")) < COMMENT_LENGTH + 20
