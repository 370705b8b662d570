"""The file of what earlier pairs spread: it lasts, does not grow, and is refused where it is not what it must be."""

import json
import threading

import pytest

from trainpace.errors import FileError
from trainpace.judge.noise import SessionNoise
from trainpace.store import noise
from trainpace.store.noise import keep_noise, load_noise, noise_path


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Of a device that nobody has measured yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return noise_path("cpu-test-2c")


def session(day=1, sd=0.02, dof=3):
    """The noise of one session."""
    return SessionNoise(recorded=f"2026-11-{day:02d}T00:00:00+00:00", sd=sd, dof=dof)


def test_sessions_are_kept_by_case(path):
    """What was kept is read back; a case that a session did not measure keeps what it had."""
    assert load_noise(path) == {}

    keep_noise(path, {"a": session(1), "b": session(1)})
    keep_noise(path, {"a": session(2)})

    assert load_noise(path) == {"a": (session(1), session(2)), "b": (session(1),)}
    assert [each.name for each in path.parent.iterdir()] == ["cpu-test-2c.json"]


def test_file_holds_no_more_cases_than_it_may(path, monkeypatch):
    """Those that were measured last."""
    monkeypatch.setattr(noise, "MOST_CASES", 2)
    for day, case in enumerate("abc", 1):
        keep_noise(path, {case: session(day)})

    assert sorted(load_noise(path)) == ["b", "c"]


def test_two_writers_lose_nothing(path):
    """Each adds its session to what the other wrote."""
    writers = [threading.Thread(target=keep_noise, args=(path, {f"{index}": session()})) for index in range(8)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()

    assert len(load_noise(path)) == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object with cases and schema_version"),
        ('{"schema_version": 2, "cases": {}}', "expected schema_version 1, got 2"),
        ('{"schema_version": 1, "cases": {"a": 3}}', "expected a list of sessions"),
        ('{"schema_version": 1, "cases": {"a": [{"recorded": "x", "sd": -1, "dof": 3}]}}', "a: sd: "),
        ('{"schema_version": 1, "cases": {"a": [{"recorded": "x", "sd": NaN, "dof": 3}]}}', "NaN"),
        ('{"schema_version": 1, "cases": {"a": [{"recorded": "x", "sd": "1", "dof": 3}]}}', "a: sd: "),
        ('{"schema_version": 1, "cases": {"a": [{"recorded": "x", "sd": 1, "dof": 0}]}}', "a: dof: "),
    ],
)
def test_edited_file_is_refused(path, content, said):
    """By file, case and field; it is not written over."""
    path.parent.mkdir(parents=True)
    path.write_text(content)

    with pytest.raises(FileError, match=said):
        load_noise(path)
    with pytest.raises(FileError, match=said):
        keep_noise(path, {"a": session()})
    assert path.read_text() == content


def test_file_is_sorted_and_readable(path):
    """A person can read it and edit it."""
    keep_noise(path, {"b": session(), "a": session()})

    assert list(json.loads(path.read_text())["cases"]) == ["a", "b"]
    assert '"sd": 0.02' in path.read_text()
