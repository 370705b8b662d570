"""Parameters from a shape alone are transformers' own number, and active ones are those that a token meets."""

import json
from pathlib import Path

import pytest

from trainpace.cases import LLAMA2_7B, LLAMA2_70B, Model
from trainpace.cases.hub import CLASSES
from trainpace.cases.parameters import active_parameters, counted_parameters, parameters

CONFIGS = {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.json"))}
SWITCHED = {
    "llama": {"attention_bias": True, "mlp_bias": True, "head_dim": 64, "tie_word_embeddings": True},
    "qwen3": {"attention_bias": True},
    "gemma3_text": {"attention_bias": True, "tie_word_embeddings": False},
    "cohere": {"use_qk_norm": True, "attention_bias": True, "num_key_value_heads": 8},
    "gpt_neox": {"attention_bias": False, "tie_word_embeddings": True},
    "qwen3_moe": {"attention_bias": True, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
}
"""What a config may switch, by the architecture that has it."""


def of_transformers(config):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_transformers(name):
    """Of a config as it lies on the hub."""
    shape = Model.from_config(CONFIGS[name]).shape

    assert parameters(shape) == of_transformers(json.loads(CONFIGS[name].read_text()))


@pytest.mark.parametrize("architecture", SWITCHED)
def test_what_a_config_switches_is_counted(architecture):
    """Biases, norms of queries and keys, tied heads, layers without experts."""
    own = {"llama": "llama3_1_8b", "cohere": "command_r_v01", "gpt_neox": "pythia_1_4b", "gemma3_text": "gemma3_1b"}
    name = {"qwen3": "qwen3_8b", "qwen3_moe": "qwen3_30b_a3b", **own}[architecture]
    config = json.loads(CONFIGS[name].read_text()) | SWITCHED[architecture]

    assert parameters(Model.from_config(config).shape) == of_transformers(config)


@pytest.mark.parametrize(
    ("name", "whole", "active"),
    [("mixtral_8x7b", 46.7e9, 12.9e9), ("qwen3_30b_a3b", 30.5e9, 3.35e9), ("llama3_1_8b", 8.03e9, 8.03e9)],
)
def test_published_numbers(name, whole, active):
    """What the authors say of their models, to three digits."""
    shape = Model.from_config(CONFIGS[name]).shape

    assert (parameters(shape), active_parameters(shape)) == pytest.approx((whole, active), rel=2e-3)


def test_an_architecture_that_is_not_known_is_not_counted():
    """Instead of Llama's number."""
    shape = LLAMA2_7B.shape.model_copy(update={"architecture": "deepseek_v2"})

    assert (counted_parameters(shape), counted_parameters(LLAMA2_7B.shape)) == (None, 6738415616)


def test_the_published_tables_models_have_llamas_number():
    """As it was before other architectures were counted."""
    assert (parameters(LLAMA2_7B.shape), parameters(LLAMA2_70B.shape)) == (6738415616, 68976648192)


def test_learned_positions_are_told_where_no_config_says_them():
    """A row of a table is as long as its sequence: MPT of 125m at 512 tokens, as llm-foundry's table prints it."""
    gpt2 = Model.from_config(CONFIGS["gpt2"]).shape
    mpt = gpt2.model_copy(update={"config": {}, "vocabulary": 50368})

    assert (parameters(mpt, 512), parameters(mpt)) == (124_131_840, 124_131_840 - 512 * 768)
    assert parameters(gpt2, 512) == parameters(gpt2)


@pytest.mark.parametrize("architecture", CLASSES)
def test_what_no_config_says_is_as_in_transformers_class(architecture):
    """Numbers that a `text_config` leaves out."""
    config = pytest.importorskip("transformers").AutoConfig.for_model(architecture)
    shape = Model.from_config({"model_type": "any", "text_config": {"model_type": architecture}}).shape
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads

    numbers = (shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.vocabulary, shape.head_size, shape.tied)
    assert numbers == (
        *(config.hidden_size, config.num_hidden_layers, config.num_attention_heads),
        *(kv_heads, config.vocab_size, head, config.tie_word_embeddings),
    )
    assert shape.intermediate == getattr(config, "intermediate_size", 4 * config.hidden_size)
