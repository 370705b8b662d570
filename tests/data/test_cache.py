"""The cache on disk: built once, seen whole or not at all."""

from pathlib import Path

import pytest
from filelock import FileLock

from trainpace.data.cache import content_key, entry, file_hash


def test_entry_is_built_once(tmp_path: Path) -> None:
    """A second request finds the folder and does not build."""
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("content")

    first = entry(tmp_path / "cache", "name", build)
    second = entry(tmp_path / "cache", "name", build)

    assert first == second == tmp_path / "cache" / "name"
    assert len(built) == 1
    assert (first / "file").read_text() == "content"


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """An error passes through, and the next request builds."""

    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        entry(tmp_path, "name", fail)

    assert [path.name for path in tmp_path.iterdir()] == ["name.lock"]
    assert list(entry(tmp_path, "name", lambda folder: None).iterdir()) == []


def test_waiting_is_said(tmp_path: Path) -> None:
    """A process that waits for another one's build says so, and takes over where that left nothing."""
    held = FileLock(tmp_path / "name.lock")
    held.acquire()
    said: list[str] = []

    def progress(fraction: float, doing: str) -> None:
        said.append(doing)
        held.release()

    folder = entry(tmp_path, "name", lambda folder: None, progress)

    assert said == ["waiting for another process that makes the same"]
    assert folder.is_dir()


def test_keys_follow_their_parts(tmp_path: Path) -> None:
    """Equal parts give equal keys, and the order and grouping of parts count."""
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").write_bytes(b"x" * 100_000)

    assert content_key("a", 1) == content_key("a", 1)
    assert len({content_key("a", "b"), content_key("b", "a"), content_key("ab"), content_key(["a", "b"])}) == 4
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
