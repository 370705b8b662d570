"""How much a look may claim: levels that spend an error over the rounds, and the quantiles that come of them.

Everything is a small table, computed once for each number of pairs and cases.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Floats = NDArray[float64]

NOTHING = 1e6
"""Stands for an infinite quantile: no evidence reaches it, and times a spread of 0 it is still a number."""
STUDENT = 0.2
"""Levels of known variance, given to Student's t, are crossed too often, by about STUDENT / sqrt(cases): a fifth with
one case, a twentieth with 14 (simulated, 3 to 32 pairs: within 0.1 of it). So much less is spent."""
LATER = 0.15
"""Share of an error that is kept for looks beyond the planned ones."""
GRID = 0.5
"""Step of the grid that levels are computed on, in standard deviations of one value: right to a ten-thousandth."""


@lru_cache(maxsize=1024)
def quantiles(spending: "Spending", freedom: int, known: float) -> "Floats":
    """Student's quantile to be passed after n pairs with f degrees of freedom, as a table [n, f].

    n goes up to `spending.most`, f up to `freedom`. NOTHING at n or f of 0, and at n of 1. `known` as in
    `student_levels`.

    Source: Jennison and Turnbull, Group Sequential Methods (2000), chapter 3.8: Student's t at the levels of known
    variance, one look as the other.
    """
    import numpy as np

    return np.stack([student(level, freedom) for level in (0, *student_levels(spending, known))])


@lru_cache(maxsize=256)
def student(level: float, most_freedom: int) -> "Floats":
    """Student's one-sided quantile at `level`, for 0, 1, ... `most_freedom` degrees; NOTHING for none or at 0."""
    import numpy as np
    from scipy.special import stdtrit

    table = np.full(most_freedom + 1, NOTHING)
    if level > 0:
        table[1:] = -stdtrit(np.arange(1.0, most_freedom + 1), level)
    return table


@dataclass(frozen=True)
class Spending:
    """An error, and how much of it may have been spent by each look."""

    error: float
    exponent: int
    """error * (n / looks)^exponent is spent by look n."""
    looks: int
    """Planned looks, by which all is spent, or, where there may be more, all but LATER."""
    most: int = 0
    """Looks in all; those beyond the planned ones spend the rest evenly."""

    def spent(self, look: int) -> float:
        """By `look`, 1 first; nothing by the first, which has no spread."""
        first = self.error * (1 - LATER if self.most > self.looks else 1)
        if look <= self.looks:
            return first * (look / self.looks) ** self.exponent if look > 1 else 0.0
        return first + (self.error - first) * (look - self.looks) / (self.most - self.looks)


@lru_cache(maxsize=4096)
def student_levels(spending: Spending, known: float) -> tuple[float, ...]:
    """`levels` for a spread that is estimated, instead of known.

    `known` is how much better it is known than one case's pairs tell: the number of cases that it is pooled over.
    """
    error = spending.error / (1 + STUDENT / math.sqrt(known))
    return levels(replace(spending, error=error))


@lru_cache(maxsize=4096)
def levels(spending: Spending) -> tuple[float, ...]:
    """One-sided nominal level of each look, at a mean of 1, 2, ... values of known variance.

    Source: Kim and DeMets, Biometrika 74 (1987), 149-154.
    """
    return levels_of(tuple(spending.spent(look) for look in range(1, max(spending.looks, spending.most) + 1)))


def levels_of(spent: Sequence[float]) -> tuple[float, ...]:
    """One-sided nominal level of each look, where `spent` is the chance to have crossed by it.

    The walk of sums that have not crossed is carried along on a grid, and integrated over by Simpson's rule.

    Source: Armitage, McPherson and Rowe, JRSS A 132 (1969), 235-244; Jennison and Turnbull, Group Sequential Methods
    (2000), chapter 19.
    """
    import numpy as np
    from scipy.special import ndtr

    found, before = [], 0.0
    sums, weights = np.zeros(1), np.ones(1)
    for number, by_now in enumerate(spent, 1):
        budget, before = by_now - before, by_now
        # The boundary lies above that of a lone look at the same budget, and below the one that nothing reaches.
        low, high = 0.0, 40 * math.sqrt(number)
        for _ in range(60 if budget else 0):
            middle = (low + high) / 2
            crossing = float(weights @ ndtr(sums - middle))
            low, high = (middle, high) if crossing > budget else (low, middle)
        found.append(float(ndtr(-high / math.sqrt(number))))
        # Beyond 9 standard deviations nobody is, and below -6 nobody crosses any more.
        deviation = math.sqrt(number)
        grid = np.linspace(-6 * deviation, min(high, 9 * deviation), 2 * int(7.5 * deviation / GRID) + 1)
        step = np.exp(-((grid[:, None] - sums) ** 2) / 2) / math.sqrt(2 * math.pi)
        simpson = np.full(len(grid), 2 / 3)
        simpson[1::2], simpson[[0, -1]] = 4 / 3, 1 / 3
        sums, weights = grid, (step @ weights) * simpson * (grid[1] - grid[0])
    return tuple(found)


@lru_cache(maxsize=64)
def chi_square_medians(most: int) -> "Floats":
    """Median of a variance estimate over the variance, for 0, 1, ... `most` - 1 degrees of freedom; NaN for 0."""
    import numpy as np
    from scipy.special import chdtri

    dof = np.arange(1.0, most)
    return np.array([np.nan, *chdtri(dof, 0.5) / dof])


@lru_cache(maxsize=1024)
def f_quantiles(share: float, known: int, most: int) -> "Floats":
    """F's quantile, below which `share` lies, for 0, 1, ... `most` degrees of freedom over `known`; infinite for 0."""
    import numpy as np
    from scipy.special import fdtri

    return np.array([np.inf, *fdtri(np.arange(1.0, most + 1), known, share)])
