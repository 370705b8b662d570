"""What is printed while a session runs: progress, and the report at its end."""

import io
import os
import pty
import subprocess
import sys
from functools import partial

import pytest
from _pytest.terminal import TerminalReporter

from factories import make_runs
from trainpace.app import printing
from trainpace.app.printing import Bar, Lines, Progress, print_section
from trainpace.judge.verdict import judge
from trainpace.report.terminal import last_line, render


@pytest.fixture
def reporter(pytestconfig):
    """A real reporter that writes to memory; its `_file` holds what was written."""
    file = io.StringIO()
    made = TerminalReporter(pytestconfig, file)
    made._file = file
    return made


def test_report_goes_through_the_reporter(reporter, monkeypatch):
    """The report is a section of pytest's output, as wide as the terminal says; warnings stand in front."""
    monkeypatch.setenv("COLUMNS", "80")
    judged = judge(make_runs(1001.0), None)
    print_section(reporter, "trainpace", partial(render, [judged]), warnings=["not measured here"])
    text = reporter._file.getvalue()

    assert " trainpace " in text
    assert "not measured here\n" in text
    assert text.endswith(f"{last_line([judged])}\n")
    assert "scale, GPUs" in text


def test_no_reporter_no_progress():
    """Without a reporter progress is silent."""
    progress = Progress.on(None)
    progress.start("llama2_7b-8k-sp1 mini", 43)
    progress.update(1, "warm-up")
    progress.stop()

    assert type(progress) is Progress


def test_plain_progress(reporter, monkeypatch):
    """Without a terminal progress is a line at the start and further ones now and then."""
    monkeypatch.setattr(printing, "LINE_SECONDS", 0.0)
    progress = Progress.on(reporter)
    progress.start("llama2_7b-8k-sp1 mini", 43)
    progress.update(20, "measured")
    progress.stop()

    assert isinstance(progress, Lines)
    assert (
        reporter._file.getvalue()
        == "llama2_7b-8k-sp1 mini: 43 steps\nllama2_7b-8k-sp1 mini: step 20/43, measured, 0 s\n"
    )


def test_plain_progress_does_not_flood(reporter):
    """Steps in quick succession do not each write a line."""
    progress = Progress.on(reporter)
    progress.start("llama2_7b-8k-sp1 mini", 43)
    progress.update(1, "warm-up")
    progress.update(2, "warm-up")

    assert reporter._file.getvalue().count("\n") == 1


BAR = """
import sys
from _pytest.config import get_config
from _pytest.terminal import TerminalReporter
from trainpace.app import printing
printing.BAR_SECONDS = 0.0
reporter = TerminalReporter(get_config([]), sys.stdout)
progress = printing.Progress.on(reporter)
progress.start("llama2_7b-8k-sp1 mini", 43)
progress.update(20, "measured [loss 6.2]")
progress.stop()
print(type(progress).__name__)
"""


def test_bar_on_a_terminal():
    """On a terminal progress is a bar with the steps and what is under way, and it takes itself away."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", BAR], stdout=theirs, env=environment, check=True)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)

    assert "llama2_7b-8k-sp1 mini" in text
    assert "20/43" in text
    assert "measured [loss 6.2]" in text
    assert Bar.__name__ in text.rsplit("\x1b[2K", 1)[-1]
