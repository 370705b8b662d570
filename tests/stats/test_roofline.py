"""Floors and predicted seconds: what binds a step, and what parts it is made of."""

import pytest

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import flops_per_token
from trainpace.stats.roofline import Parameters, parts_of, predicted, times
from trainpace.store.table_counts import load_counts

A100 = DATASHEETS["a100-sxm4-80gb"]
COUNTS = load_counts("xtuner")
WORKLOADS = {case.id: full_workload(case) for case in PUBLISHED}
PERFECT = Parameters(matmul=1.0, attention=1.0, memory=1.0, network=1.0, exposed=0.0)


def of(case, **options):
    """The times of a published row on its device."""
    workload = WORKLOADS[case]
    return times(COUNTS[workload.key], workload, A100, **options)


def test_the_floor_of_a_row_held_by_compute():
    """All FLOPs at the peak, and the optimizer after them."""
    workload = WORKLOADS["llama2_7b-256k-sp8"]
    seconds = flops_per_token(workload.shape, workload.sequence, "exact") * workload.rank_tokens / 312e12

    parts = of("llama2_7b-256k-sp8")

    assert parts.binds == "compute"
    assert parts.floor == pytest.approx(seconds + parts.optimizer)
    assert 0 < parts.optimizer < 0.01 * seconds


def test_traffic_between_nodes():
    """One node has none; within a node no sequence is exchanged beyond it; sp 64 sends most of it beyond."""
    one, near, far = (of(row) for row in ("llama2_7b-128k-sp8", "llama2_70b-128k-sp8", "llama2_70b-1m-sp64"))

    assert (one.parameters, one.exchange) == (0, 0)
    assert near.parameters > 0
    assert near.exchange == 0
    assert far.exchange * A100.node_bytes_per_second == pytest.approx(
        COUNTS[WORKLOADS["llama2_70b-1m-sp64"].key]["step.all_to_all.bytes"] * 56 / 63
    )


def test_a_stack_that_repeats_keys_and_values_exchanges_more():
    """Llama2-70B has 64 heads and 8 shared ones: of sp 16 each side is counted as 2 * 64 + 2 * 16, and sends 4 * 64."""
    counted, repeated = (of("llama2_70b-256k-sp16", repeats_kv=repeats) for repeats in (False, True))

    assert repeated.exchange / counted.exchange == pytest.approx(4 * 64 / (2 * 64 + 2 * 16))
    assert of("llama2_7b-128k-sp8", repeats_kv=True) == of("llama2_7b-128k-sp8")


def test_a_network_that_is_not_known_is_asked_for():
    """Only where the step needs it."""
    sheet = DATASHEETS["l40s"]
    one, many = WORKLOADS["llama2_7b-8k-sp1"], WORKLOADS["llama2_70b-8k-sp1"]

    assert times(COUNTS[one.key], one, sheet).parameters == 0
    with pytest.raises(ValueError, match="expected the network between nodes"):
        times(COUNTS[many.key], many, sheet)


def test_no_prediction_beats_its_floor():
    """Also where nothing costs more than its datasheet says."""
    assert [case for case in WORKLOADS if predicted(of(case), PERFECT) < of(case).floor] == []


def test_parts_add_up():
    """To the seconds of the step; of the shorter of computation and traffic the exposed share is seen."""
    parameters = Parameters(matmul=0.8, attention=0.6, memory=0.9, network=0.7, exposed=0.25)
    parts = of("llama2_70b-8k-sp1")

    found = parts_of(parts, parameters)

    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.traffic == pytest.approx(0.25 * (parts.parameters / 0.7 + parts.links / 0.7))
