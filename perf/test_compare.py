"""Several trainers on the same case, side by side; no baseline, and nobody fails for being slower.

pytest perf/test_compare.py -k llama2_7b-8k --perf-trainer native --perf-trainer hf --perf-report out
"""

import pytest

from trainpace.cases import Case
from trainpace.plugin import CompareTrainers


@pytest.mark.perf_table
def test_compare(case: Case, compare_trainers: CompareTrainers) -> None:
    """Every system that is present was measured validly."""
    compare_trainers(case)
