"""Sources: names, kinds, records that are refused or skipped, what was found in them."""

import json
from pathlib import Path

import pytest

from trainpace.data.kinds import Turn
from trainpace.data.sources import Seen, source
from trainpace.errors import DataError

GOOD = {"instruction": "Add.", "input": "1 2", "output": "3"}
OTHER = {"text": "a"}
HINT = "; --perf-skip-bad-records leaves out such records"


def written(path: Path, records: list[object]) -> str:
    path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


def read(name: str, *, skip_bad: bool = False) -> Seen:
    seen = Seen()
    assert len(list(source(name, skip_bad=skip_bad).dialogues(seen))) == seen.records
    return seen


def refusal(name: str, *, skip_bad: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read(name, skip_bad=skip_bad)
    return str(caught.value).removeprefix(name)


def test_bad_record_is_named_by_number_line_and_key(tmp_path: Path) -> None:
    """In a published file, one line long, the number is what tells it; the option that skips it is named."""
    name = written(tmp_path / "a.json", [GOOD, GOOD, {"instruction": "a", "input": ""}, GOOD])
    said = "key 'output': expected text, got no such key (there are 'instruction', 'input')"

    assert refusal(name) == f", record 3 (line 1): {said}{HINT}"


def test_kinds_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    """The first record says what the file is."""
    name = written(tmp_path / "a.json", [GOOD, OTHER])

    assert refusal(name) == (
        ", record 2 (line 1): expected the keys of the kind alpaca (instruction, input, output), as before in this "
        f"file, got one of the kind text ('text'): one kind a file{HINT}"
    )


def test_kind_and_number_are_found(tmp_path: Path) -> None:
    """Reports give them."""
    assert read(written(tmp_path / "a.json", [GOOD] * 2)) == Seen(kind="alpaca", records=2)
    assert read(written(tmp_path / "b.json", [OTHER])) == Seen(kind="text", records=1)


def test_skipped_records_are_counted_with_their_reasons(tmp_path: Path) -> None:
    """The first three are named; a bad record before the first good one does not say what the file is."""
    bad: list[object] = [{"prompt": "a"}, 3, OTHER, {"instruction": "a"}, {"instruction": ""}]
    name = written(tmp_path / "a.json", [*bad[:1], GOOD, *bad[1:], *[GOOD] * 5])
    seen = read(name, skip_bad=True)

    assert (seen.kind, seen.records, seen.skipped, len(seen.reasons)) == ("alpaca", 6, 5, 3)
    assert [reason.partition(":")[0] for reason in seen.reasons] == ["record 1", "record 3", "record 4"]
    assert seen.reasons[1] == "record 3: expected an object with instruction, input, output, got int 3"


def test_lines_that_are_no_json_are_skipped(tmp_path: Path) -> None:
    """A line is a record of its own; an array that is no JSON has no further records, and is refused."""
    lines = [json.dumps(GOOD), "{", json.dumps(GOOD)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.json").write_text(f"[{','.join(lines)}]")

    assert read(str(tmp_path / "a.jsonl"), skip_bad=True).skipped == 1
    assert ", record 2 (line 1): not JSON" in refusal(str(tmp_path / "b.json"), skip_bad=True)


def test_more_bad_records_than_good_are_refused(tmp_path: Path) -> None:
    """It is another file than was meant."""
    name = written(tmp_path / "a.json", [OTHER, GOOD, GOOD])

    assert refusal(name, skip_bad=True).startswith(
        ": expected no more than half of the records to be skipped, got 2 of 3: record 2: expected the keys of the kind"
    )


def test_skipped_records_are_a_part_of_the_name(tmp_path: Path) -> None:
    """Without them it is other data; where none was skipped, the option makes no difference."""
    good, bad = written(tmp_path / "a.json", [GOOD] * 3), written(tmp_path / "b.json", [GOOD, OTHER, GOOD])
    plain = source(good)

    assert plain.name == source(good, skip_bad=True).whole_name()
    assert source(bad, skip_bad=True).whole_name() == f"{source(bad).name} less 1 record"


def test_source_is_named_by_file_and_content(tmp_path: Path) -> None:
    """A run's record must read alike on another machine, and change with the content."""
    (tmp_path / "a").mkdir()
    one, same = (source(written(tmp_path / name, [GOOD])) for name in ("a/x.json", "x.json"))
    other = source(written(tmp_path / "y.json", [GOOD, GOOD]))

    assert (one.name, one.key) == (same.name, same.key)
    assert one.key != other.key
    assert one.name.startswith("x.json@")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.json", "expected a .json, .jsonl or .parquet file or a name on the hub, got no such file"),
        ("gone.parquet", "expected a .json, .jsonl or .parquet file or a name on the hub, got no such file"),
        ("folder", "expected a .json, .jsonl or .parquet file or a name on the hub, got a folder"),
        ("a.csv", "expected a file that ends in .json, .jsonl or .parquet, got '.csv'"),
        ("plain", "expected a file that ends in .json, .jsonl or .parquet, got 'no ending'"),
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


def test_records_become_dialogues(tmp_path: Path) -> None:
    """With the fraction that is behind each."""
    name = written(tmp_path / "a.json", [GOOD])

    assert [made for _, made in source(name).dialogues(Seen())] == [(Turn("[INST] Add.\n1 2 [/INST]", "3"),)]
