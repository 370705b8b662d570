"""The retest of the stored gate: TGS of a case's runs in, an assessment of the case out.

One run cannot tell a slower program from an outlier, nor a slower program from a slower machine. So a case that looks
slow is measured again. It is a regression only where the mean of all its runs is beyond the tolerance, where its own
spread shows the same, and where it lost more than the other cases of its session did. A case that looks faster is
measured again too, and is an improvement where the same holds the other way round. What all cases gained hides what one
of them lost: a case that gained less than the others, by more than its tolerance, is not judged. The assessment depends
on the runs and their order alone, and on no clock: a replay gives what the session gave.

docs/statistics.md shows what it finds and how often it errs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean, median

from trainpace.stats.tolerance import (
    CAP,
    FLOOR,
    MAX_OUTLIER_SHARE,
    MIN_OUTLIER_DOF,
    MOST_RUNS,
    OUTLIER_SD,
    SESSION_ERROR,
    WITHIN_CASE_ALPHA,
    CaseNoise,
    NoiseModel,
    Spread,
    Tolerance,
    error_per_case,
    quantile,
    squares,
    tolerance_for,
)

RETEST_ALPHA = 0.05
"""Chance that an unchanged case looks slow and is retested. It takes a smaller loss than the tolerance, because one of
the minimum effect rarely shows in one run, and nearly always in five. A larger chance would find more, and raise
more false alarms on machines where consecutive runs resemble each other."""
IMPROVEMENT_RUNS = 3
"""Runs that an improvement needs: one of them may be an outlier, and is seen to be one."""
MAX_OUTLIERS_OF_ALL = 0.05
"""Largest share of a device's stored runs that can be outliers. Where more are, none is: the machine is like that."""
MIN_OTHER_CASES = 4
"""Minimum number of other cases needed to estimate the common shift."""
MAX_UNTOUCHED = 0.2
"""Share of the other cases that, where they stayed where they were, exclude that the machine moved all of them."""
MIN_WITHIN_CASE_DOF = 4
"""Degrees of freedom that a case's own spread needs before a regression must show in it too."""
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of a median / that of a mean, for large samples of a normal distribution."""
LOG_FLOOR = -math.log1p(-FLOOR)
LOG_CAP = -math.log1p(-CAP)
ROUNDING = 1e-5
"""Relative. Baselines are stored with six digits: below this nothing is slower."""


@dataclass(frozen=True, kw_only=True)
class OtherCase:
    """Another case of the session: what it tells of the machine."""

    log_ratio: float
    """log(TGS now / TGS stored), of the runs that every case makes."""
    noise: CaseNoise
    now: int = 1
    """How many runs these are."""

    def bound(self, error: float) -> float:
        """The loss, or the gain, on the log scale that it shows with a chance of `error` though nothing changed."""
        return max(LOG_FLOOR, self.noise.bound(self.now, error))


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """The runs of one case, compared with those of its baseline."""

    kept: tuple[bool, ...]
    """One flag a run: True where it counts, False where it is an outlier."""
    log_ratio: float
    """log(TGS now / TGS stored), each the mean of the runs that count."""
    tolerance: Tolerance
    slow: bool
    """True where the case looks slow; an unchanged case does with a chance of RETEST_ALPHA."""
    beyond: bool
    """True where the loss is larger than the tolerance."""
    regression: bool
    """True where it is beyond the tolerance also without the common shift, and by its own spread."""
    lags: bool
    """True where the other cases gained, and this one less than they by more than its tolerance."""
    faster: bool
    """True where the gain is larger than the tolerance."""
    improvement: bool
    """True where it is so also without the common shift, by its own spread, and in enough runs."""
    common_shift: float
    """Log ratio that the cases of the session have in common; 0 where it is too small to be told from noise, or where
    some of them exclude it."""
    others_gained: float
    """Log ratio that the other cases gained, as far as it is the machine's, or may be; 0 where they did not."""
    num_others: int
    """Number of other cases that the common shift was estimated from."""
    looks_slow: bool
    """True where another run would tell whether it is slower, or gained less than the others."""
    looks_faster: bool
    """True where another run would tell whether it is an improvement."""

    @property
    def unclear(self) -> bool:
        """True where the case is slow, or gained less than the others, but the loss may come from the machine: the case
        is inconclusive."""
        return not self.regression and (self.lags or (self.slow and (self.beyond or self.common_shift < 0)))

    @property
    def gained_with_all(self) -> bool:
        """True where the case is faster, and what all cases gained may be the machine's."""
        return self.faster and self.common_shift > 0 and not self.improvement

    def needs_another_run(self, first: int) -> bool:
        """True where one more run can change the assessment; `first` is the number of runs that a case starts with."""
        return (self.looks_slow or self.looks_faster) and len(self.kept) < max(MOST_RUNS, 2 * first)


def assess(
    now: Sequence[float],
    stored: Sequence[Sequence[float]],
    noise: NoiseModel,
    *,
    others: Sequence[OtherCase] = (),
    first: int | None = None,
) -> Assessment:
    """Compare the runs of a case, at least one, with those of its baseline.

    Args:
        now: TGS of each run, positive, oldest first.
        stored: TGS of each of the baseline's runs that are no outliers, by session.
        noise: of the case.
        others: the other cases of the session whose noise is known.
        first: how many of the runs are those that every case makes; None: all.
    """
    case, own_tolerance = noise.case, noise.tolerance is not None
    logs, past = [math.log(value) for value in now], [[math.log(value) for value in runs] for runs in stored]
    kept = _kept(logs, case.within if case else None)
    counted = [value for value, counts in zip(logs, kept, strict=True) if counts]
    ratio = fmean(counted) - fmean(map(fmean, past))
    limit, bound, slow = _limits(noise, len(counted))
    shift, gained = CommonShift(), 0.0
    if case is not None and not own_tolerance:
        shift = estimate_common_shift(others)
        gained = max(0.0, shift.told) or _gain_of_few(others)
    begun = logs[:first]
    # Beside cases that gained, one whose first runs lost nothing is retested only because it gained less, and later
    # than they: what it lost meanwhile may be the machine's.
    began_slow = gained == 0 or fmean(begun) - fmean(map(fmean, past)) < -_limits(noise, len(begun))[2]
    left, least = ratio - shift.likely, shift.widened(bound, error_per_case(noise.num_cases))
    beyond, faster = ratio < -bound, ratio > bound
    alone = own_tolerance or ((beyond or faster) and _shows_alone(abs(ratio), counted, past, case))
    more = faster and left > least
    return Assessment(
        kept=kept,
        log_ratio=ratio,
        tolerance=limit,
        slow=ratio < -slow,
        beyond=beyond,
        regression=beyond and left < -least and alone and began_slow,
        # Without the shift a case that did not gain what the others gained has lost it; but nobody knows that it has.
        lags=gained > 0 and ratio - gained < -least,
        faster=faster,
        improvement=more and alone and len(counted) >= IMPROVEMENT_RUNS,
        common_shift=shift.told,
        others_gained=gained,
        num_others=len(others),
        looks_slow=(ratio < -slow and left < -slow) or (gained > 0 and ratio - gained < -slow),
        looks_faster=more and len(kept) < IMPROVEMENT_RUNS,
    )


def decision_thresholds(noise: NoiseModel) -> tuple[float, float, float]:
    """Ratios TGS now / TGS stored at which the assessment of a single run changes: slow, beyond the tolerance, faster.
    `noise` is of the case.
    """
    _, bound, slow = _limits(noise, 1)
    return math.exp(-slow), math.exp(-bound), math.exp(bound)


def _limits(noise: NoiseModel, now: int) -> tuple[Tolerance, float, float]:
    """The tolerance; the same as a loss on the log scale; the loss, on that scale, from which on a case looks slow."""
    limit = tolerance_for(noise, now=now)
    bound = slow = max(ROUNDING, -math.log1p(-limit.value))
    if noise.case is not None and noise.tolerance is None:
        slow = min(bound, max(LOG_FLOOR, noise.case.bound(now, RETEST_ALPHA)))
    return limit, bound, slow


@dataclass(frozen=True, kw_only=True)
class CommonShift:
    """Log ratio that the cases of a session have in common."""

    median: float = 0.0
    """Of the other cases; 0 where they are too few to tell, or exclude that they share it."""
    error: float = 0.0
    """Standard error of the median."""

    @property
    def likely(self) -> float:
        """What of the median is more than its noise, which is taken out of a change: m (1 - error^2 / m^2), or 0.

        It takes out no more than CAP: machines of one kind do not differ by more.

        Source: James and Stein's positive-part estimator, for one mean.
        """
        size = abs(self.median)
        return math.copysign(min(LOG_CAP, size - self.error**2 / size), self.median) if size > self.error else 0.0

    @property
    def told(self) -> float:
        """The median where it is beyond its noise (at SESSION_ERROR) and beyond FLOOR, at most CAP; else 0."""
        if abs(self.median) <= max(LOG_FLOOR, quantile(Spread(1.0, math.inf), SESSION_ERROR) * self.error):
            return 0.0
        return math.copysign(min(LOG_CAP, abs(self.median)), self.median)

    def widened(self, bound: float, error: float) -> float:
        """A bound on what is left of a change, exceeded with a chance of `error`, where the shift is taken out."""
        return math.hypot(bound, quantile(Spread(1.0, math.inf), error) * self.error) if self.told else bound


def estimate_common_shift(others: Sequence[OtherCase]) -> CommonShift:
    """What the cases of a session have in common: the median of `others`, and its standard error.

    Nothing where they are fewer than MIN_OTHER_CASES, or where some of them stayed where they were, which no machine
    that moves all of them lets them: MAX_UNTOUCHED of them nearer to no change than to the median, and by their own
    noise (SESSION_ERROR over all of them) not at it, exclude it.
    """
    if len(others) < MIN_OTHER_CASES:
        return CommonShift()
    middle = median(other.log_ratio for other in others)
    # Of a sample whose members differ in noise: 1 / (2 sqrt(n) mean density at the median).
    error = MEDIAN_ERROR * harmonic_mean([other.noise.sd(other.now) for other in others]) / math.sqrt(len(others))
    each = error_per_case(len(others))
    untouched = sum(
        abs(other.log_ratio - middle) > max(abs(middle) / 2, other.bound(each))
        and (other.log_ratio > middle) == (middle < 0)
        for other in others
        if abs(other.log_ratio - middle) > LOG_FLOOR
    )
    return CommonShift() if untouched >= MAX_UNTOUCHED * len(others) else CommonShift(median=middle, error=error)


def _gain_of_few(others: Sequence[OtherCase]) -> float:
    """What one to three other cases all gained beyond their tolerance, on the log scale: too few to tell what all cases
    share, but enough not to call the one pass that gained nothing. 0 where one of them did not, or gained more than
    CAP, which no machine of a kind gives, or where there are more of them."""
    if not 0 < len(others) < MIN_OTHER_CASES:
        return 0.0
    each = error_per_case(len(others))
    gained = all(other.bound(each) < other.log_ratio <= LOG_CAP for other in others)
    return min(other.log_ratio for other in others) if gained else 0.0


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
    typical = median(squares(group) / (len(group) - 1) / (1 - 2 / (9 * (len(group) - 1))) ** 3 for group in several)
    gross = OUTLIER_SD * math.sqrt(typical)
    found = []
    for group in logs:
        middle = median(group)
        off = tuple(abs(value - middle) > max(gross, LOG_FLOOR) for value in group)
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


def _shows_alone(
    change: float, now: Sequence[float], stored: Sequence[Sequence[float]], noise: CaseNoise | None
) -> bool:
    """True where the case's own spread also shows the change, or is known too badly: a noisy case must not be red by
    the smaller noise of the others."""
    groups = [now, *stored]
    dof = sum(map(len, groups)) - len(groups)
    if dof < MIN_WITHIN_CASE_DOF:
        return True
    known = noise or CaseNoise(within=None, assumed=0.0, runs=len(stored[0]))
    within = Spread(math.sqrt(sum(map(squares, groups)) / dof), dof)
    own = replace(known, within=within, session=None, assumed=known.between)
    return change > own.bound(len(now), WITHIN_CASE_ALPHA)
