"""The workload record: what it refuses, and what names its baseline."""

import json
from pathlib import Path

import pytest

from trainpace.cases import PUBLISHED, Shape, Workload
from trainpace.cases.machine import Device, Machine
from trainpace.cases.scaling import full_workload, resolve

CPU = Device(slug="cpu-amd-epyc-2c", name="AMD EPYC", kind="cpu", count=2, memory_bytes=1 << 34)
WORKLOAD = resolve(PUBLISHED[0], Machine(gpus=None, cpu=CPU, free_bytes=1 << 33)).workload


def test_survives_a_file():
    """Written as JSON and read again it is the same workload with the same hash."""
    again = Workload.model_validate_json(WORKLOAD.model_dump_json())

    assert (WORKLOAD, WORKLOAD.hash) == (again, again.hash)


def test_key_names_case_scale_and_trainer():
    """The key of a baseline can be read."""
    assert f"llama2_7b-8k-sp1/mini/native/{WORKLOAD.hash}" == WORKLOAD.key


def test_a_described_system_is_named_by_its_file_and_content():
    """Wherever it lies it has the same baseline; with another content it has another."""
    here = WORKLOAD.model_copy(update={"trainer": "/a/ours.toml", "description": "0123abcd"})
    there, changed = here.model_copy(update={"trainer": "/b/c/ours.toml"}), here.model_copy(update={"description": "4"})

    assert here.key == there.key == f"llama2_7b-8k-sp1/mini/ours.toml/{here.hash}"
    assert here.hash != changed.hash


@pytest.mark.parametrize("field", ["warmup", "steps", "sequence"])
def test_hash_covers_every_number(field):
    """A workload that differs in one number has another hash."""
    assert WORKLOAD.hash != WORKLOAD.model_copy(update={field: 64}).hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sp": 3}, "ranks must be a multiple of sp, got ranks=2, sp=3"),
        ({"sp": 2, "sequence": 127}, "sequence must be a multiple of sp, got sequence=127, sp=2"),
        ({"sp": 16, "ranks": 16}, "heads must be a multiple of sp, got heads=8, sp=16"),
        ({"steps": 0}, "steps"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_impossible_workload_is_refused(changes, message):
    """A workload that cannot run is refused with the field and the value."""
    with pytest.raises(ValueError, match=message):
        Workload.model_validate(WORKLOAD.model_dump() | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "hidden must be a multiple of heads, got hidden=64, heads=3"),
        ({"kv_heads": 3}, "heads must be a multiple of kv_heads, got heads=8, kv_heads=3"),
    ],
)
def test_impossible_shape_is_refused(changes, message):
    """A shape whose heads do not divide is refused with both numbers."""
    with pytest.raises(ValueError, match=message):
        Shape.model_validate(WORKLOAD.shape.model_dump() | changes)


def test_tied_embeddings_are_said_in_one_place():
    """As a config of the hub says it, or as a shape: it is the same shape, and two answers are refused."""
    said = WORKLOAD.shape.model_dump(exclude={"tied"}) | {"config": {"tie_word_embeddings": True, "qk_norm": True}}
    shape = Shape.model_validate(said)

    assert (shape.tied, shape.config) == (True, {"qk_norm": True})
    with pytest.raises(ValueError, match="tied must be as config's tie_word_embeddings, got False and True"):
        Shape.model_validate(said | {"tied": False})


def test_without_a_shape():
    """A workload whose model is its trainer's own survives a file too, and has a hash; asked for a shape it says so."""
    own = WORKLOAD.model_copy(update={"shape": None})
    again = Workload.model_validate_json(own.model_dump_json())

    assert (own, own.hash) == (again, again.hash)
    assert own.hash != WORKLOAD.hash
    with pytest.raises(ValueError, match="llama2_7b-8k-sp1: expected the shape of its model"):
        _ = own.decoder


def test_fields_that_were_added_do_not_change_a_stored_hash():
    """The counted costs that are stored have the keys that their cases have now."""
    stored = json.loads((Path(__file__).parents[2] / "baselines" / "cost.json").read_text())["costs"]

    assert {full_workload(case).key for case in PUBLISHED} == set(stored)


@pytest.mark.parametrize("field", [{"micro_batch": 2}, {"recompute": "none"}, {"sharding": "zero2"}, {"tags": ("a",)}])
def test_a_field_that_was_added_counts_where_it_is_set(field):
    """Another value than the default is another workload."""
    assert WORKLOAD.model_copy(update=field).hash != WORKLOAD.hash
    assert WORKLOAD.model_copy(update=field).beyond_published == [f"{name}={value}" for name, value in field.items()]
