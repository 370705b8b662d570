"""Waivers: what keeps a slowdown from failing its test, a quarantine that ends or a reason that a maintainer accepted.

A waiver changes no verdict: a waived regression is still called one, everywhere, with the waiver beside it. The
quarantine is read from the judging side (store/quarantine.py), so that a change cannot waive its own slowdown.
"""

from collections.abc import Iterable
from datetime import date
from typing import Annotated

from pydantic import StringConstraints

from trainpace.judge.verdict import Judgement
from trainpace.records import Record
from trainpace.runs.verdict import Verdict

NOISE = {Verdict.REGRESSION, Verdict.INCONCLUSIVE}
"""Verdicts that noise can cause, which a quarantine waives. It never waives a run without a value."""
MOST_NOISE = 0.2
"""The largest loss of speed, a share, that is noise. A quarantined case that lost more is slower, however noisy."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Quarantined(Record):
    """A case known to be noisy, and until when that may be."""

    case: Text
    reason: Text
    until: date
    """Last day of the quarantine."""
    who: Text
    """The person who answers for it."""

    def __str__(self) -> str:
        return f"{self.case} is quarantined until {self.until} by {self.who}: {self.reason}"


def waive(judgement: Judgement, quarantine: Iterable[Quarantined], accepted: str | None) -> Judgement:
    """The judgement, with its waiver where one applies.

    `accepted` is the reason given with --perf-accepted; None: slowdowns are not accepted in this session.
    """
    for entry in quarantine:
        if entry.case == judgement.case and _noise(judgement):
            return judgement.model_copy(update={"waiver": str(entry)})
    if accepted is not None and judgement.verdict is Verdict.REGRESSION:
        return judgement.model_copy(update={"waiver": f"accepted: {accepted}"})
    return judgement


def _noise(judgement: Judgement) -> bool:
    """Whether noise can look like it: a loss of speed, not too large, and not one of memory, which hardly has any."""
    lost = judgement.ratio is not None and judgement.ratio < 1 - MOST_NOISE
    return judgement.verdict in NOISE and not judgement.more_memory and not lost
