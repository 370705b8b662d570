"""Runs as steps of a real Slurm of four nodes on this machine: what they give, and that nothing of them stays."""

import json
import os
import signal
import subprocess
import time

import pytest

import cluster
from repository import finish, wait_for

WIDE = """
import pytest
from test_ours import OURS
from trainpace.cases import Case, Mini

@pytest.mark.parametrize("case", [Case(model=OURS, length="128k", sp=4, gpus=32, mini=Mini(sp=4))], ids=str)
def test_wide(case, judge_speed):
    judge_speed(case)
"""
WIDE_CASE = "ours-128k-sp4"
SLOW = pytest.mark.slow

pytestmark = pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "there is a cluster")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Four nodes."""
    with cluster.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def wide(repository):
    """A repository with a case of four ranks besides those of two."""
    (repository.path / "perf" / "test_first.py").write_text(WIDE)
    return repository


@pytest.fixture
def start(wide, nodes):
    """Starts the suite on the cluster."""

    def begin(*arguments, on=nodes, environment=(), **toy):
        return wide.start(
            "--perf-launcher=slurm",
            "--perf-scale=mini",
            "--junitxml=junit.xml",
            *arguments,
            environment={**on.environment, **dict(environment)},
            **toy,
        )

    return begin


def freed(on):
    """Steps and allocations that are left, once they have had time to go."""
    deadline = time.monotonic() + 20
    while (left := on.steps() + on.jobs()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.slow
def test_a_case_runs_across_four_nodes(wide, nodes, start, started):
    """In an allocation of its own the session runs one rank a node, says which nodes, and gives everything back."""
    done = finish(start("-k", WIDE_CASE, "--perf-runs=runs", seconds=0.02))
    (run,) = [json.loads(path.read_text()) for path in (wide.path / "runs").glob("*.json")]

    assert done.code == 0
    assert [node["name"] for node in run["nodes"]] == ["n1", "n2", "n3", "n4"]
    assert [rank["place"].partition("/")[0] for rank in run["ranks"]] == ["n1", "n2", "n3", "n4"]
    assert run["workload"]["nodes"] == 4
    assert freed(nodes) == []
    assert started.left() == []
    assert files_below(wide.path / ".cache") == []


@pytest.mark.slow
def test_nodes_are_part_of_the_baseline(wide, start):
    """A baseline of four nodes judges runs on four nodes, and none on one machine."""
    assert finish(start("-k", WIDE_CASE, "--perf-refresh", "--perf-runs-per-case=2", seconds=0.05)).code == 0
    judged = finish(start("-k", WIDE_CASE, "--perf-tolerance=0.3", seconds=0.05))
    alone = wide.suite("-k", WIDE_CASE, "--perf-scale=mini", seconds=0.05)

    assert judged.last_line == "1 case: 1 pass"
    assert alone.last_line.startswith("1 case: 1 no baseline")


@pytest.mark.slow
def test_a_slow_node(wide, start):
    """A node whose ranks are slower than the others': the case is invalid and not red, and the node is named."""
    assert finish(start("-k", WIDE_CASE, "--perf-refresh", "--perf-runs-per-case=2", seconds=0.05)).code == 0
    done = finish(start("-k", WIDE_CASE, "--perf-tolerance=0.2", case=WIDE_CASE, seconds=0.05, rank=2, slow=0.05))

    assert done.code == 7
    assert "node n3 is slow: all its ranks took" in done.text
    assert done.last_line.startswith("1 case: 1 invalid")


@pytest.mark.slow
def test_in_an_allocation(wide, nodes, start):
    """Inside of an allocation the steps run there, whatever it asked for its own tasks, and it stays afterwards."""
    options = ["salloc", "--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1", "env"]
    told = nodes.command(*options)
    inherited = dict(line.split("=", 1) for line in told.splitlines() if line.startswith("SLURM_"))
    held = subprocess.Popen(
        [cluster.tool("salloc"), *options[1:4], "--job-name=outer", "sh", "-c", "echo $SLURM_JOB_ID; cat"],
        env=os.environ | nodes.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    job = held.stdout.readline().strip()
    try:
        environment = inherited | {"SLURM_JOB_ID": job, "SLURM_JOBID": job}
        done = finish(start("-k", "ours-8k-sp1", "--perf-runs=runs", environment=environment, seconds=0.02))
        refused = finish(start("-k", "ours-8k-sp1", "--perf-slurm=nodes=1", environment=environment))
        (run,) = [json.loads(path.read_text()) for path in (wide.path / "runs").glob("*.json")]

        assert done.code == 0
        assert len(run["nodes"]) == 2
        assert nodes.jobs() == [job]
        assert nodes.steps() == []
        assert refused.code == 7
        assert f"--perf-slurm asks for an allocation, and this is one (job {job}): leave it out" in refused.text
    finally:
        held.communicate("")
    assert freed(nodes) == []


@pytest.mark.slow
def test_hours(nodes, start):
    """How long it takes is said first, and more than is allowed is refused before it runs."""
    finish(start("-k", WIDE_CASE, "--perf-refresh", "--perf-runs-per-case=2", seconds=0.05))
    done = finish(start("-k", WIDE_CASE, "--perf-tolerance=0.5", seconds=0.05))
    refused = finish(start("-k", WIDE_CASE, "--perf-max-hours=0.0001", seconds=0.05))

    assert "rank hours (1 from baseline)" in done.text.partition("ours-128k-sp4 mini: ")[0]
    assert "rank hours: 0.0" in done.text
    assert refused.code == 4
    assert "--perf-max-hours 0.0001: the selection takes about" in refused.text
    assert freed(nodes) == []


@pytest.mark.slow
def test_gate_on_nodes(wide, nodes, start):
    """Head and base are measured on the same nodes; a slowdown is red."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(wide.path)]
    (wide.path / ".gitignore").write_text(".*\n*.xml\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"]):
        subprocess.run([*git, *command], check=True)
    training = wide.path / "training.py"
    training.write_text(
        training.read_text().replace('time.sleep(self.wishes["seconds"]', 'time.sleep(0.03 + self.wishes["seconds"]')
    )
    done = finish(start("-k", WIDE_CASE, "--perf-against=HEAD", "--perf-detect=0.2", "--perf-steps=6", seconds=0.05))

    assert done.code == 1
    assert "1 regression (ours-128k-sp4" in done.last_line
    assert freed(nodes) == []


def test_options_of_the_allocation(nodes, start):
    """What Slurm refuses is said in its own words, once, and everything else ends."""
    done = finish(start("--perf-slurm=partition=no-such,time=5"))

    assert done.code == 7
    assert "Slurm gave no allocation: salloc: error: " in done.text
    assert freed(nodes) == []


@pytest.mark.parametrize(
    ("wishes", "cause"),
    [
        ({"do": "kill", "rank": 2, "step": 3}, "rank 2: killed by SIGKILL"),
        pytest.param(
            {"do": "raise", "rank": 3, "step": 3}, "rank 3: ValueError: the toy broke (at step 3)", marks=SLOW
        ),
        pytest.param({"do": "kill host", "rank": 1, "step": 3}, "the run host ended (killed by SIGKILL", marks=SLOW),
    ],
)
def test_rank_fails_on_a_node(wide, nodes, start, started, wishes, cause):
    """Whatever fails on a node ends its run on all of them, with its cause; the other cases are judged."""
    done = finish(start("-k", f"{WIDE_CASE} or 8k", case=WIDE_CASE, seconds=0.05, **wishes))
    kind, text, _ = wide.cases()[f"test_wide[{WIDE_CASE}]"]

    assert (done.code, kind) == (7, "failure")
    assert cause in text
    assert "1 no baseline (ours-8k-sp1" in done.last_line
    assert freed(nodes) == []
    assert started.left() == []


@pytest.mark.slow
def test_a_node_is_lost(wide, start, started, tmp_path):
    """A node that dies in mid-run: invalid, and named; cases that need fewer nodes go on, the allocation is freed."""
    (tmp_path / "slurm").mkdir()
    mark = tmp_path / "mark"
    with cluster.running(tmp_path / "slurm") as four:
        suite = start("-k", f"{WIDE_CASE} or 8k", on=four, case=WIDE_CASE, seconds=0.1, rank=2, step=3, mark=str(mark))
        wait_for(mark, suite)
        four.lose(3)
        done = finish(suite)
        kind, text, _ = wide.cases()[f"test_wide[{WIDE_CASE}]"]

        assert (done.code, kind) == (7, "failure")
        assert "node n3 is lost: no sign of life for 15 s" in text
        assert "1 no baseline (ours-8k-sp1" in done.last_line
        assert [job for job in freed(four) if four.state(job) != "COMPLETING"] == []
    assert started.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_suite_is_ended(wide, nodes, start, started, tmp_path, how):
    """However the suite ends in mid-run, its step and its allocation end with it."""
    mark = tmp_path / "mark"
    suite = start("-k", WIDE_CASE, case=WIDE_CASE, do="hang", rank=2, step=3, mark=str(mark))
    wait_for(mark, suite)
    suite.send_signal(how)
    suite.communicate(timeout=60)

    assert freed(nodes) == []
    assert started.left() == []
