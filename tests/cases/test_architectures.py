"""What the native trainer cannot train is said before anything starts."""

import pytest

from trainpace.cases import LLAMA2_7B, Case, Model, Shape
from trainpace.cases.architectures import cannot
from trainpace.cases.machine import Device, Machine
from trainpace.cases.scaling import resolve

CPU = Machine(
    gpus=None, cpu=Device(slug="cpu", name="CPU", kind="cpu", count=2, memory_bytes=1 << 34), free_bytes=1 << 33
)


def shape(architecture, **config):
    return LLAMA2_7B.shape.model_copy(update={"architecture": architecture, "config": config})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (shape("lama"), "cannot train lama: it knows llama, .*; the nearest is llama"),
        (shape("deepseek_v3"), "cannot train deepseek_v3: it lacks multi-head latent attention"),
        (shape("mamba"), "it lacks state-space layers"),
        (shape("gemma3_text", final_logit_softcapping=30.0), "this gemma3_text: it lacks capped logits"),
        (shape("mpt"), "it is `gpt2`"),
        (shape("mixtral").model_copy(update={"intermediate": 1004}), "multiples of 8, got intermediate=1004"),
        (shape("qwen3_moe", moe_intermediate_size=92), "multiples of 8, got moe_intermediate_size=92"),
    ],
)
def test_refused_with_what_is_lacking(asked, message):
    """What it lacks, or the nearest that it knows; a trainer of one's own is asked nothing."""
    case = Case(model=Model(name="m", title="M", shape=asked), length="8k", sp=1, gpus=8)

    with pytest.raises(ValueError, match=message):
        resolve(case, CPU)
    assert resolve(case, CPU, trainer="ours:Trainer").workload.shape.architecture == asked.architecture


def test_what_is_set_to_nothing_is_not_asked_for():
    """A field that stands in a config without a value asks for nothing."""
    assert cannot(shape("gemma3_text", attn_logit_softcapping=None, final_logit_softcapping=None)) is None
    assert cannot(Shape(**LLAMA2_7B.shape.model_dump())) is None
