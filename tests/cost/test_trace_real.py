"""What the trace counts is what a real step does, at mini size: FLOPs and the bytes of every collective."""

import json
from functools import cache
from pathlib import Path

import pytest

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, Model, Shape, Workload
from trainpace.cases.parameters import layer_parameters
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.probe.device import present

HERE = Path(__file__).parent
STEADY = 3
"""Micro-steps before the one that is compared: DeepSpeed records the order of its modules in the first two."""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """The counts of every step of a real run."""
    folder = tmp_path_factory.mktemp("counts")
    with pytest.MonkeyPatch.context() as patch:
        out = folder / "counts.jsonl"
        patch.setenv("TRAINPACE_COUNTS_OUT", str(out))
        with Distributed(
            machine=present(), cache=folder / "cache", step_timeout=120, sides={"here": Side(checkout=HERE)}
        ) as distributed:

            @cache
            def count(name):
                out.unlink(missing_ok=True)
                distributed.run(CASES[name])
                return [json.loads(line) for line in out.read_text().splitlines()]

            yield count


def workload(model, engine, *, sp=4, dtype="bf16", intermediate=None, fields=(), **thresholds):
    """Four ranks; thresholds as DeepSpeed's defaults, but for those given. `fields` are the workload's further ones."""
    shape = model.mini.model_copy(update={"layers": 5, "intermediate": intermediate or model.mini.intermediate})
    return Workload(
        case="counts-256-sp4",
        model=model.name,
        scale="mini",
        shape=shape,
        sequence=256,
        ranks=4,
        sp=sp,
        dtype=dtype,
        accumulation=2,
        warmup=STEADY,
        steps=1,
        trainer="counting_trainer:Counting",
        engine=engine,
        thresholds=DEEPSPEED_THRESHOLDS | {"stage3_param_persistence_threshold": 1000} | thresholds,
        **dict(fields),
    )


def traced(workload):
    from trainpace.cost.trace import count

    return count(workload)


def of_engine(cost, engine, part, what):
    """Bytes or calls by kind, zeros left out."""
    kinds = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all")
    found = {
        kind: cost.counters.get(f"{part}.{kind}.{what}", 0) + cost.counters.get(f"{engine}.{part}.{kind}.{what}", 0)
        for kind in kinds
    }
    return {kind: value for kind, value in found.items() if value}


def of(architecture, *, head=16, kv_heads=4, **fields):
    """A model of an architecture: a vocabulary that four ranks do not divide."""
    numbers = {"hidden": 64, "layers": 5, "intermediate": 176, "heads": 8, "vocabulary": 509}
    shape = Shape(**numbers, architecture=architecture, head=head, kv_heads=kv_heads, **fields)
    return Model(name=architecture, title=architecture, shape=shape, mini=shape)


KINDS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "decoder_sparse_step": 2}
OTHERS = {
    "qwen3": of("qwen3", tied=True),
    "gemma3": of("gemma3_text", tied=True, config={"sliding_window": 32, "layer_types": KINDS}),
    "cohere": of("cohere", head=None, tied=True),
    "gpt_neox": of("gpt_neox", head=None, kv_heads=8),
    "gpt2": of("gpt2", head=None, kv_heads=8, tied=True),
    "mixtral": of("mixtral", config={"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe, every second layer of experts": of("qwen3_moe", config=EXPERTS),
}
SMALL = {"stage3_max_reuse_distance": 60_000, "stage3_prefetch_bucket_size": 30_000, "reduce_bucket_size": 20_000}
WAYS = {
    "fsdp2": {"engine": "fsdp2", "sp": 2, "fields": {"recompute": "selective_op", "micro_batch": 2}},
    "zero3": {"engine": "deepspeed", "sp": 2, **SMALL},
    "zero2": {"engine": "deepspeed", "sp": 1, "fields": {"sharding": "zero2"}, "reduce_bucket_size": 20_000},
}

CASES = {f"{name}, {way}": workload(model, **fields) for name, model in OTHERS.items() for way, fields in WAYS.items()}
CASES |= {
    "fsdp2": workload(LLAMA2_7B, "fsdp2", sp=2),
    "fsdp2, shared kv heads": workload(LLAMA2_70B, "fsdp2"),
    "zero3, everything kept, shards padded": workload(LLAMA2_70B, "deepspeed", intermediate=449),
    "zero3, some kept": workload(
        LLAMA2_70B, "deepspeed", sp=1, stage3_max_reuse_distance=150_000, stage3_prefetch_bucket_size=60_000
    ),
    "zero3, few live, small buckets": workload(
        LLAMA2_7B,
        "deepspeed",
        dtype="fp32",
        stage3_max_reuse_distance=60_000,
        stage3_max_live_parameters=100_000,
        stage3_prefetch_bucket_size=30_000,
        reduce_bucket_size=20_000,
    ),
    "fsdp2, products kept, two sequences, sums in bf16": workload(
        LLAMA2_70B,
        "fsdp2",
        fields={"recompute": "selective_op", "micro_batch": 2, "reduce_dtype": "bf16"},
    ),
    "fsdp2, every second layer": workload(LLAMA2_7B, "fsdp2", sp=2, fields={"recompute": "selective_layer"}),
    "fsdp2, zero2, nothing made again": workload(
        LLAMA2_7B, "fsdp2", sp=2, fields={"sharding": "zero2", "recompute": "none"}
    ),
    "zero3, nothing made again": workload(
        LLAMA2_70B,
        "deepspeed",
        fields={"recompute": "none", "micro_batch": 2},
        stage3_max_reuse_distance=60_000,
        stage3_prefetch_bucket_size=30_000,
    ),
    "zero3, every second layer": workload(
        LLAMA2_70B,
        "deepspeed",
        sp=1,
        fields={"recompute": "selective_layer"},
        stage3_max_reuse_distance=60_000,
        stage3_prefetch_bucket_size=30_000,
    ),
    "zero2, small buckets, sums in fp32": workload(
        LLAMA2_70B,
        "deepspeed",
        intermediate=449,
        fields={"sharding": "zero2", "reduce_dtype": "fp32", "micro_batch": 2},
        reduce_bucket_size=20_000,
    ),
    "zero2": workload(LLAMA2_7B, "deepspeed", sp=2, fields={"sharding": "zero2", "recompute": "none"}),
    "zero3, products kept, sums in fp32": workload(
        LLAMA2_7B,
        "deepspeed",
        sp=2,
        fields={"recompute": "selective_op", "reduce_dtype": "fp32"},
        stage3_max_reuse_distance=60_000,
        stage3_prefetch_bucket_size=30_000,
    ),
}

RARE = CASES.keys() - {"zero3, some kept"}
"""Left to the environment gate."""


NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in RARE else name for name in CASES]


@pytest.mark.parametrize("name", NAMES)
def test_collectives_equal_a_real_step(counted, name):
    """Four real ranks send, by kind, exactly the bytes that the trace says, from the third step on."""
    workload = CASES[name]
    lines = counted(name)
    steps = [line for line in lines if line["part"] == "step"]
    update = [line for line in lines if line["part"] == "optimizer"][-1]

    cost = traced(workload)

    assert of_engine(cost, workload.engine, "step", "bytes") == steps[-1]["bytes"]
    assert steps[STEADY - 1]["bytes"] == steps[-1]["bytes"]
    assert of_engine(cost, workload.engine, "optimizer", "bytes") == update["bytes"]
    assert of_engine(cost, workload.engine, "step", "calls") == steps[-1]["calls"]


LAST_IS_DOWN = {"llama": 5, "qwen3": 5, "cohere": 5, "gpt_neox": 5, "qwen3_moe": 3}
"""Of five layers, those whose last product is a linear layer's and its result is only added: no experts, no norm."""


def down_again(workload):
    """FLOPs of the last product of each layer's recompute, which nobody needs: DeepSpeed's linear layer makes it.

    The engine takes torch's where the reuse distance spans a layer's recompute and backward.
    """
    short = 2 * layer_parameters(workload.shape) > workload.thresholds["stage3_max_reuse_distance"]
    zero3 = (workload.engine, workload.sharding) == ("deepspeed", "full") and short
    last = LAST_IS_DOWN.get(workload.shape.architecture, 0)
    layers = {"full": last, "selective_layer": min(last, 3)}.get(workload.recompute, 0) if zero3 else 0
    return layers * 2 * workload.rank_tokens * workload.shape.hidden * workload.shape.intermediate


EXPERTS_OF = {"mixtral": (5, 2, 176), "qwen3_moe": (2, 3, 40)}
"""Layers of experts, experts of a token, width of one."""


def of_experts(workload):
    """FLOPs of the grouped products, which torch's own counter knows none of: forward, recompute and twice backward."""
    layers, top_k, width = EXPERTS_OF.get(workload.shape.architecture, (0, 0, 0))
    return 4 * layers * workload.rank_tokens * top_k * 2 * 3 * workload.shape.hidden * width


@pytest.mark.parametrize("name", NAMES)
def test_flops_equal_a_real_step(counted, name):
    """FlopCounterMode on real tensors counts what the trace counts, group by group."""
    real = counted(name)[-2]["flops"]

    counters = traced(CASES[name]).counters

    products = real.keys() & {"aten.mm", "aten.addmm"}
    assert real.keys() - products == {f"trainpace.{each}" for each in OPERATORS}
    made = sum(real[each] for each in products) + of_experts(CASES[name])
    assert made == counters["step.flops.matmul"] + down_again(CASES[name])
    assert {each: real[f"trainpace.{each}"] for each in OPERATORS} == {
        each: counters[f"step.flops.{group}"] for each, group in OPERATORS.items()
    }


OPERATORS = {
    "attention": "attention_forward",
    "attention_backward": "attention_backward",
    "linear_cross_entropy": "loss",
}
