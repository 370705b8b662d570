"""What fits a GPU comes from counts: exact for a counted row, above the count and near it for a cut one."""

import pytest

from trainpace.cases import LLAMA2_7B, PUBLISHED
from trainpace.cases.scaling import full_workload, memory_bytes
from trainpace.cost.estimate import counted_memory
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs
from trainpace.text import GIB

COSTS = load_costs(published_folder())
ROWS = {case.id: full_workload(case) for case in PUBLISHED}


@pytest.fixture
def memory():
    """The estimate from the counts that travel with the package."""
    return counted_memory(COSTS.values())


@pytest.mark.parametrize("row", ROWS)
def test_a_counted_row_has_its_counted_peak(memory, row):
    """No estimate where there is a count."""
    workload = ROWS[row]
    peak = COSTS[workload.key].peak("deepspeed")

    assert memory(workload) == peak


@pytest.mark.parametrize(
    ("row", "layers", "ranks", "sp"),
    [
        pytest.param("llama2_7b-8k-sp1", 20, 2, 1, marks=pytest.mark.slow),
        pytest.param("llama2_7b-128k-sp8", 12, 2, 2, marks=pytest.mark.slow),
        pytest.param("yi_34b_200k-32k-sp2", 16, 4, 2, marks=pytest.mark.slow),
        pytest.param("llama2_70b-1m-sp64", 6, 8, 8, marks=pytest.mark.slow),
        pytest.param("llama2_7b-8k-sp1", 7, 1, 1, marks=pytest.mark.slow),
        pytest.param("yi_34b_200k-8k-sp1", 1, 1, 1, marks=pytest.mark.slow),
        pytest.param("yi_34b_200k-8k-sp1", 6, 8, 1, marks=pytest.mark.slow),
        pytest.param("llama2_70b-8k-sp1", 2, 1, 1, marks=pytest.mark.slow),
    ],
)
def test_a_cut_row_is_near_its_count(memory, row, layers, ranks, sp):
    """Fewer layers, ranks and sp than counted: at least the cut's own count, and no more than 15 % above it."""
    from trainpace.cost.trace import count

    full = ROWS[row]
    shape = full.shape.model_copy(update={"layers": layers})
    cut = full.model_copy(update={"shape": shape, "ranks": ranks, "sp": sp, "accumulation": sp})

    counted = count(cut)

    for engine in ("deepspeed", "fsdp2"):
        estimated = memory(cut.model_copy(update={"engine": engine}))
        assert counted.peak(engine) <= estimated <= 1.15 * counted.peak(engine)


@pytest.mark.slow
def test_the_first_gpu(memory):
    """What an H100 took with 20 layers of Llama2-7B at 8k (docs/log.md) was counted, and the estimate is above it."""
    from trainpace.cost.trace import count

    full = ROWS["llama2_7b-8k-sp1"]
    cut = full.model_copy(update={"shape": full.decoder.model_copy(update={"layers": 20}), "ranks": 1})
    counted = count(cut)

    for engine, took in (("deepspeed", 70.87), ("fsdp2", 66.39)):
        assert counted.peak(engine) / GIB == pytest.approx(took, rel=0.005)
        assert counted.peak(engine) < memory(cut.model_copy(update={"engine": engine})) < 1.03 * counted.peak(engine)


def test_a_model_without_counts_is_estimated(memory):
    """Another shape, and another trainer, have the formula."""
    workload = ROWS["llama2_7b-8k-sp1"]
    other = workload.model_copy(update={"shape": LLAMA2_7B.shape.model_copy(update={"intermediate": 16384})})
    theirs = workload.model_copy(update={"trainer": "ours.training:Trainer", "engine": "own"})

    assert memory(other) == memory_bytes(other)
    assert memory(theirs) == memory_bytes(theirs)
