"""Statistics of the judgement: worked examples and the properties that a reader relies on."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.stats.tolerance import (
    NoiseModel,
    Spread,
    Tolerance,
    error_per_case,
    first_runs,
    pooled_spread,
    prediction_bound,
    relative_spread,
    runs_needed,
    tolerance_for,
)

speeds = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=6)
spreads = st.builds(Spread, sd=st.floats(1e-4, 0.1), dof=st.integers(4, 60))


def test_pooled_spread_weights_by_degrees_of_freedom():
    """Log values 0, 2 (variance 2, 1 degree) and 0, 1, 2 (variance 1, 2 degrees) pool to (2 + 2) / 3."""
    spread = pooled_spread([[1, math.e**2], [1, math.e, math.e**2], [5.0]])

    assert spread is not None
    assert spread.dof == 3
    assert pytest.approx(math.sqrt(4 / 3)) == spread.sd


@pytest.mark.parametrize("groups", [[], [[1000.0]], [[1000.0], [7.0]]])
def test_single_runs_have_no_spread(groups):
    """One run of each case says nothing about the noise."""
    assert pooled_spread(groups) is None


@given(speeds, st.floats(0.01, 100))
def test_spread_does_not_depend_on_the_speed(values, factor):
    """A machine twice as fast with the same relative noise has the same spread."""
    spread = pooled_spread([values])
    scaled = pooled_spread([[value * factor for value in values]])

    assert pytest.approx(spread.sd, rel=1e-6, abs=1e-9) == scaled.sd


def test_errors_of_the_cases_make_up_the_session():
    """Fourteen cases that each keep their share leave 1 % for the session."""
    each = error_per_case(14)

    assert pytest.approx(0.01) == 1 - (1 - each) ** 14
    assert pytest.approx(0.01) == error_per_case(1)


def test_bound_is_students():
    """t(0.99; 4) = 3.7469: five runs of 2 % against one run more give 3.7469 * 0.02 * sqrt(1 + 1/5)."""
    bound = prediction_bound(Spread(0.02, 4), stored=5, now=1, error=0.01)

    assert pytest.approx(3.7469 * 0.02 * math.sqrt(1.2), rel=1e-4) == bound


@pytest.mark.parametrize(
    ("spread", "now", "override", "expected"),
    [
        (Spread(0.01, 4), 2, None, Tolerance(0.0309, "5 runs, 2 now: 3.1 %")),
        (Spread(0.0, 4), 1, None, Tolerance(0.01, "floor: 1 %")),
        (Spread(0.05, 4), 1, None, Tolerance(0.1855, "5 runs, 1 now: 18.6 %, above the cap of 10 %", decides=False)),
        (None, 1, None, Tolerance(0.05, "no spread: 5 %")),
        (Spread(0.05, 4), 1, 0.03, Tolerance(0.03, "--perf-tolerance: 3 %")),
    ],
    ids=["runs", "floor", "cap", "no spread", "override"],
)
def test_tolerance_says_where_it_comes_from(spread, now, override, expected):
    """Between floor and cap it is the bound; the source is what the table prints."""
    tolerance = tolerance_for(NoiseModel(spread, tolerance=override), stored=5, now=now)

    assert replace(expected, value=pytest.approx(expected.value, abs=1e-4)) == tolerance


@given(spreads, st.integers(1, 10), st.integers(1, 10), st.integers(1, 14))
def test_more_runs_never_widen_the_tolerance(spread, stored, now, selected):
    """A further run now tightens the tolerance or leaves it at the floor."""
    fewer = tolerance_for(NoiseModel(spread, selected), stored=stored, now=now)
    more = tolerance_for(NoiseModel(spread, selected), stored=stored, now=now + 1)

    assert more.value <= fewer.value


@given(spreads, st.integers(1, 10), st.integers(1, 14))
def test_needed_runs_are_the_fewest_that_decide(spread, stored, selected):
    """With the runs that are asked for the bound is within the cap, with one less it is not."""
    needed = runs_needed(NoiseModel(spread, selected), stored=stored)
    enough = tolerance_for(NoiseModel(spread, selected), stored=stored, now=needed or 10**6)
    fewer = tolerance_for(NoiseModel(spread, selected), stored=stored, now=max(1, (needed or 10**6) - 1))

    assert enough.decides is (needed is not None)
    assert fewer.decides is (needed == 1)


@pytest.mark.parametrize(
    ("spread", "at_least", "runs"),
    [
        (None, 1, 1),
        (Spread(0.0, 4), 1, 1),
        (Spread(0.01, 40), 1, 1),
        (Spread(0.045, 56), 1, 4),
        (Spread(0.045, 56), 6, 6),
        (Spread(0.2, 4), 1, 5),
    ],
    ids=["unknown", "none", "quiet", "this kind of machine", "asked for", "hopeless"],
)
def test_runs_are_raised_up_to_five(spread, at_least, runs):
    """In a session of 14 cases: one run where it decides, up to five where it does not, more only when asked for."""
    assert runs == first_runs(NoiseModel(spread, 14), stored=5, at_least=at_least)


def test_noise_alone_is_red_in_one_session_of_a_hundred():
    """The bound keeps its error: of 20,000 pairs of equal speed, 1 % fall below it (five stored, two now)."""
    import numpy as np

    chance = np.random.default_rng(7)
    stored = chance.normal(0, 0.03, (20_000, 5))
    now = chance.normal(0, 0.03, (20_000, 2)).mean(axis=1)
    one = prediction_bound(Spread(1.0, 4), stored=5, now=2, error=0.01)
    red = now < stored.mean(axis=1) - one * stored.std(axis=1, ddof=1)

    assert pytest.approx(0.01, abs=0.002) == red.mean()


@pytest.mark.parametrize(("values", "spread"), [([5.0], 0.0), ([90.0, 110.0], math.sqrt(200) / 100)])
def test_relative_spread_is_the_coefficient_of_variation(values, spread):
    """Standard deviation over mean, none for a single run."""
    assert pytest.approx(spread) == relative_spread(values)
