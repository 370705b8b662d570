"""What one step of each published row must do, counted at full size without a GPU, against the stored counts.

pytest perf -k "test_cost and llama2_7b"    # FLOPs, collectives, operators and peak memory of the five Llama2-7B rows
pytest perf -k test_cost --perf-refresh     # store the counts of all rows
"""

import pytest

from trainpace.cases import Case
from trainpace.plugin import JudgeCost


@pytest.mark.perf_table
def test_cost(case: Case, judge_cost: JudgeCost) -> None:
    """No counter of the step is more than the baseline's."""
    judge_cost(case)
