"""The gate of a pull request, on numbers: worked examples, what it must not do, and its words for undecided cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.runs.verdict import Verdict
from trainpace.stats import sequential
from trainpace.stats.sequential import FURTHER_PAIRS, PRIOR_DOF, analyse, decision_of, plan_pairs
from trainpace.stats.tolerance import Spread

PAIRS = (0.004, -0.006, 0.002, -0.003, 0.005, -0.002, 0.003, -0.004)
"""Log ratios of unchanged code, spread 0.4 %."""
ratios = st.lists(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8), min_size=1, max_size=6)


def planned(cases, *, min_effect=0.05, prior=None, **how):
    """The design of one session: `prior` is a Spread of the cases that have one, by name."""
    known = [(prior or {}).get(case, Spread(0.0, 0)) for case in cases]
    return plan_pairs(
        np.full((1, len(known)), min_effect),
        np.array([[each.sd for each in known]]),
        np.array([[each.dof for each in known]]),
        **how,
    )


def decide(log_ratios, **how):
    """The decision of each case of one session, from the log ratios of its pairs, as the plan makes it."""
    design = planned(log_ratios, **how)
    table = np.full((1, len(log_ratios), max(map(len, log_ratios.values()))), np.nan)
    for row, values in zip(table[0], log_ratios.values(), strict=True):
        row[: len(values)] = values
    seen = sequential.of_session(analyse(table, design), 0)
    return {case: decision_of(seen, index, design) for index, case in enumerate(log_ratios)}


def shifted(log_ratio, pairs=8):
    """Pairs of a case whose head is faster by `log_ratio`."""
    return [value + log_ratio for value in PAIRS[:pairs]]


def session(**cases):
    """Twelve unchanged cases with the given ones beside them, four pairs each."""
    return {f"same{index}": [*PAIRS, *PAIRS][index % 8 : index % 8 + 4] for index in range(12)} | cases


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
    decision = decide(session(changed=shifted(log_ratio, 4)))["changed"]

    assert verdict == decision.verdict
    assert pytest.approx(math.exp(log_ratio), rel=1e-3) == decision.ratio
    assert decision.min_effect == 0.05
    assert decision.pairs_needed is None


def test_small_loss_that_is_certain_is_no_regression():
    """A loss of 2 % is far outside the noise, and below D / 2: the interval excludes 1, the verdict is pass."""
    decision = decide({"a": shifted(math.log(0.98))})["a"]

    assert decision.high < 1
    assert decision.verdict == Verdict.PASS


def test_one_pair_decides_nothing():
    """Without a spread nothing is known, and the interval says so with numbers that a file can hold."""
    decision = decide({"a": [-0.5], "b": [0.5]})["a"]

    assert decision.verdict is None
    assert pytest.approx((0.001, 1000)) == (decision.low, decision.high)
    assert decision.pairs_needed is None


def test_other_cases_lend_their_spread():
    """Three pairs alone say little; among twelve other cases they are enough to pass."""
    same = [0.004, -0.008, 0.006]

    assert decide({"same": same})["same"].verdict is None
    assert decide(session(same=same))["same"].verdict == Verdict.PASS


def test_more_cases_need_more_evidence():
    """The session's error is shared: the same pairs give a wider interval beside more cases."""
    widths = []
    for number in (2, 14):
        pairs = {f"{index}": PAIRS for index in range(number)}
        known = dict.fromkeys(pairs, Spread(0.005, PRIOR_DOF))
        widths.append(decide(pairs, prior=known)["0"].high / math.exp(np.mean(PAIRS)))

    assert widths[0] < widths[1]


def test_equal_pairs_are_decided():
    """A spread of zero is no spread: a clock's resolution stands in for it."""
    decisions = decide({"same": [0.0] * 3, "slow": [-0.1] * 3})

    assert decisions["same"].verdict == Verdict.PASS
    assert decisions["slow"].verdict == Verdict.REGRESSION


def test_accident_is_set_aside_and_counted():
    """One pair in four that is 20 % off is no regression, and no noise of the other cases."""
    pairs = [*PAIRS[:3], -0.2]
    decisions = decide(session(outlier=pairs))

    assert decisions["outlier"].set_aside == 1
    assert decisions["outlier"].verdict == Verdict.PASS
    assert pytest.approx(math.exp(np.mean(PAIRS[:3]))) == decisions["outlier"].ratio
    assert {Verdict.PASS} == {decision.verdict for decision in decisions.values()}


def test_two_pairs_that_disagree_wait_for_a_third():
    """Nobody knows which is wrong: the case goes on, the others are not held up."""
    decisions = decide(session(disagree=[0.0, -0.2]))

    assert decisions["disagree"].verdict is None
    assert decisions["disagree"].set_aside == 0
    assert decisions["same0"].verdict == Verdict.PASS


def test_head_that_is_often_slow_is_not_set_aside():
    """Slow in half of its pairs is how the case is: it is judged by its own spread, and not called pass."""
    decision = decide(session(often=[0.0, -0.2, 0.0, -0.2, 0.0, -0.2, 0.0, -0.2]))["often"]

    assert decision.set_aside == 0
    assert decision.verdict is not Verdict.PASS


def test_noisy_case_among_quiet_ones_is_not_red_by_mistake():
    """Its own pairs must show the loss too: here their mean is 1.2 of their own standard errors below 0."""
    noisy = [-0.10, 0.06, -0.09, 0.05, -0.08, 0.03, -0.09, 0.02]

    assert decide(session(noisy=noisy))["noisy"].verdict is not Verdict.REGRESSION


def test_noisy_case_is_not_waved_through_on_the_others_noise():
    """Its estimate is 0 and theirs are quiet: what its own pairs spread does not exclude a loss of 5 %."""
    noisy = [0.10, -0.08, 0.09, -0.11]

    assert decide(session(noisy=noisy))["noisy"].verdict is None


def test_noisy_case_has_outliers_of_its_own():
    """Pairs that are far off for the other cases, and not for it, are not set aside: they are its noise."""
    decision = decide(session(noisy=[0.05, -0.06, 0.07, -0.04, 0.06, -0.07, 0.04, -0.05]))["noisy"]

    assert decision.set_aside == 0
    assert pytest.approx(0.0603, abs=1e-3) == decision.own.sd
    assert decision.own.dof == 7


def test_two_pairs_do_not_pass_a_case_of_unknown_noise():
    """However alike they are; where its noise was known beforehand they do."""
    pairs = {f"{index}": PAIRS[:2] for index in range(14)}
    known = dict.fromkeys(pairs, Spread(0.005, PRIOR_DOF))

    assert {None} == {each.verdict for each in decide(pairs).values()}
    assert {Verdict.PASS} == {each.verdict for each in decide(pairs, prior=known).values()}
    assert decide(pairs, prior=known)["0"].informed


def test_known_noise_answers_alone():
    """A noisy case beside quiet ones: its prior keeps it open where theirs would pass it."""
    pairs = session(noisy=PAIRS[:4])

    assert decide(pairs)["noisy"].verdict is Verdict.PASS
    assert decide(pairs, prior={"noisy": Spread(0.07, PRIOR_DOF)})["noisy"].verdict is None


def test_little_that_is_known_is_added_to_its_own_pairs():
    """Four degrees of freedom are no answer, and more than nothing: they widen what few pairs show, or narrow it."""
    pairs = session(few=[0.02, -0.02, 0.015])
    quiet, noisy = ({"few": Spread(sd, 4)} for sd in (0.01, 0.07))

    assert decide(pairs, prior=quiet)["few"].spread < decide(pairs, prior=noisy)["few"].spread
    assert decide(pairs, prior=noisy)["few"].verdict is None


def test_prior_that_the_pairs_contradict_is_not_used():
    """They spread 20 times as wide as was known: the case is judged by its own pairs alone, and says so."""
    prior = {"case": Spread(0.002, PRIOR_DOF)}
    decision = decide(session(case=[0.05, -0.06, 0.07, -0.05]), prior=prior)["case"]

    assert (decision.contradicted, decision.informed) == (True, False)
    assert decision.verdict is None


@pytest.mark.parametrize("times", [0.2, 5.0])
def test_prior_of_another_machine_is_not_used(times):
    """All cases together spread other than was known, be it less or more."""
    pairs = {f"{index}": shifted(0.001 * index, 4) for index in range(14)}
    decisions = decide(pairs, prior=dict.fromkeys(pairs, Spread(times * 0.0045, PRIOR_DOF)))

    assert {True} == {each.contradicted for each in decisions.values()}
    assert {Verdict.PASS} == {each.verdict for each in decisions.values()}


def test_noisy_case_is_planned_with_more_pairs():
    """As its prior says beforehand: eight where they do, more where they do not, eight again where none would."""
    spreads = {"quiet": 0.014, "unknown": 0.0, "noisy": 0.05, "wild": 0.5}
    prior = {name: Spread(sd, PRIOR_DOF) for name, sd in spreads.items() if sd}
    found = dict(zip(spreads, planned(spreads, prior=prior).planned[0].tolist(), strict=True))

    assert (found["quiet"], found["unknown"], found["wild"]) == (8, 8, 8)
    assert 12 < found["noisy"] < 20


def test_typed_number_of_pairs_is_a_bound():
    """Nothing is planned beyond it, and no error is kept for later."""
    design = planned(["a"], prior={"a": Spread(0.07, PRIOR_DOF)}, max_pairs=4, further=False)

    assert (design.planned.tolist(), design.most) == ([[4]], 4)
    assert planned(["a"]).most == FURTHER_PAIRS


def test_case_that_no_pairs_would_decide_gets_none():
    """Wild pairs after the planned ones; a case that is noisy and could be decided goes on."""
    wild, noisy = (np.array([[[scale * value for value in PAIRS]]]) for scale in (100, 20))

    assert [analyse(each, planned(["a"])).hopeless.item() for each in (wild, noisy)] == [True, False]
    assert not analyse(wild[..., :4], planned(["a"])).hopeless.item()


def test_min_effect_is_held():
    """Twenty times the spread cannot find 5 % in 8 pairs: the case is open, and D is what was asked for."""
    decision = decide({f"{index}": [20 * value for value in PAIRS] for index in range(4)})["0"]

    assert decision.verdict is None
    assert pytest.approx(0.05) == decision.min_effect


def test_undecided_case_says_how_many_pairs_would_decide():
    """As many as it asks for decide, if the pairs go on like this."""
    noisy = [6 * value - 0.018 for value in PAIRS]
    decision = decide({"a": noisy}, min_effect=0.04)["a"]
    again = decide({"a": noisy * 3}, min_effect=0.04)["a"]

    assert decision.verdict is None
    assert 8 < decision.pairs_needed <= 24
    assert again.verdict is not None


def test_no_number_of_pairs_is_asked_for_beyond_reason():
    """A spread of 50 % against a D of 1 %: no promise."""
    wild = [100 * value for value in PAIRS]

    assert decide({"a": wild}, min_effect=0.01)["a"].pairs_needed is None


@given(ratios)
def test_decisions_hold_together(values):
    """Whatever the pairs: finite numbers, in order, and a verdict that the interval and D support."""
    for decision in decide({str(index): each for index, each in enumerate(values)}).values():
        assert 0.001 * 0.999 <= decision.low <= decision.high <= 1000 * 1.001
        assert pytest.approx(0.05) == decision.min_effect
        if decision.verdict is Verdict.REGRESSION:
            assert decision.high < 1
            assert math.log(decision.ratio) < math.log1p(-decision.min_effect) / 2
        if decision.verdict is Verdict.PASS:
            assert decision.low > 1 - decision.min_effect


@given(ratios)
def test_faster_and_slower_are_treated_alike(values):
    """Base and head exchanged: regressions become improvements, and the other way round."""
    swap = {Verdict.REGRESSION: Verdict.IMPROVEMENT, Verdict.IMPROVEMENT: Verdict.REGRESSION}
    there = decide({str(index): each for index, each in enumerate(values)})
    back = decide({str(index): [-x for x in each] for index, each in enumerate(values)})

    for case, decision in there.items():
        if decision.verdict in swap:
            assert swap[decision.verdict] == back[case].verdict


def test_many_sessions_at_once_are_judged_as_each_alone():
    """The simulation's sessions share nothing: the code that is simulated is the code that judges."""
    rng = np.random.default_rng(7)
    table = rng.normal(0, 0.02, (5, 4, 8))
    table[:, :2, 5:] = np.nan
    table[:, 2, 3:] = np.nan
    priors = plan_pairs(np.full((1, 4), 0.05), np.full((5, 4), 0.03), np.array([[20, 0, 4, 20]] * 5))
    together = analyse(table, priors)

    for index in range(5):
        alone = analyse(table[index : index + 1], priors.part(np.array([index]), np.arange(4)))
        for name, values in vars(alone).items():
            assert values[0] == pytest.approx(getattr(together, name)[index]), name


@pytest.mark.parametrize(
    ("how", "named"),
    [({"min_effect": 0.0}, "min_effect"), ({"min_effect": 1.5}, "min_effect"), ({"max_pairs": 1}, "2")],
)
def test_settings_are_checked(how, named):
    """The error names the field and the bound."""
    with pytest.raises(ValueError, match=named):
        planned(["a"], **how)


def test_errors_are_as_stated():
    """The figures that the documentation quotes."""
    assert (sequential.ALPHA, sequential.BETA, sequential.OWN_ALPHA, sequential.OWN_BETA) == (0.01, 0.02, 0.005, 0.06)
    assert (sequential.PRIOR_DOF, sequential.PAIRS, sequential.FURTHER_PAIRS) == (20, 8, 40)
