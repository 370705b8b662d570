"""Files of records: the forms hold the same records, and what cannot be read is named by record and line."""

import json
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.data.record_files import READERS, Item
from trainpace.errors import DataError

GOOD = '{"instruction": "Add.", "input": "1 2", "output": "3"}'
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ALPACA = st.fixed_dictionaries({"instruction": TEXT, "input": TEXT | st.none(), "output": TEXT})
MESSAGES = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), min_size=1)}
)


def read(path: Path) -> list[Item]:
    return list(READERS[path.suffix](path))


def refusal(path: Path) -> str:
    """What is said of the one record that cannot be read, or of the file."""
    try:
        (bad,) = [item for item in read(path) if isinstance(item.record, DataError)]
    except DataError as error:
        return str(error)
    return f"{path}, {bad.where()}: {bad.record}"


@given(st.lists(ALPACA, min_size=1) | st.lists(MESSAGES, min_size=1))
def test_all_forms_hold_the_same_records(tmp_path_factory: pytest.TempPathFactory, records: list[object]) -> None:
    """An array, one record a line and rows are read alike, whatever the texts and the indent."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "a.json").write_text(json.dumps(records, indent=2), encoding="utf-8")
    (folder / "b.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    pa.parquet.write_table(pa.Table.from_pylist(records), folder / "d.parquet")

    for name in ("a.json", "b.json", "c.jsonl", "d.parquet"):
        assert records == [item.record for item in read(folder / name)]


def test_byte_order_mark_and_blank_lines_are_let_be(tmp_path: Path) -> None:
    """What editors add to a file is no error."""
    (tmp_path / "a.json").write_text(f"[{GOOD}]", encoding="utf-8-sig")
    (tmp_path / "b.jsonl").write_text(f"{GOOD}\n\n{GOOD}\n", encoding="utf-8-sig")

    assert [item.where() for item in read(tmp_path / "a.json")] == ["record 1 (line 1)"]
    assert [item.where() for item in read(tmp_path / "b.jsonl")] == ["record 1 (line 1)", "record 2 (line 3)"]


def test_fractions_rise_to_one(tmp_path: Path) -> None:
    """A progress bar can follow the reading."""
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\n" * 4)
    (tmp_path / "b.json").write_text(f"[{GOOD},{GOOD}]")
    pa.parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "c.parquet")

    assert [item.fraction for item in read(tmp_path / "a.jsonl")] == [0.25, 0.5, 0.75, 1]
    assert [item.fraction for item in read(tmp_path / "b.json")][-1] > 0.9
    assert [item.fraction for item in read(tmp_path / "c.parquet")] == [0.5, 1]


def test_a_record_far_down_a_long_line(tmp_path: Path) -> None:
    """Published files are one line: the number of the record is what tells it."""
    records = [json.loads(GOOD)] * 5000
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "b.json").write_text(json.dumps(records, indent=2))

    assert read(tmp_path / "a.json")[4321].where() == "record 4322 (line 1)"
    assert read(tmp_path / "b.json")[4321].where() == f"record 4322 (line {2 + 4321 * 5})"


BAD_FILES = {
    ("a.json", b""): ": expected an array of records, got an empty file",
    ("a.json", b" \n "): ": expected an array of records, got an empty file",
    ("a.json", b"[\n]"): ": expected an array of records, got an empty one",
    ("a.json", b"3"): ", line 1: expected an array of records, got '3'",
    ("a.json", "[3]".encode("utf-16")): ", line 1: not UTF-8 (byte 0xff)",
    ("a.json", b"\n" + GOOD.encode()): ", line 2: expected an array of records, got '{' "
    "(one record a line belongs into a .jsonl file)",
    (
        "a.json",
        f"[{GOOD},\n{GOOD}".encode(),
    ): ", record 2 (line 2): not JSON, or cut off: expected ',' or ']' after it, got ''",
    (
        "a.json",
        f"[{GOOD}\n{GOOD}]".encode(),
    ): ", record 1 (line 2): not JSON, or cut off: expected ',' or ']' after it, got '{'",
    ("a.json", f"[{GOOD},\n]".encode()): ", record 2 (line 2): not JSON, or cut off: Expecting value",
    ("a.json", f"[{GOOD},\n{GOOD[:20]}".encode()): ", record 2 (line 2): not JSON, or cut off: "
    "Unterminated string starting at",
    ("a.json", f"[{GOOD}]\n\n[]".encode()): ", line 3: expected the file's end after the array, got '['",
    ("a.json", f"[{GOOD},\n".encode() + b'{"\xff": 1}, {}]'): ", record 2 (line 2): not UTF-8 (byte 0xff)",
    ("a.json", b"[\n" + b"[" * 100_000): ", record 1 (line 2): nested too deeply",
    ("a.json", f'[{GOOD},{GOOD[:-1]}, "output": 4}}]'.encode()): ", record 2 (line 1): key 'output': "
    "expected it once, got it 2 times",
    ("b.jsonl", b""): ": expected one record a line, got an empty file",
    ("b.jsonl", b"\n\n"): ": expected one record a line, got an empty file",
    ("b.jsonl", f"{GOOD}\n\n{GOOD[:-5]}\n".encode()): ", record 2 (line 3): not JSON, or cut off: Expecting value",
    ("b.jsonl", f"{GOOD}\n{GOOD},\n".encode()): ", record 2 (line 2): not JSON, or cut off: Extra data",
    ("b.jsonl", f"{GOOD}\n".encode() + b'{"\xff"}'): ", record 2 (line 2): not UTF-8 (byte 0xff)",
    ("b.jsonl", b"[" * 100_000): ", record 1 (line 1): nested too deeply",
    ("b.jsonl", f'{GOOD[:-1]}, "output": 4}}'.encode()): ", record 1 (line 1): key 'output': "
    "expected it once, got it 2 times",
}


@pytest.mark.parametrize(("file", "said"), BAD_FILES.items())
def test_bad_file_is_named_with_record_and_line(tmp_path: Path, file: tuple[str, bytes], said: str) -> None:
    """A file that is cut off, not UTF-8 or of another form is refused where it goes wrong."""
    name, content = file
    (tmp_path / name).write_bytes(content)

    assert refusal(tmp_path / name) == f"{tmp_path / name}{said}"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_record_without_an_end_is_refused(tmp_path: Path, name: str) -> None:
    """A record of 19 MiB is refused by its size, before it is tokenized; the one after it can be read."""
    record = GOOD.replace("Add.", "x" * (19 << 20))
    (tmp_path / name).write_text(f"[{record},{GOOD}]" if name == "a.json" else f"{record}\n{GOOD}\n")

    said = "expected a record of at most 16 MiB, got a longer one: split it"

    assert refusal(tmp_path / name) == f"{tmp_path / name}, record 1 (line 1): {said}"
    assert [item.record for item in read(tmp_path / name)][1:] == [json.loads(GOOD)]


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    """What is no Parquet, has no rows, no columns of a record, or a column twice; and a row whose text is no text."""
    path = tmp_path / "a.parquet"
    keys = "instruction, input, output (alpaca) or messages or conversations (messages) or text (text)"

    def said(table: pa.Table) -> str:
        pa.parquet.write_table(table, path)
        return refusal(path).removeprefix(str(path))

    assert said(pa.table({"text": pa.array([], pa.string())})) == ": expected rows, got none"
    assert said(pa.table({"a": [1], "b": [2]})) == f", columns: expected the keys {keys}, got 'a', 'b'"
    assert (
        said(pa.table([[1], [2]], names=["text", "text"])) == ", columns: key 'text': expected it once, got it 2 times"
    )
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers())
    assert said(pa.table({"text": bad})).startswith(
        ", record 2: cannot be decoded: 'utf-8' codec can't decode byte 0xff"
    )
    path.write_bytes(path.read_bytes()[:-9])
    assert refusal(path).startswith(f"{path}: not Parquet, or cut off: ")


def test_columns_that_no_record_has_are_not_read(tmp_path: Path) -> None:
    """Vectors beside the texts may be most of a file."""
    pa.parquet.write_table(pa.table({"text": ["a"], "vector": [[1.0, 2.0]]}), tmp_path / "a.parquet")

    assert [item.record for item in read(tmp_path / "a.parquet")] == [{"text": "a"}]
