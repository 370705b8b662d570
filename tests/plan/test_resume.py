"""A session that was cut off goes on with what it had kept, and with nothing else."""

import json
import signal
import subprocess

import pytest

from factories import CPU, DATA, make_run, make_runs, make_workload
from repository import finish, wait_for
from trainpace.app.kept import kept_runs
from trainpace.plan.resume import Now, resumed
from trainpace.runs.run import Health
from trainpace.store.runs import write_run

NAMES = (DATA.sources, DATA.tokenizer)
REVISION = "0123456789abcdef"
RUN = make_run(revision=REVISION)
NOW = Now(workload=RUN.workload, device=CPU.slug, revision=REVISION, software=RUN.software, data=NAMES)


def now(**changes):
    return Now(**{**vars(NOW), **changes})


def test_kept_runs_count():
    """The newest as many as are wanted, oldest first, and their number and time are said."""
    runs = make_runs(1000.0, 1001.0, 1002.0, revision=REVISION)
    usable, said = resumed(runs, NOW, 2)

    assert runs[1:] == usable
    assert said == ["llama2_7b-8k-sp1: 2 of 2 runs were there, measured from 2026-11-25T00:00:01+00:00 on"]


def test_what_was_looked_at_again_counts():
    """More runs than a case begins with, where it looked slow: up to the most, and all of them are said."""
    runs = make_runs(900.0, 901.0, 902.0, revision=REVISION)
    usable, said = resumed(runs, NOW, 1, 5)

    assert runs == usable
    assert said == ["llama2_7b-8k-sp1: 3 of 3 runs were there, measured from 2026-11-25T00:00:00+00:00 on"]


@pytest.mark.parametrize(
    ("change", "run", "said"),
    [
        ({}, {"health": Health(faults=("thermal slowdown",))}, "was disturbed: thermal slowdown"),
        ({}, {"revision": "fedcba9876543210"}, "is of revision fedcba9876, this is 0123456789"),
        ({}, {"revision": REVISION + "+dirty"}, "is of revision 0123456789+dirty, this is 0123456789"),
        ({"revision": REVISION + "+dirty"}, {}, "no commit names what is measured now"),
        ({"revision": None}, {"revision": None}, "no commit names what is measured now"),
        ({"device": "cpu-other"}, {}, "was measured on cpu-test-2c, this is cpu-other"),
        ({"software": RUN.software | {"torch": "2.14.0"}}, {}, "was measured with torch 2.13.0, here is 2.14.0"),
        ({"software": RUN.software | {"triton": "4"}}, {}, "was measured with triton none, here is 4"),
        ({"data": (("alpaca.json@01234567",), "bytes")}, {}, "trained on other data"),
        ({}, {"data": None}, "trained on other data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_differs_is_measured_again(change, run, said):
    """Whatever decides speed and is not the same, or cannot be told to be: the run does not count, and why is said."""
    usable, (text,) = resumed([make_run(**{"revision": REVISION, **run})], now(**change), 1)

    assert usable == []
    assert text.startswith("llama2_7b-8k-sp1: 1 kept runs measured again: ")
    assert said in text


def test_trainer_with_data_of_its_own():
    """Where the session tells the trainer nothing of data, its runs need not say what they trained on."""
    usable, _ = resumed([make_run(revision=REVISION, data=None)], now(data=None), 1)

    assert len(usable) == 1


def test_runs_are_found_by_their_workload(tmp_path):
    """Of the selected cases, with every number of the workload; what was set aside is not looked at."""
    other = make_workload(steps=5)
    for run in (RUN, make_run(workload=other, seed=1), make_run("llama2_7b-32k-sp1", seed=2)):
        write_run(run, tmp_path)
    write_run(make_run(seed=3), tmp_path / "disturbed")

    assert {RUN.workload.key: [RUN], other.key: [make_run(workload=other, seed=1)]} == kept_runs(
        tmp_path, [RUN.workload.case]
    )


def test_folder_that_is_not_there_yet(tmp_path):
    """A session that was cut off before its first run ended has kept none."""
    assert kept_runs(tmp_path / "runs", ["llama2_7b-8k-sp1"]) == {}


@pytest.fixture
def committed(repository):
    """The repository as a commit."""
    (repository.path / ".gitignore").write_text(".*/\nruns/\n*.xml\nmark\n__pycache__/\n")
    for command in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "all"),
    ):
        subprocess.run(["git", *command], cwd=repository.path, check=True)  # noqa: S607
    return repository


def ids(repository, case):
    """Of the runs that were kept."""
    return {json.loads(path.read_text())["id"] for path in (repository.path / "runs").glob(f"{case}-*.json")}


REFRESH = ("--perf-refresh", "--perf-runs-per-case=2", "--perf-max-spread=0.9", "--perf-runs=runs", "-vv")


def test_killed_refresh_is_resumed(committed, started):
    """Killed in its second case, a refresh measures what is missing, and records all; the third time nothing trains."""
    mark = committed.path / "mark"
    session = committed.start(*REFRESH, do="hang", case="ours-32k-sp2", mark=str(mark))
    wait_for(mark, session)
    session.send_signal(signal.SIGKILL)
    finish(session)
    before = ids(committed, "ours-8k-sp1")
    done = committed.suite(*REFRESH, "--perf-resume", "--perf-accept-slower=noise")
    after = ids(committed, "ours-8k-sp1")
    again = committed.suite(*REFRESH, "--perf-resume", do="raise")

    assert len(before) == 1
    assert before < after
    assert len(after) == 2
    assert after == ids(committed, "ours-8k-sp1")
    assert len(ids(committed, "ours-32k-sp2")) == 2
    assert done.code == 0, done.text
    assert done.last_line == "2 cases: 2 recorded"
    assert "ours-8k-sp1: 1 of 2 runs were there, measured from " in done.text
    assert "ours-8k-sp1 mini, run 1 of 2: 43 steps" not in done.text
    assert "ours-8k-sp1 mini, run 2 of 2: 43 steps" in done.text
    assert "ours-32k-sp2 mini, run 1 of 2: 27 steps" in done.text
    assert "ours-8k-sp1: 2 of 2 runs were there, measured from " in again.text
    assert again.code == 0, again.text
    assert started.left() == []


@pytest.mark.slow
def test_another_commit_is_measured_anew(committed, started):
    """Runs of another revision do not count, and that is said; the missing run of a case is the only one made."""
    committed.suite("-k", "8k", "--perf-runs=runs")
    one_more = committed.suite("-k", "8k", "--perf-runs=runs", "--perf-resume", "--perf-runs-per-case=2")
    training = committed.path / "training.py"
    training.write_text(training.read_text() + "\n# changed\n")
    changed = committed.suite("-k", "8k", "--perf-runs=runs", "--perf-resume")

    assert "ours-8k-sp1: 1 of 2 runs were there" in one_more.text
    assert "ours-8k-sp1 mini, run 2 of 2: 43 steps" in one_more.text
    assert "ours-8k-sp1 mini, run 1 of 2: 43 steps" not in one_more.text
    assert "ours-8k-sp1: 2 kept runs measured again: no commit names what is measured now" in changed.text
    assert "ours-8k-sp1 mini: 43 steps" in changed.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--perf-resume"], "--perf-resume: expected --perf-runs DIR"),
        (["--perf-resume", "--perf-runs=runs", "--perf-head=main"], "leave out --perf-head"),
        (["--perf-resume", "--perf-runs=runs", "--perf-self-test"], "leave out --perf-self-test"),
    ],
)
def test_what_cannot_be_resumed(repository, arguments, said):
    """What has no kept runs, or two sides, is a usage error."""
    done = repository.suite(*arguments)

    assert done.code == 4
    assert said in done.text
