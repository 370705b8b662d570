"""Whether head computes what the base computes, by the losses of all steps: a wrong step is fast for free.

The first losses of two runs on the same tokens agree to rounding (judge/validity.py). Later ones do not: the order of
sums in bf16 differs from run to run, and training makes small differences grow, at first exponentially. How far is seen
on the base's own runs, which compute the same; with one of them it is assumed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainpace.judge.validity import LOSS_TOLERANCE, NUM_LOSSES
from trainpace.runs.run import Run
from trainpace.text import percent

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

SCALE_SHARE = 0.1
"""Differences are relative to the loss, and where that has fallen below this share of the first loss, to that share."""
SPREAD_FACTOR = 4.0
"""Head may lie so many times further from the base's nearest run than the base's runs lie apart."""
LOOK_AHEAD = 1.5
"""Runs begin to differ sooner or later: at step k the base's own differences up to step 1.5 k count."""
ASSUMED_GROWTH, ASSUMED_MOST = 1.25, 0.2
"""With a single run of the base: LOSS_TOLERANCE grows by a quarter a step, up to a fifth. A small decoder that learns
four batches by heart, in bf16 at a high learning rate, differed by 0.9 % at step 20 and by 14 % at step 40, and one
that sees new tokens by 0.7 % over 500 steps."""
ASSUMED_MEAN = 0.1
"""Of the mean of the last quarter, with a single run of the base."""
MEAN_FACTOR = 3.0
"""The mean of the last quarter may differ by so many times the root mean square of the base's own differences there."""


def later_losses_fault(base: Sequence[Run], head: Sequence[Run]) -> str | None:
    """Why the runs of head did not train what the base's did, by what follows the first losses; None where they did.

    Args:
        base: runs of the base, at least one; what they differ by themselves is allowed to head too.
        head: runs of head, each compared with the nearest run of the base.
    """
    import numpy as np

    if any(samples.losses is None for run in (*base, *head) for samples in run.ranks):
        return None
    steps = min(len(samples.losses or ()) for run in (*base, *head) for samples in run.ranks)
    ours, theirs = _losses(base, steps), _losses(head, steps)
    if steps <= NUM_LOSSES:
        return None
    scale = np.maximum(np.abs(ours).mean(axis=0), SCALE_SHARE * np.abs(ours[:, 0]).mean())
    own = _own_differences(ours / scale)
    allowed = _allowed(own, steps)
    apart = np.abs(theirs[:, None] - ours[None]).min(axis=1) / scale
    beyond = np.argwhere(apart.T[NUM_LOSSES:] > allowed[NUM_LOSSES:, None])
    if len(beyond):
        step, run = int(beyond[0][0]) + NUM_LOSSES, int(beyond[0][1])
        expected = float(ours[np.abs(ours[:, step] - theirs[run, step]).argmin(), step])
        return _said(expected, float(theirs[run, step]), f"at step {step}", float(allowed[step]))
    last = slice(steps - max(1, steps // 4), steps)
    margin = ASSUMED_MEAN
    if own is not None:
        margin = max(LOSS_TOLERANCE, MEAN_FACTOR * float(np.sqrt((own[last] ** 2).mean())))
    means, wanted = theirs[:, last].mean(axis=1), ours[:, last].mean(axis=1)
    differences = np.abs(means[:, None] - wanted[None]).min(axis=1) / float(scale[last].mean())
    worst = int(differences.argmax())
    if differences[worst] <= margin:
        return None
    nearest = float(wanted[np.abs(wanted - means[worst]).argmin()])
    return _said(nearest, float(means[worst]), f"as the mean from step {last.start} on", margin)


def _losses(runs: Sequence[Run], steps: int) -> "NDArray[float64]":
    """Mean over the ranks: shape (runs, steps)."""
    import numpy as np

    return np.array([np.mean([(samples.losses or [])[:steps] for samples in run.ranks], axis=0) for run in runs])


def _own_differences(losses: "NDArray[float64]") -> "NDArray[float64] | None":
    """The largest difference between two runs, by step; None for a single run."""
    if len(losses) < 2:
        return None
    found: NDArray[float64] = losses.max(axis=0) - losses.min(axis=0)
    return found


def _allowed(own: "NDArray[float64] | None", steps: int) -> "NDArray[float64]":
    """Largest relative difference by step."""
    import numpy as np

    step = np.arange(steps)
    if own is None:
        growth = np.minimum(step - NUM_LOSSES, 100.0)  # far above what is allowed at most, and no overflow
        return np.asarray(np.minimum(LOSS_TOLERANCE * ASSUMED_GROWTH**growth, ASSUMED_MOST))
    ahead = np.minimum((LOOK_AHEAD * step).astype(int), steps - 1)
    return np.asarray(np.maximum(LOSS_TOLERANCE, SPREAD_FACTOR * np.maximum.accumulate(own)[ahead]))


def _said(expected: float, got: float, where: str, allowed: float) -> str:
    return f"expected the base's loss {expected:.5g} {where}, got {got:.5g} (tolerance {percent(allowed)})"
