"""What the trace counts is what a real step does, at mini size: FLOPs and the bytes of every collective."""

import json
from functools import cache
from pathlib import Path

import pytest

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, Workload
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


CASES = {
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

RARE = CASES.keys() - {"fsdp2, shared kv heads", "zero3, some kept"}
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


def down_again(workload):
    """FLOPs of the last product of each layer's recompute, which nobody needs: only under ZeRO-3 it is made."""
    zero3 = (workload.engine, workload.sharding) == ("deepspeed", "full")
    layers = {"full": 5, "selective_layer": 3}.get(workload.recompute, 0) if zero3 else 0
    return layers * 2 * workload.rank_tokens * workload.shape.hidden * workload.shape.intermediate


@pytest.mark.parametrize("name", NAMES)
def test_flops_equal_a_real_step(counted, name):
    """FlopCounterMode on real tensors counts what the trace counts, group by group."""
    real = counted(name)[-2]["flops"]

    counters = traced(CASES[name]).counters

    assert real == {
        "aten.mm": counters["step.flops.matmul"] + down_again(CASES[name]),
        "trainpace.attention": counters["step.flops.attention_forward"],
        "trainpace.attention_backward": counters["step.flops.attention_backward"],
        "trainpace.linear_cross_entropy": counters["step.flops.loss"],
    }
