"""`judge_cost` with a model of the test's own, in a session: recorded, judged, refused."""

import json

import pytest

from trainpace.app import costs
from trainpace.cost.own_trace import count_own

TEST = """
import pytest
import torch
from trainpace.cases import Case

def build(workload):
    return torch.nn.Sequential(torch.nn.Embedding(64, 16), torch.nn.Linear(16, 64))

def batch(workload):
    return torch.zeros(workload.sequence, dtype=torch.int64)

def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch).float(), batch)

@pytest.mark.parametrize("case", [Case.of("theirs", tokens=64, gpus=2)], ids=str)
def test_theirs(case, judge_cost):
    judge_cost(case, build=build, batch=batch, loss=loss)
"""


@pytest.fixture
def theirs(pytester, repository, monkeypatch):
    """Runs the test with the tracing in this process, as the tracing process does it."""

    def counted(workloads, *, own, **_):
        for workload in workloads:
            yield workload.case, count_own(workload, own)

    monkeypatch.setattr(costs, "counted", counted)
    test = repository.path / "perf" / "test_theirs.py"

    def session(*arguments, text=TEST):
        test.write_text(text)
        return repository.inside(pytester, "-k", "test_theirs", "--perf-trainer", "training:Toy", *arguments)

    return session


def test_a_model_of_ones_own_is_judged_as_ours(theirs, repository):
    """A refresh stores its counts beside others; a step that does more is red with the counter, whatever trains."""
    recorded = theirs("--perf-refresh")
    (row,) = json.loads((repository.path / "baselines" / "cost.json").read_text())["costs"].values()
    judged = theirs(text=TEST.replace("model(batch)", "model(batch).relu()"))

    assert (recorded.code, judged.code) == (0, 1)
    assert "1 cost: 1 recorded" in recorded.text
    assert (row["workload"]["trainer"], row["workload"]["shape"]) == ("test_theirs:build", None)
    assert row["counters"]["step.flops.matmul"] == 3 * 2 * 64 * 16 * 64
    assert "1 cost: 1 regression (theirs-64-sp1)" in judged.text
    assert "operators: step aten.relu 0 -> 1 calls, step aten.threshold_backward 0 -> 1 calls" in judged.text
    assert "--perf-trainer training:Toy --perf-refresh" in judged.text


def test_what_another_process_cannot_find_fails_the_test(theirs):
    """With what is expected of a function."""
    done = theirs(text=TEST.replace("build=build", "build=lambda workload: build(workload)"))

    assert done.code == 1
    assert "judge_cost: build must be a function or a class at the top of a module" in done.text
