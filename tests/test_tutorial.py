"""docs/tutorial.md: its own text, against the environment of the tests; what sleeps stands for torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tutorial
from repository import BARE, one_core
from trainpace.__main__ import main

STANDIN = Path(__file__).resolve().parent / "standin"


def test_written_by_hand():
    """Fewer than 40 lines."""
    assert 20 < tutorial.lines_by_hand() < 40


def test_both_verdicts_are_shown():
    """One command must be red, the same one then green; the script is bash."""
    shown = list(tutorial.commands())
    red = [command for command, status in shown if status == 1]

    assert len(red) == 1
    assert [command for command, _ in shown].count(red[0]) == 2
    assert subprocess.run([tutorial.BASH, "-n", "-c", tutorial.script(install=True)], check=False).returncode == 0


def test_files_and_sessions(tmp_path, monkeypatch, pytester):
    """What is written fits together: the differences apply, `init` leaves the page's trainer, its case is collected."""
    (tmp_path / "perf").mkdir()
    monkeypatch.chdir(tmp_path)
    untyped = [line for line in tutorial.script(install=False).splitlines() if not re.match(r"typed \d ", line)]
    script = "\n".join(["git init -q -b main .", *untyped])
    done = subprocess.run([tutorial.BASH, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["init", "--no-run", "--name", "qwen"]) == 0
    assert "make_batches(context" in (tmp_path / "perf" / "qwen_trainer.py").read_text()
    assert "return found.loss" in (tmp_path / "training.py").read_text()
    for command in ("pytest perf", next(command for command, status in tutorial.commands() if status == 1)):
        config = pytester.parseconfigure(*command.split()[1:], *BARE)
        session = pytest.Session.from_config(config)
        config.hook.pytest_sessionstart(session=session)

        assert [item.name for item in session.perform_collect()] == ["test_qwen[qwen-2k-sp1]"]
        session.exitstatus = pytest.ExitCode.OK
        config.hook.pytest_sessionfinish(session=session, exitstatus=session.exitstatus)


@pytest.mark.slow
def test_runs(tmp_path, started):
    """From `init` to a red and a green gate, as the page says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    state = {name: str(tmp_path / name) for name in ("XDG_STATE_HOME", "TRAINPACE_LOCKS", "TRAINPACE_CACHE")}
    present = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one_core())  # the load by others cannot be told there
    try:
        (tmp_path / "TRAINPACE_LOCKS").mkdir()
        status, printed = tutorial.run(
            tmp_path, install=False, environment={"PATH": path, "PYTHONPATH": str(STANDIN), **state}
        )
    finally:
        os.sched_setaffinity(0, present)

    assert status == 0, printed
    assert {"red", "green"} <= tutorial.seconds(printed).keys()
    assert "1 case: 1 regression" in printed
    assert "@@@ disturbed" not in printed
    assert started.left() == []
