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
GRID = 0.1
"""Step of the grid that levels are computed on, in standard deviations of one value: right to four digits."""


@lru_cache(maxsize=64)
def quantiles(error: float, most: int, exponent: int, most_freedom: int) -> "Floats":
    """Student's quantile that must be passed after n of `most` pairs with f degrees of freedom, as a table [n, f].

    The levels are those that spend `error` exactly when the variance is known; each is then given to Student's t. The
    joint distribution is thereby approximate: docs/statistics.md shows what becomes of the errors. NOTHING at n
    or f of 0, and at an n of 1.

    Source: Jennison and Turnbull, Group Sequential Methods (2000), chapter 7.2.2 (spending error * t^exponent, after Kim
    and DeMets 1987) and chapter 3.8 (Student's t at the levels of known variance).
    """
    import numpy as np
    from scipy.special import stdtrit

    table = np.full((most + 1, most_freedom + 1), NOTHING)
    freedom = np.arange(1.0, most_freedom + 1)
    for pairs, level in enumerate(levels(error, most, exponent), 1):
        if level > 0:
            table[pairs, 1:] = -stdtrit(freedom, level)
    return table


@lru_cache(maxsize=64)
def levels(error: float, most: int, exponent: int) -> tuple[float, ...]:
    """One-sided nominal level of each of `most` looks, at a mean of 1, 2, ... values of known variance.

    The chance to have crossed by look n is error * (n / most)^exponent, for n of 2 and more (one pair has no spread).
    The walk of sums that have not crossed is carried along on a grid.

    Source: Armitage, McPherson and Rowe, JRSS A 132 (1969), 235-244.
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
def own_quantiles(error: float, most: int) -> "Floats":
    """Student's quantile at `error` for 0, 1, 2 ... `most` pairs judged by themselves; NOTHING for fewer than two."""
    import numpy as np
    from scipy.special import stdtrit

    return np.array([NOTHING, NOTHING, *-stdtrit(np.arange(1.0, most), error)])


@lru_cache(maxsize=64)
def chi_square_medians(most: int) -> "Floats":
    """Median of a variance estimate over the variance, for 0, 1, ... `most` - 1 degrees of freedom; NaN for 0."""
    import numpy as np
    from scipy.special import chdtri

    freedom = np.arange(1.0, most)
    return np.array([np.nan, *chdtri(freedom, 0.5) / freedom])
