"""The gates that are compared: ours, and what others do. Log TGS of many sessions in, verdicts out.

A gate gets `log_tgs` of the session that is judged, and `stored`, another session of unchanged code on the same
machine: shapes (sessions, cases, rounds, 2), base and head; the stored gate one side, in the order of its own. It
gives an Outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from trainpace.plan.paired import PASSED, SLOWER, PairedRounds
from trainpace.plan.task import drive
from trainpace.simulate.noise import STEPS, Booleans, Floats, Integers, steps
from trainpace.simulate.stored import STORED_RUNS, judged, recorded
from trainpace.stats.sequential import PRIOR_DOF, SequentialDesign, analyse, plan_pairs
from trainpace.stats.tolerance import error_per_case

AT_EQUAL_COST = "4 pairs"
OURS, OURS_KNOWN, STORED = "ours, pairs", "ours, pairs, noise known", "ours, stored baseline"
MISTAKEN = {f"{OURS}, noise taken for {times:g}x": times for times in (0.5, 2.0)}
"""Ours, where the noise was known on a machine that was quieter or noisier: name, and how much so."""
EARLIER, EARLIER_PAIRS = 4, 6
"""Sessions that the noise is known from, and their pairs: PRIOR_DOF degrees of freedom."""
OTHERS_TOLERANCE = 0.05
EQUAL_PAIRS = 4
"""Pairs that the others get where they may spend what ours does, and more."""


@dataclass(frozen=True)
class Outcome:
    """Of many sessions: arrays of shape (sessions, cases)."""

    verdict: Integers
    """OPEN (inconclusive), PASSED, SLOWER or FASTER."""
    runs: Floats
    """Runs spent now; those of a stored baseline cost nothing here."""


Gate = Callable[[np.random.Generator, Floats, Floats, float], Outcome]
"""Generator, judged session, stored session (of ours that knows the noise: earlier sessions), noise of a run."""


def pairwise(log_ratios: Floats, design: SequentialDesign) -> Outcome:
    """Ours: the gate's own plan, on drawn pairs of shape (sessions, cases, design.most)."""
    plan = PairedRounds(design, len(log_ratios))
    drive(plan, lambda task: log_ratios[..., task.number])
    return Outcome(plan.verdict, np.asarray(2.0 * plan.pairs, np.float64))


def pairs(detect: float, *, known: float | None = None) -> Gate:
    """Ours, head against base. `known`: what earlier sessions' pairs showed of the noise, times this; None: nothing."""

    def gate(_: np.random.Generator, log_tgs: Floats, earlier: Floats, __: float) -> Outcome:
        min_effect = np.full((1, log_tgs.shape[1]), detect)
        prior = np.zeros(min_effect.shape), np.zeros(min_effect.shape, np.int64)
        if known is not None:
            spread = _spread_of(earlier)
            prior = known * spread, np.full(spread.shape, PRIOR_DOF)
        design = plan_pairs(min_effect, *prior)
        return pairwise(log_tgs[..., : design.most, 1] - log_tgs[..., : design.most, 0], design)

    return gate


def _spread_of(earlier: Floats) -> Floats:
    """Spread of the pairs of EARLIER sessions, of shape (sessions, EARLIER, cases, EARLIER_PAIRS, 2), as the program
    keeps it: without those that are set aside.
    """
    squares, dof = np.zeros((2, len(earlier), earlier.shape[2]))
    for session in np.moveaxis(earlier, 1, 0):
        nothing = np.zeros((1, earlier.shape[2]))
        design = plan_pairs(nothing + 0.05, nothing, nothing.astype(np.int64))
        seen = analyse(session[..., 1] - session[..., 0], design)
        squares += seen.squares
        dof += seen.kept - 1
    return np.sqrt(squares / dof)


def stored_gate(_: np.random.Generator, log_tgs: Floats, stored: Floats, __: float) -> Outcome:
    """Ours, against a baseline of one stored session: the gate's own plan, on drawn runs."""
    verdict, spent = judged(log_tgs[..., -1], recorded(stored[:, :, None, :STORED_RUNS, -1]))
    return Outcome(verdict, spent.astype(np.float64))


def one_number(_: np.random.Generator, log_tgs: Floats, stored: Floats, __: float) -> Outcome:
    """One run against one stored number."""
    return _red(log_tgs[:, :, 0, 1] - stored[:, :, 0, 0] < np.log1p(-OTHERS_TOLERANCE), 1)


def means_of_pairs(loss: float) -> Gate:
    """The mean of the pairs, red beyond `loss`; no correction, no look before the end."""

    def gate(_: np.random.Generator, log_tgs: Floats, __: Floats, ___: float) -> Outcome:
        ratios = (log_tgs[..., 1] - log_tgs[..., 0])[:, :, :EQUAL_PAIRS]
        return _red(ratios.mean(-1) < np.log1p(-loss), 2 * EQUAL_PAIRS)

    return gate


def of_steps(judge: Callable[[Floats, Floats], Booleans], number: int) -> Gate:
    """A gate on the steps of `number` head runs, against as many of the session's base, or where 1, a stored one."""

    def gate(rng: np.random.Generator, log_tgs: Floats, stored: Floats, noise: float) -> Outcome:
        against = (stored if number == 1 else log_tgs)[:, :, :number, 0]
        base, head = (steps(rng, each, noise) for each in (against, log_tgs[:, :, :number, 1]))
        shape = (*log_tgs.shape[:2], number * STEPS)
        return _red(judge(base.reshape(shape), head.reshape(shape)), number if number == 1 else 2 * number)

    return gate


def median_of_steps(base: Floats, head: Floats) -> Booleans:
    """The median step takes more than 5 % longer; log seconds as (..., steps)."""
    return np.asarray(np.median(head, -1) - np.median(base, -1) > np.log1p(OTHERS_TOLERANCE))


def percentile_of_slowdowns(base: Floats, head: Floats) -> Booleans:
    """The 80th percentile of the slowdowns, step by step, is above 5 %; the first 10 steps are left out before."""
    return np.asarray(np.percentile(head - base, 80, axis=-1) > np.log1p(OTHERS_TOLERANCE))


def mann_whitney(base: Floats, head: Floats) -> Booleans:
    """Mann and Whitney's test, one-sided, as if steps were independent; at 1 % for the session, as ours.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18 (1947), 50-60; normal approximation, no ties.
    """
    number = base.shape[-1]
    ranks = np.argsort(np.argsort(np.concatenate([base, head], -1), axis=-1), axis=-1) + 1
    above = ranks[..., number:].sum(-1) - number * (number + 1) / 2
    deviation = np.sqrt(number * number * (2 * number + 1) / 12)
    return np.asarray((above - number * number / 2) / deviation > -ndtri(error_per_case(base.shape[1])))


def gates(detect: float) -> dict[str, Gate]:
    """Every gate, by name; `detect` is what ours must find."""
    return {
        OURS: pairs(detect),
        OURS_KNOWN: pairs(detect, known=1.0),
        STORED: stored_gate,
        "one run, stored number, 5 %": one_number,
        "median of steps, 5 %": of_steps(median_of_steps, 1),
        "80th percentile, 5 %": of_steps(percentile_of_slowdowns, 1),
        "Mann-Whitney on steps": of_steps(mann_whitney, 1),
        f"{AT_EQUAL_COST}: mean, 5 %": means_of_pairs(OTHERS_TOLERANCE),
        f"{AT_EQUAL_COST}: mean, D / 2": means_of_pairs(detect / 2),
        f"{AT_EQUAL_COST}: median of steps, 5 %": of_steps(median_of_steps, EQUAL_PAIRS),
        f"{AT_EQUAL_COST}: 80th percentile, 5 %": of_steps(percentile_of_slowdowns, EQUAL_PAIRS),
        f"{AT_EQUAL_COST}: Mann-Whitney on steps": of_steps(mann_whitney, EQUAL_PAIRS),
    }


def mistaken(detect: float) -> dict[str, Gate]:
    """Ours, with noise that was known on another machine, by name."""
    return {name: pairs(detect, known=times) for name, times in MISTAKEN.items()}


def _red(slower: Booleans, spent: int) -> Outcome:
    return Outcome(np.where(slower, SLOWER, PASSED), np.full(slower.shape, float(spent)))
