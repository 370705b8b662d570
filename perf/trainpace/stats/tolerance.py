"""The tolerance of the stored gate, and the spread between runs that it comes from.

The unit is the run, its value log TGS: a ratio of two speeds is a difference of logarithms, with the same spread at
every speed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
MOST_RUNS = 5
"""Largest number of runs of a case that are measured without an option that asks for more."""
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
    """Standard deviation of log TGS between runs of one workload, and the degrees of freedom that it rests on."""

    sd: float
    dof: int


@dataclass(frozen=True)
class NoiseModel:
    """What a case is judged by besides its own speeds."""

    spread: Spread | None = None
    """Between runs; None where it is unknown."""
    num_cases: int = 1
    """Cases judged in the session; they share its chance of a false alarm."""
    tolerance: float | None = None
    """The user's own, a share, which stands above all of it; None: it follows from the spread."""

    def with_spread(self, spread: Spread | None) -> "NoiseModel":
        """The same by another spread."""
        return replace(self, spread=spread)


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


def relative_spread(values: Sequence[float]) -> float:
    """Coefficient of variation, standard deviation (n - 1) / mean; 0 for a single value."""
    return math.sqrt(variance(values)) / fmean(values) if len(values) > 1 else 0.0


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
    return Spread(math.sqrt(sum((len(group) - 1) * variance(group) for group in logs) / dof), dof)


def error_per_case(selected: int) -> float:
    """One-sided error of each of `selected` cases that keeps SESSION_ERROR for the session: 1 - (1 - e)^(1/k).

    Source: Sidak, Journal of the American Statistical Association 62 (1967), 626-633; exact for independent cases.
    """
    return float(1 - (1 - SESSION_ERROR) ** (1 / max(1, selected)))


def prediction_bound(spread: Spread, *, stored: int, now: int, error: float) -> float:
    """One-sided prediction bound on log(mean of `now` future runs / mean of `stored` runs): t s sqrt(1/now + 1/stored).

    t is Student's quantile at 1 - `error` with the spread's degrees of freedom. 0.1 means that the new mean falls more
    than a tenth (on the log scale) below the stored one with a chance of `error`, though nothing changed.

    Source: Meeker, Hahn and Escobar, Statistical Intervals (2nd edition, 2017), chapter 4: prediction of the mean of
    m future observations of a normal distribution.
    """
    return quantile(spread, error) * spread.sd * math.sqrt(1 / now + 1 / stored)


def tolerance_for(noise: NoiseModel, *, stored: int, now: int) -> Tolerance:
    """The tolerance for `now` runs against `stored` ones.

    1 - exp(-bound), between FLOOR and CAP; above CAP it is given as it is and marked as undecided. NO_SPREAD without a
    spread; the user's own stands above all of it.
    """
    if noise.tolerance is not None:
        return Tolerance(noise.tolerance, f"--perf-tolerance: {percent(noise.tolerance)}")
    if noise.spread is None:
        return Tolerance(NO_SPREAD, f"no spread: {percent(NO_SPREAD)}")
    error = error_per_case(noise.num_cases)
    value = -math.expm1(-prediction_bound(noise.spread, stored=stored, now=now, error=error))
    runs = f"{count(stored, 'run')}, {now} now: {percent(value)}"
    if value > CAP:
        return Tolerance(value, f"{runs}, above the cap of {percent(CAP)}", decides=False)
    if value < FLOOR:
        return Tolerance(FLOOR, f"floor: {percent(FLOOR)}")
    return Tolerance(value, runs)


def runs_needed(noise: NoiseModel, *, stored: int) -> int | None:
    """The fewest runs now whose tolerance stays within CAP: smallest m with t s sqrt(1/m + 1/stored) <= -log(1 - CAP).

    None where no number of runs does, because `stored` runs alone leave more doubt than that. 1 without a spread.
    """
    if noise.spread is None:
        return 1
    doubt = quantile(noise.spread, error_per_case(noise.num_cases)) * noise.spread.sd
    if doubt == 0:
        return 1
    rest = (math.log1p(-CAP) / doubt) ** 2 - 1 / stored
    return max(1, math.ceil(1 / rest - 1e-9)) if rest > 0 else None


def first_runs(noise: NoiseModel, *, stored: int, at_least: int = 1) -> int:
    """Runs of a case to measure now: `at_least`, raised up to MOST_RUNS where fewer leave the bound above CAP.

    Where no number reaches CAP it is MOST_RUNS: the bound is then at its tightest, and what lies beyond is found.
    """
    return max(at_least, min(MOST_RUNS, runs_needed(noise, stored=stored) or MOST_RUNS))


def quantile(spread: Spread, error: float) -> float:
    """Student's, exceeded with a chance of `error`, at the degrees of freedom of `spread`."""
    # scipy.special, not scipy.stats, which takes a second to import; and only where something is judged.
    from scipy.special import stdtrit

    return float(stdtrit(spread.dof, 1 - error))
