"""Floors and predictions: what binds a step, parameters found again."""

import pytest

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import flops_per_token
from trainpace.stats.roofline import Parameters, Row, fit, left_out, predicted, predictions, times
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs

A100 = DATASHEETS["a100-sxm4-80gb"]
STORED = load_costs(published_folder())
COSTS = {case.id: STORED[full_workload(case).key] for case in PUBLISHED}


def test_the_floor_of_a_row_held_by_compute():
    """All FLOPs at the peak, and the optimizer after them."""
    cost = COSTS["llama2_7b-256k-sp8"]
    workload = cost.workload
    seconds = flops_per_token(workload.shape, workload.sequence, "exact") * workload.rank_tokens / 312e12

    parts = times(cost, A100)

    assert parts.binds == "compute"
    assert parts.floor == pytest.approx(seconds + parts.optimizer)
    assert 0 < parts.optimizer < 0.01 * seconds


def test_traffic_between_nodes():
    """One node has none; within a node no sequence is exchanged beyond it; sp 64 sends most of it beyond."""
    one, near, far = (
        times(COSTS[row], A100) for row in ("llama2_7b-128k-sp8", "llama2_70b-128k-sp8", "llama2_70b-1m-sp64")
    )

    assert (one.parameters, one.exchange) == (0, 0)
    assert near.parameters > 0
    assert near.exchange == 0
    assert far.exchange * A100.node_bytes_per_second == pytest.approx(
        COSTS["llama2_70b-1m-sp64"].counters["step.all_to_all.bytes"] * 56 / 63
    )


def test_the_fit_finds_what_made_the_rows():
    """Rows made with known parameters, one of them spoilt: the fit gives them back."""
    known = Parameters(matmul=0.5, attention=0.7, network=0.08)
    rows = []
    for case, cost in COSTS.items():
        parts, tokens = times(cost, A100), cost.workload.rank_tokens
        spoilt = 0.7 if case == "llama2_70b-128k-sp8" else 1.0
        rows.append(Row(case=case, parts=parts, tokens=tokens, tgs=spoilt * tokens / predicted(parts, known)))

    found = fit(rows)

    assert found.matmul == pytest.approx(known.matmul, rel=1e-3)
    assert found.attention == pytest.approx(known.attention, rel=1e-3)
    assert found.network == pytest.approx(known.network, rel=1e-3)
    assert left_out(rows)["llama2_70b-128k-sp8"] * 0.7 == pytest.approx(
        next(row.tgs for row in rows if row.case == "llama2_70b-128k-sp8"), rel=1e-3
    )


def test_no_prediction_beats_its_floor():
    """Also with a network that costs nothing and shares of one."""
    perfect = Parameters(matmul=1.0, attention=1.0, network=1.0)

    assert [each for each in predictions(COSTS.values(), A100, perfect) if each.tgs > each.floor_tgs] == []
