"""The whole gate on the native trainer: this checkout against a commit that slows its forward."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_gate import git

from repository import BARE, finish, one_core

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    *(
        "-k",
        "test_speed and llama2_7b-8k",
        "--perf-scale=mini",
        "--perf-warmup=1",
        "--perf-steps=4",
        "--perf-engine=fsdp2",
    ),
    *("--perf-detect=0.3", "--perf-max-pairs=5"),
)
FORWARD = "        return self.head(hidden.last_hidden_state[0], labels)\n"
SLOWED = "        for _ in range(6):\n            torch.mm(torch.ones(1024, 1024), torch.ones(1024, 1024))\n" + FORWARD
"""A step takes several times as long: three pairs decide, and five on a busy machine."""


@pytest.fixture
def clone(tmp_path, started):
    """What this checkout holds, as a repository with a `main` and a branch `change`."""
    folder = tmp_path / "clone"
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    git(folder, "switch", "-qc", "change")
    return folder


def suite(folder, *arguments):
    """The suite on one core: there load by others cannot be told, and makes nothing invalid."""
    present = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one_core())
    try:
        return finish(
            subprocess.Popen(
                [str(Path(sys.executable).with_name("pytest")), "perf", *OPTIONS, *BARE, *arguments],
                cwd=folder,
                env={**os.environ, "XDG_STATE_HOME": str(folder.parent / "state")},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ),
            seconds=280,
        )
    finally:
        os.sched_setaffinity(0, present)


@pytest.mark.slow
def test_a_slower_native_step_is_red_explained_and_counted(clone):
    """Red with exit 1: the slowed part and operator are named, and the counted cost says that head does more work."""
    model = clone / "perf" / "trainpace" / "trainers" / "native" / "model.py"
    text = model.read_text()
    assert FORWARD in text
    model.write_text(text.replace(FORWARD, SLOWED))
    git(clone, "commit", "-qam", "slower")

    done = suite(clone, "--perf-against", "main")

    assert done.code == 1, done.text
    assert "1 regression (llama2_7b-8k-sp1" in done.last_line
    assert "forward:" in done.text
    assert "aten::mm:" in done.text
    assert "counted at full size, base -> head:" in done.text
    assert "step.flops" in done.text
