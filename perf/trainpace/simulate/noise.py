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
    return noise - 0.15 * np.minimum(place / SESSION, 1)


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


def noisy_case(times: float) -> Machine:
    """The first case is so many times as noisy as the others."""

    def machine(_: np.random.Generator, noise: Floats, __: Integers) -> Floats:
        return np.concatenate([noise[:, :1] * times, noise[:, 1:]], axis=1)

    return machine


def wide_apart(_: np.random.Generator, noise: Floats, __: Integers) -> Floats:
    """Cases of very unequal noise, from a quarter of the stated one to four times it."""
    return noise * np.geomspace(4, 0.25, noise.shape[1])[:, None, None]


def heavy_tails(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """Student's t with three degrees of freedom, of the stated standard deviation."""
    return np.asarray(noise / np.sqrt(rng.chisquare(3, noise.shape)))


def bimodal_case(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """Every other run of the first case, at random, is in a mode 8 % slower."""
    slower = 0.08 * (rng.random((len(noise), 1, *noise.shape[2:])) < 0.5)
    return np.concatenate([noise[:, :1] - slower, noise[:, 1:]], axis=1)


def growing(_: np.random.Generator, noise: Floats, place: Integers) -> Floats:
    """Noise grows evenly, to four times the stated one at the end of a session."""
    return np.asarray(noise * (1 + 3 * np.minimum(place / SESSION, 1)))


def noisy_head(_: np.random.Generator, noise: Floats, __: Integers) -> Floats:
    """The head's runs are three times as noisy as the base's, and no slower."""
    return noise * np.array([1.0, 3.0]) if noise.shape[-1] == 2 else noise


def shared_outliers(rng: np.random.Generator, noise: Floats, _: Integers) -> Floats:
    """In one round of ten two neighbouring cases have a run 20 % slower, on the same side."""
    hit = rng.random((len(noise), 1, *noise.shape[2:3], 1)) < 0.1
    first = rng.integers(0, max(1, noise.shape[1] - 1), hit.shape)
    side = rng.integers(0, noise.shape[3], hit.shape)
    case, of_side = np.arange(noise.shape[1])[:, None, None], np.arange(noise.shape[3])
    both = (case == first) | (case == first + 1)
    return np.asarray(noise - 0.2 * (hit & both & (of_side == side)))


def step(rng: np.random.Generator, noise: Floats, place: Integers) -> Floats:
    """At some moment of the session, be it amid a pair, the machine becomes 10 % slower, and stays so."""
    moment = rng.integers(0, SESSION, (len(noise), 1, 1, 1))
    return noise - 0.1 * (place >= moment)


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


FIRST_CASE = {"one case 3x", "one case 5x", "one bimodal case"}
"""Machines whose first case is unlike the others: it is the one that loses."""
PAIR_MACHINES: dict[str, Machine] = {
    **MACHINES,
    "one case 3x": noisy_case(3),
    "one case 5x": noisy_case(5),
    "0.25x to 4x": wide_apart,
    "heavy tails": heavy_tails,
    "one bimodal case": bimodal_case,
    "growing noise": growing,
    "noisy head": noisy_head,
    "shared outliers": shared_outliers,
    "step": step,
}
"""Machines that head is compared with base on."""


BEFORE = {"noisy head": "independent"}
"""Machines that were others in earlier sessions: a head that is noisier is so because of what changed."""


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
    return PAIR_MACHINES[machine](rng, noise * rng.standard_normal((sessions, *place.shape)), place)


def slowed_case(machine: str, sessions: int, cases: int) -> Integers:
    """The case of each session that loses: each in turn, or the first where that is unlike the others."""
    return np.zeros(sessions, np.int64) if machine in FIRST_CASE else np.arange(sessions) % cases


def slow_down(log_tgs: Floats, loss: float, which: Integers) -> Floats:
    """A copy in which the last side of a session's case `which` has lost the share `loss` of its TGS."""
    changed = log_tgs.copy()
    changed[np.arange(len(log_tgs)), which, :, -1] += np.log1p(-loss)
    return changed


def steps(rng: np.random.Generator, log_tgs: Floats, noise: float) -> Floats:
    """Log seconds of STEPS steps of each run, whose median is the run's: shape (..., STEPS)."""
    walk = rng.standard_normal((*log_tgs.shape, STEPS))
    walk[..., 1:] *= np.sqrt(1 - STEP_MEMORY**2)
    around = STEP_NOISE * noise * np.asarray(lfilter([1], [1, -STEP_MEMORY], walk, axis=-1))
    return np.asarray(around - np.median(around, axis=-1, keepdims=True) - log_tgs[..., None])
