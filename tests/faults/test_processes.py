"""Ranks, hosts and sessions that die, hang or are slow."""

import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from repository import finish, wait_for
from trainpace.errors import RunFailed
from trainpace.launch import follow


def hosts(fleet):
    return fleet.pool.pids


def failure(fleet, workload):
    """How a run of `workload` fails."""
    with pytest.raises(RunFailed) as raised:
        fleet.run(workload)
    return raised.value


def test_host_killed_with_a_detached_child(fleet, started, toy):
    """A process that a rank let go does not outlive its host, also where that is killed outright."""
    failed = failure(fleet, toy(child="detached", do="kill host", step=3))

    assert failed.cause.startswith("the run host ended (killed by SIGKILL")
    assert started.left() == []


def test_session_and_host_killed_at_once(repository, started):
    """What neither could end any more the next suite ends before it measures."""
    mark = repository.path / "mark"
    session = repository.start(child="detached", do="hang", step=3, mark=str(mark), case="ours-8k-sp1")
    wait_for(mark, session)
    host = next(pid for pid in started.pids() if pid != session.pid and os.getsid(pid) == pid)
    session.send_signal(signal.SIGSTOP)  # it must not notice that its host dies
    os.kill(host, signal.SIGKILL)
    session.kill()
    session.communicate()
    alive = started.pids()
    done = repository.suite("-k", "8k")

    assert alive != []
    assert done.code == 0
    assert started.left() == []


def test_rank_that_hangs_in_data_loading(fleet, started, toy):
    """It is named with the step that it did not finish."""
    failed = failure(fleet, toy(do="hang", part="load", step=3))

    assert failed.rank == 1
    assert "hung: no step from any rank for 3 s; the run stands at step 3 of 6 steps" in failed.cause
    assert hosts(fleet) == started.pids()


def test_rank_that_hangs_before_a_collective(fleet, started, toy):
    """All wait at one step, so no rank is named; all are gone, and the next run meets where this one did."""
    failed = failure(fleet, toy("meeting_toy:MeetingToy", do="hang", step=3))
    alive = started.pids()

    assert "hung: no step from any rank for 3 s; the run stands at step 3 of 6 steps" in failed.cause
    assert failed.rank is None
    assert hosts(fleet) == alive
    assert len(fleet.run(toy("meeting_toy:MeetingToy")).ranks) == 2


def test_port_taken(fleet, toy, monkeypatch):
    """Torch's usual port in another's hands, and named in the environment, does not keep ranks from meeting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))

        assert len(fleet.run(toy("meeting_toy:MeetingToy")).ranks) == 2


def test_lines_that_appear_late(fleet, toy, tmp_path):
    """A file system that shows a rank's last lines a second after it ended loses none of them."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def relay():
        with fifo.open("rb") as lines:
            (path,) = fleet.pool.folder.glob("*/rank-1.jsonl")
            content = lines.read()
        time.sleep(1.0)
        with path.open("ab") as file:
            file.write(content)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    run = fleet.run(toy(do="relay", relay=str(fifo), step=1))
    thread.join()

    assert [len(samples.seconds) for samples in run.ranks] == [4, 4]


def test_lines_that_never_appear(fleet, toy, monkeypatch):
    """They are waited for, and not for ever."""
    monkeypatch.setattr(follow, "LATE_SECONDS", 0.5)
    failed = failure(fleet, toy(do="exit", step=3))

    assert failed.cause == "ended without its samples at step 3"
    assert failed.rank == 1


@pytest.mark.slow
def test_slow_rank(repository, started):
    """A rank that is slower than the others makes its case red, and is named with its place."""
    repository.suite("--perf-refresh", "--perf-runs-per-case=1")
    done = repository.suite("--perf-tolerance=0.3", case="ours-8k-sp1", slow=0.01)

    assert done.code == 1
    assert "1 regression (ours-8k-sp1 (training:Toy) 0." in done.last_line
    assert "rank 1 on " in done.text
    assert "longer than the median rank" in done.text
    assert started.left() == []


BACKWARDS = """
import time
now, looks = time.time, []
def earlier():
    looks.append(0)
    return now() - 3600 * len(looks)
time.time = earlier
"""


@pytest.mark.slow
def test_clock_that_steps_backwards(repository, started):
    """The calendar times nothing: with an hour lost at every look at it, on both sides, runs are no longer."""
    (repository.path / "conftest.py").write_text(BACKWARDS)
    repository.suite("--perf-refresh", "--perf-runs-per-case=1", "-k", "8k")
    done = repository.suite("--perf-tolerance=0.3", "-k", "8k", do="clock")

    assert done.code == 0
    assert done.last_line == "1 case: 1 pass"


SLOW_SYNC = """
import os, pathlib, time
sync = os.fsync
def stall(fd):
    sync(fd)
    if "MARK" in os.environ:
        pathlib.Path(os.environ["MARK"]).touch()
        time.sleep(600)
os.fsync = stall
"""


@pytest.mark.parametrize(
    "end",
    [pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGTERM)] + [signal.SIGKILL],
)
def test_end_while_writing(repository, started, end):
    """A refresh that ends before its file is in place leaves the old one whole; the next one leaves nothing else."""
    (repository.path / "conftest.py").write_text(SLOW_SYNC)
    refresh = ("--perf-refresh", "--perf-runs-per-case=1", "--perf-max-spread=0.9", "-k", "8k")
    refresh += ("--perf-accept-slower=noise",)
    repository.suite(*refresh)
    (path,) = (repository.path / "baselines").iterdir()
    before = path.read_bytes()
    mark = repository.path / "mark"
    session = repository.start(*refresh, environment={"MARK": str(mark)})
    wait_for(mark, session)
    session.send_signal(end)
    finish(session)
    after = path.read_bytes()

    assert before == after
    assert started.left() == []
    assert repository.suite(*refresh).code == 0
    assert list((repository.path / "baselines").iterdir()) == [path]


def test_a_message_that_a_terminal_would_obey(repository):
    """Its escape sequences reach no terminal and no report, and half of a character in it loses no results."""
    done = repository.suite("-k", "8k", "--perf-report=report", do="raise hostile", step=3, log="\x1b[2J")
    results = json.loads((repository.path / "report" / "results.json").read_text())

    assert (done.code, results["exit_status"]) == (7, 7)
    assert "ValueError: \ufffdbroke \ufffd]0;owned\ufffd" in done.text
    assert not re.search(r"[\x1b\x07\ud800-\udfff]", done.text + json.dumps(results, ensure_ascii=False))
