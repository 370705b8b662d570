"""Reading of Alpaca records: what is accepted, and what is refused with its file, line and key."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.data.alpaca import Dialogue, dialogue, source
from trainpace.data.base import silent
from trainpace.errors import DataError

GOOD = '{"instruction": "Add.", "input": "1 2", "output": "3"}'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())


def read(path: Path) -> list[Dialogue]:
    return [found for _, found in source(str(path)).dialogues(silent)]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


def test_prompt_is_the_llama2_chat_template() -> None:
    """An input stands on a line of its own below the instruction."""
    made = dialogue({"instruction": "Add.", "input": "1 2", "output": "3"})

    assert made == Dialogue("[INST] Add.\n1 2 [/INST]", "3")


def test_empty_input_adds_no_line() -> None:
    """Most records have no input, and their prompt is the instruction alone."""
    made = dialogue({"instruction": "Hi", "input": "", "output": "Ho"})

    assert made == Dialogue("[INST] Hi [/INST]", "Ho")


def test_chinese_keys_come_before_english_ones() -> None:
    """A record with both sets of keys is read in Chinese, and further keys are let be."""
    record = {"instruction": "Hi", "input": "", "output": "Ho", "id": 7}
    chinese = {"instruction_zh": "你好", "input_zh": "", "output_zh": "好"}

    assert dialogue(record | chinese) == Dialogue("[INST] 你好 [/INST]", "好")


@given(st.lists(st.fixed_dictionaries({"instruction": TEXT, "input": TEXT | st.just(""), "output": TEXT}), min_size=1))
def test_both_file_forms_hold_the_same_records(tmp_path_factory: pytest.TempPathFactory, records: list[object]) -> None:
    """An array and one record a line are read alike, whatever the texts and the indent."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "a.json").write_text(json.dumps(records, indent=2), encoding="utf-8")
    (folder / "b.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    expected = [dialogue(record) for record in records]

    assert expected == read(folder / "a.json")
    assert expected == read(folder / "b.json")
    assert expected == read(folder / "c.jsonl")


def test_byte_order_mark_and_blank_lines_are_let_be(tmp_path: Path) -> None:
    """What editors add to a file is no error."""
    (tmp_path / "a.json").write_text(f"[{GOOD}]", encoding="utf-8-sig")
    (tmp_path / "b.jsonl").write_text(f"{GOOD}\n\n{GOOD}\n", encoding="utf-8-sig")

    assert len(read(tmp_path / "a.json")) == 1
    assert len(read(tmp_path / "b.jsonl")) == 2


def test_fractions_rise_to_one(tmp_path: Path) -> None:
    """A progress bar can follow the reading."""
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\n" * 4)
    (tmp_path / "b.json").write_text(f"[{GOOD},{GOOD}]")

    assert [fraction for fraction, _ in source(str(tmp_path / "a.jsonl")).dialogues(silent)] == [0.25, 0.5, 0.75, 1]
    assert [fraction for fraction, _ in source(str(tmp_path / "b.json")).dialogues(silent)][-1] > 0.9


BAD_RECORDS = {
    '{"instruction": "a", "output": "b"}': "key 'input': expected text, got no such key "
    "(there are 'instruction', 'output')",
    "{}": "key 'instruction': expected text, got no such key (there are none)",
    '{"instruction_zh": "a", "input_zh": ""}': "key 'output_zh': expected text, got no such key "
    "(there are 'instruction_zh', 'input_zh')",
    '{"instruction": "a", "input": null, "output": "b"}': "key 'input': expected text, got NoneType None",
    '{"instruction": 3, "input": "", "output": "b"}': "key 'instruction': expected text, got int 3",
    '{"instruction": "a", "input": "", "output": ["b"]}': "key 'output': expected text, got list ['b']",
    '{"instruction": "", "input": "", "output": "b"}': "key 'instruction': expected text, got an empty one",
    '{"instruction": "a", "input": "", "output": ""}': "key 'output': expected text, got an empty one",
    '{"instruction": "a", "input": "", "output": " \\n"}': "key 'output': expected text, got only spaces",
    '{"instruction": "a", "input": "", "output": "b\\ud800"}': "key 'output': expected text, "
    "got a lone surrogate at character 1",
    '["a"]': "expected an object with instruction, input, output, got list ['a']",
    '"' + "a" * 50 + '"': f"expected an object with instruction, input, output, got str '{'a' * 36}...",
}


@pytest.mark.parametrize(("record", "said"), BAD_RECORDS.items())
def test_bad_record_is_named_with_line_and_key(tmp_path: Path, record: str, said: str) -> None:
    """In both file forms the third line is named where the third line is no Alpaca record."""
    (tmp_path / "a.json").write_text(f"[\n{GOOD},\n{record}, {GOOD}]")
    (tmp_path / "b.jsonl").write_text(f"{GOOD}\n\n{record}\n{GOOD}\n")

    assert refusal(tmp_path / "a.json") == f"{tmp_path / 'a.json'}, line 3: {said}"
    assert refusal(tmp_path / "b.jsonl") == f"{tmp_path / 'b.jsonl'}, line 3: {said}"


BAD_FILES = {
    ("a.json", b""): ": expected an array of records, got an empty file",
    ("a.json", b" \n "): ": expected an array of records, got an empty file",
    ("a.json", b"[\n]"): ": expected an array of records, got an empty one",
    ("a.json", b"3"): ", line 1: expected an array of records, got '3'",
    ("a.json", b"\n" + GOOD.encode()): ", line 2: expected an array of records, got '{' "
    "(one record a line belongs into a .jsonl file)",
    ("a.json", f"[{GOOD},\n{GOOD}".encode()): ", line 2: not JSON, or cut off: expected ',' or ']', got ''",
    ("a.json", f"[{GOOD}\n{GOOD}]".encode()): ", line 2: not JSON, or cut off: expected ',' or ']', got '{'",
    ("a.json", f"[{GOOD},\n]".encode()): ", line 2: not JSON, or cut off: Expecting value",
    ("a.json", f"[{GOOD},\n{GOOD[:20]}".encode()): ", line 2: not JSON, or cut off: Unterminated string starting at",
    ("a.json", f"[{GOOD}]\n\n[]".encode()): ", line 3: expected the file's end after the array, got '['",
    ("a.json", f"[{GOOD},\n".encode() + b'{"\xff'): ", line 2: not UTF-8 (byte 0xff: invalid start byte)",
    ("a.json", b"[\n" + b"[" * 100_000): ", line 2: nested too deeply",
    ("b.jsonl", b""): ": expected one record a line, got an empty file",
    ("b.jsonl", b"\n\n"): ": expected one record a line, got an empty file",
    ("b.jsonl", f"{GOOD}\n{GOOD[:-5]}\n".encode()): ", line 2: not JSON, or cut off: Expecting value",
    ("b.jsonl", f"{GOOD}\n{GOOD},\n".encode()): ", line 2: not JSON, or cut off: Extra data",
    ("b.jsonl", f"{GOOD}\n".encode() + b'{"\xff"}'): ", line 2: not UTF-8 (byte 0xff: invalid start byte)",
    ("b.jsonl", b"[" * 100_000): ", line 1: nested too deeply",
}


@pytest.mark.parametrize(("file", "said"), BAD_FILES.items())
def test_bad_file_is_named_with_its_line(tmp_path: Path, file: tuple[str, bytes], said: str) -> None:
    """A file that is cut off, not UTF-8 or of another form is refused where it goes wrong."""
    name, content = file
    (tmp_path / name).write_bytes(content)

    assert refusal(tmp_path / name) == f"{tmp_path / name}{said}"


def test_line_of_a_record_far_down(tmp_path: Path) -> None:
    """The line is that of the record in the file as it is indented."""
    records = [json.loads(GOOD)] * 5000
    records[4321] = {"instruction": "a", "input": ""}
    (tmp_path / "a.json").write_text(json.dumps(records, indent=2))

    assert f"line {2 + 4321 * 5}: key 'output'" in refusal(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.json", "expected a .json or .jsonl file or a name on the hub, got no such file"),
        ("folder", "expected a .json or .jsonl file or a name on the hub, got a folder"),
        ("a.csv", "expected a file that ends in .json or .jsonl, got '.csv'"),
        ("plain", "expected a file that ends in .json or .jsonl, got 'no ending'"),
    ],
)
def test_what_is_no_source(tmp_path: Path, name: str, said: str) -> None:
    """A name that leads to no readable file says what was expected."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.csv").touch()
    (tmp_path / "plain").touch()

    with pytest.raises(DataError) as caught:
        source(str(tmp_path / name))

    assert str(caught.value) == f"{tmp_path / name}: {said}"


def test_source_is_named_by_file_and_content(tmp_path: Path) -> None:
    """A run's record must read alike on another machine, and change with the content."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text(f"[{GOOD}]")
    (tmp_path / "x.json").write_text(f"[{GOOD}]")
    (tmp_path / "y.json").write_text(f"[{GOOD} ]")
    one, same, other = (source(str(tmp_path / name)) for name in ("a/x.json", "x.json", "y.json"))

    assert (one.name, one.key) == (same.name, same.key)
    assert one.key != other.key
    assert one.name.startswith("x.json@")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    """JSON's reader would take the last one, and say nothing."""
    record = GOOD[:-1] + ', "output": "4"}'
    (tmp_path / name).write_text(f"[{record}]" if name == "a.json" else record)

    assert refusal(tmp_path / name) == f"{tmp_path / name}, line 1: key 'output': expected it once, got it 2 times"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_record_without_an_end_is_refused(tmp_path: Path, name: str) -> None:
    """A record of 17 MiB is refused by its size, before it is tokenized."""
    record = GOOD.replace("Add.", "x" * (17 << 20))
    (tmp_path / name).write_text(f"[{record}]" if name == "a.json" else f"{GOOD}\n{record}")

    line = 1 if name == "a.json" else 2
    said = "expected a record of at most 16 MiB, got a longer one: split it"

    assert refusal(tmp_path / name) == f"{tmp_path / name}, line {line}: {said}"
