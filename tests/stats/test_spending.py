"""Levels that spend an error over the rounds: published values, and that they spend what they say."""

import numpy as np
import pytest
from scipy.special import ndtri

from trainpace.stats import spending
from trainpace.stats.spending import LATER, Spending


def test_lone_look_spends_everything():
    """With two pairs the only look is the last: its level is the error."""
    assert pytest.approx((0, 0.01), rel=1e-3) == spending.levels(Spending(0.01, 3, 2))


@pytest.mark.parametrize(
    ("spent", "boundaries"),
    [
        ((0.00025917372, 0.0071600594, 0.025), (3.4710914, 2.4544323, 2.0040356)),
        ((8.85754e-5, 0.0055746, 0.0236251, 0.05), (3.74955, 2.53993, 2.01604, 1.72014)),
        ((0.006, 0.012, 0.012, 0.012, 0.03), (2.5121443, 2.4228747, None, None, 2.0280392)),
    ],
    ids=["O'Brien and Fleming", "O'Brien and Fleming's spending", "spent evenly"],
)
def test_levels_are_the_published_ones(spent, boundaries):
    """Group sequential boundaries that others have published.

    The first is Jennison and Turnbull, Group Sequential Methods (2000), table 2.3: 2.004 sqrt(3 / k) for three looks at
    2.5 % on a side; with the digits of the tests of the R package rpact (f_design_group_sequential), as the third, the
    power family with exponent 1, has them: looks at 0.2, 0.4 and 1. The second is in the README of SeqBounds.jl.
    """
    found = -ndtri(np.maximum(spending.levels_of(spent), 1e-300))

    for boundary, expected in zip(found, boundaries, strict=True):
        assert boundary > 30 if expected is None else boundary == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("design", [Spending(0.05, 2, 8), Spending(0.05, 3, 8), Spending(0.05, 2, 4, 8)])
def test_walk_crosses_as_often_as_was_spent(design):
    """By look n, what is to be spent by then of 200,000 walks have crossed, within four standard errors."""
    rng = np.random.default_rng(3)
    boundary = -ndtri(np.maximum(spending.levels(design), 1e-300))
    walks = rng.standard_normal((200_000, 8)).cumsum(axis=1) / np.sqrt(np.arange(1, 9))
    crossed = np.maximum.accumulate(walks > boundary, axis=1).mean(axis=0)
    spent = [design.spent(look) for look in range(1, 9)]

    assert pytest.approx(spent, abs=4 * np.sqrt(0.05 / 200_000)) == crossed


def test_planned_looks_leave_a_part_for_further_ones():
    """All but LATER by the planned ones, the rest evenly; everything where there are no further ones."""
    kept, all_of_it = Spending(0.01, 2, 8, 40), Spending(0.01, 2, 8, 8)

    assert pytest.approx(0.01 * (1 - LATER)) == kept.spent(8)
    assert pytest.approx(0.01 * (1 - LATER / 2)) == kept.spent(24)
    assert pytest.approx((0.01, 0.01)) == (kept.spent(40), all_of_it.spent(8))


def test_grid_is_fine_enough(monkeypatch):
    """A tenth of the step changes no level by more than a thousandth."""
    spent = [0.0007 * (look / 8) ** 3 for look in range(1, 9)]
    coarse = spending.levels_of(spent)
    monkeypatch.setattr(spending, "GRID", spending.GRID / 10)

    assert pytest.approx(spending.levels_of(spent), rel=1e-3) == coarse


def test_quantiles_are_students():
    """The last look's quantile at many degrees of freedom is the normal one, at few it is larger; none without any."""
    design = Spending(0.01, 3, 8)
    table = spending.quantiles(design, 112, 14)
    level = spending.student_levels(design, 14)[-1]

    assert table.shape == (9, 113)
    assert pytest.approx(-ndtri(level), rel=0.03) == table[8, -1]
    assert np.all(np.diff(table[8]) < 0)
    assert np.all(table[[0, 1]] == spending.NOTHING)
    assert np.all(table[:, 0] == spending.NOTHING)


def test_fewer_cases_spend_less():
    """The correction for an estimated spread: a fifth with one case."""
    one = spending.student_levels(Spending(0.01, 3, 8), 1)

    assert pytest.approx(spending.levels(Spending(0.01 / 1.2, 3, 8))) == one
    assert one[-1] < spending.student_levels(Spending(0.01, 3, 8), 14)[-1]
