"""Tokenizers: the byte-level default, and files of the tokenizers library."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from trainpace.data import vocabulary_size
from trainpace.data.tokenizer import ByteTokenizer, is_hub_name, tokenizer_named
from trainpace.errors import DataError

ENCODABLE = st.text(st.characters(exclude_categories=["Cs"]))


def word_level(folder: Path, words: list[str], config: dict[str, Any] | None = None) -> Path:
    """A real tokenizer of whole words, ids in the order of `words`, in a folder of its own."""
    folder.mkdir()
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # A file may carry these for inference; they must not shorten or fill a record.
    made.enable_truncation(max_length=2)
    made.enable_padding(length=8)
    made.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def refusal(name: Path) -> str:
    with pytest.raises(DataError) as caught:
        tokenizer_named(str(name))
    return str(caught.value)


@given(st.lists(ENCODABLE))
def test_bytes_are_their_value_plus_three(texts: list[str]) -> None:
    """The default tokenizer gives one id a byte, and each text's length."""
    ids, lengths = ByteTokenizer().encode(texts)

    assert ids.tolist() == [3 + byte for text in texts for byte in text.encode()]
    assert lengths.tolist() == [len(text.encode()) for text in texts]
    assert ids.dtype == np.int32


def test_vocabulary_of_the_default() -> None:
    """Pad, bos, eos and 256 bytes."""
    assert vocabulary_size("bytes") == 259


def test_vocabulary_of_the_default_needs_nothing_heavy() -> None:
    """The judging side asks for it while it collects."""
    heavy = {"torch", "transformers", "datasets", "pyarrow", "tokenizers"}
    code = f"import sys, trainpace.data as d; d.vocabulary_size('bytes'); print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"


@pytest.mark.parametrize("inside", ["", "tokenizer.json"])
def test_folder_and_file_are_the_same_tokenizer(tmp_path: Path, inside: str) -> None:
    """Whole texts are tokenised: no truncation, no padding, no special tokens of the file's own."""
    found = tokenizer_named(str(word_level(tmp_path / "words", ["<unk>", "<s>", "</s>", "a", "b"]) / inside))
    ids, lengths = found.encode(["a b a b", "", "b c"])

    assert (ids.tolist(), lengths.tolist()) == ([3, 4, 3, 4, 4, 0], [4, 0, 2])
    assert (found.bos, found.eos, found.vocabulary) == (1, 2, 5)
    assert found.name == f"words@{found.key[:8]}"


def test_vocabulary_is_the_highest_id_and_one(tmp_path: Path) -> None:
    """Added tokens count, with the holes that they leave."""
    folder = word_level(tmp_path / "words", ["<unk>", "<s>", "</s>"])
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["far"] = 99
    (folder / "tokenizer.json").write_text(json.dumps(content))

    assert vocabulary_size(str(folder)) == 100


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"bos_token": "<b>", "eos_token": {"content": "<e>"}}, (3, 4)),
        ({"bos_token": None, "eos_token": "<e>"}, (None, 4)),
        ({"eos_token": "<e>"}, (1, 4)),
    ],
)
def test_special_tokens_of_the_config(tmp_path: Path, config: dict[str, Any], expected: tuple[int, int]) -> None:
    """What tokenizer_config.json says comes first; an explicit null means that records open with none."""
    found = tokenizer_named(str(word_level(tmp_path / "words", ["<unk>", "<s>", "</s>", "<b>", "<e>"], config)))

    assert expected == (found.bos, found.eos)


def test_special_tokens_are_part_of_the_key(tmp_path: Path) -> None:
    """The same vocabulary with another eos gives other tokens."""
    words = ["<unk>", "<s>", "</s>", "<e>"]
    one = tokenizer_named(str(word_level(tmp_path / "a", words)))
    same = tokenizer_named(str(word_level(tmp_path / "b", words)))
    other = tokenizer_named(str(word_level(tmp_path / "c", words, {"eos_token": "<e>"})))

    assert one.key == same.key
    assert one.key != other.key


@pytest.mark.parametrize(
    ("words", "config", "said"),
    [
        (
            ["<unk>"],
            None,
            "expected bos_token; no tokenizer_config.json names one, and no '<s>' in its vocabulary either",
        ),
        (
            ["<unk>", "<s>"],
            {},
            "expected eos_token; no tokenizer_config.json names one, and no '</s>' in its vocabulary either",
        ),
        (
            ["<unk>", "<s>"],
            {"eos_token": "<e>"},
            "expected eos_token; its tokenizer_config.json names '<e>', which it does not know",
        ),
        (
            ["<unk>", "<s>"],
            {"eos_token": None},
            "expected eos_token; its tokenizer_config.json names None, which it does not know",
        ),
    ],
)
def test_missing_special_token(tmp_path: Path, words: list[str], config: dict[str, Any] | None, said: str) -> None:
    """A tokenizer that cannot end a record is refused, and says where it was looked up."""
    folder = word_level(tmp_path / "words", words, config)

    assert refusal(folder) == f"{folder}: {said}"


def test_config_that_is_no_json(tmp_path: Path) -> None:
    """A broken tokenizer_config.json is not passed over."""
    folder = word_level(tmp_path / "words", ["<unk>", "<s>", "</s>"])
    (folder / "tokenizer_config.json").write_text("{")
    cut = refusal(folder)
    (folder / "tokenizer_config.json").write_text("[" * 100_000)
    deep = refusal(folder)
    (folder / "tokenizer_config.json").write_text("[]")

    assert deep == f"{folder}: tokenizer_config.json: nested too deeply"
    assert cut.startswith(f"{folder}: tokenizer_config.json: not JSON, or cut off: ")
    assert refusal(folder) == f"{folder}: tokenizer_config.json: expected an object, got list"


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    """A missing path, a folder without a tokenizer and a file of another form say what was expected."""
    expected = "expected 'bytes', a tokenizer.json, its folder or a name on the hub; no"
    (tmp_path / "other.json").write_text("{}")

    assert refusal(tmp_path / "gone") == f"{tmp_path / 'gone'}: {expected} {tmp_path / 'gone'} is there"
    assert refusal(tmp_path) == f"{tmp_path}: {expected} {tmp_path / 'tokenizer.json'} is there"
    assert refusal(tmp_path / "other.json").startswith(
        f"{tmp_path / 'other.json'}: expected a tokenizer that the tokenizers library reads, got: "
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", True),
        ("tatsu-lab/alpaca", True),
        ("meta-llama/Llama-2-7b-hf", True),
        ("data/alpaca.json", False),
        ("/data/alpaca", False),
        ("./alpaca", False),
        ("a/b/c", False),
        ("a//b", False),
        ("", False),
    ],
)
def test_hub_names(name: str, expected: bool) -> None:
    """What can only be a path is never looked up on the hub."""
    assert expected == is_hub_name(name)
