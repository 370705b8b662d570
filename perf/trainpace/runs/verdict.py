"""The word for what was found of a case: given by stats and judge, read by plans and reports."""

from enum import StrEnum


class Verdict(StrEnum):
    """What a session says of a case. A case that was not judged is never called pass."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NO_BASELINE = "no baseline"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"

    @property
    def judged(self) -> bool:
        """True where it says something of the speed: pass, regression or improvement."""
        return self not in {Verdict.NO_BASELINE, Verdict.INCONCLUSIVE, Verdict.INVALID}
