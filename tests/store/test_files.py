"""Files: strict on the way in, whole on the way out."""

from functools import reduce

import pytest

from trainpace.cases.machine import Device
from trainpace.errors import FileError
from trainpace.store.files import check_record, read_json, read_record, read_toml, write_whole

DEVICE = '{"slug": "cpu", "name": "CPU", "kind": "cpu", "count": 2, "memory_bytes": 1}'


def test_write_replaces_the_whole_file(tmp_path):
    """The old content goes, and nothing else is left beside the file."""
    path = tmp_path / "a.json"
    path.write_text("old and longer")
    write_whole(path, "new")

    assert path.read_text() == "new"
    assert [path] == list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path):
    """Text that cannot be encoded changes nothing and leaves nothing behind."""
    path = tmp_path / "a.json"
    path.write_text("old")

    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": NaN}', "expected finite numbers, got NaN"),
        (b'{"a": -Infinity}', "expected finite numbers, got -Infinity"),
        (b'{"a": 1, "a": 1}', "key 'a' stands there twice"),
        (b'{"a":\n1,\n', "line 3: not JSON, or cut off"),
        (b"", "line 1: not JSON, or cut off"),
        (b'{"a": "\xff"}', "not UTF-8 .byte 7"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "limit"),
    ],
    ids=["nan", "infinity", "twice", "cut", "empty", "latin", "deep", "digits"],
)
def test_json_that_readers_let_through_is_refused(tmp_path, content, said):
    """Every refusal names the file and the place."""
    path = tmp_path / "a.json"
    path.write_bytes(content)

    with pytest.raises(FileError, match=f"a.json.*{said}"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = \nb = 1", "not TOML: .*line 1"),
        (b"a = " + b"1" * 5000, "not TOML: .*limit"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b'a = "\xff"', "not TOML: .*position 5"),
    ],
    ids=["cut", "digits", "deep", "latin"],
)
def test_toml_that_cannot_be_used_is_refused(tmp_path, content, said):
    """Every refusal names the file; none is a traceback of the parser's."""
    path = tmp_path / "a.toml"
    path.write_bytes(content)

    with pytest.raises(FileError, match=f"a.toml: {said}"):
        read_toml(path)


def test_missing_file_is_refused(tmp_path):
    """A file that is not there is an error with its name."""
    with pytest.raises(FileError, match=r"a.json: cannot be read: No such file"):
        read_json(tmp_path / "a.json")


def test_record_is_read(tmp_path):
    """A file that holds a record gives it."""
    path = tmp_path / "device.json"
    path.write_text(DEVICE)

    assert Device(slug="cpu", name="CPU", kind="cpu", count=2, memory_bytes=1) == read_record(path, Device)


def test_wrong_field_is_named_with_its_value(tmp_path):
    """File, field, what was expected and what came stand in the message."""
    path = tmp_path / "device.json"
    path.write_text(DEVICE.replace('"count": 2', '"count": 0'))

    with pytest.raises(FileError, match=r"device.json: count: Input should be greater than 0, got 0"):
        read_record(path, Device)


@pytest.mark.parametrize("value", [True, "2", 2.0])
def test_strict_refuses_what_could_be_converted(value):
    """`true`, text and fractions are no counts in a file that people edit."""
    content = {"slug": "cpu", "name": "CPU", "kind": "cpu", "count": value, "memory_bytes": 1}

    with pytest.raises(FileError, match=r"count: .*valid integer"):
        check_record(content, Device, where="here", strict=True)


def test_deep_value_is_refused_in_a_record():
    """A value nested beyond reason is an error, no crash."""
    deep = reduce(lambda inner, _: [inner], range(100_000), [])

    with pytest.raises(FileError, match="here: nested too deeply"):
        check_record(deep, Device, where="here", strict=True)
