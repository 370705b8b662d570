"""The tolerance of peak memory: fixed for a GPU's allocator, from the runs' own spread for resident memory."""

import math

import pytest

from trainpace.stats.memory import MOST_RESIDENT, RESIDENT, memory_tolerance
from trainpace.stats.tolerance import NO_SPREAD

GIB = 1 << 30


def peaks(*shares):
    """Bytes of runs, as shares of a GiB."""
    return [int(share * GIB) for share in shares]


def test_allocated_memory_has_a_tolerance_of_its_own():
    """1 %, whatever the runs were: the allocator counts, it does not measure."""
    assert memory_tolerance([peaks(1.0, 1.2)], allocated=True, error=1e-3) == 0.01


def test_resident_memory_is_judged_by_what_its_runs_spread():
    """t s sqrt(2) on the log scale: three groups of four that spread 1.05 % allow 6.6 % at 0.1 %."""
    steady, spread = [peaks(1.0, 1.001, 1.0, 0.999)] * 3, [peaks(*[math.exp(0.00913 * x) for x in (-1, 1, -1, 1)])] * 3

    assert memory_tolerance(steady, allocated=False, error=1e-3) == RESIDENT
    assert pytest.approx(0.066, abs=0.001) == memory_tolerance(spread, allocated=False, error=1e-3)


def test_few_runs_that_differ_do_not_allow_everything():
    """Two runs know little of their spread: the tolerance ends at MOST_RESIDENT."""
    assert memory_tolerance([peaks(1.0, 1.3)], allocated=False, error=1e-3) == MOST_RESIDENT


def test_single_run_has_no_spread():
    """Then resident memory gets what speed gets without a spread."""
    assert memory_tolerance([peaks(1.0)], allocated=False, error=1e-3) == NO_SPREAD


def test_levels_of_two_sides_are_no_noise():
    """Groups differ by what was changed, and not by chance."""
    assert memory_tolerance([peaks(1.0, 1.0), peaks(2.0, 2.0)], allocated=False, error=1e-3) == RESIDENT
