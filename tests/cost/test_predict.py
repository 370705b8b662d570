"""Predictions of published cases and rows: whose rows they are learnt from, and what is not predicted."""

import pytest

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.cost.predict import (
    choose,
    counted_as,
    device_named,
    devices,
    forecasts,
    learnt,
    predict_rows,
    predicted_on,
    predicted_published,
)
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs
from trainpace.store.table_counts import load_counts
from trainpace.store.tables import load_table, table_names

A100, H100 = "a100-sxm4-80gb", "h100-sxm5-80gb"
WORKLOAD = full_workload(PUBLISHED[0])


@pytest.mark.parametrize("device", devices())
def test_one_device_is_predicted_alike(device):
    """With the reasons or without them."""
    expected = {each.workload.case: each.prediction.tgs for each in forecasts(device)}

    assert list(expected) == [case.id for case in PUBLISHED]
    assert predicted_on(device) == expected


def test_every_published_row_is_left_out_once():
    """The published table shows what the other models' rows say of it."""
    assert set(predicted_published()) == {case.id for case in PUBLISHED}


def test_every_executable_row_is_counted():
    """A compiled one by what its layers do as eager."""
    rows = [(name, row) for name in table_names() for row in load_table(name).rows]
    counts = {name: load_counts(name) for name in table_names()}
    missing = [
        (name, row.id)
        for name, row in rows
        if (workload := counted_as(row)) is not None and workload.key not in counts[name]
    ]

    assert missing == []


def test_counts_of_the_default_table_are_the_stored_costs():
    """Two files hold them; they cannot come apart."""
    stored, counts = load_costs(published_folder()), load_counts("xtuner")

    assert {key: cost.counters for key, cost in stored.items()} == {key: counts[key] for key in stored}


def test_rows_of_the_device_are_learnt_from():
    """Those of the stack with the most similar row; a table can be asked for."""
    assert choose(WORKLOAD, A100).group.name == f"xtuner {A100}"
    assert choose(WORKLOAD, A100, table="torchtitan").group.name == f"torchtitan {A100}"
    assert choose(WORKLOAD, H100).group.name == f"llm-foundry {H100}"
    with pytest.raises(ValueError, match="table must be one of llm-foundry, torchtitan, xtuner"):
        choose(WORKLOAD, A100, table="abacus")


def test_a_device_without_rows_is_an_extrapolation():
    """From the device most like it, with an interval as wide as such predictions were off."""
    chosen = choose(WORKLOAD, "b200")

    assert chosen.beyond[0] == f"device b200 (rows: {H100})"
    assert chosen.width > 3 * chosen.group.width


def test_the_network_is_the_makers_or_what_is_given():
    """Never the slow one that the published rows suggest of their cluster."""
    slow = {each.workload.case: each.prediction for each in forecasts(A100, network=1.14e9)}
    assumed = {each.workload.case: each.prediction for each in forecasts(A100)}

    assert slow["llama2_70b-8k-sp1"].tgs < 0.7 * assumed["llama2_70b-8k-sp1"].tgs
    assert slow["llama2_70b-8k-sp1"].binds == "traffic"
    assert slow["llama2_7b-8k-sp1"].tgs == assumed["llama2_7b-8k-sp1"].tgs


@pytest.mark.parametrize(("name", "slug"), [("h100-sxm", H100), ("h200", "h200-sxm5-141gb"), (A100, A100)])
def test_the_beginning_of_a_device(name, slug):
    """Where only one begins so; a cluster's own kind of card is asked for by its whole name."""
    assert device_named(name) == slug


@pytest.mark.parametrize("name", ["a100", "abacus", ""])
def test_a_name_of_none_or_several(name):
    """The message says what is possible."""
    with pytest.raises(ValueError, match="device must be one of a100-sxm4-40gb, "):
        device_named(name)


def test_what_is_said_of_every_row():
    """A figure with its interval, a lower bound, or why there is none."""
    found = []
    for name in table_names():
        said = predict_rows(name)
        found += [(row, said[row.line]) for row in load_table(name).rows]
    compiled = [said for row, said in found if row.executable and row.case.compile]

    assert all((said.tgs is None) == bool(said.why_not) for _, said in found)
    assert {(said.bound, said.why_not) for said in compiled} == {
        (True, ""),
        (False, "no row of its table on b200 teaches anything"),
    }
    assert {said.why_not for row, said in found if "tp=8" in row.lacks and "fp8" not in row.lacks} == {
        "not counted: tp=8",
        "not counted: tp=8, async TP",
    }


def test_a_compiled_row_is_as_fast_as_its_bound():
    """Predicted from what its layers do one by one, it is slower than it was measured."""
    found = predict_rows("torchtitan")
    rows = {row.line: row for row in load_table("torchtitan").rows if found[row.line].bound}

    assert len(rows) == 2
    assert [row.id for line, row in rows.items() if row.tgs and found[line].tgs > row.tgs] == []


def test_experts_are_learnt_apart():
    """Their products reach another share, which no dense row tells."""
    assert [each.models for each in learnt() if each.name.endswith("experts")] == [["mixtral_8x7b"]]
