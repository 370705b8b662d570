"""The published table: each row trains, is measured, and is judged against its baseline.

pytest perf -k llama2_7b                    # the five Llama2-7B rows, at the scale that fits this machine
pytest perf -k llama2_7b --perf-refresh     # record this device's baselines
"""

import pytest

from trainpace.cases import Case
from trainpace.plugin import JudgeSpeed


@pytest.mark.perf_table
def test_speed(case: Case, judge_speed: JudgeSpeed) -> None:
    """TGS, TFLOPs and peak memory are no worse than the baseline's, within the tolerance."""
    judge_speed(case)
