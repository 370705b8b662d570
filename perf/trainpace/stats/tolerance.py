"""The tolerance of the stored gate, and the noise of a case that it comes from.

The unit is the run, its value log TGS: a ratio of two speeds is a difference of logarithms, with the same spread at
every speed. The runs of a session share what the machine did to that session, so that a case has two spreads: between
the runs of a session, and between sessions. stats/variance.py estimates both.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean, variance

from trainpace.text import count, percent

SESSION_ERROR = 0.01
"""Chance that a session of unchanged code shows any regression, over all its selected cases."""
FLOOR = 0.01
"""Smallest tolerance, a share: a clock, a driver or a cable explains 1 %."""
CAP = 0.10
"""Largest tolerance, a share, that can pass a case. A wider one decides only regressions beyond it."""
NO_SPREAD = 0.05
"""Tolerance, a share, where the spread between runs is unknown: a published row, a single recorded run."""
ASSUMED_BETWEEN = 0.003
"""Standard deviation of log TGS between sessions, beside what all cases share, that is assumed where the baselines hold
too few sessions to tell (MIN_SESSION_DOF). Of unchanged sessions 1 % are red where it is true."""
MOST_RUNS = 5
"""Largest number of runs of a case that are measured without an option that asks for more."""
MANY_RUNS = 1_000
"""A case that is undecided after so many runs is undecided after any number."""
WITHIN_CASE_ALPHA = 0.0125
"""Level of the test on a case's own spread, which a regression must pass too."""
OUTLIER_SD = 6.0
"""Distance of an outlier from its case's median, in standard deviations."""
MAX_OUTLIER_SHARE = 1 / 4
"""Share of a case's values that may be outliers, which are set aside. More are how the case is."""
MIN_OUTLIER_DOF = 10
"""Degrees of freedom of the spread below which no value is called an outlier."""


@dataclass(frozen=True)
class Spread:
    """Standard deviation of log TGS, and the degrees of freedom that it rests on; `math.inf`: known, or assumed."""

    sd: float
    dof: float


@dataclass(frozen=True, kw_only=True)
class CaseNoise:
    """How far the speed of one unchanged case is from its baseline, and with how many stored runs it is compared."""

    within: Spread | None
    """Between the runs of one session; None where no session has two."""
    session: Spread | None = None
    """Of the mean of a session of `runs` runs, beside what all cases of the session share: what the session did to the
    case, and the noise of its runs. None where too few sessions are known: then `assumed` stands for it."""
    assumed: float = ASSUMED_BETWEEN
    """What a session does to the case, a standard deviation, where that is not known."""
    num_sessions: int = 1
    """Sessions that the baseline's mean is of."""
    runs: float = 5.0
    """Runs of a stored session; the harmonic mean where their numbers differ."""

    @property
    def between(self) -> float:
        """What a session does to the case, beside the noise of its runs: a standard deviation."""
        if self.session is None:
            return self.assumed
        within = self.within.sd**2 / self.runs if self.within else 0.0
        return math.sqrt(max(0.0, self.session.sd**2 - within))

    def sd(self, now: int) -> float:
        """Standard deviation of log(mean of `now` runs of one session / the baseline's mean)."""
        return self._combined(now, lambda spread: spread.sd)

    def bound(self, now: int, error: float) -> float:
        """One-sided prediction bound on log(mean of `now` runs of one session / the baseline's mean).

        0.1 means that the mean now falls more than a tenth (on the log scale) below the stored one with a chance of at
        most `error`, though nothing changed. With K sessions of n runs stored and m runs now, the ratio's variance is

            (effect^2 + run^2 / m) + (effect^2 + run^2 / n) / K    effect: of a session on the case; run: within one
            = session^2 (1 + 1 / K) + run^2 (1 / m - 1 / n)        session^2 = effect^2 + run^2 / n

        `session` is estimated as such, from the means of sessions. More than n runs now do not make a session's effect
        smaller: where m > n the last term is left out. Runs now follow each other at once, those of a stored session
        lie a round apart: on machines that remember, the former resemble each other, so that each of them but the
        first counts for half there (an assumed effect stands for that too). Each of the two parts has Student's
        quantile at its own degrees of freedom; the bound is the root of the sum of their squares, which is conservative
        and never grows with m.

        Source: Meeker, Hahn and Escobar, Statistical Intervals (2nd edition, 2017), chapter 4, for the prediction of a
        mean; the sum after Cochran and Cox, Experimental Designs (2nd edition, 1957), who weight the two quantiles.
        """
        return self._combined(now, lambda spread: quantile(spread, error) * spread.sd)

    def _combined(self, now: int, size: Callable[[Spread], float]) -> float:
        part = 1 / now if self.session is None else max(0.0, 2 / (now + 1) - 1 / self.runs)
        return math.sqrt(self._fixed(size) + self._of_runs(size) * part)

    def _fixed(self, size: Callable[[Spread], float]) -> float:
        """The square of what more runs now leave as it is."""
        sessions = 1 + 1 / self.num_sessions
        if self.session is not None:
            return sessions * size(self.session) ** 2
        stored = self.runs * self.num_sessions
        return sessions * size(Spread(self.assumed, math.inf)) ** 2 + self._of_runs(size) / stored

    def _of_runs(self, size: Callable[[Spread], float]) -> float:
        return size(self.within) ** 2 if self.within else 0.0


@dataclass(frozen=True)
class NoiseModel:
    """What a case is judged by besides its own speeds."""

    case: CaseNoise | None = None
    """Of the case; None where it is unknown."""
    num_cases: int = 1
    """Cases judged in the session; they share its chance of a false alarm."""
    tolerance: float | None = None
    """The user's own, a share, which stands above all of it; None: it follows from the noise."""

    def of(self, case: CaseNoise | None) -> "NoiseModel":
        """The same for another case."""
        return replace(self, case=case)


@dataclass(frozen=True)
class Tolerance:
    """The largest loss of TGS that is no regression."""

    value: float
    """Share of the baseline: 0.05 tolerates down to 95 % of it, and up to 1 / 95 %."""
    source: str
    """Where it comes from, for people: `5 runs, 2 now: 4.1 %`."""
    decides: bool = True
    """False above the cap: beyond it is a regression, within it nothing is known."""


def geometric_mean(values: Sequence[float]) -> float:
    """The mean on the log scale; `values` are positive, at least one."""
    return math.exp(fmean(map(math.log, values)))


def mean_if_known(values: Iterable[float | None]) -> float | None:
    """Geometric mean; None where one of the values is not known."""
    found = list(values)
    return None if None in found else geometric_mean([value for value in found if value is not None])


def relative_spread(values: Sequence[float]) -> float:
    """Coefficient of variation, standard deviation (n - 1) / mean; 0 for a single value."""
    return math.sqrt(variance(values)) / fmean(values) if len(values) > 1 else 0.0


def squares(values: Sequence[float]) -> float:
    """Sum of the squared differences to the mean; `statistics.variance` is exact, and takes a hundred times as long."""
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values)


def pooled_spread(groups: Iterable[Sequence[float]]) -> Spread | None:
    """Pool the spread between runs over workloads: s^2 = sum((n_i - 1) s_i^2) / sum(n_i - 1), on log TGS.

    Five runs alone estimate their spread to within a factor of two; the runs of all cases of a device at one scale
    do better. Groups of one run say nothing; None where no group has more.

    Source: the pooled variance of Snedecor and Cochran, Statistical Methods (8th edition), chapter 6.
    """
    logs = [[math.log(value) for value in group] for group in groups if len(group) > 1]
    dof = sum(len(group) - 1 for group in logs)
    if dof == 0:
        return None
    return Spread(math.sqrt(sum(map(squares, logs)) / dof), dof)


def error_per_case(selected: int) -> float:
    """One-sided error of each of `selected` cases that keeps SESSION_ERROR for the session: 1 - (1 - e)^(1/k).

    Source: Sidak, Journal of the American Statistical Association 62 (1967), 626-633; exact for independent cases,
    conservative for ours, whose bounds come from the same spreads.
    """
    return float(1 - (1 - SESSION_ERROR) ** (1 / max(1, selected)))


def tolerance_for(noise: NoiseModel, *, now: int) -> Tolerance:
    """The tolerance for `now` runs of one session against the stored ones.

    1 - exp(-bound), between FLOOR and CAP; above CAP it is given as it is and marked as undecided. NO_SPREAD where the
    noise is unknown; the user's own stands above all of it.
    """
    if noise.tolerance is not None:
        return Tolerance(noise.tolerance, f"--perf-tolerance: {percent(noise.tolerance)}")
    case = noise.case
    if case is None:
        return Tolerance(NO_SPREAD, f"no spread: {percent(NO_SPREAD)}")
    value = -math.expm1(-case.bound(now, error_per_case(noise.num_cases)))
    stored = count(round(case.runs * case.num_sessions), "run")
    if case.num_sessions > 1:
        stored += f" of {case.num_sessions} sessions"
    said = f"{stored}, {now} now: {percent(value)}"
    if case.session is None and case.assumed:
        said += f", {percent(case.assumed)} between sessions assumed"
    if value > CAP:
        return Tolerance(value, f"{said}, above the cap of {percent(CAP)}", decides=False)
    if value < FLOOR:
        return Tolerance(FLOOR, f"floor: {percent(FLOOR)}")
    return Tolerance(value, said)


def allowed_loss(noise: NoiseModel, *, now: int) -> Tolerance:
    """The largest loss, at most CAP, with which `now` runs are recorded as one session more, against the one session
    that the baseline's reference is of.
    """
    one = noise.of(noise.case and replace(noise.case, num_sessions=1))
    tolerance = tolerance_for(one, now=now)
    return replace(tolerance, value=min(tolerance.value, CAP))


def runs_needed(noise: NoiseModel) -> int | None:
    """The fewest runs now whose tolerance stays within CAP; None where no number of runs does, because the stored
    sessions alone leave more doubt than that. 1 where the noise is unknown.
    """
    case, cap = noise.case, -math.log1p(-CAP)
    if case is None:
        return 1
    error = error_per_case(noise.num_cases)
    if case.bound(1, error) <= cap:
        return 1
    if case.bound(MANY_RUNS, error) > cap:
        return None
    needed = 1
    while case.bound(needed, error) > cap:
        needed *= 2
    low = needed // 2
    while needed - low > 1:
        middle = (low + needed) // 2
        low, needed = (low, middle) if case.bound(middle, error) <= cap else (middle, needed)
    return needed


def first_runs(noise: NoiseModel, *, at_least: int = 1) -> int:
    """Runs of a case to measure now: `at_least`, raised up to MOST_RUNS where so many bring the bound within CAP.

    Where more than MOST_RUNS are needed, or no number is enough, they would be spent on what is known beforehand: one
    run that is not slow is as undecided.
    """
    needed = runs_needed(noise)
    return max(at_least, needed) if needed is not None and needed <= MOST_RUNS else at_least


def quantile(spread: Spread, error: float) -> float:
    """Student's, exceeded with a chance of `error`, at the degrees of freedom of `spread`; at infinite ones the normal
    distribution's.
    """
    return _quantile(spread.dof, error)


@lru_cache(maxsize=4096)
def _quantile(dof: float, error: float) -> float:
    # scipy.special, not scipy.stats, which takes a second to import; and only where something is judged.
    from scipy.special import ndtri, stdtrit

    return float(-ndtri(error) if math.isinf(dof) else stdtrit(dof, 1 - error))
