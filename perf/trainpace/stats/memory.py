"""How much more peak memory than before is a regression.

Memory has none of the noise of speed, so the minimum effect and the tolerance of TGS are not for it. What a GPU's
allocator gave out is the same from run to run but for rounding. What is resident on a CPU depends on what the system
and the C library keep, so the runs' own spread says what nobody can tell from nothing.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

from trainpace.stats.tolerance import NO_SPREAD, pooled_spread, quantile

ALLOCATED = 0.01
"""Tolerance of memory allocated on a GPU, a share. Kernels that are chosen anew, or a batch that is packed otherwise,
move it by tenths of a per cent."""
RESIDENT = 0.03
"""Smallest tolerance of resident memory, a share: two runs can agree by chance."""
MOST_RESIDENT = 0.15
"""Largest tolerance of resident memory, a share. Few runs leave a wide bound, and memory that spreads wider than that
is worth a look."""


def memory_tolerance(peaks: Iterable[Sequence[int]], *, allocated: bool, error: float) -> float:
    """The largest rise of peak memory that is no regression, a share: 0.01 tolerates up to 101 %.

    Allocated on a GPU: ALLOCATED. Resident: the prediction bound of one run beside another, t s sqrt(2), on the log
    scale, between RESIDENT and MOST_RESIDENT. The median of several runs varies less than one of them, so that the
    bound serves for that too.

    Args:
        peaks: bytes of each run, a group for each side or each session: they differ only by noise within one. None
            with two runs: NO_SPREAD, as for speed.
        allocated: whether a GPU's allocator counted them; else they are resident memory, of a CPU or as samples saw it.
        error: chance that unchanged code is above it.
    """
    if allocated:
        return ALLOCATED
    spread = pooled_spread(peaks)
    if spread is None:
        return NO_SPREAD
    bound = math.expm1(min(1.0, quantile(spread, error) * spread.sd * math.sqrt(2)))
    return min(MOST_RESIDENT, max(RESIDENT, bound))


def peak_of(peaks: Sequence[int], *, allocated: bool) -> int:
    """Bytes that runs of one side are compared by: the largest where a GPU's allocator counted, the median of resident
    memory, for one run in a dozen keeps a fifth more than the others (measured on a CPU).
    """
    return max(peaks) if allocated else int(median(peaks))
