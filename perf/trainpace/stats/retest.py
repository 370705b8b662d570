"""The retest of the stored gate: TGS of a case's runs in, an assessment of the case out.

One run cannot tell a slower program from an outlier, nor a slower program from a slower machine. So a case that looks
slow is measured again. It is a regression only where the mean of all its runs is beyond the tolerance, where its own
spread shows the same, and where it lost more than the other cases of its session did. The assessment depends on the
runs alone, not on when they were made: a replay gives what the session gave.

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
    NoiseModel,
    Spread,
    Tolerance,
    prediction_bound,
    quantile,
    tolerance_for,
)

RETEST_ALPHA = 0.02
"""Chance that an unchanged case looks slow and is retested. It takes a smaller loss than the tolerance, because one of
the minimum effect rarely shows in one run, and nearly always in five. A larger chance would find more, and raise
more false alarms on machines where consecutive runs resemble each other."""
MAX_OUTLIERS_OF_ALL = 0.05
"""Largest share of a device's stored runs that can be outliers. Where more are, none is: the machine is like that."""
MIN_OTHER_CASES = 4
"""Minimum number of other cases needed to estimate the common shift."""
MIN_SHARE_THAT_LOST = 0.6
"""Share of the other cases that must each have lost at least half of the common shift, or there is none: where only
half of the cases lost something, the cases did, and not the machine."""
MIN_WITHIN_CASE_DOF = 4
"""Degrees of freedom that a case's own spread needs before a regression must show in it too."""
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of a median / that of a mean, for large samples of a normal distribution."""
LOG_FLOOR = -math.log1p(-FLOOR)
LOG_CAP = -math.log1p(-CAP)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """The runs of one case, compared with those of its baseline."""

    kept: tuple[bool, ...]
    """One flag a run: True where it counts, False where it is an outlier."""
    log_ratio: float
    """log(TGS now / TGS stored), each the geometric mean of the runs that count."""
    tolerance: Tolerance
    slow: bool
    """True where the case looks slow; an unchanged case does with a chance of RETEST_ALPHA."""
    stands_out: bool
    """True where it looks slow also after the common shift is taken out."""
    beyond: bool
    """True where the loss is larger than the tolerance."""
    regression: bool
    """True where it is beyond the tolerance also without the common shift, and by its own spread."""
    common_shift: float
    """Log ratio that the cases of the session have in common; 0 where it is too small to be told from noise."""
    num_others: int
    """Number of other cases that the common shift was estimated from."""

    @property
    def unclear(self) -> bool:
        """True where the case is slow, but the loss may come from the machine: the case is inconclusive."""
        return not self.regression and self.slow and (self.beyond or self.common_shift < 0)

    def needs_another_run(self, first: int) -> bool:
        """True where one more run can change the assessment; `first` is the number of runs that a case starts with."""
        return self.slow and self.stands_out and len(self.kept) < max(MOST_RUNS, 2 * first)


def assess(
    now: Sequence[float],
    stored: Sequence[Sequence[float]],
    noise: NoiseModel,
    *,
    others: Sequence[float] = (),
) -> Assessment:
    """Compare the runs of a case, at least one, with those of its baseline.

    Args:
        now: TGS of each run, positive.
        stored: TGS of each of the baseline's runs that are no outliers, by session.
        noise: of the case.
        others: log ratio to its baseline of the first run of each other case of the session.
    """
    spread, own_tolerance = noise.spread, noise.tolerance is not None
    logs, past = [math.log(value) for value in now], [[math.log(value) for value in runs] for runs in stored]
    num_stored = sum(map(len, past))
    kept = _kept(logs, spread)
    counted = [value for value, counts in zip(logs, kept, strict=True) if counts]
    ratio = fmean(counted) - fmean(map(fmean, past))
    limit, bound, slow = _limits(noise, num_stored, len(counted))
    common_shift = (
        estimate_common_shift(others, spread, num_stored) if spread is not None and not own_tolerance else 0.0
    )
    beyond = ratio < -bound
    alone = own_tolerance or _shows_alone(ratio, counted, past)
    return Assessment(
        kept=kept,
        log_ratio=ratio,
        tolerance=limit,
        slow=ratio < -slow,
        stands_out=ratio - common_shift < -slow,
        beyond=beyond,
        regression=beyond and ratio - common_shift < -bound and alone,
        common_shift=common_shift,
        num_others=len(others),
    )


def decision_thresholds(stored: int, noise: NoiseModel) -> tuple[float, float, float]:
    """Ratios TGS now / TGS stored at which the assessment of a single run changes: slow, beyond the tolerance, faster.

    Args:
        stored: number of runs of the baseline that are no outliers.
        noise: of the case.
    """
    _, bound, slow = _limits(noise, stored, 1)
    return math.exp(-slow), math.exp(-bound), math.exp(bound)


def _limits(noise: NoiseModel, stored: int, now: int) -> tuple[Tolerance, float, float]:
    """The tolerance; the same as a loss on the log scale; the loss, on that scale, from which on a case looks slow."""
    limit = tolerance_for(noise, stored=stored, now=now)
    bound = slow = -math.log1p(-limit.value)
    if noise.spread is not None and noise.tolerance is None:
        retest = prediction_bound(noise.spread, stored=stored, now=now, error=RETEST_ALPHA)
        slow = min(bound, max(LOG_FLOOR, retest))
    return limit, bound, slow


def estimate_common_shift(others: Sequence[float], spread: Spread, stored: int) -> float:
    """Log ratio that the cases of a session have in common: the median of `others`, 0 where that may be noise.

    It counts where it is beyond what noise makes of a median (at SESSION_ERROR) and beyond FLOOR, and where most of the
    cases lost it. It takes out no more than CAP: machines of one kind do not differ by more.
    """
    if len(others) < MIN_OTHER_CASES:
        return 0.0
    middle = median(others)
    error = MEDIAN_ERROR * spread.sd * math.sqrt((1 + 1 / stored) / len(others))
    doubt = max(LOG_FLOOR, quantile(spread, SESSION_ERROR) * error)
    lost = sum(each < middle / 2 for each in others)
    return max(middle, -LOG_CAP) if middle < -doubt and lost >= MIN_SHARE_THAT_LOST * len(others) else 0.0


def outliers(groups: Sequence[Sequence[float]]) -> list[tuple[bool, ...]]:
    """One flag a stored run, by case: True for an outlier. `groups` are TGS by case.

    An outlier is OUTLIER_SD standard deviations from its case's median. A case with more than MAX_OUTLIER_SHARE of them
    has none, nor has a device with more than MAX_OUTLIERS_OF_ALL. The variance is the median of the cases' own, each
    over the median of its chi-square (Wilson and Hilferty's, f (1 - 2 / 9f)^3), as in the pull-request gate: half of
    the cases cannot move it.
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
        off = tuple(abs(value - median(group)) > max(gross, LOG_FLOOR) for value in group)
        found.append(off if sum(off) <= len(group) * MAX_OUTLIER_SHARE else (False,) * len(group))
    return found if sum(map(sum, found)) <= MAX_OUTLIERS_OF_ALL * sum(map(len, logs)) else none


def _kept(logs: Sequence[float], spread: Spread | None) -> tuple[bool, ...]:
    """One flag a run, True where it counts; at most one of three to seven runs does not, MAX_OUTLIER_SHARE of more."""
    if spread is None or spread.dof < MIN_OUTLIER_DOF:
        return (True,) * len(logs)
    middle, gross = median(logs), max(OUTLIER_SD * spread.sd, LOG_FLOOR)
    kept = tuple(abs(value - middle) <= gross for value in logs)
    most = max(1, len(logs) * MAX_OUTLIER_SHARE) if len(logs) > 2 else 0
    return kept if len(logs) - sum(kept) <= most else (True,) * len(logs)


def _shows_alone(ratio: float, now: Sequence[float], stored: Sequence[Sequence[float]]) -> bool:
    """True where the case's own spread also shows the loss, or is known too badly: a noisy case must not be red by the
    smaller noise of the others."""
    groups = [now, *stored]
    dof = sum(len(group) - 1 for group in groups)
    if dof < MIN_WITHIN_CASE_DOF:
        return True
    squares = sum((len(group) - 1) * variance(group) for group in groups if len(group) > 1)
    own, num_stored = Spread(math.sqrt(squares / dof), dof), sum(map(len, stored))
    return ratio < -prediction_bound(own, stored=num_stored, now=len(now), error=WITHIN_CASE_ALPHA)
