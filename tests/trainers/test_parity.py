"""Sequence parallel trains what one rank trains: every engine, world and sp gives the same loss and gradients.

A wrong computation is fast for free, so this stands before every measurement. Tolerance from probing: 4e-7 in fp32.
"""

from pathlib import Path

import pytest
import torch

from trainpace.cases import LLAMA2_7B, YI_34B_200K, Model, Shape, Workload
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS, MINI_PERSISTENCE_THRESHOLD
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.probe.device import present

TOLERANCE = 1e-6
THRESHOLDS = DEEPSPEED_THRESHOLDS | {"stage3_param_persistence_threshold": MINI_PERSISTENCE_THRESHOLD}
"""Of the mini scale: ZeRO-3 gathers the whole model at once."""
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Loss and gradients of one step, by model, attention, engine, ranks, sp and further fields; each trained once."""
    folder = tmp_path_factory.mktemp("parity")

    def train(model, attention, engine, ranks, sp, **fields):
        wanted = workload(model, attention, engine, ranks, sp, **fields)
        out = folder / wanted.hash
        if not out.exists():
            distributed.run(wanted.model_copy(update={"tags": (out.name,)}))
        return torch.load(out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINPACE_PARITY_OUT", str(folder))
        with Distributed(
            machine=present(), cache=folder / "cache", step_timeout=120, sides={"here": Side(checkout=HERE)}
        ) as distributed:
            yield train


def workload(model, attention, engine, ranks, sp, **fields):
    """Two steps in fp32, of which the first is compared."""
    return Workload(
        **{"accumulation": 1, **fields},
        case="parity-256-sp1",
        model=model.name,
        scale="mini",
        shape=model.mini,
        sequence=256,
        ranks=ranks,
        sp=sp,
        dtype="fp32",
        attention=attention,
        warmup=1,
        steps=1,
        trainer="parity_trainer:Parity",
        engine=engine,
        thresholds=THRESHOLDS if engine == "deepspeed" else {},
    )


def of(architecture, *, heads=(32, 8), vocabulary=32000, **fields):
    """A model of an architecture, and its small shape by rule."""
    shape = Shape(
        hidden=4096,
        layers=32,
        intermediate=14336,
        heads=heads[0],
        kv_heads=heads[1],
        vocabulary=vocabulary,
        architecture=architecture,
        **fields,
    )
    return Model(name=architecture, title=architecture, shape=shape)


FEW, MANY = (
    {"num_local_experts": 8, "num_experts_per_tok": 2},
    {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 1024},
)
WINDOWS = {"sliding_window": 2048, "layer_types": ["sliding_attention", "full_attention"] * 16}
ARCHITECTURES = {
    "qwen3": of("qwen3", head=256, tied=True),
    "mistral, windows": of("mistral", config={"sliding_window": 2048}),
    "qwen2": of("qwen2"),
    "gemma3, windows": of("gemma3_text", head=256, tied=True, config=WINDOWS),
    "phi3": of("phi3", config={"sliding_window": None}),
    "gpt_neox": of("gpt_neox", heads=(32, 32)),
    "gpt2": of("gpt2", heads=(32, 32), tied=True),
    "cohere": of("cohere", tied=True),
    "mixtral": of("mixtral", config=FEW),
    "qwen3_moe": of("qwen3_moe", head=128, config=MANY),
}


def gradient_error(expected, actual):
    """The largest relative error of a parameter's gradient."""
    return max(float((actual["grads"][name] - grad).norm() / grad.norm()) for name, grad in expected["grads"].items())


SHARED = [(2, 2), (4, 2), (4, 4)]
"""Ranks, and of these how many share a sequence: all, fewer, and more than there are key/value heads."""


@pytest.mark.parametrize(
    ("engine", "attention", "ranks", "sp"),
    [("fsdp2", attention, *sizes) for attention in ("causal", "varlen") for sizes in SHARED]
    + [("deepspeed", "causal", *sizes) for sizes in SHARED]
    # The code of the masks is the engines' common one, and FSDP2 has been through it in each size.
    + [("deepspeed", "varlen", 4, 2)],
)
def test_sequence_parallel_trains_the_same(trained, engine, attention, ranks, sp):
    """Loss and gradients equal sp=1 on the same sequences, also at sp < world and with more ranks than kv heads."""
    expected = trained(YI_34B_200K, attention, "fsdp2", ranks // sp, 1)

    actual = trained(YI_34B_200K, attention, engine, ranks, sp)

    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE


@pytest.mark.parametrize(("ranks", "sp"), [(2, 1), (4, 4)])
def test_both_engines_train_the_same(trained, ranks, sp):
    """ZeRO-3 and FSDP2 start from the same weights and reach the same gradients, without grouped heads too."""
    expected = trained(LLAMA2_7B, "causal", "fsdp2", ranks, sp)

    actual = trained(LLAMA2_7B, "causal", "deepspeed", ranks, sp)

    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE


def test_document_masks_change_the_computation(trained):
    """The comparison can fail: plain causal attention and document masks give different gradients."""
    causal = trained(YI_34B_200K, "causal", "fsdp2", 1, 1)

    varlen = trained(YI_34B_200K, "varlen", "fsdp2", 1, 1)

    assert gradient_error(causal, varlen) > 0.1


WAYS = [
    # Of three sequences the second has a part on each of two ranks.
    ({"micro_batch": 3, "recompute": "none"}, "deepspeed"),
    ({"sharding": "zero2"}, "deepspeed"),
    ({"recompute": "selective_op", "micro_batch": 3}, "fsdp2"),
]
RARE = [
    ({"micro_batch": 2}, "fsdp2"),
    ({"recompute": "selective_op"}, "deepspeed"),
    ({"recompute": "selective_layer"}, "deepspeed"),
    ({"recompute": "selective_layer"}, "fsdp2"),
    ({"sharding": "zero2"}, "fsdp2"),
    ({"reduce_dtype": "fp32"}, "deepspeed"),
]
"""Left to the environment gate."""


@pytest.mark.parametrize(
    ("fields", "engine"), [*WAYS, *(pytest.param(*each, marks=pytest.mark.slow) for each in RARE)], ids=str
)
def test_every_way_to_train_is_the_same_on_ranks_that_share_a_sequence(trained, engine, fields):
    """What a case says of batches, recompute and sharding changes nothing between engines and sizes of sp."""
    ranks, sp = {"fsdp2": (4, 2), "deepspeed": (2, 2)}[engine]
    expected = trained(YI_34B_200K, "varlen", "fsdp2", ranks // sp, 1, **fields)

    actual = trained(YI_34B_200K, "varlen", engine, ranks, sp, **fields)

    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE


QUICK = {("qwen3", ("deepspeed", 2, 2)), ("mixtral", ("deepspeed", 2, 2))}
"""The others are left to the environment gate."""
KEPT = [{"recompute": "none"}, {"recompute": "selective_op"}, {"sharding": "zero2"}]


@pytest.mark.parametrize("fields", KEPT, ids=str)
def test_what_is_kept_changes_no_gradient(trained, fields):
    """Recompute and sharding are ways to the same gradients."""
    expected = trained(YI_34B_200K, "causal", "fsdp2", 2, 2)

    actual = trained(YI_34B_200K, "causal", "fsdp2", 2, 2, **fields)

    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "engine", "ranks", "sp"),
    [
        pytest.param(name, *way, marks=() if (name, way) in QUICK else pytest.mark.slow)
        for name in ARCHITECTURES
        for way in (("fsdp2", 4, 4), ("deepspeed", 2, 2))
    ],
)
def test_every_architecture_trains_the_same(trained, name, engine, ranks, sp):
    """Loss and gradients of each architecture are one rank's, with each engine and ranks that share a sequence."""
    model = ARCHITECTURES[name]
    expected = trained(model, "varlen", "fsdp2", 1, 1)

    actual = trained(model, "varlen", engine, ranks, sp)

    assert ("head.weight" in expected["grads"]) is not model.shape.tied
    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE
