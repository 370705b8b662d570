"""What has changed in the files of a side is found; what a side writes while it trains is not taken for it."""

import os
import py_compile
import subprocess
import sys
from py_compile import PycInvalidationMode

import pytest

from trainpace.app.trees import Tree


def git(folder, *arguments):
    """Run git as somebody."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout  # noqa: S607


@pytest.fixture
def checkout(tmp_path):
    """A commit of a trainer, its configuration and a baseline."""
    folder = tmp_path / "ours"
    (folder / "baselines").mkdir(parents=True)
    (folder / "training.py").write_text("SPEED = 1\n")
    (folder / "config.yaml").write_text("speed: 1\n")
    (folder / "baselines" / "device.json").write_text("{}")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    return folder


def tree(checkout):
    """The checkout as it is now."""
    return Tree.of(checkout, commit=git(checkout, "rev-parse", "HEAD").strip())


def rewrite(path, text):
    """Write a file of the same size, with the same time as before."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "an edit": (lambda folder: (folder / "config.yaml").write_text("speed: 10\n"), ["config.yaml"]),
    "an edit that keeps the time": (
        lambda folder: rewrite(folder / "training.py", "SPEED = 2\n"),
        ["training.py"],
    ),
    "a file that is gone": (lambda folder: (folder / "training.py").unlink(), ["training.py"]),
    "a file that is a link": (
        lambda folder: ((folder / "training.py").rename(folder / "x"), (folder / "training.py").symlink_to("x")),
        ["training.py"],
    ),
    "a module that shadows another": (lambda folder: (folder / "json.py").touch(), ["json.py"]),
    "a module in a new folder": (lambda folder: (folder / "a").mkdir() or (folder / "a" / "b.so").touch(), ["a/b.so"]),
    "a change that is committed": (
        lambda folder: ((folder / "training.py").write_text("SPEED = 2\n"), git(folder, "commit", "-qam", "slower")),
        ["training.py"],
    ),
    "a change that git is told to overlook": (
        lambda folder: (
            git(folder, "update-index", "--assume-unchanged", "training.py"),
            (folder / "training.py").write_text("SPEED = 2\n"),
        ),
        ["training.py"],
    ),
}
NO_CHANGES = {
    "nothing": lambda _: None,
    "the same text, written again": lambda folder: (folder / "training.py").write_text("SPEED = 1\n"),
    "a cache of kernels": lambda folder: (folder / ".cache").mkdir() or (folder / ".cache" / "kernel.so").touch(),
    "a copy of code beside a log": lambda folder: (
        (folder / "runs" / "run-1").mkdir(parents=True) or (folder / "runs" / "run-1" / "training.py").touch()
    ),
    "a log": lambda folder: (folder / "train.log").write_text("step 1"),
    "a baseline": lambda folder: (folder / "baselines" / "device.json").write_text("{ }"),
    "an environment": lambda folder: subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True
    ),
    "bytecode": lambda folder: py_compile.compile(str(folder / "training.py")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_found(checkout, change):
    """What would be run, imported or opened in place of what was there is named."""
    make, expected = CHANGES[change]
    before = tree(checkout)
    make(checkout)

    assert before.changed() == expected


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_training_writes_is_no_change(checkout, change):
    """Nor is what says the same as before."""
    before = tree(checkout)
    NO_CHANGES[change](checkout)

    assert before.changed() == []


@pytest.mark.parametrize("mode", [PycInvalidationMode.TIMESTAMP, PycInvalidationMode.UNCHECKED_HASH])
def test_bytecode_that_says_something_else_is_found(checkout, mode):
    """Python would run it in place of the source, which is as it was."""
    before = tree(checkout)
    source = checkout / "training.py"
    rewrite(source, "SPEED = 2\n")
    py_compile.compile(str(source), invalidation_mode=mode)
    rewrite(source, "SPEED = 1\n")

    assert before.changed() == ["training.py (its bytecode)"]


def test_another_sides_folder_is_not_looked_at(checkout, tmp_path):
    """A workflow may check head out inside of the base, name both by links, and have temporary files there."""
    head = checkout / "head"
    head.mkdir()
    (tmp_path / "link").symlink_to(checkout)
    before = Tree.of(tmp_path / "link", besides=[tmp_path / "link" / "head"])
    (head / "training.py").touch()
    (checkout / "trainpace-build-x").mkdir()
    (checkout / "trainpace-build-x" / "training.py").touch()

    assert before.changed() == []


def test_a_copy_that_was_built(checkout, tmp_path):
    """Of a copy counts what git tracks in its source, and what a build has made that can be imported."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("training.py", "config.yaml", "kernel.so", "build.log"):
        (copy / name).write_text("made")
    before = Tree.of(copy, source=checkout)
    for name in ("config.yaml", "kernel.so", "build.log"):
        (copy / name).write_text("changed")

    assert before.changed() == ["config.yaml", "kernel.so"]


def test_without_git_all_files_count(tmp_path):
    """What was there then, and what can be imported; what else is new does not."""
    (tmp_path / "config.yaml").touch()
    before = Tree.of(tmp_path)
    (tmp_path / "config.yaml").write_text("speed: 2")
    (tmp_path / "log.txt").touch()

    assert before.changed() == ["config.yaml"]
