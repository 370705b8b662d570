"""The models' shapes."""

import pytest

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, YI_34B_200K, Model, Shape
from trainpace.cases.architectures import cannot
from trainpace.cases.models import mini_of


@pytest.mark.parametrize("model", [LLAMA2_7B, YI_34B_200K, LLAMA2_70B], ids=lambda model: model.name)
def test_mini_keeps_the_code_path(model):
    """A mini shape has heads of 8 and groups queries where the full one does."""
    grouped = model.shape.kv_heads < model.shape.heads

    assert (8, grouped) == (model.mini.head_size, model.mini.kv_heads < model.mini.heads)


def test_a_small_shape_follows_by_rule():
    """Two layers and a small vocabulary; the ratios of heads, head size and intermediate are the full shape's."""
    shape = Shape(
        hidden=2560, layers=36, intermediate=9728, heads=32, kv_heads=8, head=128, vocabulary=151936, tied=True
    )
    mini = Model(name="m", title="M", shape=shape).mini

    assert mini == Shape(hidden=64, layers=2, intermediate=244, heads=8, kv_heads=2, head=12, vocabulary=512, tied=True)


@pytest.mark.parametrize("heads", [(32, 32), (56, 8), (64, 8), (71, 1), (12, 12), (28, 4)])
def test_four_ranks_share_any_small_shape(heads):
    """Its heads are a multiple of four and of its groups."""
    shape = Shape(hidden=64 * heads[0], layers=1, intermediate=64, heads=heads[0], kv_heads=heads[1], vocabulary=64)
    mini = mini_of(shape)

    assert (mini.heads % 4, mini.heads / mini.kv_heads, mini.layers) == (0, heads[0] / heads[1], 1)


@pytest.mark.parametrize("width", [1408, 14336, 768, 8])
def test_small_experts_are_as_wide_as_their_product_takes(width):
    """Rows of 16 bytes in bf16: what a rule makes small can be trained."""
    for architecture, config in (("mixtral", {}), ("qwen3_moe", {"moe_intermediate_size": width})):
        shape = Shape(
            hidden=2048,
            layers=4,
            intermediate=width,
            heads=16,
            kv_heads=4,
            vocabulary=512,
            architecture=architecture,
            config=config,
        )

        assert cannot(mini_of(shape)) is None
