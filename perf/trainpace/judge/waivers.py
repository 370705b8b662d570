"""What keeps a slowdown from failing its session: a quarantine that ends, or a reason that a maintainer accepted.

Neither changes a verdict: an excused regression is still called one, everywhere, with the excuse beside it. The
quarantine is read from the judging side (store/quarantine.py), so that a change cannot excuse itself.
"""

from collections.abc import Iterable
from datetime import date
from typing import Annotated

from pydantic import StringConstraints

from trainpace.judge.verdict import Judgement
from trainpace.records import Record
from trainpace.runs.verdict import Verdict

NOISE = {Verdict.REGRESSION, Verdict.INCONCLUSIVE}
"""What noise can look like. A run without a value is no noise, and no quarantine excuses it."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Quarantined(Record):
    """A case known to be noisy, and until when that may be."""

    case: Text
    reason: Text
    until: date
    """The last day on which it counts."""
    who: Text
    """Who answers for it."""

    def __str__(self) -> str:
        return f"{self.case} is quarantined until {self.until} by {self.who}: {self.reason}"


def waive(judgement: Judgement, quarantine: Iterable[Quarantined], accepted: str | None) -> Judgement:
    """The judgement, with its excuse where it has one.

    `accepted` is the reason why slowdowns are accepted in this session; None: they are not.
    """
    for entry in quarantine:
        if entry.case == judgement.case and judgement.verdict in NOISE:
            return judgement.model_copy(update={"waiver": str(entry)})
    if accepted is not None and judgement.verdict is Verdict.REGRESSION:
        return judgement.model_copy(update={"waiver": f"accepted: {accepted}"})
    return judgement
