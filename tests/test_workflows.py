"""The workflow files: valid by the public schemas, safe by their shape, and their scripts do what they say."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from repository import BARE

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / ".github" / "workflows"
EXAMPLE = ROOT / "examples" / "own-trainer" / ".github" / "workflows" / "perf.yml"
GITLAB = ROOT / ".gitlab-ci.yml"
WORKFLOWS = [*sorted(OURS.glob("*.yml")), EXAMPLE]
GATES = [OURS / "gpu-gate.yml", EXAMPLE]
COMING: set[str] = set()
"""Options that workflows give and that are not there yet."""


def named(path):
    """A file's test id."""
    return path.name


def load(path):
    """A workflow's content. YAML 1.2, in which `on` is no boolean."""
    return YAML(typ="safe", pure=True).load(path)


def jobs(paths):
    """Every job of these workflows, with an id for its test."""
    return [pytest.param(job, id=f"{path.name}-{name}") for path in paths for name, job in load(path)["jobs"].items()]


def scripts(paths):
    """Every script of these workflows."""
    return [
        pytest.param(step["run"], id=f"{path.name}-{name}-{number}")
        for path in paths
        for name, job in load(path)["jobs"].items()
        for number, step in enumerate(job["steps"])
        if "run" in step
    ]


def step_of(path, job, containing):
    """The script of the one step of a job that contains this text."""
    (found,) = [step for step in load(path)["jobs"][job]["steps"] if containing in step.get("run", "")]
    return found["run"]


def step_environment(path, job, name):
    """A variable of the one step of a job that sets it."""
    (found,) = [step["env"] for step in load(path)["jobs"][job]["steps"] if name in step.get("env", {})]
    return found[name]


@pytest.fixture
def run(tmp_path):
    """Runs a script as the runner does; `commands` are programs that it finds, as shell scripts."""

    def bash(script, commands=(), folder=tmp_path, **environment):
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        for name, text in dict(commands).items():
            (programs / name).write_text(f"#!/bin/bash\n{text}\n")
            (programs / name).chmod(stat.S_IRWXU)
        (tmp_path / "output").write_text("")
        chosen = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_REPOSITORY": "our/repo",
            "CALLS": str(tmp_path / "calls"),
            **environment,
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=folder, env=chosen, capture_output=True, text=True, check=False)

    return bash


def outputs(tmp_path):
    """What a step left for others."""
    return dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())


# Validity


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_github_schema(path):
    """GitHub's public schema finds nothing."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_gitlab_schema():
    """Nor does GitLab's."""
    schema = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, GITLAB]
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
    """The job that runs what is measured has no right but to read, and leaves no credentials in a checkout."""
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout")]

    assert job["permissions"] == {"contents": "read"}
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * len(checkouts)
    assert "environment" in job
    assert "secrets" not in str(job)


@pytest.mark.parametrize("job", WRITING)
def test_writing_jobs_never_see_head(job):
    """A job that may write runs on another machine, and checks out nothing of the pull request's."""
    assert job["runs-on"] == "ubuntu-latest"
    assert "pull_request.head.sha" not in str(job["steps"])


@pytest.mark.parametrize("path", GATES, ids=named)
def test_gate_is_the_bases(path):
    """The gate's workflow is the base's, and runs when it is asked to: it waits for `decide`."""
    workflow = load(path)
    measure = workflow["jobs"]["measure"]

    assert measure["needs"] == "decide"
    assert measure["if"] == "needs.decide.outputs.run == 'true'"
    assert "gpu-forks" in measure["environment"]
    assert measure["concurrency"]["cancel-in-progress"] is True


def test_forks_run_without_rights():
    """What runs every pull request's code unasked may read and nothing else."""
    workflow = load(OURS / "cost-gate.yml")

    assert set(workflow["on"]) == {"pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["cost"]["runs-on"] == "ubuntu-latest"


@pytest.mark.parametrize("path", GATES, ids=named)
def test_gate_has_one_event(path):
    """A job that another event skips would count as passed under the same name."""
    assert set(load(path)["on"]) == {"pull_request_target"}


def test_example_follows_ours():
    """What the example decides and how it judges is what this repository's gate does."""
    for job, containing in (("withdraw", "WITHDRAWN"), ("decide", "GITHUB_OUTPUT"), ("measure", "merge-base")):
        assert step_of(EXAMPLE, job, containing) == step_of(GATES[0], job, containing)


ROOMS = sorted(path.parent.name for path in (ROOT / "perf" / "trainpace").glob("*/__init__.py"))
CHANGES = [*(f"perf/trainpace/{room}/new.py" for room in ROOMS), "perf/trainpace/plugin.py", "perf/test_speed.py"]


@pytest.mark.parametrize("file", CHANGES)
def test_a_change_to_any_room_is_measured(run, tmp_path, file):
    """A filter that matches nothing skips the gate, which counts as passed."""
    (changes,) = [rule["changes"] for rule in load(GITLAB)["gpu-gate"]["rules"] if "changes" in rule]
    paths = {"PATHS": step_environment(GATES[0], "decide", "PATHS"), "FILES": f"README.md\n{file}"}
    done = run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), {"gh": GH_FILES}, **OPEN | paths)

    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path) == {"run": "true"}
    assert any(re.fullmatch(changed.replace(".", r"\.").replace("**/*", ".+"), file) for changed in changes)


@pytest.mark.parametrize("name", ["cost-gate.yml", "ci.yml"])
def test_what_is_cheap_runs_whatever_changed(name):
    """These have no filter that could miss a room."""
    assert load(OURS / name)["on"]["pull_request"] is None


@pytest.mark.parametrize("path", GATES, ids=named)
def test_comment_installs_no_torch(path):
    """The job that comments installs the suite as it judges, without what trains."""
    script = step_of(path, "comment", "pip install")

    assert "[" not in script
    assert script.split()[-1] in {".", '"$TRAINPACE"'}


# What the scripts do


OPEN = {"ACTION": "opened", "FORK": "false", "GPU": "false", "ACCEPTED": "false", "ADDED": "", "NUMBER": "7"}
OPEN |= {"PATHS": r"^(perf/trainpace/trainers/|constraints\.txt$)", "DESCRIPTION": "", "FILES": "README.md"}
GH_FILES = 'echo "$FILES"'


@pytest.mark.parametrize(
    ("event", "runs"),
    [
        ({}, "false"),
        ({"FILES": "README.md\nperf/trainpace/trainers/native/loss.py"}, "true"),
        ({"FILES": "docs/perf/trainpace/trainers/x.md"}, "false"),
        ({"GPU": "true"}, "true"),
        ({"ACTION": "synchronize", "GPU": "true"}, "true"),
        ({"ACTION": "labeled", "ADDED": "gpu", "GPU": "true"}, "true"),
        ({"ACTION": "unlabeled", "ADDED": "slower-accepted", "FILES": "constraints.txt"}, "true"),
        ({"FORK": "true"}, "false"),
        ({"FORK": "true", "ACTION": "labeled", "ADDED": "documentation"}, "false"),
        ({"FORK": "true", "ACTION": "labeled", "ADDED": "gpu", "GPU": "true"}, "true"),
    ],
)
def test_decide(run, tmp_path, event, runs):
    """A GPU measures what has the label, or changes the right paths."""
    done = run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), {"gh": GH_FILES}, **OPEN | event)

    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path) == {"run": runs}


def test_any_label_measures_again(run, tmp_path):
    """A label of another kind does not replace a verdict by a skipped job, which would count as passed."""
    event = {"ACTION": "labeled", "ADDED": "documentation", "FILES": "constraints.txt"}
    run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), {"gh": GH_FILES}, **OPEN | event)

    assert outputs(tmp_path) == {"run": "true"}


@pytest.mark.parametrize(
    "event",
    [
        {"FILES": "constraints.txt"},
        {"GPU": "true"},
        {"ACTION": "synchronize", "GPU": "true"},
        {"ACTION": "reopened", "GPU": "true"},
        {"ACTION": "labeled", "ADDED": "documentation", "GPU": "true"},
        {"ACTION": "unlabeled", "ADDED": "gpu", "FILES": "constraints.txt"},
    ],
)
def test_forks_wait(run, tmp_path, event):
    """A fork's commit that should be measured is red, and not run, in any event but that of the label."""
    done = run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), {"gh": GH_FILES}, **OPEN | {"FORK": "true"} | event)

    assert done.returncode == 1
    assert "a commit of a fork is measured when a maintainer adds the label gpu" in done.stdout
    assert outputs(tmp_path) == {}


def test_decide_without_an_answer(run):
    """Where GitHub does not answer, nothing is decided."""
    assert run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), {"gh": "exit 1"}, **OPEN).returncode == 1


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("Fixes it.\r\n\r\nSlower because: exact softmax\r\nSlower because: more", "exact softmax"),
        ("Slower because: $(touch owned) `touch owned`; run=false", "$(touch owned) `touch owned`; run=false"),
    ],
)
def test_accepted_reason(run, tmp_path, description, reason):
    """The reason of an accepted slowdown is a line of the description, and only text."""
    event = {"ACTION": "labeled", "ADDED": "slower-accepted", "ACCEPTED": "true", "DESCRIPTION": description}
    run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), **OPEN | event)

    assert outputs(tmp_path) == {"run": "true", "accepted": reason}
    assert not (tmp_path / "owned").exists()


def test_accepted_without_a_reason(run):
    """The label alone is an error that says what to write where."""
    event = {"ACTION": "labeled", "ADDED": "slower-accepted", "ACCEPTED": "true", "DESCRIPTION": "trust me"}
    done = run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), **OPEN | event)

    assert done.returncode == 1
    assert 'slower-accepted needs a line "Slower because: ..." in the description' in done.stdout


def test_accepted_is_of_a_commit(run, tmp_path):
    """A push after the acceptance is judged without it."""
    event = {"ACTION": "synchronize", "ACCEPTED": "true", "DESCRIPTION": "Slower because: x"}
    run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), **OPEN | event)

    assert outputs(tmp_path) == {"run": "true"}


def test_withdraw(run, tmp_path):
    """A push takes away the labels that spoke of the commit before, and no other."""
    gh = 'case "$*" in *DELETE*) echo "$*" >> "$CALLS" ;; *) printf "bug\\nslower-accepted\\nnot-gpu\\n" ;; esac'
    withdrawn = {"WITHDRAWN": "slower-accepted gpu", "NUMBER": "7"}
    done = run(step_of(GATES[0], "withdraw", "WITHDRAWN"), {"gh": gh}, **withdrawn)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == (
        "api --silent --method DELETE repos/our/repo/issues/7/labels/slower-accepted\n"
    )


def test_merge_base(run, tmp_path):
    """The base is the commit that head left the branch at, not where the branch is now; head is not asked for more."""
    git = "git -c user.name=t -c user.email=t@localhost"
    history = f"""
        git init --quiet --initial-branch main base
        {git} -C base commit --quiet --allow-empty --message shared
        git clone --quiet base head
        {git} -C base commit --quiet --allow-empty --message later
        {git} -C head commit --quiet --allow-empty --message change
        git -C head remote remove origin
    """
    assert run(history).returncode == 0
    done = run(step_of(GATES[0], "measure", "merge-base"))

    assert done.returncode == 0, done.stderr
    assert run("git -C base log -1 --format=%s").stdout == "shared\n"


@pytest.mark.parametrize(("folder", "said"), [("baselines", 1), ("src", 0)])
def test_own_baselines_are_said(run, tmp_path, folder, said):
    """A pull request that changes what it is judged by is announced first."""
    git = "git -c user.name=t -c user.email=t@localhost"
    history = f"""
        git init --quiet
        {git} commit --quiet --allow-empty --message base
        mkdir {folder}
        touch {folder}/a.json
        git add {folder}
        {git} commit --quiet --message merge
    """
    assert run(history).returncode == 0
    script = step_of(OURS / "cost-gate.yml", "cost", "HEAD^1")
    done = run(script, GITHUB_STEP_SUMMARY=str(tmp_path / "page.md"))

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("::warning title=baselines::") == said


@pytest.mark.parametrize(
    ("ends", "status", "calls"),
    [("0", 0, 1), ("1", 1, 1), ("7 0", 0, 2), ("7 1", 1, 2), ("7 7 0", 7, 2), ("6", 6, 1), ("4", 4, 1)],
)
@pytest.mark.parametrize("path", [*GATES, OURS / "main-branch.yml"], ids=named)
def test_disturbed_is_tried_once_more(run, tmp_path, path, ends, status, calls):
    """A session that ends with 7 is repeated, once; every other status is the job's at once."""
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    pytest_there = tmp_path / "environment" / "bin" / "pytest"
    pytest_there.write_text('#!/bin/bash\necho x >> "$CALLS"\nends=($ENDS)\nexit ${ends[$(wc -l < "$CALLS") - 1]}\n')
    pytest_there.chmod(stat.S_IRWXU)
    folder = tmp_path if path.parent == OURS and path not in GATES else tmp_path / "base"
    done = run(step_of(path, "measure", "judge()"), folder=folder, ENDS=ends, ACCEPTED="", CASES="x")

    assert done.returncode == status
    assert len((tmp_path / "calls").read_text().splitlines()) == calls


def test_accepted_reason_is_one_argument(run, tmp_path):
    """A reason reaches pytest whole, and no part of it is an option or a command."""
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    pytest_there = tmp_path / "environment" / "bin" / "pytest"
    pytest_there.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$CALLS"\n')
    pytest_there.chmod(stat.S_IRWXU)
    reason = 'x" --perf-tolerance 0.9 $(touch owned)'
    run(step_of(GATES[0], "measure", "judge()"), folder=tmp_path / "base", ACCEPTED=reason)

    assert (tmp_path / "calls").read_text().splitlines()[-2:] == ["--perf-accepted", reason]


def test_refresh_collects_reasons(run, tmp_path):
    """A refresh takes the reasons of accepted pull requests, unless it is given one."""
    script = step_of(OURS / "refresh.yml", "reasons", "gh pr list")
    commands = {"gh": 'echo "$*" > "$CALLS"; echo "#7: exact softmax; #9: more heads"', "git": "echo 2026-11-01"}
    run(script, commands, REASON="")
    collected = outputs(tmp_path)
    run(script, commands, REASON="because\nrun=true")

    assert collected == {"reason": "#7: exact softmax; #9: more heads"}
    assert "--state merged --label slower-accepted" in (tmp_path / "calls").read_text()
    assert outputs(tmp_path) == {"reason": "becauserun=true"}


def test_history_is_kept_on_a_branch(run, tmp_path):
    """Runs go to a branch of their own, the first time and later, and leave the main branch alone."""
    script = step_of(OURS / "main-branch.yml", "history", "perf-history")
    git = "git -c user.name=t -c user.email=t@localhost"
    start = f"""
        git init --quiet --bare --initial-branch main origin.git
        git clone --quiet origin.git first
        {git} -C first commit --quiet --allow-empty --message main
        git -C first push --quiet origin main
        git clone --quiet origin.git second
        mkdir first/runs second/runs
        echo one > first/runs/one.json
        echo two > second/runs/two.json
    """
    assert run(start).returncode == 0
    for clone in ("first", "second"):
        done = run(script, folder=tmp_path / clone, GITHUB_SHA="1a2b3c4")

        assert done.returncode == 0, done.stderr
    kept = run("git -C origin.git ls-tree --name-only perf-history; git -C origin.git log --format=%s main")

    assert kept.stdout.split() == ["one.json", "two.json", "main"]


def test_refresh_opens_a_pull_request(run, tmp_path):
    """A refresh that recorded something opens a pull request with the difference and the summary; else it does not."""
    script = step_of(OURS / "refresh.yml", "open", "gh pr create")
    git = "git -c user.name=t -c user.email=t@localhost"
    start = f"""
        git init --quiet --bare --initial-branch main origin.git
        git clone --quiet origin.git clone
        mkdir clone/baselines clone/report
        echo old > clone/baselines/a.json
        echo told > clone/report/summary.md
        git -C clone add baselines
        {git} -C clone commit --quiet --message main
        git -C clone push --quiet origin main
    """
    assert run(start).returncode == 0
    commands = {"gh": 'echo "$*" > "$CALLS"; cat body.md >> "$CALLS"'}
    environment = {"GITHUB_RUN_ID": "42", "GITHUB_REF_NAME": "main"}
    unchanged = run(script, commands, folder=tmp_path / "clone", **environment)
    (tmp_path / "clone" / "baselines" / "a.json").write_text("new\n")
    changed = run(script, commands, folder=tmp_path / "clone", **environment)
    pushed = run("git -C origin.git diff --name-only main refresh-42")

    assert (unchanged.returncode, unchanged.stdout) == (0, "nothing was recorded\n")
    assert changed.returncode == 0, changed.stderr
    assert pushed.stdout == "baselines/a.json\n"
    assert "--head refresh-42 --base main\ntold\n" in (tmp_path / "calls").read_text()


GITLAB_EVENT = {
    "CI_MERGE_REQUEST_LABELS": "gpu,slower-accepted",
    "CI_MERGE_REQUEST_DESCRIPTION": "Better.\r\nSlower because: exact softmax\r\n",
}
PYTHON = """
bin="${@: -1}/bin"
mkdir -p "$bin"
echo exit > "$bin/pip"
printf '#!/bin/bash\\ngit log -1 --format=%%s > "$CALLS"; printf "%%s\\\\n" "$@" >> "$CALLS"\\n' > "$bin/pytest"
chmod +x "$bin"/*
"""


@pytest.fixture
def merge_request(run, tmp_path):
    """Runs GitLab's gate on a merge request that left the main branch at `shared`."""
    git = "git -C project -c user.name=t -c user.email=t@localhost commit --quiet --allow-empty --message"
    run(f"git init --quiet project; {git} shared; {git} change")
    base = run("git -C project rev-parse HEAD~1").stdout.strip()
    script = "\n".join(load(GITLAB)["gpu-gate"]["script"])
    project = tmp_path / "project"
    event = {"CI_PROJECT_DIR": str(project), "CI_MERGE_REQUEST_DIFF_BASE_SHA": base, **GITLAB_EVENT}
    return lambda **changes: run(script, {"python3": PYTHON}, folder=project, **event | changes)


def test_gitlab_gate(merge_request, tmp_path):
    """On GitLab too the merge base judges, the merge request is measured, and a reason is one argument."""
    again = [merge_request(), merge_request()]
    calls = (tmp_path / "calls").read_text().splitlines()

    assert [done.returncode for done in again] == [0, 0], again[1].stderr
    assert calls[0] == "shared"
    assert calls[calls.index("--perf-head") + 1] == str(tmp_path / "project")
    assert calls[-2:] == ["--perf-accepted", "exact softmax"]


def test_gitlab_accepted_without_a_reason(merge_request):
    """There too the label alone is an error."""
    done = merge_request(CI_MERGE_REQUEST_DESCRIPTION="trust me")

    assert done.returncode == 1
    assert "slower-accepted needs a line" in done.stdout


@pytest.mark.parametrize("path", [*WORKFLOWS, GITLAB], ids=named)
def test_options_exist(checkout, path):
    """Every option of ours that a workflow gives is one that pytest knows."""
    given = set(re.findall(r"--perf-[a-z-]+", path.read_text()))
    command = [sys.executable, "-m", "pytest", "--help", *BARE]
    told = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout

    assert given - COMING <= set(re.findall(r"--perf-[a-z-]+", told))
