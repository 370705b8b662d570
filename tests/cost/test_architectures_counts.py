"""What is traced of each architecture is what a real step of it computes: forward, recompute and backward apart.

Products against torch's FlopCounterMode on real tensors; attention, loss and experts against counts written out here.
"""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from real_step import of_a_real_step
from transformers import AutoModelForCausalLM

from trainpace.cases import Shape, Workload
from trainpace.cases.architectures import TRAINED
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS
from trainpace.cost import trace as trace_room
from trainpace.cost.trace import Fake, count, trace
from trainpace.trainers.native import model as model_room
from trainpace.trainers.native.model import CausalLm, transformers_config

PHASES = ("forward", "recompute", "backward")
LAYERS, SEQUENCE = 3, 96
SLIDING, WHOLE = "sliding_attention", "full_attention"


def shape(architecture, **fields):
    """Three narrow layers, whose heads are shared and whose vocabulary is odd."""
    numbers = {"hidden": 32, "intermediate": 96, "heads": 4, "kv_heads": 2, "vocabulary": 131}
    return Shape(**{"layers": LAYERS, "architecture": architecture} | numbers | fields)


EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": True}
SHAPES = {
    "llama": shape("llama"),
    "mistral": shape("mistral", config={"sliding_window": 24}),
    "qwen2": shape("qwen2", config={"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": shape("qwen3", head=16, tied=True),
    "phi3": shape("phi3", config={"sliding_window": 40}),
    "gemma3_text": shape(
        "gemma3_text",
        head=16,
        kv_heads=1,
        tied=True,
        config={"sliding_window": 24, "layer_types": [SLIDING, SLIDING, WHOLE]},
    ),
    "cohere": shape("cohere", tied=True),
    "gpt_neox": shape("gpt_neox", kv_heads=4),
    "gpt2": shape("gpt2", kv_heads=4, tied=True),
    "mixtral": shape("mixtral", config={"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": shape("qwen3_moe", head=16, config=EXPERTS),
}
WINDOWS = {"mistral": [24, 24, 24], "qwen2": [None, 24, 24], "phi3": [40, 40, 40], "gemma3_text": [24, 24, None]}
"""Of each layer, None: it attends to the whole sequence."""
TOP_K = {"mixtral": 2, "qwen3_moe": 3}
WIDTH = {"mixtral": 96, "qwen3_moe": 24}
"""Of an expert."""


def workload(shape, recompute="full", **fields):
    """One rank of FSDP2 in bf16."""
    return Workload(
        **{"sequence": SEQUENCE, "ranks": 1, "sp": 1, "accumulation": 1, "engine": "fsdp2", **fields},
        case="counts",
        model=shape.architecture,
        scale="mini",
        shape=shape,
        warmup=1,
        steps=1,
        recompute=recompute,
        thresholds=DEEPSPEED_THRESHOLDS,
    )


def traced(workload):
    """FLOPs of the trace by phase and group, told apart as a real step's are."""
    counters = []

    def counter(*args):
        counters.append(made(*args))
        return counters[0]

    @contextmanager
    def part(name):
        before = counters[0].part
        counters[0].part = before and name  # None: nothing is counted yet
        try:
            yield
        finally:
            counters[0].part = before

    def ranged(name, *rest):
        return part("recompute") if name == "recompute" else record(name, *rest)

    def build(self, mesh):
        built(self, mesh)
        for name in ("forward", "backward"):
            run = getattr(self._engine, name)
            setattr(self._engine, name, part(name)(run))

    made, record, built = trace_room.Counter, torch.profiler.record_function, Fake.build
    with (
        mock.patch.object(trace_room, "Counter", counter),
        mock.patch.object(torch.profiler, "record_function", ranged),
        mock.patch.object(Fake, "build", build),
    ):
        whole, _ = trace(workload, workload.shape.layers)
    assert not whole.unknown
    groups = ("matmul", "attention_forward", "attention_backward", "loss")
    return {phase: {group: whole.counters.get(f"{phase}.flops.{group}", 0) for group in groups} for phase in PHASES}


def real(workload):
    """FLOPs of a real step, by phase and group; the backward without what it makes again."""
    counted = of_a_real_step(workload)
    named = {
        "trainpace.attention": "attention_forward",
        "trainpace.attention_backward": "attention_backward",
        "trainpace.linear_cross_entropy": "loss",
    }
    found = {phase: dict.fromkeys([*named.values(), "matmul"], 0) for phase in PHASES}
    for phase, operators in counted.items():
        for operator, flops in operators.items():
            found[phase][named.get(operator, "matmul")] += flops
    for group, flops in found["recompute"].items():
        found["backward"][group] -= flops
    return found


def written_out(name, workload):
    """Attention and loss, by phase: shapes and nothing else."""
    shape, sequence, batch = workload.shape, workload.sequence, workload.micro_batch
    windows = WINDOWS.get(name, [None] * LAYERS)
    pairs = [sequence**2 / 2 if window is None else sequence * window - window**2 / 2 for window in windows]
    again = {"full": [0, 1, 2], "selective_layer": [0, 2]}.get(workload.recompute, [])
    # Two products a pair of tokens, of two FLOPs an element of a head.
    forward = [batch * shape.heads * shape.head_size * 2 * 2 * each for each in pairs]
    attention = {
        "forward": {"attention_forward": sum(forward)},
        "recompute": {"attention_forward": sum(forward[layer] for layer in again)},
        "backward": {"attention_backward": sum(forward) * 5 / 2},
    }
    attention["forward"]["loss"] = 3 * 2 * batch * sequence * shape.hidden * shape.vocabulary
    return attention


QUICK = {("qwen3", "full", 1), ("mixtral", "full", 1)}
"""The others are left to the environment gate."""


@pytest.mark.parametrize(
    ("name", "recompute", "micro_batch"),
    [
        pytest.param(name, recompute, batch, marks=() if (name, recompute, batch) in QUICK else pytest.mark.slow)
        for name in SHAPES
        for recompute, batch in (
            ("full", 1),
            ("full", 2),
            ("none", 2),
            ("selective_op", 1),
            ("selective_layer", 2),
        )
    ],
)
def test_a_trace_counts_what_a_real_step_computes(name, recompute, micro_batch):
    """Every group of products, in each phase, to the digit; attention and loss as written out from shapes."""
    asked = workload(SHAPES[name], recompute, micro_batch=micro_batch)

    expected, counted = real(asked), traced(asked)

    assert counted == expected
    wanted = written_out(name, asked)
    shown = {phase: {group: flops for group, flops in counted[phase].items() if group != "matmul"} for phase in PHASES}
    assert shown == {phase: dict.fromkeys(shown[phase], 0) | wanted[phase] for phase in PHASES}


ONE, ALL = ({"num_local_experts": number, "num_experts_per_tok": number} for number in (1, 4))
FIVE_TO_ONE = shape("gemma3_text", layers=14, head=16, config={"sliding_window": 24})
DENSE_FIRST = shape("qwen3_moe", layers=4, config=EXPERTS | {"mlp_only_layers": [0]})
EVERY_SECOND = shape("qwen3_moe", layers=10, config=EXPERTS | {"decoder_sparse_step": 2})
LONG = {"factor": 2.0, "original_max_position_embeddings": 48, "rope_theta": 10000.0}
YARN = {"rope_parameters": LONG | {"rope_type": "yarn"}}
IN_TURN = {"use_parallel_residual": False}
EDGES = {
    "a window longer than the sequence": workload(shape("mistral", config={"sliding_window": 4096})),
    "a window of the sequence, twice": workload(shape("mistral", config={"sliding_window": SEQUENCE}), micro_batch=2),
    "a window of one key": workload(shape("mistral", config={"sliding_window": 1})),
    "one expert": workload(shape("mixtral", config=ONE)),
    "all experts for every token": workload(shape("mixtral", config=ALL)),
    "windows and experts": workload(shape("mixtral", config=ALL | {"sliding_window": 24})),
    "one layer": workload(shape("llama", layers=1), "selective_layer"),
    "two layers": workload(shape("mixtral", layers=2, config=ALL), "none"),
    "an odd number of layers": workload(shape("qwen3", layers=9, head=16), "selective_layer"),
    "five windows, then none": workload(FIVE_TO_ONE),
    "five windows, then none, every second layer": workload(FIVE_TO_ONE, "selective_layer"),
    "a first layer without experts": workload(DENSE_FIRST),
    "experts in every second layer": workload(EVERY_SECOND),
    "experts in every second layer, again in every second": workload(EVERY_SECOND, "selective_layer"),
    "attention and MLP in turn": workload(shape("gpt_neox", kv_heads=4, config=IN_TURN)),
    "biases, products kept": workload(
        shape("llama", config={"attention_bias": True, "mlp_bias": True}), "selective_op"
    ),
    "positions beyond those trained first": workload(shape("llama", config=YARN | {"max_position_embeddings": 48})),
    "norms of queries and keys": workload(shape("cohere", config={"use_qk_norm": True})),
    "parameters in bf16, sums in fp32": workload(shape("llama"), param_dtype="bf16", reduce_dtype="fp32"),
    "zero2, three micro-steps": workload(shape("llama"), sharding="zero2", accumulation=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_counts_hold_at_the_edges(name):
    """What is counted, of all layers or extended from a few, is what all layers of a real step compute."""
    phases = real(EDGES[name])

    cost = count(EDGES[name])

    assert not cost.unknown
    wanted = {group: sum(phases[phase][group] for phase in PHASES) for group in phases["forward"]}
    assert {group: cost.counters[f"step.flops.{group}"] for group in wanted} == wanted
    assert cost.products == {phase: phases[phase]["matmul"] for phase in PHASES if phases[phase]["matmul"]}


def test_every_architecture_is_here():
    """What the trainer says that it trains is what is counted here."""
    assert SHAPES.keys() == set(TRAINED)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in TOP_K])
def test_grouped_products_are_those_of_each_token_with_its_experts(monkeypatch, name):
    """Tokens x experts of a token x an expert's three products; as many as a loop over the experts makes."""
    shape, top_k, width = SHAPES[name], TOP_K[name], WIDTH[name]
    asked = workload(shape, "none")
    experts = LAYERS * SEQUENCE * top_k * 2 * 3 * shape.hidden * width

    grouped = of_a_real_step(asked)
    monkeypatch.setattr(model_room, "transformers_config", looped(model_room.transformers_config))
    one_by_one = of_a_real_step(asked)

    assert (grouped["forward"]["aten._grouped_mm"], grouped["backward"]["aten._grouped_mm"]) == (experts, 2 * experts)
    for phase in ("forward", "backward"):
        assert "aten._grouped_mm" not in one_by_one[phase]
        assert sum(one_by_one[phase].values()) == sum(grouped[phase].values())


def looped(config_of):
    """`config_of`, whose experts multiply one after the other."""

    def config(*args):
        made = config_of(*args)
        made._experts_implementation = "eager"
        return made

    return config


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_built_has_the_parameters_of_transformers_own(name):
    """As many as transformers' model with its head, on the meta device; and what is counted is that model."""
    with torch.device("meta"):
        ours = CausalLm(SHAPES[name], SEQUENCE)
        config = transformers_config(SHAPES[name], SEQUENCE)
        config.tie_word_embeddings = SHAPES[name].tied
        theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager")

    numbers = [sum(each.numel() for each in model.parameters()) for model in (ours, theirs)]

    assert numbers[0] == numbers[1]
