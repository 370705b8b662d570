"""The reason, the last line and summary.md say the same of a case, for every verdict of both gates."""

import pytest

from judgements import of_paired_gate, of_stored_gate
from trainpace.judge.finding import outcome, speed_finding
from trainpace.report import markdown
from trainpace.report.record import Results, case_result
from trainpace.report.terminal import last_line, render
from trainpace.runs.verdict import Verdict

JUDGED = [
    (gate, name, each)
    for gate, of in (("stored", of_stored_gate()), ("paired", of_paired_gate()))
    for name, each in of.items()
]


@pytest.mark.parametrize("judged", [each for _, _, each in JUDGED], ids=[f"{gate}-{name}" for gate, name, _ in JUDGED])
def test_what_would_decide_is_said_once(judged):
    """An undecided case has the same words in all three, and no other case has any."""
    finding = speed_finding(judged)
    line = last_line([judged])
    summary = markdown.render(Results(exit_status=0, summary=line, cases=(case_result(finding, outcome(finding)),)))
    texts = (" ".join(judged.reasons), line, render([judged]).splitlines()[-1], summary.split("###")[0], summary)
    measured = judged.verdict is Verdict.INCONCLUSIVE and judged.tgs is not None

    assert all(str(judged.verdict) in text for text in texts[1:])
    assert bool(judged.what_decides) == measured
    assert {text.count("would decide") for text in texts[:4]} == {int(measured)}
    assert all(judged.what_decides in text for text in texts)


def test_every_verdict_is_there():
    """Of both gates: none is left out above."""
    of_stored = {each.verdict for gate, _, each in JUDGED if gate == "stored"}
    of_paired = {each.verdict for gate, _, each in JUDGED if gate == "paired"}

    assert of_stored == set(Verdict)
    assert of_paired == set(Verdict) - {Verdict.NO_BASELINE}
