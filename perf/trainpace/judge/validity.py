"""Faults: facts that make a measurement invalid, whatever its speed. An invalid run is not a slow one."""

import math
from collections.abc import Sequence

from trainpace.judge.claims import token_faults
from trainpace.runs import metrics
from trainpace.runs.run import DataIdentity, Run
from trainpace.text import percent

NUM_LOSSES = 5
"""Number of losses of a run, from the first, that are stored and compared: later ones differ by rounding alone."""
LOSS_TOLERANCE = 0.005
"""Relative. Runs of one workload on the same tokens differ by the order of sums in bf16, far below this; a wrong mask,
a dropped label or another learning rate differs by more within the first steps."""
YARDSTICK_LIMIT = 0.10
"""Relative. How much longer or shorter the fixed piece of work may take before the CPU's speed counts as changed."""


def first_losses(run: Run) -> list[float]:
    """The first NUM_LOSSES losses of rank 0, warm-up first; fewer where the run has fewer steps, none where a program
    logs none."""
    return (run.ranks[0].losses or [])[:NUM_LOSSES]


def faults(
    run: Run,
    *,
    peak_tflops: float | None = None,
    reference: tuple[DataIdentity | None, Sequence[float]] | None = None,
    convention: str | None = None,
) -> list[str]:
    """Every reason not to trust `run`, each a sentence with what was expected and what came; empty where there is none.

    Args:
        run: as measured.
        peak_tflops: what one device can do in the workload's dtype, from its datasheet; None where it is unknown.
        reference: data identity and first losses of the baseline, or of the runs' first one. Losses are compared only
            where the tokens, the tokenizer and the seed are the same, and both are there.
        convention: in which the reached TFLOPs are counted; None: that of the workload.
    """
    found = [*run.health.faults, *token_faults(run)]
    reached = metrics.tflops(run, convention)
    if peak_tflops is not None and reached is not None and reached > peak_tflops:
        found.append(
            f"expected at most the device's peak of {peak_tflops:g} TFLOPs, got {reached:.1f}: the formula, the clock "
            "or the counted tokens are wrong"
        )
    if reference is not None and run.data is not None and run.data == reference[0]:
        found += _loss_faults(reference[1], first_losses(run))
    return found


def _loss_faults(expected: Sequence[float], got: Sequence[float]) -> list[str]:
    for step, (want, came) in enumerate(zip(expected, got, strict=False)):
        if abs(came - want) > LOSS_TOLERANCE * abs(want):
            return [
                f"expected a loss of {want:.4f} within {percent(LOSS_TOLERANCE)} at step {step} (same data and seed), "
                f"got {came:.4f}: something else is trained"
            ]
    return []


def core_fault(yardstick: float | None, reference: float | None, *, faster_too: bool = False) -> str | None:
    """The fault of a CPU that gives less than it did: a fixed piece of work took longer than `reference`; None without.

    No counter of a guest shows that another guest shares its cores. Measured on a shared host: 1 to 4 % between runs
    that nothing disturbed, 10 to 80 % where steps took 5 to 55 % longer.

    Args:
        yardstick: seconds of the fixed piece of work in this run; None where it was not measured, and on a GPU.
        reference: the same in the run or the baseline to compare with.
        faster_too: whether taking less time is a fault as well: of the two runs of a pair either may be the disturbed
            one. Of a machine that is faster than when a baseline was recorded it is no fault (`core_note`).
    """
    if yardstick is None or reference is None:
        return None
    change = math.log(yardstick / reference)
    if (abs(change) if faster_too else change) <= math.log1p(YARDSTICK_LIMIT):
        return None
    return (
        f"the machine's cores are not what they were: a fixed piece of work took {1e3 * yardstick:.2f} ms, "
        f"{1e3 * reference:.2f} ms before (limit {YARDSTICK_LIMIT:.0%}): somebody else's work shares or shared them"
    )


def core_note(yardstick: float | None, reference: float | None) -> str | None:
    """What to know of a CPU that gives more than when the baseline was recorded; None where it does not.

    Args:
        yardstick: as for `core_fault`.
        reference: the same of the baseline.
    """
    if yardstick is None or reference is None or math.log(reference / yardstick) <= math.log1p(YARDSTICK_LIMIT):
        return None
    return (
        f"the machine's cores are faster than when the baseline was recorded: a fixed piece of work took "
        f"{1e3 * yardstick:.2f} ms, {1e3 * reference:.2f} ms then: what the machine gained may hide what the code lost"
    )
