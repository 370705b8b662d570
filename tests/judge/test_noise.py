"""What is known of a case's noise: which of earlier sessions count, and what becomes of pairs and of stored runs."""

import math

import pytest

from trainpace.judge.noise import MOST_OF_SESSION, SessionNoise, prior, with_session
from trainpace.stats.sequential import MOST_PRIOR_DOF
from trainpace.stats.tolerance import Spread


def session(day, sd=0.02, dof=4):
    """The noise of one session."""
    return SessionNoise(recorded=f"2026-11-{day:02d}T00:00:00+00:00", sd=sd, dof=dof)


def test_newest_sessions_are_kept():
    """As many as make 60 degrees of freedom, oldest first; no growth without bound."""
    kept = ()
    for day in range(1, 29):
        kept = with_session(kept, session(day))

    assert [each.recorded[8:10] for each in kept] == [f"{day:02d}" for day in range(14, 29)]
    assert sum(each.dof for each in kept) == MOST_PRIOR_DOF


def test_one_session_is_not_the_noise():
    """A session of forty pairs counts for no more than eight degrees: one that was unlike the others is outvoted."""
    wild, quiet = session(1, sd=0.2, dof=39), [session(day, sd=0.02, dof=4) for day in range(2, 15)]
    known = prior([wild, *quiet], None)

    assert known.dof == MOST_OF_SESSION + 13 * 4
    assert pytest.approx(math.sqrt((8 * 0.2**2 + 52 * 0.02**2) / 60)) == known.sd


@pytest.mark.parametrize(
    ("pairs", "runs", "expected"),
    [
        ([], None, None),
        ([4] * 5, Spread(0.5, 30), Spread(0.02, 20)),
        ([4], Spread(0.01, 20), Spread(0.01 * math.sqrt(2), 20)),
        ([4], Spread(0.01, 4), Spread(math.sqrt((0.02**2 + 2 * 0.01**2) / 2), 8)),
        ([4], None, Spread(0.02, 4)),
    ],
    ids=["nothing", "enough pairs", "enough runs", "neither", "few pairs"],
)
def test_prior_is_of_pairs_else_of_runs(pairs, runs, expected):
    """Pairs from 20 degrees on, else runs from 20 on, else both together. A pair is two runs: twice their variance."""
    known = prior([session(day, dof=dof) for day, dof in enumerate(pairs, 1)], runs)

    assert (known is None) == (expected is None)
    if expected is not None:
        assert (known.sd, known.dof) == (pytest.approx(expected.sd), expected.dof)
