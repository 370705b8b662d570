"""The gate of a pull request, on numbers: worked examples, what it must not do, and its words for undecided cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.runs.verdict import Verdict
from trainpace.stats import sequential
from trainpace.stats.sequential import SequentialDesign, analyse, decision_of

PAIRS = (0.004, -0.006, 0.002, -0.003, 0.005, -0.002, 0.003, -0.004)
"""Log ratios of unchanged code, spread 0.4 %."""
ratios = st.lists(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8), min_size=1, max_size=6)


def decide(log_ratios, design):
    """The decision of each case of one session, from the log ratios of its pairs, as the plan makes it."""
    table = np.full((len(log_ratios), design.max_pairs), np.nan)
    for row, values in zip(table, log_ratios.values(), strict=True):
        row[: len(values)] = values
    seen = analyse(table, design)
    return {case: decision_of(seen, index, design) for index, case in enumerate(log_ratios)}


def shifted(log_ratio, pairs=8):
    """Pairs of a case whose head is faster by `log_ratio`."""
    return [value + log_ratio for value in PAIRS[:pairs]]


def session(**cases):
    """Twelve unchanged cases with the given ones beside them, three pairs each."""
    return {f"same{index}": [*PAIRS, *PAIRS][index % 8 : index % 8 + 3] for index in range(12)} | cases


@pytest.mark.parametrize(
    ("log_ratio", "verdict"),
    [
        (math.log(0.90), Verdict.REGRESSION),
        (0.0, Verdict.PASS),
        (math.log(0.985), Verdict.PASS),
        (math.log(1.10), Verdict.IMPROVEMENT),
    ],
)
def test_verdict_follows_the_ratio(log_ratio, verdict):
    """Little noise: a loss of D and more is found, a small one passes, a gain is named."""
    decision = decide(session(changed=shifted(log_ratio, 3)), SequentialDesign())["changed"]

    assert verdict == decision.verdict
    assert pytest.approx(math.exp(log_ratio), rel=1e-3) == decision.ratio
    assert decision.min_effect == 0.05
    assert decision.pairs_needed is None


def test_small_loss_that_is_certain_is_no_regression():
    """A loss of 2 % is far outside the noise, and below D / 2: the interval excludes 1, the verdict is pass."""
    decision = decide({"a": shifted(math.log(0.98))}, SequentialDesign())["a"]

    assert decision.high < 1
    assert decision.verdict == Verdict.PASS


def test_one_pair_decides_nothing():
    """Without a spread nothing is known, and the interval says so with numbers that a file can hold."""
    decision = decide({"a": [-0.5], "b": [0.5]}, SequentialDesign())["a"]

    assert decision.verdict is None
    assert pytest.approx((0.001, 1000)) == (decision.low, decision.high)
    assert decision.pairs_needed is None


def test_other_cases_lend_their_spread():
    """Three pairs alone say little; among twelve other cases they are enough."""
    changed = shifted(math.log(0.95), 3)

    assert decide({"changed": changed}, SequentialDesign())["changed"].verdict is None
    assert decide(session(changed=changed), SequentialDesign())["changed"].verdict == Verdict.REGRESSION


def test_more_cases_need_more_evidence():
    """The session's error is shared: the same pairs give a wider interval beside more cases."""
    widths = [
        decide({f"{index}": PAIRS for index in range(number)}, SequentialDesign())["0"].high / math.exp(np.mean(PAIRS))
        for number in (2, 14)
    ]

    assert widths[0] < widths[1]


def test_equal_pairs_are_decided():
    """A spread of zero is no spread: a clock's resolution stands in for it."""
    decisions = decide({"same": [0.0] * 3, "slow": [-0.1] * 3}, SequentialDesign())

    assert decisions["same"].verdict == Verdict.PASS
    assert decisions["slow"].verdict == Verdict.REGRESSION


def test_accident_is_set_aside_and_counted():
    """One pair in four that is 20 % off is no regression, and no noise of the other cases."""
    pairs = [*PAIRS[:3], -0.2]
    decisions = decide(session(outlier=pairs), SequentialDesign())

    assert decisions["outlier"].set_aside == 1
    assert decisions["outlier"].verdict == Verdict.PASS
    assert pytest.approx(math.exp(np.mean(PAIRS[:3]))) == decisions["outlier"].ratio
    assert {Verdict.PASS} == {decision.verdict for decision in decisions.values()}


def test_two_pairs_that_disagree_wait_for_a_third():
    """Nobody knows which is wrong: the case goes on, the others are not held up."""
    decisions = decide(session(disagree=[0.0, -0.2]), SequentialDesign())

    assert decisions["disagree"].verdict is None
    assert decisions["disagree"].set_aside == 0
    assert decisions["same0"].verdict == Verdict.PASS


def test_head_that_is_often_slow_is_not_set_aside():
    """Slow in half of its pairs is how the case is: it is judged by its own spread, and not called pass."""
    decision = decide(session(often=[0.0, -0.2, 0.0, -0.2, 0.0, -0.2, 0.0, -0.2]), SequentialDesign())["often"]

    assert decision.set_aside == 0
    assert decision.verdict is not Verdict.PASS


def test_noisy_case_among_quiet_ones_is_not_red_by_mistake():
    """Its own pairs must show the loss too: here their mean is 1.2 of their own standard errors below 0."""
    noisy = [-0.10, 0.06, -0.09, 0.05, -0.08, 0.03, -0.09, 0.02]

    assert decide(session(noisy=noisy), SequentialDesign())["noisy"].verdict is not Verdict.REGRESSION


def test_detect_is_raised_to_what_the_noise_allows():
    """Ten times the spread cannot find 5 % in 8 pairs: D is raised, up to the most, and reported."""
    noisy = {f"{index}": [10 * value for value in PAIRS] for index in range(4)}
    raised = decide(noisy, SequentialDesign())["0"].min_effect

    assert 0.05 < raised < 0.2
    assert pytest.approx(decide(noisy, SequentialDesign(max_min_effect=0.06))["0"].min_effect) == 0.06
    assert pytest.approx(decide(noisy, SequentialDesign(max_min_effect=0.05))["0"].min_effect) == 0.05


def test_undecided_case_says_how_many_pairs_would_decide():
    """As many as it asks for decide, if the pairs go on like this; it asks for the fewest."""
    noisy, design = [6 * value - 0.018 for value in PAIRS], {"min_effect": 0.04, "max_min_effect": 0.04}
    decision = decide({"a": noisy}, SequentialDesign(**design))["a"]
    again = decide({"a": noisy + noisy}, SequentialDesign(**design, max_pairs=16))["a"]

    assert decision.verdict is None
    assert 8 < decision.pairs_needed <= 16
    assert again.verdict is not None


def test_no_number_of_pairs_is_asked_for_beyond_reason():
    """A spread of 50 % against a D of 1 %: no promise."""
    wild = [100 * value for value in PAIRS]

    assert decide({"a": wild}, SequentialDesign(min_effect=0.01, max_min_effect=0.01))["a"].pairs_needed is None


@given(ratios)
def test_decisions_hold_together(values):
    """Whatever the pairs: finite numbers, in order, and a verdict that the interval and D support."""
    design = SequentialDesign()
    for decision in decide({str(index): each for index, each in enumerate(values)}, design).values():
        assert 0.001 * 0.999 <= decision.low <= decision.high <= 1000 * 1.001
        assert design.min_effect - 1e-12 <= decision.min_effect <= design.max_min_effect + 1e-12
        if decision.verdict is Verdict.REGRESSION:
            assert decision.high < 1
            assert math.log(decision.ratio) < math.log1p(-decision.min_effect) / 2
        if decision.verdict is Verdict.PASS:
            assert decision.low > 1 - decision.min_effect


@given(ratios)
def test_faster_and_slower_are_treated_alike(values):
    """Base and head exchanged: regressions become improvements, and the other way round."""
    swap = {Verdict.REGRESSION: Verdict.IMPROVEMENT, Verdict.IMPROVEMENT: Verdict.REGRESSION}
    there = decide({str(index): each for index, each in enumerate(values)}, SequentialDesign())
    back = decide({str(index): [-x for x in each] for index, each in enumerate(values)}, SequentialDesign())

    for case, decision in there.items():
        if decision.verdict in swap:
            assert swap[decision.verdict] == back[case].verdict


def test_many_sessions_at_once_are_judged_as_each_alone():
    """The simulation's sessions share nothing: the code that is simulated is the code that judges."""
    rng = np.random.default_rng(7)
    table = rng.normal(0, 0.02, (5, 4, 8))
    table[:, :2, 5:] = np.nan
    table[:, 2, 3:] = np.nan
    together = analyse(table, SequentialDesign())

    for index, alone in enumerate(table):
        decisions = decide(
            {str(case): row[~np.isnan(row)].tolist() for case, row in enumerate(alone)}, SequentialDesign()
        )
        assert [decision.ratio for decision in decisions.values()] == pytest.approx(np.exp(together.mean[index]))
        assert [decision.high for decision in decisions.values()] == pytest.approx(np.exp(together.high[index]))
        assert [decision.verdict is Verdict.PASS for decision in decisions.values()] == together.passed[index].tolist()


@pytest.mark.parametrize(
    ("design", "named"),
    [
        ({"min_effect": 0.0}, "min_effect"),
        ({"min_effect": 1.5}, "min_effect"),
        ({"max_min_effect": -1.0}, "max_min_effect"),
        ({"max_pairs": 1}, "2"),
    ],
)
def test_settings_are_checked(design, named):
    """The error names the field and the bound."""
    with pytest.raises(ValueError, match=named):
        SequentialDesign(**design)


def test_errors_are_as_stated():
    """The figures that the documentation quotes."""
    assert (sequential.ALPHA, sequential.BETA, sequential.UNDECIDED) == (0.01, 0.02, 0.05)
