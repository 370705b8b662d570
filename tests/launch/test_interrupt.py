"""Sessions that are ended from outside: what was finished is told, and nothing is left running."""

import signal

import pytest

from repository import finish, wait_for

HANG = {"do": "hang", "case": "ours-32k-sp2", "step": 3}
"""The second case never ends."""
HELD = ("--perf-step-timeout", 600)


@pytest.fixture
def under_way(repository, started):
    """A session in which one case is finished and another one trains."""
    mark = repository.path / "mark"
    session = repository.start(*HELD, "--junit-xml=junit.xml", "--perf-runs=runs", mark=str(mark), **HANG)
    wait_for(mark, session)
    return session


def test_interrupt(repository, started, under_way):
    """Ctrl-C ends the session with pytest's 2: the finished case is in the table and the files, no process is left."""
    under_way.send_signal(signal.SIGINT)
    done = finish(under_way)

    assert done.code == 2
    assert done.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"
    assert repository.cases()["test_ours[ours-8k-sp1]"][2]["perf.verdict"] == "no baseline"
    assert len(list((repository.path / "runs").iterdir())) == 1
    assert started.left() == []
    assert list((repository.path / ".tmp").iterdir()) == []
    assert repository.suite().code == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_kill(repository, started, under_way, end):
    """A session that is killed takes host and ranks along, and what these had started; the device is free again."""
    alive = len(started.pids())
    under_way.send_signal(end)
    under_way.wait()

    assert alive == 4
    assert started.left() == []
    assert repository.suite().code == 0


def test_second_interrupt(repository, started, under_way):
    """An impatient second Ctrl-C leaves no process either."""
    under_way.send_signal(signal.SIGINT)
    under_way.send_signal(signal.SIGINT)
    finish(under_way)

    assert started.left() == []


def test_kill_ends_what_ranks_had_started(repository, started):
    """Processes that a trainer has started go with a killed session."""
    mark = repository.path / "mark"
    session = repository.start(*HELD, child="detached", mark=str(mark), **HANG)
    wait_for(mark, session)
    session.kill()
    session.wait()

    assert started.left() == []


@pytest.mark.slow
def test_second_suite_is_refused(repository, under_way):
    """While one suite measures, another is refused with exit 4, which names it; then the device is free."""
    second = repository.suite()
    under_way.send_signal(signal.SIGINT)
    finish(under_way)

    assert second.code == 4
    assert f"is being measured by another suite (process {under_way.pid})" in second.text
    assert repository.suite().code == 0


def test_replay_needs_no_device(repository, under_way):
    """Recorded runs are judged while another suite measures."""
    second = repository.suite("--perf-replay=runs")
    under_way.kill()

    assert second.code == 0
    assert second.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"


def test_hung_case_does_not_stop_the_others(repository, started):
    """A case whose rank hangs is invalid; the next one runs, in the same host."""
    done = repository.suite("--perf-step-timeout=1", do="hang", case="ours-8k-sp1", step=3)

    assert done.code == 7
    assert done.last_line.startswith("2 cases: 1 no baseline (ours-32k-sp2 (training:Toy)), 1 invalid (ours-8k-sp1")
    assert "rank 1: hung: no step from any rank for 1 s; the run stands at step 3 of 43 steps" in done.text
    assert started.left() == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_end_while_a_host_gets_ready(repository, started, end):
    """A session that ends while its host still imports the trainer leaves nothing either."""
    mark = repository.path / "mark"
    slow = f"import pathlib, time\npathlib.Path({str(mark)!r}).touch()\ntime.sleep(600)\n"
    (repository.path / "training.py").write_text(slow)
    session = repository.start()
    wait_for(mark, session)
    session.send_signal(end)
    session.communicate()

    assert started.left() == []
