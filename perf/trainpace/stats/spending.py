"""How much a look may claim: levels that spend an error over the rounds, and the quantiles that come of them.

Everything is a small table, computed once for each number of pairs and cases.
"""

import math
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
GRID = 0.2
"""Step of the grid that levels are computed on, in standard deviations of one value: right to a thousandth."""


@lru_cache(maxsize=64)
def quantiles(error: float, most: int, exponent: int, cases: int) -> "Floats":
    """Student's quantile to be passed after n of `most` pairs with f degrees of freedom, as a table [n, f].

    f goes up to what `most` pairs of all `cases` give. NOTHING at n or f of 0, and at n of 1.

    Source: Jennison and Turnbull, Group Sequential Methods (2000), chapter 3.8: Student's t at the levels of known
    variance, one look as the other.
    """
    import numpy as np

    return np.stack([student(level, cases * most) for level in (0, *student_levels(error, most, exponent, cases))])


@lru_cache(maxsize=256)
def student(level: float, most_freedom: int) -> "Floats":
    """Student's one-sided quantile at `level`, for 0, 1, ... `most_freedom` degrees; NOTHING for none or at 0."""
    import numpy as np
    from scipy.special import stdtrit

    table = np.full(most_freedom + 1, NOTHING)
    if level > 0:
        table[1:] = -stdtrit(np.arange(1.0, most_freedom + 1), level)
    return table


def student_levels(error: float, most: int, exponent: int, cases: int) -> tuple[float, ...]:
    """`levels` for a spread that is estimated from the pairs of `cases` cases, instead of known."""
    return levels(error / (1 + STUDENT / math.sqrt(cases)), most, exponent)


@lru_cache(maxsize=64)
def levels(error: float, most: int, exponent: int) -> tuple[float, ...]:
    """One-sided nominal level of each of `most` looks, at a mean of 1, 2, ... values of known variance.

    The chance to have crossed by look n is error * (n / most)^exponent, for n of 2 and more (one pair has no spread).
    The walk of sums that have not crossed is carried along on a grid.

    Source: Kim and DeMets, Biometrika 74 (1987), 149-154, for the spending; Armitage, McPherson and Rowe, JRSS A 132
    (1969), 235-244, for the walk.
    """
    import numpy as np
    from scipy.special import ndtr

    found, spent = [], 0.0
    sums, weights = np.zeros(1), np.ones(1)
    for number in range(1, most + 1):
        budget = 0.0 if number == 1 else error * (number / most) ** exponent - spent
        spent += budget
        # The boundary lies above that of a lone look at the same budget, and below the one that nothing reaches.
        low, high = 0.0, 40 * math.sqrt(number)
        for _ in range(60 if budget else 0):
            middle = (low + high) / 2
            crossing = float(weights @ ndtr(sums - middle))
            low, high = (middle, high) if crossing > budget else (low, middle)
        found.append(float(ndtr(-high / math.sqrt(number))))
        # Beyond 9 standard deviations nobody is, and below -6 nobody crosses any more.
        deviation = math.sqrt(number)
        grid = np.linspace(-6 * deviation, min(high, 9 * deviation), int(15 * deviation / GRID) + 1)
        step = np.exp(-((grid[:, None] - sums) ** 2) / 2) / math.sqrt(2 * math.pi)
        trapezoid = np.full(len(grid), grid[1] - grid[0])
        trapezoid[[0, -1]] /= 2
        sums, weights = grid, (step @ weights) * trapezoid
    return tuple(found)


@lru_cache(maxsize=64)
def chi_square_medians(most: int) -> "Floats":
    """Median of a variance estimate over the variance, for 0, 1, ... `most` - 1 degrees of freedom; NaN for 0."""
    import numpy as np
    from scipy.special import chdtri

    dof = np.arange(1.0, most)
    return np.array([np.nan, *chdtri(dof, 0.5) / dof])
