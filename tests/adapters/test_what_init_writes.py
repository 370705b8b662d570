"""The trainers that `python -m trainpace init` writes: each is measured by a session as it stands."""

import importlib.util

import pytest

from repository import BARE, Repository
from trainpace.__main__ import main
from trainpace.app.revisions import _git as git
from trainpace.app.stubs import LIBRARIES, TRAINERS


@pytest.mark.slow
@pytest.mark.parametrize("adapter", TRAINERS)
def test_as_it_stands(tmp_path, monkeypatch, started, adapter):
    """It makes its steps, and has no baseline yet."""
    lacks = [name for name in LIBRARIES[adapter] if importlib.util.find_spec(name.replace("-", "_")) is None]
    if lacks:
        pytest.skip(f"needs {', '.join(lacks)}: tox run -e adapters")
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)

    assert main(["init", "--no-run", "--adapter", adapter, "--name", "ours"]) == 0
    done = Repository(tmp_path).suite("--perf-steps=4", *BARE)
    assert done.code == 0, done.text
    assert done.last_line.startswith("1 case: 1 no baseline")
