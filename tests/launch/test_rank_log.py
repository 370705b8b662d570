"""What a rank has said so far, from a file that grows."""

import json
import os
import re
import resource

import pytest

from trainpace.errors import RunFailed
from trainpace.launch.rank_log import RankLog

STEP = '{"event": "step", "step": 4}\n'


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rank-0.jsonl"


def test_no_file_yet(file):
    """A rank that has not begun has said nothing."""
    lines = RankLog(file, 0)

    assert (lines.read(), lines.where()) == (False, "start")


def test_lines_are_taken_as_they_come(file):
    """Every line is taken once, and says how far the rank is."""
    lines = RankLog(file, 0)
    file.write_text('{"event": "begin"}\n{"event": "note", "text": "packing"}\n')

    assert (lines.read(), lines.where(), lines.note) == (True, "set-up", "packing")
    file.write_text(file.read_text() + '{"event": "set-up"}\n')
    assert (lines.read(), lines.where()) == (True, "step 0")
    file.write_text(file.read_text() + STEP)
    assert (lines.read(), lines.where(), lines.note) == (True, "step 5", "training")
    assert not lines.read()


def test_half_a_line_waits(file):
    """A line that is being written is taken when it is whole."""
    lines = RankLog(file, 0)
    file.write_text(STEP[:10])

    assert not lines.read()
    file.write_text(STEP)
    assert (lines.read(), lines.steps) == (True, 5)


def test_end_is_kept(file):
    """Samples and the exception stay as they were written."""
    lines = RankLog(file, 0)
    file.write_text('{"event": "samples", "seconds": [1]}\n{"event": "error", "type": "E"}\n')
    lines.read()

    assert lines.samples["seconds"] == [1]
    assert lines.error["type"] == "E"


def test_order_of_ranks(file, tmp_path):
    """A rank that has not begun is behind one that sets up, and that behind one with a step."""
    ranks = [RankLog(tmp_path / name, 0) for name in ("step", "setup", "none")]
    (tmp_path / "step").write_text(STEP)
    (tmp_path / "setup").write_text('{"event": "begin"}\n')
    for rank in ranks:
        rank.read()

    assert ranks[::-1] == sorted(ranks, key=lambda rank: rank.progress)


@pytest.mark.parametrize(
    "line", ["garbage", "[1]", "[" * 100_000, '{"event": "step", "step": "1"}'], ids=lambda line: line[:9]
)
def test_a_line_of_somebody_else_fails_the_run(tmp_path, line):
    """What is no line of the step loop's ends the run with the line, not the suite with a traceback."""
    (tmp_path / "rank-0.jsonl").write_text(f"{line}\n")

    with pytest.raises(RunFailed, match=re.escape(f"none of the step loop's: b'{line[:80]}")):
        RankLog(tmp_path / "rank-0.jsonl", 0).read()


@pytest.mark.parametrize("step", ["7", "7.0", " 7", "1e0", "true"])
def test_a_step_however_it_is_written(tmp_path, step):
    """What a rank of another version writes is read by its meaning, not by its spaces."""
    (tmp_path / "rank-0.jsonl").write_text(f'{{"event": "step", "step": {step}}}\n')
    lines = RankLog(tmp_path / "rank-0.jsonl", 0)
    lines.read()

    assert json.loads(step) + 1 == lines.steps
    assert lines.note == "training"


def test_an_error_with_half_a_character(tmp_path):
    """A path that is no UTF-8 in an exception's text does not hide the exception."""
    (tmp_path / "rank-0.jsonl").write_text(json.dumps({"event": "error", "message": "no file \udcff"}) + "\n")
    lines = RankLog(tmp_path / "rank-0.jsonl", 0)
    lines.read()

    assert lines.error["message"] == "no file \ufffd"


def test_text_is_made_harmless(file):
    """What a rank says is printed, and a terminal must not obey it."""
    lines = RankLog(file, 0)
    file.write_text(json.dumps({"event": "note", "text": "packing \x1b]0;owned\x07"}) + "\n")
    lines.read()

    assert lines.note == "packing \ufffd]0;owned\ufffd"


def test_what_was_read_is_not_read_again(file):
    """A long line that grows costs what has been added, not the whole of it at every look."""
    lines = RankLog(file, 0)
    half = b'{"event": "note", "text": "' + b"x" * 3_000_000
    file.write_bytes(half)
    first = lines.read()
    file.write_bytes(
        b"?" * len(half) + b'y"}\n' + STEP.encode() + b"{"
    )  # the same length: looked at, it would be wrong

    assert (first, lines.read(), lines.steps) == (False, True, 5)
    assert not lines.read()


def test_a_line_without_an_end(file):
    """Above 64 MiB it is no line of ours, and the run fails before the memory does."""
    file.write_bytes(b"{")
    os.truncate(file, 1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(RunFailed, match=r"none of the step loop's, above 64 MiB: b'{"):
        RankLog(file, 0).read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (200 << 10)


def test_the_window_lies_between_looks(file):
    """It is at least as long as between the look that found it open and the last one that did not find it closed."""
    lines = RankLog(file, 0, warmup=5)
    lines.read()
    file.write_text(STEP)
    lines.read()
    opened = lines.opened
    file.write_text(file.read_text() + STEP + '{"event": "measured"}\n')
    lines.read()
    seen = lines.observed()

    assert opened.after <= opened.by <= lines.closed.by
    assert lines.opened == opened, "the same line once more opens nothing"
    assert seen == {"least": lines.closed.after - opened.by, "most": lines.closed.by - opened.after}


def test_a_window_that_never_opened(file):
    """Without the line of the warm-up's last step nothing was seen; nor where nobody asked."""
    file.write_text('{"event": "step", "step": 7}\n{"event": "measured"}\n')
    asked, not_asked = RankLog(file, 0, warmup=5), RankLog(file, 0)
    asked.read()
    not_asked.read()

    assert asked.observed() is None
    assert not_asked.observed() is None
