"""The models' shapes."""

import pytest

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, YI_34B_200K


@pytest.mark.parametrize("model", [LLAMA2_7B, YI_34B_200K, LLAMA2_70B], ids=lambda model: model.name)
def test_mini_keeps_the_code_path(model):
    """A mini shape has heads of 8 and groups queries where the full one does."""
    grouped = model.shape.kv_heads < model.shape.heads

    assert (8, grouped) == (model.mini.head_size, model.mini.kv_heads < model.mini.heads)
