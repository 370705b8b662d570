"""Levels that spend an error over the rounds: known values, and that they spend what they say."""

import numpy as np
import pytest
from scipy.special import ndtri

from trainpace.stats import spending


def test_lone_look_spends_everything():
    """With two pairs the only look is the last: its level is the error."""
    assert pytest.approx((0, 0.01), rel=1e-3) == spending.levels(0.01, 2, 3)


@pytest.mark.parametrize("exponent", [2, 3])
def test_walk_crosses_as_often_as_was_spent(exponent):
    """By look n, error * (n / 8)^exponent of 200,000 walks have crossed, within four standard errors."""
    rng, error = np.random.default_rng(3), 0.05
    boundary = -ndtri(np.maximum(spending.levels(error, 8, exponent), 1e-300))
    walks = rng.standard_normal((200_000, 8)).cumsum(axis=1) / np.sqrt(np.arange(1, 9))
    crossed = np.maximum.accumulate(walks > boundary, axis=1).mean(axis=0)
    spent = error * (np.arange(1, 9) / 8) ** exponent

    assert pytest.approx(spent[1:], abs=4 * np.sqrt(error / 200_000)) == crossed[1:]


def test_grid_is_fine_enough():
    """Half the step changes no level by more than a thousandth."""
    coarse = spending.levels(0.0007, 8, 3)
    fine = spending.levels.__wrapped__
    step, spending.GRID = spending.GRID, spending.GRID / 2
    try:
        assert pytest.approx(fine(0.0007, 8, 3), rel=1e-3) == coarse
    finally:
        spending.GRID = step


def test_quantiles_are_students():
    """The last look's quantile at many degrees of freedom is the normal one, at few it is larger; none without any."""
    table = spending.quantiles(0.01, 8, 3, 14)
    level = spending.student_levels(0.01, 8, 3, 14)[-1]

    assert table.shape == (9, 14 * 8 + 1)
    assert pytest.approx(-ndtri(level), rel=0.03) == table[8, -1]
    assert np.all(np.diff(table[8]) < 0)
    assert np.all(table[[0, 1]] == spending.NOTHING)
    assert np.all(table[:, 0] == spending.NOTHING)


def test_fewer_cases_spend_less():
    """The correction for an estimated spread: a fifth with one case."""
    one = spending.student_levels(0.01, 8, 3, 1)

    assert pytest.approx(spending.levels(0.01 / 1.2, 8, 3)) == one
    assert one[-1] < spending.student_levels(0.01, 8, 3, 14)[-1]
