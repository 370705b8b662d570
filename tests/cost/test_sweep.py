"""All settings of one model: traced at two micro-batches, extended to the others."""

import pytest

from trainpace.cases.models import Model
from trainpace.cases.published import Case
from trainpace.cases.scaling import full_workload
from trainpace.cases.workload import Shape
from trainpace.cost.sweep import Sweep, between
from trainpace.runs.cost import CATEGORIES, Cost

SMALL = Model(
    name="small",
    title="Small",
    shape=Shape(hidden=1024, layers=4, intermediate=2816, heads=16, kv_heads=8, vocabulary=32000),
)
CASE = Case(model=SMALL, length="4k", sp=1, gpus=8)


def cost(micro_batch, **counters):
    """Counts of a micro-batch."""
    workload = full_workload(Case(model=SMALL, length="4k", sp=1, gpus=8, micro_batch=micro_batch))
    return Cost(workload=workload, traced_layers=4, counters=counters, operators={}, unknown={}, software={})


def test_counts_between_two_micro_batches():
    """Affine in the micro-batch: what is of the weights stays, the rest grows."""
    found = between(cost(1, calls=10, bytes=100), cost(9, calls=10, bytes=900), 3)

    assert found == {"bytes": 300, "calls": 10}


def test_settings_of_a_sweep():
    """Six micro-batches, three recomputes, four sp, two shardings; two of each line are traced."""
    sweep = Sweep(case=CASE, engine="fsdp2")

    assert sum(map(len, sweep.lines())) == 6 * 3 * 4 * 2
    assert len({workload.key for workload in sweep.traced()}) == 2 * 3 * 4 * 2


def test_an_sp_that_divides_nothing_is_left_out():
    """Of three heads or six GPUs."""
    narrow = Case(model=SMALL, length="4k", sp=1, gpus=2)

    assert {line[0].sp for line in Sweep(case=narrow, engine="fsdp2").lines()} == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp2", "deepspeed"])
def test_a_setting_is_as_its_own_trace(engine):
    """Every counter of an extended setting; of the peak, which may be another moment's, no less and hardly more."""
    from trainpace.cost.trace import count

    low, own, high = (
        count(full_workload(Case(model=SMALL, length="4k", sp=2, gpus=8, micro_batch=size, recompute="selective_op")))
        for size in (2, 4, 16)
    )
    found = between(low, high, 4)

    parts = {f"{each}.memory.{category}" for each in ("fsdp2", "deepspeed") for category in (*CATEGORIES, "peak")}
    assert {name for name in found if found[name] != own.counters[name]} <= parts
    peak = f"{engine}.memory.peak"
    assert own.counters[peak] <= found[peak] <= 1.05 * own.counters[peak]
