"""What a user's own perf/test_ours.py looks like: a model, two cases, one test."""

import pytest

from trainpace.cases import Case, Model, Shape
from trainpace.plugin import JudgeSpeed

OURS = Model(
    name="ours",
    title="Ours",
    shape=Shape(hidden=2048, layers=16, intermediate=5632, heads=16, kv_heads=4, vocabulary=32000),
    mini=Shape(hidden=64, layers=2, intermediate=172, heads=8, kv_heads=2, vocabulary=512),
)
CASES = (Case(model=OURS, length="8k", sp=1, gpus=8), Case(model=OURS, length="32k", sp=2, gpus=8))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ours(case: Case, judge_speed: JudgeSpeed) -> None:
    """No slower than its baseline."""
    judge_speed(case)
