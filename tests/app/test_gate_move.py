"""Gates across the move of the package, from `perf` to `perf/trainpace`: no side's code is taken for the other's."""

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest
from test_gate import git

from repository import BARE, finish, one_core

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "e872177"
"""The last revision whose package was called `perf`."""
NATIVE = {"perf": "perf/trainers/native", "trainpace": "perf/trainpace/trainers/native"}
TRAINER = '''"""Sleeps instead of training, so that a gate of the native trainer takes seconds."""

import time


class Trainer:
    def setup(self, context):
        pass

    def load(self, step):
        return step

    def forward_backward(self, batch):
        time.sleep({seconds})  # long beside what a busy machine adds to it
        return 1.0

    def optimizer_step(self):
        time.sleep(0.001)


trainer = Trainer
'''
OPTIONS = (
    *("-k", "test_speed and llama2_7b-8k", "--perf-scale=mini", "--perf-engine=fsdp2", "--perf-warmup=2"),
    *("--perf-steps=10", "--perf-detect=0.2", "--perf-max-pairs=10"),
)


def before(folder):
    """A checkout of before the move."""
    command = ["git", "-C", str(ROOT), "archive", BEFORE]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this clone is shallow: it has no {BEFORE}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def after(folder):
    """A checkout of this tree."""
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


MAKE = {"perf": before, "trainpace": after}


@pytest.fixture
def python(tmp_path):
    """An interpreter that has what the tests' own has, but for what is installed there as a checkout."""
    venv.create(tmp_path / "environment", symlinks=True)
    (site,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    # A path in a .pth file is not searched for further .pth files.
    (site / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return tmp_path / "environment" / "bin" / "python"


@pytest.fixture
def gate(tmp_path, python, started):
    """Runs the gate of a base that is installed in place, as in workflows; head's steps take 1.5 times as long."""

    def run(base, head):
        for side, package, seconds in (("base", base, 0.04), ("head", head, 0.06)):
            MAKE[package](tmp_path / side)
            shutil.rmtree(tmp_path / side / NATIVE[package])
            (tmp_path / side / NATIVE[package]).mkdir()
            (tmp_path / side / NATIVE[package] / "__init__.py").write_text(TRAINER.format(seconds=seconds))
        installed = tmp_path / "base" if base == "perf" else tmp_path / "base" / "perf"
        other = ("-p", "no:trainpace.plugin") if base == "perf" else ()
        present = os.sched_getaffinity(0)
        os.sched_setaffinity(0, one_core())
        try:
            return finish(
                subprocess.Popen(
                    [python, "-P", "-m", "pytest", "perf", *OPTIONS, *BARE, *other, "--perf-head", tmp_path / "head"],
                    cwd=tmp_path / "base",
                    env={**os.environ, "PYTHONPATH": str(installed), "XDG_STATE_HOME": str(tmp_path / "state")},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        finally:
            os.sched_setaffinity(0, present)

    return run


@pytest.mark.slow
def test_after_the_move_a_slower_head_is_red(gate):
    """What the other two are compared with: both sides of today."""
    done = gate("trainpace", "trainpace")

    assert done.code == 1, done.text
    assert "1 regression (llama2_7b-8k-sp1" in done.last_line


@pytest.mark.parametrize(
    ("base", "head", "missing"), [("perf", "trainpace", "perf.trainers"), ("trainpace", "perf", "trainpace")]
)
def test_across_the_move_nothing_is_judged(gate, base, head, missing):
    """The judge finds no trainer of its own name in head, and takes none from elsewhere."""
    done = gate(base, head)

    assert done.code == 7, done.text
    assert f"No module named '{missing}" in done.text


def test_an_installed_trainer_is_not_taken_for_heads(gate, python):
    """Where the package is installed beside a base, a head of before the move would find that one: it is no side's."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "perf" / "trainpace", site / "trainpace", ignore=shutil.ignore_patterns("native"))
    (site / NATIVE["trainpace"].removeprefix("perf/")).mkdir()
    (site / NATIVE["trainpace"].removeprefix("perf/") / "__init__.py").write_text(TRAINER.format(seconds=0.02))
    done = gate("trainpace", "perf")

    assert done.code == 7, done.text
    assert "which is installed and no side's own" in done.text


def test_a_base_of_before_the_move_is_refused(tmp_path, started):
    """Where the environment is that of after it, in one line."""
    before(tmp_path / "clone")
    git(tmp_path / "clone", "init", "-q", "-b", "main")
    git(tmp_path / "clone", "add", ".")
    git(tmp_path / "clone", "commit", "-qm", "before")
    shutil.rmtree(tmp_path / "clone" / "perf")
    after(tmp_path / "clone")
    git(tmp_path / "clone", "commit", "-qam", "after")
    command = [Path(sys.executable).with_name("pytest"), "perf", *OPTIONS, *BARE, "--perf-against", "HEAD~1"]
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True, check=False)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--perf-against HEAD~1: the base is from before the package moved to perf/trainpace" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
