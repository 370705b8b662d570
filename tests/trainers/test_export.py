"""What other systems are given: the native trainer's weights and tokens, as their own libraries read them."""

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

from factories import make_workload
from trainpace.data import packed
from trainpace.data.base import Data
from trainpace.trainers.export import exported
from trainpace.trainers.native.loss import IGNORED
from trainpace.trainers.native.model import initial, transformers_config

WORKLOAD = make_workload("llama2_7b-8k-sp1").model_copy(update={"warmup": 1, "steps": 3})

pytestmark = pytest.mark.slow  # the libraries that read the export take long to import


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The export, made once, and the cache that it lies in."""
    cache = tmp_path_factory.mktemp("cache")
    return exported(WORKLOAD, Data(), cache), cache


def test_weights_are_the_native_ones(given):
    """A checkpoint loads as a causal model whose first values are those that the native trainer draws."""
    model = AutoModelForCausalLM.from_pretrained(given[0].folder / "model", dtype=torch.bfloat16)
    config = transformers_config(WORKLOAD.shape, WORKLOAD.sequence)

    for theirs, ours in (("model.layers.1.mlp.up_proj.weight", "body.layers.1.mlp.up_proj.weight"),
                         ("lm_head.weight", "head.weight")):  # fmt: skip
        found = dict(model.named_parameters())[theirs]
        assert torch.equal(found, initial(ours, found.shape, config, "cpu").to(torch.bfloat16))
    assert len(AutoTokenizer.from_pretrained(given[0].folder / "model")) == WORKLOAD.shape.vocabulary


def test_tokens_are_the_native_ones(given):
    """Rows, order and labels are those that the native ranks load; only the first label, which nobody uses, is none."""
    export, cache = given
    count = (WORKLOAD.warmup + WORKLOAD.steps) * WORKLOAD.ranks
    own = packed(sources=(), tokenizer="bytes", sequence=WORKLOAD.sequence, count=count, seed=0, cache=cache)

    rows = load_from_disk(str(export.folder / "tokens"))

    assert export.identity == own.identity
    assert np.array_equal(np.array(rows["input_ids"]), own.ids)
    assert np.array_equal(np.array(rows["labels"])[:, 1:], own.labels[:, 1:])
    assert set(np.array(rows["labels"])[:, 0]) == {IGNORED}
    assert (export.folder / "parquet" / "train.parquet").is_file()


def test_it_is_made_once(given):
    """Asked for again, the same folder is found."""
    export, cache = given

    assert exported(WORKLOAD, Data(), cache) == export
