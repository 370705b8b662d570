"""The looks of the stored gate: TGS of runs in, what they say of their case out. Numbers in, numbers out.

One run cannot tell a slower program from an outlier, and a stored number not from another machine. So a case that
looks slow is measured again, and it is red only where all its runs together are, where its own runs show it too, and
where it stands out from what the other cases of its session lost. What is said depends on the runs alone, not on when
they were looked at: a replay says what the session said.

docs/statistics.md shows what it finds and how often it errs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from trainpace.stats.tolerance import (
    CAP,
    FLOOR,
    MAX_OUTLIER_SHARE,
    MIN_OUTLIER_DOF,
    MOST_RUNS,
    OUTLIER_SD,
    SESSION_ERROR,
    WITHIN_CASE_ALPHA,
    Spread,
    Tolerance,
    prediction_bound,
    quantile,
    tolerance_for,
)

RETEST_ALPHA = 0.02
"""Chance that an unchanged case looks slow, and is measured again. Well before the tolerance: a lost D rarely shows in
one run, and nearly always in five. More would find more, and be red by mistake where runs of an hour are alike."""
MAX_OUTLIERS_OF_ALL = 0.05
"""At most this share of a device's stored runs are outliers. Where there are more, that is how the machine is."""
MIN_OTHER_CASES = 4
"""Other cases that it takes to tell what a session has in common."""
MIN_SHARE_THAT_LOST = 0.6
"""Share of the other cases that must have lost half of the common loss at least, or it is none: where a half of the
cases lost something, they did, and not the machine."""
MIN_WITHIN_CASE_DOF = 4
"""Degrees of freedom from which on a case can be asked alone."""
MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median in those of a mean: large samples of a normal distribution."""
LEAST = -math.log1p(-FLOOR)
MOST = -math.log1p(-CAP)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What the runs of one case say against its stored ones."""

    kept: tuple[bool, ...]
    """Which of the runs count; the others are outliers."""
    log_ratio: float
    """log(TGS now / TGS stored), of the mean over the runs that count."""
    tolerance: Tolerance
    slow: bool
    """It looks slow: unchanged cases do with a chance of RETEST_ALPHA."""
    stands_out: bool
    """It looks slow also without what all cases of its session lost."""
    beyond: bool
    """It is slower than the tolerance allows."""
    regression: bool
    common_shift: float
    """The log ratio that the cases of the session have in common; 0 where there is none, or it is small."""
    num_others: int
    """Other cases that were looked at for it."""

    @property
    def unclear(self) -> bool:
        """Whether it looks slow for a reason that is perhaps none of its own."""
        return not self.regression and self.slow and (self.beyond or self.common_shift < 0)

    def needs_another_run(self, first: int) -> bool:
        """Whether one more run is wanted, where a case was given `first` runs to begin with."""
        return self.slow and self.stands_out and len(self.kept) < max(MOST_RUNS, 2 * first)


def assess(
    now: Sequence[float],
    stored: Sequence[float],
    *,
    spread: Spread | None,
    selected: int,
    others: Sequence[float] = (),
    override: float | None = None,
) -> Assessment:
    """Look at the TGS of a case's runs, `now`, at least one.

    Args:
        now: TGS of each run.
        stored: TGS of each of the baseline's runs that count.
        spread: between runs; None where it is unknown.
        selected: cases of the session.
        others: log ratio to its baseline of the first run of each other case of the session.
        override: the user's tolerance, instead of all that follows from the noise.
    """
    logs, past = [math.log(value) for value in now], [math.log(value) for value in stored]
    kept = _kept(logs, spread)
    counted = [value for value, counts in zip(logs, kept, strict=True) if counts]
    ratio = fmean(counted) - fmean(past)
    limit, bound, suspicion = _limits(spread, len(past), len(counted), selected, override)
    common_shift = estimate_common_shift(others, spread, len(past)) if spread is not None and override is None else 0.0
    beyond = ratio < -bound
    alone = override is not None or _shows_alone(ratio, counted, past)
    return Assessment(
        kept=kept,
        log_ratio=ratio,
        tolerance=limit,
        slow=ratio < -suspicion,
        stands_out=ratio - common_shift < -suspicion,
        beyond=beyond,
        regression=beyond and ratio - common_shift < -bound and alone,
        common_shift=common_shift,
        num_others=len(others),
    )


def decision_thresholds(
    stored: int, *, spread: Spread | None, selected: int, override: float | None = None
) -> tuple[float, float, float]:
    """TGS now / TGS stored at which something else is said of a single run: slow, slower than allowed, faster.

    Args:
        stored: runs of the baseline that count.
        spread: between runs; None where it is unknown.
        selected: cases of the session.
        override: the user's tolerance.
    """
    _, bound, suspicion = _limits(spread, stored, 1, selected, override)
    return math.exp(-suspicion), math.exp(-bound), math.exp(bound)


def _limits(
    spread: Spread | None, stored: int, now: int, selected: int, override: float | None
) -> tuple[Tolerance, float, float]:
    """The tolerance, and in logarithms the loss that is beyond it, and the one from which on a case looks slow."""
    limit = tolerance_for(spread, stored=stored, now=now, selected=selected, override=override)
    bound = suspicion = -math.log1p(-limit.value)
    if spread is not None and override is None:
        looks = prediction_bound(spread, stored=stored, now=now, error=RETEST_ALPHA)
        suspicion = min(bound, max(LEAST, looks))
    return limit, bound, suspicion


def estimate_common_shift(others: Sequence[float], spread: Spread, stored: int) -> float:
    """The log ratio that the cases of a session have in common: the median of `others`, 0 where that is nothing.

    It is something where it is beyond what noise makes of a median (at the error of a session) and beyond the floor,
    and where nearly all of them lost it. It excuses no more than the cap: machines of one kind do not differ by more.
    """
    if len(others) < MIN_OTHER_CASES:
        return 0.0
    middle = median(others)
    error = MEDIAN * spread.sd * math.sqrt((1 + 1 / stored) / len(others))
    doubt = max(LEAST, quantile(spread, SESSION_ERROR) * error)
    lost = sum(each < middle / 2 for each in others)
    return max(middle, -MOST) if middle < -doubt and lost >= MIN_SHARE_THAT_LOST * len(others) else 0.0


def outliers(groups: Sequence[Sequence[float]]) -> list[tuple[bool, ...]]:
    """Which stored runs are outliers, TGS by case: gross ones, if they are few in their case and in all.

    The scale that says what is gross is the median of the cases' own variances, each over the median of its chi-square
    (Wilson and Hilferty's, f (1 - 2 / 9f)^3), as in the gate of a pull request: half of the cases cannot move it.
    """
    logs = [[math.log(value) for value in group] for group in groups]
    several = [group for group in logs if len(group) > 1]
    none = [(False,) * len(group) for group in logs]
    if sum(len(group) - 1 for group in several) < MIN_OUTLIER_DOF:
        return none
    typical = median(variance(group) / (1 - 2 / (9 * (len(group) - 1))) ** 3 for group in several)
    gross = OUTLIER_SD * math.sqrt(typical)
    found = []
    for group in logs:
        off = tuple(abs(value - median(group)) > max(gross, LEAST) for value in group)
        found.append(off if sum(off) <= len(group) * MAX_OUTLIER_SHARE else (False,) * len(group))
    return found if sum(map(sum, found)) <= MAX_OUTLIERS_OF_ALL * sum(map(len, logs)) else none


def _kept(logs: Sequence[float], spread: Spread | None) -> tuple[bool, ...]:
    """Which runs of a case count: all but a gross one of three or more, or MAX_OUTLIER_SHARE of them."""
    if spread is None or spread.dof < MIN_OUTLIER_DOF:
        return (True,) * len(logs)
    middle, gross = median(logs), max(OUTLIER_SD * spread.sd, LEAST)
    kept = tuple(abs(value - middle) <= gross for value in logs)
    most = max(1, len(logs) * MAX_OUTLIER_SHARE) if len(logs) > 2 else 0
    return kept if len(logs) - sum(kept) <= most else (True,) * len(logs)


def _shows_alone(ratio: float, now: Sequence[float], stored: Sequence[float]) -> bool:
    """Whether the case's own spread, then and now, also says that it is slower: what keeps a noisy one from being red
    by the others' noise. True where its runs are too few to have one."""
    dof = len(now) + len(stored) - 2
    if dof < MIN_WITHIN_CASE_DOF:
        return True
    squares = sum((len(group) - 1) * variance(group) for group in (now, stored) if len(group) > 1)
    own = Spread(math.sqrt(squares / dof), dof)
    return ratio < -prediction_bound(own, stored=len(stored), now=len(now), error=WITHIN_CASE_ALPHA)
