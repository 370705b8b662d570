"""A model of somebody else's, traced: what is counted of it, and what is said where it cannot be."""

import importlib
import sys
import textwrap

import pytest
import torch

from trainpace.cases import Case, Workload
from trainpace.cases.scaling import full_workload
from trainpace.cost.counter import CannotTrace
from trainpace.cost.own_model import Function, own_model
from trainpace.cost.own_trace import _blocks, count_own
from trainpace.runs.cost import PRODUCTS

RANKS, TOKENS, HIDDEN, LAYERS, VOCABULARY = 4, 2 * 128, 64, 3, 512
CASE = Case.of("theirs", tokens=128, gpus=RANKS, micro_batch=2)
MODEL = """
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(512, 64)
        self.blocks = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(3))
        self.head = nn.Linear(64, 512, bias=False)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        for block in self.blocks:
            heads = block(hidden).view(2, 128, 4, 16).transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
            hidden = hidden + mixed.transpose(1, 2).flatten(2)
        return self.head(hidden)

def build(workload):
    return Model()

def without_bytes(workload):
    with torch.device("meta"):
        return Model()

def sharded(workload):
    model = Model()
    for module in (*model.blocks, model):
        fully_shard(module, mp_policy=torch.distributed.fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16,
                                                                                    reduce_dtype=torch.float32))
    return model

def batch(workload):
    assert workload.shape is None
    return {"tokens": torch.zeros(workload.micro_batch, workload.sequence, dtype=torch.int64)}

def loss(model, batch):
    return nn.functional.cross_entropy(model(**batch).flatten(0, 1).float(), batch["tokens"].flatten())

def looks(model, batch):
    assert loss(model, batch).item() > 0

def multiplies(model, batch):
    found = model(**batch)
    return torch.dot(found[0, 0], found[0, 1])

def no_module(workload):
    return 3

def in_bf16(workload):
    model = Model()
    model.head.weight = model.embedding.weight
    return model.to(torch.bfloat16)

def nothing_trained(workload):
    return Model().requires_grad_(False)

def half(workload):
    return {"tokens": torch.zeros(workload.micro_batch, workload.sequence // 2, dtype=torch.int64)}

def without_gradients(model, batch):
    return model(**batch).argmax(-1).sum()
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Their module, imported as the session would."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "their_model.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        their_model = importlib.import_module("their_model")

        yield their_model
        del sys.modules["their_model"]


@pytest.fixture
def counted(theirs):
    """The cost of their model."""

    def count(build="build", loss="loss", batch="batch", **changes):
        functions = (getattr(theirs, each) for each in (build, batch, loss or "build"))
        own = own_model(*functions, folder=".", root=".")
        if loss is None:
            own = own.model_copy(update={"loss": None})
        workload = full_workload(CASE, trainer=own.name)
        return count_own(Workload.model_validate(workload.model_dump() | changes), own)

    return count


def test_counts_are_those_of_the_step(counted):
    """Products three times their forward, causal attention as half and 3.5 times; shards are gathered and reduced."""
    cost = counted()
    counters = cost.counters
    weights = HIDDEN * (LAYERS * HIDDEN + VOCABULARY)
    blocks, rest = LAYERS * HIDDEN**2, 2 * HIDDEN * VOCABULARY

    assert counters["step.flops.matmul"] == 3 * 2 * TOKENS * weights
    assert counters["step.flops.attention_forward"] == LAYERS * 4 * (128 // 2) * HIDDEN * TOKENS
    assert counters["step.flops.attention_backward"] == 2.5 * counters["step.flops.attention_forward"]
    # The blocks once more in the backward; the rest stays until it.
    assert counters["fsdp2.step.all_gather.calls"] == 2 * LAYERS + 1
    assert counters["fsdp2.step.all_gather.bytes"] == 2 * (2 * blocks + rest) * (RANKS - 1) // RANKS
    assert counters["fsdp2.step.reduce_scatter.bytes"] == 4 * (blocks + rest) * (RANKS - 1) // RANKS
    assert counters["fsdp2.memory.parameters"] == 4 * (blocks + rest) // RANKS
    assert counters["fsdp2.memory.optimizer"] >= 8 * (blocks + rest) // RANKS
    assert not [name for name in counters if name.startswith("deepspeed.")]
    assert (cost.unknown, cost.workload.trainer) == ({}, "their_model:build")
    assert cost.flops == sum(counters[f"step.flops.{group}"] for group in PRODUCTS)


def test_how_it_is_built_changes_no_count(counted):
    """On the meta device, or sharded by its own hand as it would be by ours; nothing of a fake group is left."""
    assert counted("without_bytes").counters == counted("sharded").counters == counted().counters
    assert not torch.distributed.is_initialized()


def test_a_model_in_another_dtype_is_counted(counted):
    """Converted as a module is, its embedding still its head: two bytes a parameter, once."""
    counters = counted("in_bf16").counters

    assert counters["fsdp2.memory.parameters"] == 2 * HIDDEN * (LAYERS * HIDDEN + VOCABULARY) // RANKS
    assert counters["step.flops.matmul"] == counted().counters["step.flops.matmul"]


def test_members_of_lists_are_sharded():
    """A list has no forward, which FSDP2 refuses: its members'. Tables in a dictionary beside it stay with the rest."""
    inner, first, second = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Tanh()])), torch.nn.ReLU(), torch.nn.ReLU()
    nested = torch.nn.ModuleDict({"a": torch.nn.ModuleList([first, second])})
    lists = torch.nn.ModuleDict({"wte": torch.nn.Embedding(2, 2), "h": torch.nn.ModuleList([inner, nested])})

    assert list(_blocks(torch.nn.Sequential(lists, torch.nn.Linear(2, 2)))) == [inner, first, second]


def test_an_operator_that_may_multiply_is_unknown(counted):
    """It is named, and what only moves or adds is not."""
    assert counted(loss="multiplies").unknown == {"aten.dot": 1}


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (
            {"loss": "looks"},
            r"aten\._local_scalar_dense.* stopped the trace.*, called in .*their_model.py line",
        ),
        ({"loss": None}, r"expected a loss of one number, got one of \[2, 128, 512\]: give judge_cost `loss=`"),
        ({"build": "no_module"}, r"build must return a torch.nn.Module, got int"),
        ({"build": "nothing_trained"}, r"build must return a module that is trained"),
        ({"batch": "half"}, r"batch must return the case's 256 tokens .*, got 128 by the shapes of its integers"),
        ({"loss": "without_gradients"}, r"expected a loss with gradients, got one of torch.int64 without"),
    ],
)
def test_what_cannot_be_traced_says_where(counted, functions, message):
    """The operator and the line of theirs, or what was expected of which function."""
    with pytest.raises(CannotTrace, match=message):
        counted(**functions)

    assert not torch.distributed.is_initialized()


def test_a_function_is_found_again(theirs, tmp_path, monkeypatch):
    """In another process: by its module, and that of a test's file by the file."""
    test = tmp_path / "test_of_theirs.py"
    test.write_text(textwrap.dedent("def build(workload): return workload"))
    of_test = Function(module="test_of_theirs", name="build", file=str(test))
    of_module, of_name = Function.of("build", theirs.build), Function.of("build", "their_model:build")
    monkeypatch.delitem(sys.modules, "their_model")

    assert of_module == of_name
    assert of_module.load().__module__ == "their_model"
    assert of_test.load()("it") == "it"
    del sys.modules["test_of_theirs"]


@pytest.mark.parametrize(
    "given", [lambda workload: None, None, Workload.model_dump, "no_such:build", "no.such:build", "their_model"]
)
def test_what_no_other_process_finds_is_refused(theirs, given):
    """A lambda, a method, nothing at all, a name of nothing."""
    with pytest.raises(ValueError, match=r"build must be a function( or a class at the top|, or package.module:name)"):
        own_model(given, theirs.batch, None, folder=".", root=".")
