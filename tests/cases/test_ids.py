"""Cases of one id are told apart, or refused with what differs."""

import dataclasses

import pytest

from trainpace.cases import LLAMA2_7B, YI_34B_200K, Case, Mini
from trainpace.cases.ids import collision, told_apart

CASE = Case(model=LLAMA2_7B, length="32k", sp=2, gpus=8)


def changed(**fields):
    return dataclasses.replace(CASE, **fields)


def test_cases_that_differ_in_gpus_name_them():
    """Of one id all, others none; a case that stands there twice is one."""
    other = changed(length="8k")
    ids = [case.id for case in told_apart([CASE, changed(gpus=2), other, other, changed(tags=("ours",))])]

    assert ids == [
        *("llama2_7b-32k-sp2-g8", "llama2_7b-32k-sp2-g2", "llama2_7b-8k-sp2", "llama2_7b-8k-sp2"),
        "llama2_7b-32k-sp2-ours",
    ]


@pytest.mark.parametrize(
    ("fields", "differs"),
    [
        ({"gpus": 4}, "gpus=8 and 4; the id must tell them apart: write name_gpus=True in both"),
        ({"mini": Mini(sp=1)}, r"mini=.*; the id must tell them apart: give one of them a tag, tags=\(\"small\",\)"),
        (
            {"model": dataclasses.replace(YI_34B_200K, name="llama2_7b")},
            "model.shape.hidden=4096 and 7168, .*: give the models different names",
        ),
        (
            {"model": Case.of("llama2_7b", tokens="32k").model},
            "model.shape=.* and None, .*: give the models different names",
        ),
    ],
)
def test_what_no_id_tells_apart_is_refused(fields, differs):
    """Both places, the id, what differs and what to write."""
    message = f"a and b are two cases with one id, llama2_7b-32k-sp2: {differs}"

    with pytest.raises(AssertionError, match=message):
        raise AssertionError(collision([("a", CASE), ("b", changed(**fields))]))


@pytest.mark.parametrize(
    "fields", [{}, {"accumulation": 2}, {"model": dataclasses.replace(LLAMA2_7B, title="Llama 2")}, {"length": "8k"}]
)
def test_what_is_one_case_is_no_collision(fields):
    """Equal in all that is measured, or of another id."""
    assert collision([("a", CASE), ("b", changed(**fields)), ("c", CASE)]) is None
