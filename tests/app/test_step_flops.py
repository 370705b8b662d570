"""FLOPs of steps that no formula counts: traced once, only where they must be, and absent where they cannot be."""

from contextlib import contextmanager

import pytest

from factories import make_run, make_workload
from trainpace.app import step_flops
from trainpace.app.messages import Messages
from trainpace.app.step_flops import StepsFlops
from trainpace.cost.worker import CountFailed
from trainpace.runs.cost import Cost

NEOX = make_workload().shape.model_copy(update={"architecture": "gpt_neox"})
COUNTERS = {"matmul": 400, "attention_forward": 40, "attention_backward": 100, "loss": 60}


@contextmanager
def hidden(*_):
    """Progress that nobody sees."""
    yield lambda *_: None


@pytest.fixture
def asked(monkeypatch):
    """The workloads of each time that the tracing process was asked; those of `refused` cannot be counted."""
    calls = []

    def counted(workloads, **_):
        calls.append(list(workloads))
        for each in calls[-1]:
            failed = CountFailed("operator aten.odd stopped the trace")
            yield each.case, failed if each.shape.layers == 1 else cost(each)

    monkeypatch.setattr(step_flops, "counted", counted)
    return calls


def cost(workload):
    """Counts of a step whose layers are made again without their last product."""
    counters = {f"step.flops.{group}": value for group, value in COUNTERS.items()}
    products = {"forward": 110, "recompute": 70, "backward": 220}
    fields = {"operators": {}, "unknown": {}, "software": {}, "products": products}
    return Cost(workload=workload, traced_layers=2, counters=counters, **fields)


def steps():
    """Of a session that keeps nothing."""
    return StepsFlops(show=hidden, messages=Messages(), cache=None)


def test_all_steps_are_traced_at_once_and_each_once(asked):
    """Those of both engines and of any number of steps are the same step."""
    found, neox = steps(), make_workload(shape=NEOX)
    other = make_workload("llama2_7b-32k-sp1", shape=NEOX)
    found.expect([neox, other, make_workload()])
    of = [found.of(each) for each in (neox, neox.model_copy(update={"engine": "fsdp2", "steps": 3}), other)]

    assert [len(call) for call in asked] == [2]
    assert {(each.model_products, each.model_attention, each.products, each.attention) for each in of} == {
        (3 * 110 + 60, 3 * 40, 400 + 60, 40 + 100)
    }


@pytest.mark.parametrize("fields", [{}, {"shape": NEOX, "trainer": "ours:fast"}], ids=["formula", "own trainer"])
def test_what_needs_no_trace_or_has_none_is_not_traced(asked, fields):
    """A formula is enough, and what another trainer computes the native trainer's trace does not know."""
    assert steps().of(make_workload(**fields)) is None
    assert asked == []


def test_a_run_keeps_its_counts(asked):
    """One that was measured has them from then on, so that a replay traces nothing."""
    found = steps()
    run = found.added(make_run(workload=make_workload(shape=NEOX)))

    assert run.step_flops == found.of(run.workload)
    assert found.added(run) is run
    assert len(asked) == 1


def test_a_step_that_cannot_be_counted_is_said_and_measured_all_the_same(asked):
    """TFLOPs are a figure beside the speed, and no reason to judge nothing."""
    found = steps()
    run = make_run(workload=make_workload(shape=NEOX.model_copy(update={"layers": 1})))

    assert found.added(run) is run
    assert found.messages.said == [
        "llama2_7b-8k-sp1: its step could not be counted: operator aten.odd stopped the trace"
    ]
