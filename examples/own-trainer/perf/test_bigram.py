"""What this repository promises of its own speed."""

import pytest

from trainpace.cases import Case, Model, Shape

SHAPE = Shape(hidden=64, layers=1, intermediate=64, heads=8, kv_heads=8, vocabulary=1024)
BIGRAM = Model(name="bigram", title="Bigram", shape=SHAPE, mini=SHAPE)
CASES = [Case(model=BIGRAM, length=length, sp=1, gpus=2) for length in ("32k", "128k")]


@pytest.mark.perf_trainer("bigram.training:Trainer")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bigram(case, judge_speed):
    """No slower than its baseline."""
    judge_speed(case)
