"""The trend of one case: steps, creep, outliers, and how often it is wrong."""

import numpy as np
import pytest

from trainpace.runs.verdict import Verdict
from trainpace.stats import changepoint as trends
from trainpace.stats.changepoint import trend

ALPHA = trends.ALPHA / 14


def noisy(*levels, noise=0.01, seed=0):
    """TGS around one level a run."""
    return list(np.array(levels) * np.exp(np.random.default_rng(seed).normal(0, noise, len(levels))))


def steps(*stretches, **noise):
    """`(runs, level)` after one another."""
    return noisy(*(level for runs, level in stretches for _ in range(runs)), **noise)


def test_a_step_is_found_where_it_is():
    """5 % lost after run 40: one change, placed within a run or two, with its size."""
    found = trend(steps((40, 1000), (20, 950)), error=ALPHA)
    (change,) = found.changes

    assert change.first <= 40 <= change.last
    assert change.last - change.first <= 3
    assert pytest.approx(0.95, abs=0.01) == change.ratio
    assert pytest.approx(0.05, abs=0.01) == found.loss
    assert found.verdict is Verdict.REGRESSION


def test_slow_creep_is_lost_speed():
    """Ten times 1 %, five runs of each: no neighbour differs much, the end is far below the beginning."""
    creep = [1000 * 0.99**number for number in range(11) for _ in range(5)]
    found = trend(noisy(*[1000] * 30, *creep), error=ALPHA)

    assert Verdict.REGRESSION is found.verdict
    assert found.loss > 0.05


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.01])
def test_creep_of_one_run_a_commit(noise):
    """Ten commits of 1 %, each measured once, after only twenty runs; less noise is no obstacle."""
    creep = [1000 * 0.99**number for number in range(1, 11)]
    found = trend(noisy(*[1000] * 20, *creep, noise=noise), error=ALPHA)

    assert Verdict.REGRESSION is found.verdict


def test_what_was_lost_and_found_again_is_no_loss():
    """A slow stretch in the middle is two changes, and a pass: the last level is the best."""
    found = trend(steps((30, 1000), (30, 900), (30, 1000)), error=ALPHA)

    assert [change.ratio < 1 for change in found.changes] == [True, False]
    assert Verdict.PASS is found.verdict


def test_a_gain_that_is_lost_again_is_a_loss():
    """The reference is the best level, not the first one."""
    found = trend(steps((30, 1000), (30, 1100), (30, 1000)), error=ALPHA)

    assert Verdict.REGRESSION is found.verdict
    assert found.reference is found.segments[1]


def test_a_short_history_of_many_moves_is_divided():
    """Ten runs a level, up, down, up: no split of the whole says much, those of its stretches do."""
    found = trend(steps((15, 1000), (15, 1060), (15, 950), (15, 1010), noise=0.007), error=ALPHA)

    assert len(found.changes) == 3


def test_a_gain_passes():
    """Faster than ever."""
    assert trend(steps((30, 1000), (30, 1100)), error=ALPHA).verdict is Verdict.PASS


@pytest.mark.parametrize("where", [5, 20, 37, 38, 39])
def test_an_accident_is_no_change(where):
    """One run at half the speed moves no level, wherever it is."""
    values = steps((40, 1000))
    values[where] /= 2
    found = trend(values, error=ALPHA)

    assert found.changes == ()
    assert Verdict.PASS is found.verdict


def test_three_slow_runs_at_the_end_are_an_accident_and_four_a_level():
    """MIN_RUNS runs make a level."""
    assert trend(steps((40, 1000), (3, 800)), error=ALPHA).changes == ()
    assert len(trend(steps((40, 1000), (4, 800)), error=ALPHA).changes) == 1


def test_a_loss_within_the_floor_is_none():
    """0.5 %, however sure: a clock or a cable explains it."""
    assert trend(steps((500, 1000), (500, 995), noise=0.001), error=ALPHA).changes == ()


@pytest.mark.parametrize("runs", [1, 2, 7])
def test_too_few_runs_are_inconclusive(runs):
    """Below two levels' worth of runs nothing is said."""
    found = trend([1000.0] * runs)

    assert found.finds is None
    assert Verdict.INCONCLUSIVE is found.verdict


def test_too_much_noise_is_inconclusive():
    """Where a loss of 10 % would not be seen, no loss seen is no pass."""
    found = trend(steps((20, 1000), noise=0.1), error=ALPHA)

    assert found.finds > 0.1
    assert Verdict.INCONCLUSIVE is found.verdict


def test_equal_values_are_one_level():
    """No noise at all is no division by zero."""
    found = trend([1000.0] * 50)

    assert len(found.segments) == 1
    assert Verdict.PASS is found.verdict


def test_a_step_without_noise():
    """Equal values on both sides: found to the run."""
    (change,) = trend([1000.0] * 20 + [900.0] * 20).changes

    assert (change.first, change.at, change.last) == (20, 20, 20)


def test_a_session_counts_as_one_run():
    """Nights whose five runs share a mood: five times as many runs are not five times as sure."""
    moods = np.repeat(np.random.default_rng(2).normal(0, 0.02, 24), 5)
    values = list(1000 * np.exp(moods + np.random.default_rng(3).normal(0, 0.01, 120)))

    assert trend(values, sessions=[run // 5 for run in range(120)]).changes == ()


def test_changes_between_sessions_are_counted_in_runs():
    """Twenty nights of three runs, slower from the twelfth on: run 33."""
    values = steps((33, 1000), (27, 900), noise=0.005)
    (change,) = trend(values, sessions=[run // 3 for run in range(60)]).changes

    assert (change.first, change.at, change.last) == (33, 33, 33)


def test_two_sessions_are_compared_by_their_runs():
    """Thirty runs before and thirty after, each in one session: a step of 10 % is not taken for a mood."""
    found = trend(steps((30, 1000), (30, 900)), error=ALPHA, sessions=[0] * 30 + [1] * 30)

    assert Verdict.REGRESSION is found.verdict


def test_unchanged_code_is_seldom_divided():
    """At an error of 5 %, 200 histories of equal runs: at most 5 % are divided, and 4 standard errors."""
    random = np.random.default_rng(4)
    divided = sum(bool(trend(np.exp(random.normal(0, 0.02, 30)), error=0.05).changes) for _ in range(200))

    assert divided <= 10 + 4 * (200 * 0.05 * 0.95) ** 0.5


def test_places_are_within_their_stated_runs():
    """4 % at 2 % noise, 100 times: the true place is among those named, at about the stated confidence."""
    inside = 0
    for seed in range(100):
        changes = trend(steps((40, 1000), (40, 950), noise=0.02, seed=seed), error=0.05).changes
        inside += any(change.first <= 40 <= change.last for change in changes)

    assert inside >= 90


def test_sensitivity_is_what_is_found():
    """Half of the losses of the stated size are found after SOON runs: 20 to 80 of 100."""
    found = 0
    for seed in range(100):
        before = steps((40, 1000), noise=0.02, seed=seed)
        loss = trend(before, error=ALPHA).finds
        after = steps((trends.SOON, 1000 * (1 - loss)), noise=0.02, seed=1000 + seed)
        found += trend(before + after, error=ALPHA).lost

    assert 20 <= found <= 80
