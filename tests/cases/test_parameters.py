"""Parameters by a model's numbers."""

import pytest

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, YI_34B_200K, Shape
from trainpace.cases.architectures import TRAINED
from trainpace.cases.parameters import KNOWN, parameters

MIXTRAL = Shape(
    architecture="mixtral",
    hidden=4096,
    layers=32,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    vocabulary=32000,
    config={"num_local_experts": 8},
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (LLAMA2_7B.shape, 6_738_415_616),
        (LLAMA2_70B.shape, 68_976_648_192),
        (YI_34B_200K.shape, 34_388_917_248),
        (MIXTRAL, 46_702_792_704),
    ],
)
def test_as_the_makers_count(shape, expected):
    """What the model cards and transformers say of them."""
    assert expected == parameters(shape)


def test_learned_positions_are_of_the_sequence():
    """MPT of 125m at 512 tokens, as llm-foundry's table prints it."""
    shape = Shape(
        architecture="gpt2",
        hidden=768,
        layers=12,
        intermediate=3072,
        heads=12,
        kv_heads=12,
        vocabulary=50368,
        tied=True,
    )

    assert parameters(shape, 512) == 124_131_840


def test_every_architecture_that_is_trained_is_counted():
    """And what is not is not known, instead of Llama's."""
    assert set(TRAINED) <= set(KNOWN)
    assert parameters(MIXTRAL.model_copy(update={"architecture": "deepseek_v2"})) is None
