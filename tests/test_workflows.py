"""The workflow files: valid by the public schemas, and safe by their shape."""

import re
import subprocess
import sys
from functools import partial

import pytest

from repository import BARE
from workflow_files import (
    DEPENDABOT,
    EXAMPLE,
    GATES,
    GITLAB,
    GITLAB_EXAMPLE,
    GITLABS,
    NIGHTLY,
    OURS,
    ROOT,
    WORKFLOWS,
    jobs,
    load,
    named,
    run_as_a_runner,
    scripts,
    step_of,
)


@pytest.fixture
def run(tmp_path):
    """Runs a script as the runner does."""
    return partial(run_as_a_runner, tmp_path)


# Validity


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("gitlab-ci", ["--data-transform", "gitlab-ci", *GITLABS]),
        ("dependabot", [DEPENDABOT]),
    ],
)
def test_schemas(schema, paths):
    """GitHub's, GitLab's and Dependabot's public schemas find nothing."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", scripts(WORKFLOWS))
def test_scripts_parse(run, script):
    """Every script is bash."""
    done = run(f"set -n\n{script}")

    assert (done.returncode, done.stderr) == (0, "")


# Safety


@pytest.mark.parametrize("script", scripts(WORKFLOWS))
def test_nothing_is_pasted_into_scripts(script):
    """What people outside choose (titles, branches, labels) reaches a script as a variable, never as its text."""
    assert "${{" not in script


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_least_permissions(path):
    """A workflow by itself may read at most."""
    assert load(path)["permissions"] in ({}, {"contents": "read"})


@pytest.mark.parametrize("job", jobs(WORKFLOWS))
def test_jobs_end(job):
    """Every job has a time limit of its own."""
    assert 0 < job["timeout-minutes"] <= 360


def own(job):
    """Whether a job runs on the machine with the GPU."""
    return job["runs-on"] == ["self-hosted", "gpu"]


GPU_JOBS = [job for job in jobs(WORKFLOWS) if own(job.values[0])]
WRITING = [job for job in jobs(WORKFLOWS) if "write" in job.values[0].get("permissions", {}).values()]


@pytest.mark.parametrize("job", GPU_JOBS)
def test_gpu_jobs_can_only_read(job):
    """The job that runs what is measured has no right but to read, and waits for its environment."""
    assert job["permissions"] == {"contents": "read"}
    assert "environment" in job
    assert "secrets" not in str(job)


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_actions_are_commits(path):
    """An action is named by its commit, beside it the release that Dependabot reads; a tag could be moved."""
    used = [line.strip(" -") for line in path.read_text().splitlines() if "uses:" in line]

    assert [line for line in used if not re.fullmatch(r"uses: actions/[\w-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


def test_actions_are_the_same_everywhere():
    """One commit of each action, in ours and in the file that users copy."""
    used = {use for path in WORKFLOWS for use in re.findall(r"uses: (\S+) # (\S+)", path.read_text())}

    assert len(used) == len({action.partition("@")[0] for action, _ in used}) == 4


@pytest.mark.parametrize("job", jobs(WORKFLOWS))
def test_no_token_stays(job):
    """A checkout keeps no credentials: what runs there later could read them."""
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout")]

    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * len(checkouts)


@pytest.mark.parametrize("job", WRITING)
def test_writing_jobs_never_see_head(job):
    """A job that may write runs on another machine, and checks out nothing of the pull request's."""
    assert job["runs-on"] == "ubuntu-latest"
    assert "pull_request.head.sha" not in str(job["steps"])


@pytest.mark.parametrize("path", GATES, ids=named)
def test_gate_is_the_bases(path):
    """The gate's workflow is the main branch's, and measures when it is asked to: it waits for `decide`."""
    workflow = load(path)
    measure, again = workflow["jobs"]["measure"], workflow["jobs"]["again"]

    assert set(workflow["on"]) == {"pull_request_target", "merge_group"}
    assert workflow["on"]["pull_request_target"]["branches"] == ["main"]
    assert {"synchronize", "edited", "unlabeled"} < set(workflow["on"]["pull_request_target"]["types"])
    assert measure["needs"] == "decide"
    assert measure["if"] == "needs.decide.outputs.run == 'true'"
    assert "gpu-forks" in measure["environment"]
    assert measure["concurrency"]["cancel-in-progress"] is True
    assert again | {"needs": 0, "if": 0, "outputs": 0} == measure | {"needs": 0, "if": 0, "outputs": 0}


@pytest.mark.parametrize("path", [*GATES, OURS / "cost-gate.yml", OURS / "ci.yml"], ids=str)
def test_required_checks_know_the_queue(path):
    """A merge queue waits for a check whose workflow does not know its event until the queue's time is over."""
    assert "merge_group" in load(path)["on"]


@pytest.mark.parametrize("path", GATES, ids=named)
def test_the_required_check_is_never_skipped(path):
    """A skipped job counts as passed; where nothing is asked the check has another name and the verdict stays."""
    workflow = load(path)["jobs"]
    asked, conclude = workflow["decide"]["if"], workflow["conclude"]

    assert conclude["if"] == "always()"
    assert conclude["name"] == f"${{{{ ({asked}) && 'verdict' || 'verdict (not asked)' }}}}"
    assert set(conclude["needs"]) == {"withdraw", "decide", "measure", "again"}


def test_forks_run_without_rights():
    """What runs every pull request's code unasked may read and nothing else."""
    workflow = load(OURS / "cost-gate.yml")

    assert set(workflow["on"]) == {"pull_request", "merge_group"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["cost"]["runs-on"] == "ubuntu-latest"


def test_example_follows_ours():
    """What the example decides and how it judges is what this repository's gate does, but for its own names."""
    ours, theirs = GATES[0].read_text(), EXAMPLE.read_text()
    for old, new in (
        ('"$CASES"', "test_speed"),
        ("group: perf-", "group: gpu-gate-"),
        ("name: install\n", "name: install the base\n"),
    ):
        theirs = theirs.replace(old, new)
    ours, theirs = (text.partition("jobs:")[2].partition("  comment:")[0].splitlines() for text in (ours, theirs))

    assert [line for line in ours if "bin/pip" not in line] == [line for line in theirs if "bin/pip" not in line]


def test_gitlabs_example_follows_ours():
    """It decides, judges and keeps runs as this repository's file does, but for its own names."""
    ours, theirs = load(GITLAB), load(GITLAB_EXAMPLE)

    def script(content, job):
        text = "\n".join(content[job]["script"]).replace('perf -k "$CASES" --perf-require', "perf --perf-require")
        return [line for line in text.replace('-k "$CASES"', "-k test_speed").splitlines() if "pip" not in line]

    kept = script(ours, "history")[1:-1]

    assert script(theirs, "gpu-gate") == script(ours, "gpu-gate")
    assert script(theirs, "main-branch") == script(ours, "main-branch")
    assert script(theirs, "history")[1 : 1 + len(kept)] == kept
    assert theirs[".on-gpu"] == ours[".on-gpu"]
    for job in ("gpu-gate", "main-branch", "refresh"):
        assert theirs[job]["rules"] == ours[job]["rules"]


@pytest.mark.parametrize("path", [*GATES, OURS / "main-branch.yml", NIGHTLY, OURS / "cost-gate.yml", *GITLABS], ids=str)
def test_what_was_not_decided_is_red(path):
    """Every session that gates fails where it cannot judge."""
    sessions = re.findall(r"pytest\"? perf (?!.*--perf-refresh)(?:[^|\n]|\n(?=\s+-))*", path.read_text())

    assert len(sessions) == {GITLAB: 3, GITLAB_EXAMPLE: 2}.get(path, 1)
    assert [session for session in sessions if "--perf-require-verdict" not in session] == []


@pytest.mark.parametrize("name", ["cost-gate.yml", "ci.yml"])
def test_what_is_cheap_runs_whatever_changed(name):
    """These have no filter that could miss a room."""
    assert load(OURS / name)["on"]["pull_request"] is None


def test_what_takes_long_runs_every_week():
    """The environments are tox's, and CONTRIBUTING.md names them."""
    jobs_of_it = load(OURS / "weekly.yml")["jobs"].values()
    weekly = [name for job in jobs_of_it for name in job["strategy"]["matrix"]["environment"]]
    *others, last = [f"`{name}`" for name in weekly]

    assert {f"[testenv:{name}]" for name in weekly} <= set((ROOT / "tox.ini").read_text().splitlines())
    assert f"{', '.join(others)} and {last} run every week" in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())


@pytest.mark.parametrize("path", GATES, ids=named)
def test_comment_installs_no_torch(path):
    """The job that comments installs the suite as it judges, without what trains."""
    script = step_of(path, "comment", "pip install")

    assert "[" not in script
    assert script.split()[-1] in {".", '"$TRAINPACE"'}


def test_options_exist(checkout):
    """Every option of ours that a workflow gives is one that pytest knows."""
    given = {option for path in [*WORKFLOWS, *GITLABS] for option in re.findall(r"--perf-[a-z-]+", path.read_text())}
    command = [sys.executable, "-m", "pytest", "--help", *BARE]
    told = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout

    assert given <= set(re.findall(r"--perf-[a-z-]+", told))
