"""The trace: extended exactly, equal in every process, and honest about what it cannot count."""

import subprocess
import sys

import pytest
import torch

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, PUBLISHED, Shape, Workload
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS, full_workload
from trainpace.cost.counter import CannotTrace
from trainpace.cost.trace import count, trace
from trainpace.runs import flops
from trainpace.runs.cost import FEWEST_LAYERS
from trainpace.runs.flops import flops_per_token
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs
from trainpace.trainers.native.loss import LossHead

ROWS = {case.id: case for case in PUBLISHED}


def small(model=LLAMA2_7B, layers=2, sp=2, **overrides):
    """A workload that is traced in a second."""
    shape = model.mini.model_copy(update={"layers": layers} | overrides.pop("shape", {}))
    fields = {"sequence": 256, "ranks": 4, "sp": sp, "accumulation": sp, "warmup": 1, "steps": 1, **overrides}
    return Workload(
        case="small", model=model.name, scale="mini", shape=shape, thresholds=DEEPSPEED_THRESHOLDS, **fields
    )


ENDS = ("llama2_7b-8k-sp1", "llama2_70b-1m-sp64")
"""The smallest and the largest row."""


@pytest.mark.slow
@pytest.mark.parametrize("layers", [7, pytest.param(None, id="all")])
@pytest.mark.parametrize("row", ENDS)
def test_extended_equals_the_whole(row, layers):
    """Counters grow by the same amount with every layer: what is extended equals a trace of all layers.

    Seven of them at full width, or as many as the row has.
    """
    workload = full_workload(ROWS[row])
    shape = workload.shape.model_copy(update={"layers": layers or workload.shape.layers})
    workload = workload.model_copy(update={"shape": shape})

    few, whole = count(workload), count(workload, extend=False)

    assert few.traced_layers == FEWEST_LAYERS + 1
    assert whole.traced_layers == shape.layers
    assert few.counters == whole.counters
    assert few.operators == whole.operators


@pytest.mark.parametrize(
    "row",
    [
        "llama2_7b-32k-sp1",
        *(pytest.param(row, marks=pytest.mark.slow) for row in ("yi_34b_200k-32k-sp2", "llama2_70b-256k-sp16")),
    ],
)
def test_flops_are_those_of_the_exact_convention(row):
    """The groups of products sum up to the convention `exact`, to the digit; and every counter is the stored one."""
    workload = full_workload(ROWS[row])
    counted = count(workload)

    assert counted.flops == flops_per_token(workload.shape, workload.sequence, "exact") * workload.rank_tokens
    assert counted.counters == load_costs(published_folder())[workload.key].counters


def test_stored_flops_are_those_of_the_exact_convention():
    """So do those of every stored row, which the test above counts again."""
    stored = load_costs(published_folder())

    assert len(stored) == len(PUBLISHED)
    for cost in stored.values():
        workload = cost.workload
        assert cost.flops == flops_per_token(workload.shape, workload.sequence, "exact") * workload.rank_tokens


@pytest.mark.slow
def test_two_processes_count_the_same():
    """Counts do not depend on the process: not on addresses, hashes or the garbage collector."""
    code = (
        "from trainpace.cases import PUBLISHED; from trainpace.cases.scaling import full_workload;"
        "from trainpace.cost.trace import count;"
        "print(count(full_workload(PUBLISHED[2])).model_dump_json())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]

    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert other.strip() == count(full_workload(PUBLISHED[2])).model_dump_json()


def test_peak_memory_is_a_checkpoint_a_layer():
    """The activations of a step are each layer's input and what the head keeps, no more."""
    workload = full_workload(ROWS["llama2_70b-1m-sp64"])
    shape, tokens = workload.shape, workload.rank_tokens
    checkpoint = tokens * shape.hidden * 2

    activations = load_costs(published_folder())[workload.key].counters["deepspeed.memory.activations"]

    assert shape.layers * checkpoint <= activations <= (shape.layers + 3) * checkpoint


def test_an_operator_of_unknown_flops_is_listed(monkeypatch):
    """What may multiply and has no formula is named with its calls, not counted as nothing; another one is not."""
    forward = LossHead.forward
    monkeypatch.setattr(
        LossHead,
        "forward",
        lambda self, hidden, labels: forward(self, hidden.cummax(-1).values, labels) + torch.dot(hidden[0], hidden[1]),
    )

    assert count(small()).unknown == {"aten.dot": 1}


def test_what_cannot_be_traced_names_its_operator(monkeypatch):
    """A step that looks at a value, which a fake tensor does not have, fails with the operator that did."""
    forward = LossHead.forward

    def looks(self, hidden, labels):
        assert hidden.sum().item() > 0
        return forward(self, hidden, labels)

    monkeypatch.setattr(LossHead, "forward", looks)

    with pytest.raises(CannotTrace, match=r"operator aten\._local_scalar_dense\.default stopped the trace"):
        count(small())


def shape_of(architecture, layers, **fields):
    """A small shape as a workload's."""
    numbers = {"hidden": 64, "intermediate": 128, "heads": 4, "kv_heads": 4, "vocabulary": 128, **fields}
    return {"shape": Shape(layers=layers, architecture=architecture, **numbers).model_dump(), "layers": layers}


def kinds(*pattern, layers):
    """Kinds of layers by a pattern that repeats: `s` attends within a window."""
    names = {"s": "sliding_attention", "f": "full_attention"}
    return {"sliding_window": 32, "layer_types": [names[pattern[index % len(pattern)]] for index in range(layers)]}


PERIODS = {
    "every sixth layer is another": shape_of("gemma3_text", 20, head=16, config=kinds(*"sssssf", layers=20)),
    "experts": shape_of("mixtral", 6, config={"num_local_experts": 4, "num_experts_per_tok": 2}),
    "every second layer is made again": shape_of("llama", 9) | {"recompute": "selective_layer"},
    "products are kept, two sequences": shape_of("llama", 8) | {"recompute": "selective_op", "micro_batch": 2},
    "gpt2": shape_of("gpt2", 7, tied=True) | {"recompute": "none", "sharding": "zero2"},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in PERIODS])
def test_layers_that_repeat_are_extended_exactly(name):
    """Whatever repeats, and however often: what is extended equals a trace of all layers."""
    workload = small(**PERIODS[name])

    few, whole = count(workload), count(workload, extend=False)

    assert few.traced_layers < whole.traced_layers == workload.shape.layers
    assert few.counters == whole.counters
    assert few.operators == whole.operators
    assert few.products == whole.products
    assert not few.unknown


@pytest.mark.slow
def test_layers_that_never_repeat_are_traced_whole():
    """A model whose layers follow no pattern is not extended from its first few."""
    config = kinds(*"sffsss", layers=6)

    assert count(small(**shape_of("gemma3_text", 6, head=16, config=config))).traced_layers == 6


def test_a_window_is_fewer_products():
    """A token of a windowed layer attends to the window's keys alone, and what is traced counts that."""
    whole, windowed = (
        count(small(sp=1, **shape_of("gemma3_text", 2, head=16, config=kinds(kind, layers=2)))).counters
        for kind in "fs"
    )
    tokens, window = 256, 32

    assert windowed["step.flops.attention_forward"] / whole["step.flops.attention_forward"] == (
        (2 * tokens * window - window**2) / tokens**2
    )
    assert windowed["step.flops.matmul"] == whole["step.flops.matmul"]


@pytest.mark.parametrize(
    ("recompute", "again"),
    [
        # All but the last product of each layer, of every second layer; every second product; nothing.
        ("full", lambda projections, product: 2 * (projections + 2 * product)),
        ("selective_layer", lambda projections, product: projections + 2 * product),
        ("selective_op", lambda projections, product: projections + 2 * product),
        ("none", lambda *_: 0),
    ],
)
def test_products_are_told_apart_by_where_they_stand(recompute, again):
    """Forward, recompute and backward add up to all products; a backward multiplies twice what its forward does."""
    workload = small(recompute=recompute)
    shape, tokens = workload.shape, workload.rank_tokens
    projections, product = (2 * tokens * shape.hidden * width for width in (4 * shape.hidden, shape.intermediate))
    cost = count(workload)
    forward = 2 * (projections + 3 * product)

    assert cost.products["forward"] == forward
    assert cost.products["backward"] == 2 * forward
    assert cost.products.get("recompute", 0) == again(projections, product)
    assert cost.counters["step.flops.matmul"] == sum(cost.products.values())


def test_key_value_heads_are_sent_as_they_are_where_sp_divides_them():
    """Ulysses repeats key/value heads only where sp does not divide them: that is seen in the bytes."""
    bytes_of = {sp: count(small(LLAMA2_70B, sp=sp)).counters["step.all_to_all.bytes"] for sp in (2, 4)}
    query, shared, width = LLAMA2_70B.mini.heads, LLAMA2_70B.mini.kv_heads, LLAMA2_70B.mini.head_size
    rounds, layers = 3, 2  # forward, recompute, backward

    assert bytes_of == {
        sp: rounds * layers * (256 // sp) * (2 * query + 2 * max(shared, sp)) * width * 2 * (sp - 1) // sp
        for sp in (2, 4)
    }


def test_gradients_of_earlier_micro_steps_are_live():
    """Where gradients are accumulated, those of the micro-steps before take memory during this one."""
    alone, accumulated = (trace(small(accumulation=steps), 2)[0] for steps in (1, 2))

    assert alone.peaks["forward"]["gradients"] == 0
    assert 0 < accumulated.peaks["forward"]["gradients"] <= accumulated.peaks["forward"]["parameters"]


def test_nothing_of_the_fake_group_is_left():
    """A trace leaves no process group behind, also where it fails."""
    count(small())

    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_active_flops_of_experts_are_those_of_the_active_parameters():
    """Mixtral-8x7B: 12.9e9 parameters are active, so 6 x 12.9e9 FLOPs a token and attention, within 1 %."""
    numbers = {"hidden": 4096, "layers": 32, "intermediate": 14336, "heads": 32, "kv_heads": 8, "vocabulary": 32000}
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    shape = Shape(architecture="mixtral", config=experts, **numbers)
    workload = small(sp=1, ranks=8).model_copy(update={"shape": shape, "sequence": 32 << 10})
    found = count(workload).step_flops
    per_token = flops.model_flops(workload, counted=found)
    attention = 3 * 4 * (workload.sequence / 2) * 4096 * 32
    # The embedding is an active parameter, and multiplies nothing; the router does.
    matrices = 32 * (2 * 4096 * (4096 + 1024) + 2 * 3 * 4096 * 14336 + 8 * 4096) + 32000 * 4096

    assert per_token == 6 * matrices + attention
    assert per_token == pytest.approx(6 * 12.9e9 + attention, rel=0.01)


RARE = [pytest.param(each, marks=pytest.mark.slow) for each in flops.GATED if each not in {"llama", "qwen3"}]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", *RARE])
def test_formulas_are_those_of_the_trace_where_they_are_said_to_hold(architecture):
    """Model FLOPs and executed ones, to the digit, of every architecture that a formula is used for."""
    workload = small(sp=1, **shape_of(architecture, 2, kv_heads=2))
    found = count(workload).step_flops

    assert flops.model_flops(workload) == flops.model_flops(workload, counted=found)
    assert flops.hardware_flops(workload) == flops.hardware_flops(workload, counted=found)
