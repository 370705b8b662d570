"""The looks of the stored gate: what is measured again, what all cases lost, what is set aside."""

import math

import pytest

from trainpace.stats.retest import (
    IMPROVEMENT_RUNS,
    RETEST_ALPHA,
    CommonShift,
    OtherCase,
    assess,
    decision_thresholds,
    estimate_common_shift,
    outliers,
)
from trainpace.stats.tolerance import CaseNoise, NoiseModel, Spread

QUIET = CaseNoise(within=Spread(0.01, 56), assumed=0.0)
STORED = [[990.0, 1005.0, 995.0, 1012.0, 998.0]]
"""One session, five runs at 1 % noise."""


def seen(*now, others=(), **changes):
    """What runs at these speeds say, in a session of 14 cases."""
    return assess(now, STORED, NoiseModel(**{"case": QUIET, "num_cases": 14} | changes), others=beside(others))


def beside(log_ratios, noise=QUIET):
    """Other cases of the session, of one run each."""
    return [OtherCase(log_ratio=each, noise=noise) for each in log_ratios]


def test_usual_run_is_looked_at_once():
    """What unchanged cases show is no reason to look again."""
    assert not seen(985.0).slow
    assert not seen(985.0).needs_another_run(1)


def test_suspicion_comes_before_the_tolerance():
    """3 % slower looks slow at 1 % noise, one run may be as far below, and five may not."""
    one, five = seen(970.0), seen(*[970.0] * 5)

    assert (one.slow, one.beyond, one.needs_another_run(1)) == (True, False, True)
    assert (five.regression, five.needs_another_run(1)) == (True, False)


@pytest.mark.parametrize(("first", "runs"), [(1, 5), (3, 6), (5, 10)])
def test_as_many_again_but_five_at_least(first, runs):
    """A case is measured again until it has five runs, or twice those that it began with."""
    assert seen(*[900.0] * (runs - 1)).needs_another_run(first)
    assert not seen(*[900.0] * runs).needs_another_run(first)


def test_accident_is_no_slowdown():
    """One slow run among others that are not: set aside, the rest are judged, and no more are wanted."""
    judged = seen(800.0, 1001.0, 996.0)

    assert judged.kept == (False, True, True)
    assert not judged.slow
    assert not judged.needs_another_run(1)


def test_half_of_the_runs_is_no_accident():
    """Two of four are how the case is: nothing is set aside, and its own spread calls it unclear instead of slower."""
    judged = seen(800.0, 802.0, 1001.0, 996.0)

    assert judged.kept == (True,) * 4
    assert judged.beyond
    assert not judged.regression
    assert judged.unclear


def test_only_one_of_five_is_an_accident():
    """Two gross ones of five are not set aside, on whichever side of the others they are."""
    assert seen(800.0, 802.0, 1001.0, 996.0, 999.0).kept == (True,) * 5
    assert seen(930.0, 1010.0, 940.0, 1000.0, 930.0).kept == (True,) * 5


def test_few_stored_runs_tell_no_accident():
    """With few degrees of freedom nobody knows what is gross."""
    assert seen(800.0, 1001.0, 996.0, case=CaseNoise(within=Spread(0.01, 4))).kept == (True,) * 3


def test_what_all_lost_is_no_regression():
    """8 % slower as all others are: unclear, without another run; and so is what lost less than its tolerance."""
    others = [math.log(0.92 + 0.001 * case) for case in range(-6, 7)]

    for tgs in (920.0, 970.0):
        assert seen(tgs, others=others).unclear
        assert not seen(tgs, others=others).needs_another_run(1)
    assert not seen(*[920.0] * 5, others=others).regression


def test_what_one_lost_besides_is_its_own():
    """5 % slower than the others, who are 8 % slower, is a regression."""
    assert seen(*[1000 * 0.92 * 0.95] * 5, others=[math.log(0.92)] * 13).regression


def test_rounding_of_a_baseline_is_no_loss():
    """A baseline is stored with six digits: its own runs are not slower within the narrowest of tolerances."""
    judged = assess([1000.004], [[1000.01]], NoiseModel(QUIET, tolerance=1e-9))

    assert not judged.beyond


def test_no_machine_of_a_kind_is_that_slow():
    """What all cases lost beyond the cap of 10 % is no other node: red."""
    assert seen(*[800.0] * 5, others=[math.log(0.8)] * 13).regression


def test_what_a_faster_machine_hides():
    """A case that stayed where the others gained 8 % is not slow, and not judged: it is measured again, to the end."""
    one, five = (seen(*[1000.0] * runs, others=[math.log(1.08)] * 13) for runs in (1, 5))

    assert not one.slow
    assert one.needs_another_run(1)
    assert five.unclear
    assert five.lags
    assert not five.needs_another_run(1)


def test_what_is_lost_after_all_had_gained_is_not_told_from_drift():
    """Beside cases that gained, a case is retested later than they ran: it is red only if its first run lost, too."""
    gained, later = [math.log(1.04)] * 13, [900.0] * 4
    at_first = [
        assess([tgs, *later], STORED, NoiseModel(QUIET, 14), others=beside(gained), first=1) for tgs in (1000.0, 900.0)
    ]

    assert [judged.regression for judged in at_first] == [False, True]
    assert at_first[0].unclear


def test_what_all_gained_is_no_improvement():
    """8 % faster as all others are is the machine, or a change that meets all of them: no further run tells."""
    judged = seen(1080.0, others=[math.log(1.08)] * 13)

    assert judged.gained_with_all
    assert not judged.improvement
    assert not judged.needs_another_run(1)
    assert not judged.unclear


@pytest.mark.parametrize(
    ("others", "lags"), [([1.08] * 3, True), ([1.08], True), ([1.08, 1.0], False), ([1.2], False), ([], False)]
)
def test_few_others_that_all_gained(others, lags):
    """One to three other cases tell no shift, but where all of them gained the one that did not is not called pass."""
    judged = seen(*[1000.0] * 5, others=[math.log(each) for each in others])

    assert judged.lags is lags
    assert judged.common_shift == 0


def test_improvement_needs_runs_of_its_own():
    """One lucky run is measured again; three that agree are an improvement, three that do not are none."""
    one, three = seen(1080.0), seen(1080.0, 1085.0, 1078.0)
    uneven = seen(1300.0, 930.0, 1080.0)

    assert (one.improvement, one.looks_faster) == (False, True)
    assert one.needs_another_run(1)
    assert three.improvement
    assert not three.needs_another_run(1)
    assert len(three.kept) == IMPROVEMENT_RUNS
    assert uneven.faster
    assert not uneven.improvement


@pytest.mark.parametrize(
    ("others", "shared"),
    [
        ([-0.08] * 13, -0.08),
        ([0.08] * 13, 0.08),
        ([-0.08] * 3, 0.0),
        ([-0.5] * 13, math.log(0.9)),
        ([0.5] * 13, -math.log(0.9)),
        ([-0.005] * 13, 0.0),
        ([-0.09] * 8 + [0.0] * 5, 0.0),
        ([0.09] * 8 + [0.0] * 5, 0.0),
        ([-0.09] * 11 + [0.0] * 2, -0.09),
        ([-0.09] * 3 + [0.0], 0.0),
        ([-0.09] * 8 + [-0.05] * 5, -0.09),
    ],
    ids=[
        "all",
        "faster",
        "too few",
        "capped",
        "capped above",
        "below the floor",
        "five of 13 stayed",
        "five of 13 did not gain",
        "two of 13 stayed",
        "one of four stayed",
        "some lost less",
    ],
)
def test_common_shift(others, shared):
    """The median of enough cases, unless one in five of them stayed where they were: no machine lets them."""
    assert pytest.approx(shared) == estimate_common_shift(beside(others)).told


def test_doubtful_shift_is_taken_out_in_part():
    """What of the median is beyond its noise, and nothing of one within it; only one that is surely there is told."""
    shift, small = CommonShift(median=-0.006, error=0.004), CommonShift(median=-0.004, error=0.004)

    assert pytest.approx(-0.006 * (1 - (4 / 6) ** 2)) == shift.likely
    assert small.likely == 0
    assert shift.told == small.told == 0
    assert shift.widened(0.03, 0.001) == 0.03


def test_noisy_cases_exclude_no_shift():
    """What stayed where it was by chance, being noisy, tells nothing."""
    noisy = CaseNoise(within=Spread(0.05, 56), assumed=0.0)
    others = beside([-0.09] * 8) + beside([0.0] * 5, noisy)

    assert pytest.approx(-0.09) == estimate_common_shift(others).told


def test_nine_of_fourteen_cases_are_slower():
    """Where five cases stayed where they were, the others are judged as they are: red."""
    judged = seen(*[910.0] * 5, others=[math.log(0.91)] * 8 + [0.0] * 5)

    assert judged.regression


def test_users_tolerance_stands_above_it():
    """With a tolerance of the user's nothing is excused, and nothing looks slow before it."""
    assert seen(*[900.0] * 5, others=[math.log(0.9)] * 13, tolerance=0.05).regression
    assert not seen(960.0, tolerance=0.05).slow


def test_noisy_case_needs_its_own_evidence():
    """Runs that spread by far more than the other cases' are unclear, though their mean is beyond the tolerance."""
    judged = seen(930.0, 1010.0, 940.0, 1000.0, 930.0)

    assert judged.beyond
    assert judged.unclear


GROUPS = [[1000.0, 1001.0, 999.0, 1002.0, 998.0]] * 5


def test_accident_among_stored_runs():
    """One of a case's five, twenty standard deviations off, is set aside."""
    marks = outliers([*GROUPS, [1000.0, 960.0, 999.0, 1002.0, 998.0]])

    assert marks == [(False,) * 5] * 5 + [(False, True, False, False, False)]


@pytest.mark.parametrize(
    "groups",
    [
        [*GROUPS, [1000.0, 960.0, 961.0, 1002.0, 998.0]],
        [[1000.0, 960.0, 999.0, 1002.0, 998.0]] * 2 + GROUPS[:3],
        [[1000.0, 960.0, 999.0, 1002.0, 998.0]],
        [[1000.0], [500.0]],
        [],
    ],
    ids=["two of five", "not rare", "too few to tell", "single runs", "none"],
)
def test_what_is_no_accident(groups):
    """More than one in four of a case or one in twenty of all is how the machine is."""
    assert outliers(groups) == [(False,) * len(group) for group in groups]


def test_every_case_looks_slow_now_and_then():
    """Of unchanged runs RETEST_ALPHA look slow."""
    import numpy as np

    chance = np.random.default_rng(3)
    slow = [
        assess([float(now)], [stored.tolist()], NoiseModel(QUIET, 14)).slow
        for now, stored in zip(
            np.exp(chance.normal(0, 0.01, 4000)), np.exp(chance.normal(0, 0.01, (4000, 5))), strict=True
        )
    ]

    assert pytest.approx(RETEST_ALPHA, abs=0.008) == np.mean(slow)


def test_borders_are_where_a_single_run_is_said_something_else_of():
    """Just above each border another thing is said than just below it."""
    noise = NoiseModel(CaseNoise(within=Spread(0.01, 40)), 5)
    slow, beyond, faster = decision_thresholds(noise)

    def said(ratio):
        seen = assess([1000.0 * ratio], [[1000.0] * 5], noise)
        return seen.slow, seen.beyond

    assert beyond < slow < 1 < faster
    assert (said(slow * 1.0001), said(slow * 0.9999)) == ((False, False), (True, False))
    assert (said(beyond * 1.0001), said(beyond * 0.9999)) == ((True, False), (True, True))
    assert faster == pytest.approx(1 / beyond)
