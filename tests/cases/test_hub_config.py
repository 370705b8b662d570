"""Models from configs as they lie on the hub."""

import copy
import json
from pathlib import Path

import pytest

from trainpace.cases import Model, Shape
from trainpace.cases.architectures import ACTIVATIONS, KNOWN, LACKING, cannot
from trainpace.cases.hub import NAMES, OTHER_NAMES, UNUSED
from trainpace.errors import FileError

CONFIGS = {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.json"))}
LLAMA = json.loads(CONFIGS["llama3_1_8b"].read_text())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_trained(name):
    """One of each architecture; nothing of it is unknown or lacking, at mini scale neither."""
    model = Model.from_config(CONFIGS[name])

    assert (cannot(model.shape), cannot(model.mini)) == (None, None)
    assert model.mini.layers == 2


def test_one_config_of_each_architecture():
    """No architecture is left out here."""
    assert {Model.from_config(path).shape.architecture for path in CONFIGS.values()} == set(KNOWN)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("llama3_1_8b", (4096, 32, 14336, 32, 8, 128256, 128, False)),
        ("qwen3_30b_a3b", (2048, 48, 6144, 32, 4, 151936, 128, False)),
        ("gemma3_1b", (1152, 26, 6912, 4, 1, 262144, 256, True)),
        ("pythia_1_4b", (2048, 24, 8192, 16, 16, 50304, 128, False)),
        ("gpt2", (768, 12, 3072, 12, 12, 50257, 64, True)),
        ("command_r_v01", (8192, 40, 22528, 64, 64, 256000, 128, True)),
    ],
)
def test_a_shapes_numbers_are_the_configs(name, shape):
    """Hidden, layers, intermediate, heads, key/value heads, vocabulary, width of a head, tied."""
    found = Model.from_config(CONFIGS[name]).shape

    numbers = (found.hidden, found.layers, found.intermediate, found.heads, found.kv_heads, found.vocabulary)
    assert (*numbers, found.head_size, found.tied) == shape


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trained_config_is_transformers_own(name):
    """What decides the computation is, field by field, what transformers makes of the file."""
    transformers = pytest.importorskip("transformers")
    from trainpace.trainers.native.model import transformers_config

    raw = json.loads(CONFIGS[name].read_text())
    theirs = transformers.AutoConfig.for_model(**raw)
    shape = Model.from_config(CONFIGS[name]).shape
    before = copy.deepcopy(shape)
    ours = transformers_config(shape, raw.get("max_position_embeddings", 1024))

    left = {"head_dim", "tie_word_embeddings", "max_window_layers", "sliding_window_pattern", "num_key_value_heads"}
    left |= {"n_inner"}  # none is four times hidden
    left |= {field for field in vars(theirs) if field in UNUSED or "pdrop" in field or field.startswith("_")}
    fields = {field for field in vars(theirs) if field not in left}
    fields -= {"use_mrope", "attention_bias"} - vars(ours).keys()  # which their classes do not have
    assert {field: getattr(ours, field) for field in fields} == {field: getattr(theirs, field) for field in fields}
    assert before == shape


def test_known_fields_are_those_of_transformers_classes():
    """Every field of a class is a shape's number, known to decide the computation, or known to change nothing."""
    transformers = pytest.importorskip("transformers")
    common = vars(transformers.PreTrainedConfig()).keys()
    names = {*NAMES.values(), *OTHER_NAMES["gpt2"].values()}

    for architecture, known in KNOWN.items():
        fields = vars(transformers.AutoConfig.for_model(architecture)).keys() - common - names - UNUSED
        assert {field for field in fields if not field.startswith("_")} - known == set(), architecture


def test_activations_are_those_of_transformers():
    """A name that it does not know would end each rank."""
    assert set(pytest.importorskip("transformers").activations.ACT2FN) == ACTIVATIONS


@pytest.mark.parametrize(
    ("config", "name", "title"),
    [
        (LLAMA, "llama_8b", "llama 8B"),
        (LLAMA | {"_name_or_path": "meta-llama/Llama-3.1-8B"}, "llama_3_1_8b", "Llama-3.1-8B"),
        (LLAMA | {"_name_or_path": "/data/run 7/"}, "run_7", "run 7"),
        (LLAMA | {"_name_or_path": "./"}, "llama_8b", "llama 8B"),
        (LLAMA | {"model_type": "grok"}, "grok", "grok"),
    ],
)
def test_a_name_from_the_config(config, name, title):
    """The last part of where it lies, or the architecture and its size where the size is known."""
    model = Model.from_config(config)

    assert (model.name, model.title) == (name, title)


def test_a_name_that_is_given_is_taken():
    """And is the title too, if there is no other."""
    named = Model.from_config(LLAMA, name="ours")
    mini = Shape(hidden=64, layers=1, intermediate=64, heads=4, kv_heads=4, vocabulary=64)

    assert (named.name, named.title) == ("ours", "ours")
    assert Model.from_config(LLAMA, title="Ours", mini=mini).mini == mini


def test_the_text_of_a_model_of_text_and_images():
    """Its `text_config` is the model, and says only what differs from the class."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    shape = Model.from_config(
        {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}, "image_token_index": 9}
    ).shape

    assert (shape.architecture, shape.hidden, shape.heads, shape.vocabulary, shape.tied) == (
        *("gemma3_text", 2560, 8, 262208),
        True,
    )
    assert shape.config["layer_types"].count("full_attention") == 5
    assert cannot(shape) is None


def test_windows_as_the_config_says():
    """Of the layers above a number, of every layer, of none."""
    qwen = json.loads(CONFIGS["qwen2_5_7b"].read_text()) | {"use_sliding_window": True, "max_window_layers": 20}
    windowed = Model.from_config(qwen)

    assert windowed.shape.config["layer_types"] == ["full_attention"] * 20 + ["sliding_attention"] * 8
    assert windowed.mini.config["layer_types"] == ["full_attention", "sliding_attention"]
    assert "sliding_window" not in Model.from_config(CONFIGS["qwen2_5_7b"]).shape.config
    assert Model.from_config(CONFIGS["mistral_7b_v0_1"]).mini.config["sliding_window"] == 64


def test_factors_of_rotary_positions_at_mini_scale():
    """There are as many as a small head has pairs."""
    config = json.loads(CONFIGS["phi3_mini_4k"].read_text())
    scaling = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}

    assert Model.from_config(config | {"rope_scaling": scaling}).mini.config["rope_scaling"] == {
        **scaling,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
    }


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gemma3_1b", {"attn_logit_softcapping": 50.0}, r"capped logits of attention \(attn_logit_softcapping=50.0\)"),
        ("gemma3_1b", {"use_bidirectional_attention": True}, "attention to later tokens"),
        ("llama3_1_8b", {"attention_dropout": 0.1}, r"dropout \(attention_dropout=0.1\)"),
        ("pythia_1_4b", {"hidden_dropout": 0.1}, r"dropout \(hidden_dropout=0.1\)"),
        ("llama3_1_8b", {"quantization_config": {"bits": 4}}, "quantized weights"),
        ("llama3_1_8b", {"hidden_act": "silo"}, "hidden_act: the native trainer knows no 'silo'; the nearest is silu"),
        ("llama3_1_8b", {"kv_lora_rank": 512}, "multi-head latent attention"),
        ("llama3_1_8b", {"sliding_window": 4096}, "the config of llama has no field sliding_window"),
        ("llama3_1_8b", {"mlp_bais": True}, r"the config of llama has no field mlp_bais \(the nearest is mlp_bias\)"),
        ("gpt2", {"add_cross_attention": True}, "attention across two sequences"),
        ("mixtral_8x7b", {"output_router_logits": True}, "the router's own loss"),
        ("llama3_1_8b", {"model_type": "cohere2"}, "layers without positions"),
        ("llama3_1_8b", {"model_type": "lama"}, "the nearest is llama"),
    ],
)
def test_what_a_config_asks_for_and_is_not_built(name, change, message):
    """It is carried, and refused by name."""
    config = json.loads(CONFIGS[name].read_text()) | change
    shape = Model.from_config(config).shape

    with pytest.raises(AssertionError, match=message):
        raise AssertionError(cannot(shape))


@pytest.mark.parametrize("change", [{"attention_bias": True}, {"rope_scaling": {"type": "yarn", "factor": 4.0}}])
def test_what_a_config_asks_for_and_is_built(change):
    """Biases, and scaled rotary positions, which are numbers."""
    assert cannot(Model.from_config(LLAMA | change).shape) is None


def test_more_tokens_than_learned_positions():
    """A table of positions has an end; a small one is made as long as it must be."""
    shape = Model.from_config(CONFIGS["gpt2"]).shape

    assert cannot(shape, 1024) is None
    assert cannot(shape, 2048) == "2048 tokens are more than the 1024 learned positions (n_positions) of this gpt2"
    assert set(LACKING) >= {"kv_lora_rank", "state_size"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected the config.json of a transformers model, a path from where pytest was started|No such file"),
        ("{", "got no JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[1]", "a JSON object, got list"),
        ('"\\ud800"', "a JSON object, got str"),
        ('{"hidden_size": NaN}', "NaN is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "model_type: expected the name of an architecture, such as llama, got an empty config"),
        ('{"model_type": 5}', "model_type: expected the name of an architecture, such as llama, got 5"),
        (
            '{"model_type": "llama"}',
            "hidden_size: expected a whole number from 1 on, got none; its fields are model_type",
        ),
        (json.dumps(LLAMA | {"hidden_size": "4096"}), "hidden_size: expected a whole number from 1 on, got '4096'"),
        (json.dumps(LLAMA | {"hidden_size": 4097}), "hidden_size: expected a multiple of num_attention_heads, 32, got"),
        (json.dumps(LLAMA | {"num_key_value_heads": 5}), "num_attention_heads: expected a multiple of num_key_value_h"),
        (json.dumps(LLAMA | {"sliding_window": "4k"}), "sliding_window: expected a whole number from 1 on, got '4k'"),
        (json.dumps(LLAMA | {"layer_types": ["a"]}), "layer_types: expected a list of 32, one a layer, got "),
        (json.dumps(LLAMA | {"num_hidden_layers": 0}), "num_hidden_layers: expected a whole number from 1 on, got 0"),
        (json.dumps(LLAMA | {"num_attention_heads": True}), "num_attention_heads: expected .*, got True"),
        (json.dumps(LLAMA | {"tie_word_embeddings": "no"}), "tie_word_embeddings: expected true or false, got 'no'"),
        (
            '{"model_type": "mamba", "hidden_size": 768}',
            r"num_attention_heads.*mamba has state-space layers, which no Sh",
        ),
        (json.dumps(LLAMA | {"_name_or_path": "x" * 101}), "a model's name must be letters"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, message):
    """The file, the field, what was expected and what came."""
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(FileError, match=message) as raised:
        Model.from_config(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
