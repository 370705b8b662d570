"""Sequence parallel trains what one rank trains: every engine, world and sp gives the same loss and gradients.

A wrong computation is fast for free, so this stands before every measurement. Tolerance from probing: 4e-7 in fp32.
"""

from pathlib import Path

import pytest
import torch

from trainpace.cases import LLAMA2_7B, YI_34B_200K, Workload
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.probe.device import present

TOLERANCE = 1e-6
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Loss and gradients of one step, by model, attention, engine, ranks and sp; each trained once."""
    folder = tmp_path_factory.mktemp("parity")

    def train(model, attention, engine, ranks, sp):
        out = folder / f"{model.name}-{attention}-{engine}-{ranks}-{sp}"
        if not out.exists():
            distributed.run(workload(model, attention, engine, ranks, sp))
        return torch.load(out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINPACE_PARITY_OUT", str(folder))
        with Distributed(
            machine=present(), cache=folder / "cache", step_timeout=120, sides={"here": Side(checkout=HERE)}
        ) as distributed:
            yield train


def workload(model, attention, engine, ranks, sp):
    """Two steps in fp32, of which the first is compared."""
    return Workload(
        case="parity-256-sp1",
        model=model.name,
        scale="mini",
        shape=model.mini,
        sequence=256,
        ranks=ranks,
        sp=sp,
        dtype="fp32",
        attention=attention,
        accumulation=1,
        warmup=1,
        steps=1,
        trainer="parity_trainer:Parity",
        engine=engine,
        thresholds={"stage3_param_persistence_threshold": 1000} if engine == "deepspeed" else {},
    )


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
