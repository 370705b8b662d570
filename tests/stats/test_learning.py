"""What rows teach: parameters found again, errors of rows that were left out, intervals, few rows of another device."""

import math
import random
from dataclasses import replace
from statistics import fmean, median

import pytest

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.cost.predict import learnt
from trainpace.runs.datasheets import DATASHEETS
from trainpace.stats.learning import (
    USUAL,
    Row,
    _seconds,
    _table,
    _vector,
    beyond,
    distance,
    fit,
    near,
    refit,
    spread_between,
    usual,
    width,
)
from trainpace.stats.roofline import Parameters, parts_of, times
from trainpace.store.table_counts import load_counts

A100 = "a100-sxm4-80gb"
H100 = "h100-sxm5-80gb"
KNOWN = Parameters(matmul=0.6, attention=0.5, memory=0.9, network=0.7, exposed=0.3, networks={"slow": 0.08})


def group_of(table, device):
    """The group of that table's rows without experts."""
    return next(each for each in learnt() if each.name == f"{table} {device}")


def made(parameters, *, spoilt=()):
    """The published rows, as fast as `parameters` make them; those spoilt at 0.7 of that."""
    counts, rows = load_counts("xtuner"), []
    for case in PUBLISHED:
        workload = full_workload(case)
        parts = times(counts[workload.key], workload, DATASHEETS[A100])
        tgs = workload.rank_tokens / parts_of(parts, parameters.on("slow")).seconds
        tgs *= 0.7 if case.id in spoilt else 1
        rows.append(Row(case=case.id, model=case.model.name, workload=workload, parts=parts, tgs=tgs, cluster="slow"))
    return rows


def test_the_fit_finds_what_made_the_rows():
    """One of them spoilt: products, attention and the network come out, and the spoilt row is seen."""
    spoilt = "llama2_70b-128k-sp8"
    rows = made(KNOWN, spoilt={spoilt})

    found = fit(rows)

    assert found.matmul == pytest.approx(KNOWN.matmul, rel=0.06)
    assert found.attention == pytest.approx(KNOWN.attention, rel=0.06)
    assert found.networks["slow"] == pytest.approx(KNOWN.networks["slow"], rel=0.1)
    off = {row.case: row.predicted(found) / row.tgs - 1 for row in rows}
    assert off.pop(spoilt) > 0.3
    assert max(map(abs, off.values())) < 0.05


def test_without_rows_it_is_the_prior():
    """Of a network too: a cluster that no row used has the usual share."""
    assert fit([]) == USUAL.centre
    assert fit(made(KNOWN)[:2]).networks == {}


def test_many_rows_are_predicted_as_one_is():
    """The fit's arithmetic is roofline's."""
    rows = made(KNOWN)
    found = _seconds(_table(rows, ["slow"]), _vector(replace(KNOWN, network=0.08), ["slow"]))

    assert found.tolist() == pytest.approx([parts_of(row.parts, KNOWN.on("slow")).seconds for row in rows])


@pytest.mark.parametrize(
    ("table", "limit", "devices"),
    [("llm-foundry", 0.04, {A100, "a100-sxm4-40gb", H100}), ("xtuner", 0.07, {A100}), ("torchtitan", 0.04, {A100})],
)
def test_left_out_models_are_predicted(table, limit, devices):
    """Without the rows of its model, every dense bf16 row of a table; 70 to 90 % lie in their intervals."""
    groups = [each for each in learnt() if each.table == table and each.is_own]
    errors = [abs(error) for group in groups for error in group.errors.values()]
    within = [held for group in groups for held in group.within.values()]

    assert {group.device for group in groups} == devices
    assert fmean(errors) <= limit
    assert 0.7 <= fmean(within) <= 0.9


@pytest.mark.parametrize(("device", "other"), [(H100, A100), (A100, "a100-sxm4-40gb"), ("a100-sxm4-40gb", A100)])
def test_a_device_is_learnt_from_three_rows(device, other):
    """Products and attention alone, the rest as another device's: 25 draws, all other rows."""
    rows, nearest = group_of("llm-foundry", device).rows, group_of("llm-foundry", other).parameters
    spread = spread_between(DATASHEETS[device], DATASHEETS[other])
    draw, errors = random.Random(1), []  # noqa: S311 - a sample, no secret
    for _ in range(25):
        few = draw.sample(list(rows), 3)
        found = refit(few, nearest, spread)
        errors += [abs(row.predicted(found) / row.tgs - 1) for row in rows if row not in few]

    assert fmean(errors) <= 0.07
    assert median(errors) <= 0.035


def test_a_network_is_never_another_clusters():
    """What a group teaches another says nothing of networks."""
    assert near(KNOWN, 0.1).centre.networks == {}
    assert near(KNOWN, 0.1).centre.network == USUAL.centre.network


def test_a_named_kernel_is_where_attention_is_sought():
    """By its authors' own measurement, on the device that it was made on."""
    assert usual("flash-attention 2", A100).centre.attention > USUAL.centre.attention
    assert usual("flash-attention 2", "l40s") == usual("", A100) == USUAL


def test_nearness_of_devices():
    """The same card with less memory is nearest."""
    a100, small, h100 = (DATASHEETS[slug] for slug in (A100, "a100-sxm4-40gb", H100))

    assert distance(a100, small) < distance(a100, h100)
    assert spread_between(a100, small) < 0.1 < spread_between(a100, h100)


@pytest.mark.parametrize(("errors", "expected"), [([0.1], 0.1), ([0.01] * 8 + [0.5, 0.6], 0.5), ([], math.inf)])
def test_width_of_an_interval(errors, expected):
    """The smallest that holds eight of ten, and one more."""
    assert width(errors) == expected


def test_an_extrapolation_says_in_what():
    """Numbers outside of the rows', and kinds that no row has."""
    group = group_of("llm-foundry", A100)
    case = next(case for case in PUBLISHED if case.id == "llama2_70b-1m-sp64")

    found = beyond(full_workload(case), group.rows)

    assert found == (
        "sequence 1048576 (rows: 512 to 65536)",
        "sp 64 (rows: 1 to 1)",
        "MLP gated (rows: ungated)",
    )
