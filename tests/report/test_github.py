"""Annotations in a workflow's log."""

import re

import pytest

from factories import make_case_result, make_cost_result, make_results, make_slower
from trainpace.report.github import annotations


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
