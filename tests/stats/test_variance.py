"""Variances of the stored gate: each case's own, moderated, within a session and between sessions."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from trainpace.stats.tolerance import ASSUMED_BETWEEN, Spread
from trainpace.stats.variance import case_noises, moderated


@dataclass(frozen=True)
class Session:
    """A stored session of one case."""

    recorded: str
    tgs: tuple[float, ...]
    level: int = 1


def sessions(logs, level=1):
    """Of each case the sessions of log TGS, (cases, sessions, runs), which have happened at the same times."""
    return [
        [Session(str(number), tuple(1000 * np.exp(runs)), level) for number, runs in enumerate(of_case)]
        for of_case in logs
    ]


def test_equal_cases_are_pooled():
    """Variances that differ by no more than chance are one, with the degrees of freedom of all."""
    chance = np.random.default_rng(1)
    own = [Spread(0.01 * math.sqrt(chance.chisquare(4) / 4), 4) for _ in range(200)]
    found = moderated(own)

    assert len({each.sd for each in found}) == 1
    assert pytest.approx(0.01, rel=0.05) == found[0].sd
    assert found[0].dof == 800


def test_unequal_cases_keep_their_own():
    """Where cases differ by a factor of 16, their variances are drawn together by little, and rest on little more than
    the case's own runs; the estimated prior is that of the simulated distribution."""
    chance = np.random.default_rng(1)
    prior_dof = 3.0
    truth = 1e-4 * prior_dof / chance.chisquare(prior_dof, 4000)
    own = [Spread(math.sqrt(value * chance.chisquare(4) / 4), 4) for value in truth]
    found = moderated(own)

    assert pytest.approx(4 + prior_dof, rel=0.1) == found[0].dof
    assert pytest.approx((found[0].sd ** 2 * found[0].dof - 4 * own[0].sd ** 2) / (found[0].dof - 4), rel=0.1) == 1e-4


def test_noisy_case_is_not_taken_for_a_quiet_one():
    """A case five times as noisy as 13 others is called noisier than they; a pooled spread calls all alike."""
    chance = np.random.default_rng(2)
    own = [Spread(sd * math.sqrt(chance.chisquare(4) / 4), 4) for sd in [0.05] + [0.01] * 13]
    noisy, *quiet = moderated(own)

    assert noisy.sd > 2 * max(each.sd for each in quiet)
    assert all(each.sd < 0.015 for each in quiet)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], []),
        ([Spread(0.0, 0)], [None]),
        ([Spread(0.01, 4)], [Spread(0.01, 4)]),
        ([Spread(0.01, 4), Spread(0.0, 0)], [Spread(0.01, 4), Spread(0.01, 4)]),
        ([Spread(0.0, 4), Spread(0.0, 4)], [Spread(0.0, 4), Spread(0.0, 4)]),
    ],
    ids=["none", "nothing known", "alone", "one known", "no noise"],
)
def test_what_few_cases_tell(own, expected):
    """One case has its own variance; one of which nothing is known gets the others'."""
    assert expected == moderated(own)


def test_no_noise_in_one_case_is_not_infinitely_quiet():
    """A case whose runs agree to the last digit is drawn to the others, and they not to it."""
    still, *others = moderated([Spread(0.0, 4), *[Spread(0.01, 4)] * 9])

    assert 0 < still.sd < 0.01
    assert all(pytest.approx(0.01, rel=0.3) == each.sd for each in others)


def test_both_variances_are_found():
    """Between the runs of a session 2 %, and 1 % from session to session beside what all cases share, in which they
    differ by far more."""
    chance = np.random.default_rng(3)
    logs = (
        chance.normal(0, 0.05, (1, 10, 1)) + chance.normal(0, 0.01, (14, 10, 1)) + chance.normal(0, 0.02, (14, 10, 5))
    )
    shared, apart = (case_noises(sessions(logs), shared=each)[0] for each in (True, False))

    assert pytest.approx(0.02, rel=0.1) == shared.within.sd
    assert pytest.approx(0.01, rel=0.2) == shared.between
    assert apart.between > 0.025
    assert (shared.num_sessions, shared.runs) == (10, pytest.approx(5))


def test_slow_movement_is_no_noise():
    """Half a per cent lost at each of ten sessions hardly widens what a session is thought to do."""
    logs = -0.005 * np.arange(10)[None, :, None] + np.zeros((1, 1, 5))
    (noise,) = case_noises(sessions(logs), shared=False)

    assert pytest.approx(0.005 / math.sqrt(2)) == noise.session.sd


def test_levels_are_compared_within():
    """The step from one level to the next is no noise; what the earlier level told of it is kept."""
    first, second = (
        [Session(f"{level}{n}", (1000 * level * each,), level) for n, each in enumerate((1.0, 1.01, 1.0, 1.01))]
        for level in (1, 2)
    )
    (noise,) = case_noises([first + second], shared=False)

    assert pytest.approx(0.01 / math.sqrt(2), rel=0.02) == noise.session.sd
    assert noise.session.dof == 2 * 2 * 9 / 8
    assert noise.num_sessions == 4


def test_cases_of_few_sessions_are_given_what_the_others_tell():
    """A case that was recorded once has the session effect of the others of its file."""
    chance = np.random.default_rng(4)
    logs = chance.normal(0, 0.01, (60, 6, 1)) + chance.normal(0, 0.005, (60, 6, 5))
    found = sessions(logs)
    found[0] = found[0][-1:]
    once = case_noises(found, shared=True)[0]

    assert pytest.approx(0.01, rel=0.35) == once.between
    assert once.num_sessions == 1


def test_one_session_is_assumed():
    """With one session of all cases nothing is known of sessions: a named share is assumed, or what few sessions hint
    at where that is more."""
    chance = np.random.default_rng(5)
    one = case_noises(sessions(chance.normal(0, 0.01, (14, 1, 5))), shared=True)
    far = case_noises([[Session("1", (1000.0, 1001.0)), Session("2", (1040.0, 1041.0))]], shared=False)

    assert {(each.session, each.between) for each in one} == {(None, ASSUMED_BETWEEN)}
    assert far[0].session is None
    assert pytest.approx(math.log(1.04) / math.sqrt(2), rel=0.01) == far[0].between


def test_sessions_of_one_run_tell_without_a_spread_within():
    """Five refreshes of one run each are five sessions: their spread is that of a run now."""
    (noise,) = case_noises(
        [[Session(str(n), (tgs,)) for n, tgs in enumerate((1000.0, 990, 1010, 995, 1005))]], shared=False
    )
    (nothing,) = case_noises([[Session("1", (1000.0,))]], shared=False)

    assert noise.within is None
    assert noise.bound(1, 0.01) == noise.bound(5, 0.01) > 0.03
    assert nothing is None
