"""Statistics of the judgement: worked examples and the properties that a reader relies on."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.stats.tolerance import (
    CaseNoise,
    NoiseModel,
    Spread,
    Tolerance,
    error_per_case,
    first_runs,
    pooled_spread,
    quantile,
    relative_spread,
    runs_needed,
    tolerance_for,
)

speeds = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=6)
spreads = st.builds(Spread, sd=st.floats(1e-4, 0.1), dof=st.integers(4, 60))
noises = st.builds(
    CaseNoise,
    within=spreads,
    session=st.none() | spreads,
    num_sessions=st.integers(1, 10),
    runs=st.floats(1, 10),
)


def one_session(sd, dof=4.0, *, assumed=0.0, runs=5):
    """The noise of a case with one stored session, and nothing between sessions unless said."""
    return CaseNoise(within=Spread(sd, dof), assumed=assumed, runs=runs)


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


def test_bound_within_one_session_is_students():
    """t(0.99; 4) = 3.7469: five runs of 2 % against one run more give 3.7469 * 0.02 * sqrt(1 + 1/5)."""
    assert pytest.approx(3.7469 * 0.02 * math.sqrt(1.2), rel=1e-4) == one_session(0.02).bound(1, 0.01)


def test_bound_knows_what_a_session_does():
    """Five sessions whose means spread by 1 %, one session now: t(0.99; 4) * 0.01 * sqrt(1 + 1/5), however many runs it
    has; few runs add what their own noise is larger by, each but the first counted as half a run."""
    noise = CaseNoise(within=Spread(0.02, 20), session=Spread(0.01, 4), num_sessions=5, runs=5)
    session = 3.7469 * 0.01 * math.sqrt(1.2)

    assert pytest.approx(session, rel=1e-4) == noise.bound(9, 0.01) == noise.bound(500, 0.01)
    assert pytest.approx(math.hypot(session, 2.5280 * 0.02 * math.sqrt(1 / 3 - 1 / 5)), rel=1e-4) == noise.bound(
        5, 0.01
    )
    assert pytest.approx(math.hypot(session, 2.5280 * 0.02 * math.sqrt(1 - 1 / 5)), rel=1e-4) == noise.bound(1, 0.01)


def test_one_session_is_given_an_assumed_effect():
    """2.3263 (1 %, known) * 0.003 * sqrt(2) beside the noise of the runs, which no number of runs makes smaller."""
    quiet, noisy = one_session(0.0, assumed=0.003), one_session(0.02, assumed=0.003)

    assert pytest.approx(2.3263 * 0.003 * math.sqrt(2), rel=1e-4) == quiet.bound(1, 0.01)
    assert noisy.bound(10**6, 0.01) > quiet.bound(1, 0.01)


def test_effect_of_a_session_is_what_the_noise_of_its_runs_leaves():
    """Means of five runs of 1 % that spread by 0.6 %: 0.4 % of it is the session's; nothing where they spread less."""
    noise = CaseNoise(within=Spread(0.01, 20), session=Spread(0.006, 4), runs=5)

    assert pytest.approx(0.004) == noise.between
    assert replace(noise, session=Spread(0.004, 4)).between == 0


@pytest.mark.parametrize(
    ("noise", "now", "override", "expected"),
    [
        (one_session(0.01), 2, None, Tolerance(0.0309, "5 runs, 2 now: 3.1 %")),
        (
            one_session(0.01, assumed=0.003),
            2,
            None,
            Tolerance(0.0323, "5 runs, 2 now: 3.2 %, 0.3 % between sessions assumed"),
        ),
        (
            CaseNoise(within=Spread(0.01, 40), session=Spread(0.005, 30), num_sessions=5),
            1,
            None,
            Tolerance(0.0252, "25 runs of 5 sessions, 1 now: 2.5 %"),
        ),
        (one_session(0.0), 1, None, Tolerance(0.01, "floor: 1 %")),
        (
            one_session(0.05),
            1,
            None,
            Tolerance(
                0.1855,
                "5 runs, 1 now: 18.6 %, above the cap of 10 %",
                decides=False,
            ),
        ),
        (None, 1, None, Tolerance(0.05, "no spread: 5 %")),
        (one_session(0.05), 1, 0.03, Tolerance(0.03, "--perf-tolerance: 3 %")),
    ],
    ids=["runs", "assumed", "sessions", "floor", "cap", "no spread", "override"],
)
def test_tolerance_says_where_it_comes_from(noise, now, override, expected):
    """Between floor and cap it is the bound; the source is what the table prints."""
    tolerance = tolerance_for(NoiseModel(noise, tolerance=override), now=now)

    assert replace(expected, value=pytest.approx(expected.value, abs=1e-4)) == tolerance


@given(noises, st.integers(1, 10), st.integers(1, 14))
def test_more_runs_never_widen_the_tolerance(noise, now, selected):
    """A further run now tightens the tolerance or leaves it as it is."""
    fewer = tolerance_for(NoiseModel(noise, selected), now=now)
    more = tolerance_for(NoiseModel(noise, selected), now=now + 1)

    assert more.value <= fewer.value


@given(noises, st.integers(1, 14))
def test_needed_runs_are_the_fewest_that_decide(noise, selected):
    """With the runs that are asked for the bound is within the cap, with one less it is not."""
    needed = runs_needed(NoiseModel(noise, selected))
    enough = tolerance_for(NoiseModel(noise, selected), now=needed or 1_000)
    fewer = tolerance_for(NoiseModel(noise, selected), now=max(1, (needed or 1_000) - 1))

    assert enough.decides is (needed is not None)
    assert fewer.decides is (needed == 1)


@pytest.mark.parametrize(
    ("noise", "at_least", "runs"),
    [
        (None, 1, 1),
        (one_session(0.0), 1, 1),
        (one_session(0.01, 40), 1, 1),
        (one_session(0.045, 56), 1, 4),
        (one_session(0.045, 56), 6, 6),
        (one_session(0.2), 1, 1),
        (one_session(0.06, 56), 1, 1),
        (one_session(0.2), 3, 3),
    ],
    ids=[
        "unknown",
        "none",
        "quiet",
        "this kind of machine",
        "asked for",
        "hopeless",
        "more than five",
        "hopeless, asked",
    ],
)
def test_runs_are_raised_where_five_decide(noise, at_least, runs):
    """In a session of 14 cases: one run where it decides, up to five where these do; where they do not, five would be
    spent on what is known beforehand."""
    assert runs == first_runs(NoiseModel(noise, 14), at_least=at_least)


@pytest.mark.parametrize("sessions", [1, 5])
def test_noise_alone_is_red_in_one_session_of_a_hundred(sessions):
    """The bound keeps its error where the spreads are known badly: of 20,000 sessions of equal speed, at most 1 % fall
    below it (five runs stored a session, two now, a session's effect of the size of a run's noise)."""
    import numpy as np

    chance = np.random.default_rng(7)
    effects = 0.03 * chance.standard_normal((20_000, sessions + 1, 1))
    runs = (effects if sessions > 1 else 0) + chance.normal(0, 0.03, (20_000, sessions + 1, 5))
    now, stored = runs[:, 0, :2].mean(axis=1), runs[:, 1:]
    means, within = stored.mean(axis=2), np.sqrt(stored.var(axis=2, ddof=1).mean(axis=1))
    noise = CaseNoise(within=Spread(1.0, 4 * sessions), assumed=0.0, num_sessions=sessions)
    bounds = noise.bound(2, 0.01) * within
    if sessions > 1:
        by_sessions = replace(noise, within=None, session=Spread(1.0, sessions - 1)).bound(2, 0.01)
        by_runs = quantile(noise.within, 0.01) * math.sqrt(2 / 3 - 1 / 5)
        bounds = np.hypot(by_sessions * means.std(axis=1, ddof=1), by_runs * within)
    red = (now < means.mean(axis=1) - bounds).mean()

    assert 0.003 < red < 0.0115


@pytest.mark.parametrize(("values", "spread"), [([5.0], 0.0), ([90.0, 110.0], math.sqrt(200) / 100)])
def test_relative_spread_is_the_coefficient_of_variation(values, spread):
    """Standard deviation over mean, none for a single run."""
    assert pytest.approx(spread) == relative_spread(values)
