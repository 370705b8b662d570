"""Machines that runs are drawn from: what a run's log TGS is off its true value by.

Noise is the coefficient of variation of a run. A pair is two neighbours in time, base first in even rounds and head
first in odd ones (A B, B A, ...), and a round visits every case. The stored gate has one side, measured in another
order. Decided cases leave no gap in time here: what depends on time is drawn for the whole session beforehand.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Machine = Callable[[np.random.Generator, Floats, Integers], Floats]
"""Normal noise of shape (sessions, cases, rounds, sides) and the place of each run in its session (without the first
axis) in; noise of the machine out. Time is counted in runs."""

SESSION = 224
"""Runs of a session of 14 cases in 8 pairs: what a machine does in a session, it does in so many runs."""

STEPS = 40
STEP_NOISE = 2
"""Steps of a run spread by so many times the noise of a run, with a lag-1 autocorrelation of STEP_MEMORY."""
STEP_MEMORY = 0.2


def independent(_: np.random.Generator, noise: Floats, __: Integers) -> Floats:
    """Independent runs of equal spread."""
    return noise


def drift(_: np.random.Generator, noise: Floats, place: Integers) -> Floats:
    """15 % slower at the session's end than at its start, evenly."""
    return noise - 0.15 * place / SESSION


def heating(_: np.random.Generator, noise: Floats, place: Integers) -> Floats:
    """15 % slower, most of it at first (time constant: a fifth of the session)."""
    return noise - 0.15 * (1 - np.exp(-5 * place / SESSION))


def autocorrelated(_: np.random.Generator, noise: Floats, place: Integers) -> Floats:
    """Consecutive runs resemble each other, autocorrelation 0.8."""
    walk = noise.reshape(len(noise), -1) * np.sqrt(1 - 0.8**2)
    walk[:, 0] /= np.sqrt(1 - 0.8**2)
    return np.asarray(lfilter([1], [1, -0.8], walk, axis=1)[:, place])


def outliers(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """One run in fifty is 10 to 30 % slower."""
    return noise - rng.uniform(0.1, 0.3, noise.shape) * (rng.random(noise.shape) < 0.02)


def two_modes(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """Every other run, at random, is in a mode 4 % slower."""
    return noise - 0.04 * (rng.random(noise.shape) < 0.5)


def lasting_modes(rng: np.random.Generator, noise: Floats, place: Integers) -> Floats:
    """Two modes, 4 % apart, that change after ten runs on average."""
    changes = np.cumsum(rng.random((len(noise), place.size)) < 0.1, axis=1)
    return noise - 0.04 * (changes % 2)[:, place]


def slow_node(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """One session in eight runs, as a whole, on a node 8 % slower; a baseline's session does too."""
    return noise - 0.08 * (rng.random((len(noise), 1, 1, 1)) < 1 / 8)


def placed_anew(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """Every run is placed on one of eight nodes, of which one is 8 % slower."""
    return noise - 0.08 * (rng.random(noise.shape) < 1 / 8)


def unequal(_: np.random.Generator, noise: Floats, __: Integers) -> Floats:
    """Cases of unequal noise, from 0.7 to 1.4 times the stated one."""
    cases = noise.shape[1]
    return noise * np.geomspace(0.7, 1.4, cases)[:, None, None] if cases > 1 else noise


MACHINES: dict[str, Machine] = {
    "independent": independent,
    "drift": drift,
    "heating": heating,
    "autocorrelated": autocorrelated,
    "outliers": outliers,
    "two modes": two_modes,
    "lasting modes": lasting_modes,
    "slow node": slow_node,
    "placed anew": placed_anew,
    "unequal cases": unequal,
}


def in_pairs(cases: int, rounds: int) -> Integers:
    """The place of each run where two sides are measured in rounds: shape (cases, rounds, 2)."""
    case, number, side = np.ogrid[:cases, :rounds, :2]
    return np.asarray((number * cases + case) * 2 + np.where(number % 2 == 0, side, 1 - side))


def in_rounds(cases: int, rounds: int) -> Integers:
    """Where one side is: a refresh. Shape (cases, rounds, 1)."""
    return np.asarray(np.arange(cases)[:, None] + cases * np.arange(rounds))[..., None]


def looked_at(cases: int, rounds: int) -> Integers:
    """Where every case runs once, and then the others runs of a case follow each other, a case after the other."""
    again = cases + np.arange(cases)[:, None] * (rounds - 1) + np.arange(rounds - 1)
    return np.concatenate([np.arange(cases)[:, None], again], axis=1)[..., None]


def runs(
    rng: np.random.Generator,
    machine: str,
    shape: tuple[int, int, int],
    noise: float,
    order: Callable[[int, int], Integers] = in_pairs,
) -> Floats:
    """Log TGS of every run of unchanged code: `shape` is (sessions, cases, rounds), and the sides come last: base and
    head, or one alone, as `order` has them.
    """
    sessions, *rest = shape
    place = order(*rest)
    return MACHINES[machine](rng, noise * rng.standard_normal((sessions, *place.shape)), place)


def slow_down(log_tgs: Floats, loss: float) -> Floats:
    """A copy in which the last side of one case a session, each case in turn, has lost the share `loss` of its TGS."""
    sessions, cases = log_tgs.shape[:2]
    changed = log_tgs.copy()
    changed[np.arange(sessions), np.arange(sessions) % cases, :, -1] += np.log1p(-loss)
    return changed


def steps(rng: np.random.Generator, log_tgs: Floats, noise: float) -> Floats:
    """Log seconds of STEPS steps of each run, whose median is the run's: shape (..., STEPS)."""
    walk = rng.standard_normal((*log_tgs.shape, STEPS))
    walk[..., 1:] *= np.sqrt(1 - STEP_MEMORY**2)
    around = STEP_NOISE * noise * np.asarray(lfilter([1], [1, -STEP_MEMORY], walk, axis=-1))
    return np.asarray(around - np.median(around, axis=-1, keepdims=True) - log_tgs[..., None])
