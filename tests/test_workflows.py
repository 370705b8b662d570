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
DEPENDABOT = ROOT / ".github" / "dependabot.yml"
WORKFLOWS = [*sorted(OURS.glob("*.yml")), EXAMPLE]
GATES = [OURS / "gpu-gate.yml", EXAMPLE]


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


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("gitlab-ci", ["--data-transform", "gitlab-ci", GITLAB]),
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


@pytest.mark.parametrize("path", [*GATES, OURS / "main-branch.yml", OURS / "cost-gate.yml", GITLAB], ids=named)
def test_what_was_not_decided_is_red(path):
    """Every session that gates fails where it cannot judge."""
    sessions = re.findall(r"pytest\"? perf (?!.*--perf-refresh)(?:[^|\n]|\n(?=\s+-))*", path.read_text())

    assert len(sessions) == (3 if path == GITLAB else 1)
    assert [session for session in sessions if "--perf-require-verdict" not in session] == []


@pytest.mark.parametrize("name", ["cost-gate.yml", "ci.yml"])
def test_what_is_cheap_runs_whatever_changed(name):
    """These have no filter that could miss a room."""
    assert load(OURS / name)["on"]["pull_request"] is None


def test_what_takes_long_runs_every_week():
    """The environments are tox's, and CONTRIBUTING.md names them."""
    weekly = load(OURS / "weekly.yml")["jobs"]["long"]["strategy"]["matrix"]["environment"]
    *others, last = [f"`{name}`" for name in weekly]

    assert {f"[testenv:{name}]" for name in weekly} <= set((ROOT / "tox.ini").read_text().splitlines())
    assert f"{', '.join(others)} and {last} run every week" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("path", GATES, ids=named)
def test_comment_installs_no_torch(path):
    """The job that comments installs the suite as it judges, without what trains."""
    script = step_of(path, "comment", "pip install")

    assert "[" not in script
    assert script.split()[-1] in {".", '"$TRAINPACE"'}


# What the scripts do


CODE = "docs/conf.py"
OPEN = {"ACTION": "opened", "FORK": "false", "GPU": "false", "LABEL": "", "NUMBER": "7", "QUEUED": "", "CHANGED": "1"}
OPEN |= {"DESCRIPTION": "", "FILES": "README.md", "LISTED": "1", "LABELS": ""}
OPEN["NO_CODE"] = load(GATES[0])["jobs"]["decide"]["steps"][0]["env"]["NO_CODE"]
GH = """case "$*" in
  *length) for page in $LISTED; do echo "$page"; done ;;
  *filename*) echo "$FILES" ;;
  *labels*) echo "$LABELS"; echo "$*" > "$CALLS" ;;
  *body) echo "Slower because: of the queue" ;;
esac"""


@pytest.fixture
def decide(run, tmp_path):
    """Decides on an event; gives what it printed, or the outputs."""

    def script(gh=GH, **event):
        done = run(step_of(GATES[0], "decide", "GITHUB_OUTPUT"), {"gh": gh}, **OPEN | event)
        return outputs(tmp_path) if done.returncode == 0 else done.stdout + done.stderr

    return script


@pytest.mark.parametrize(
    ("event", "runs"),
    [
        ({}, "false"),
        ({"FILES": "README.md\ndocs/a.svg\ndocs/b/c.md\nLICENSE", "CHANGED": "4", "LISTED": "2 2"}, "false"),
        ({"FILES": "README.md\nnumpy/__init__.py", "CHANGED": "2", "LISTED": "2"}, "true"),
        ({"CHANGED": "3001", "LISTED": "3000"}, "true"),
        ({"CHANGED": "2", "LISTED": "1"}, "true"),
        ({"FILES": ""}, "true"),
        ({"GPU": "true"}, "true"),
        ({"ACTION": "synchronize", "GPU": "true"}, "true"),
        ({"ACTION": "labeled", "LABEL": "gpu", "GPU": "true"}, "true"),
        ({"ACTION": "unlabeled", "LABEL": "gpu"}, "true"),
        ({"ACTION": "edited", "FILES": CODE}, "true"),
        ({"FORK": "true"}, "false"),
        ({"FORK": "true", "ACTION": "labeled", "LABEL": "gpu", "GPU": "true"}, "true"),
        ({"QUEUED": "refs/heads/gh-readonly-queue/main/pr-12-1a2b", "FORK": "true"}, "true"),
    ],
)
def test_decide(decide, event, runs):
    """Measured is whatever may be code, what GitHub did not list to its end, and what has or had a label."""
    assert decide(**event) == {"run": runs}


@pytest.mark.parametrize(
    "file",
    ["perf/test_speed.py", "docs/conf.py", "docs/md", "a.md/b", "perf/README.md", "x.md.py", "conftest.py"],
)
def test_what_may_be_code_is_measured(decide, merge_request, tmp_path, file):
    """A list of what is measured would miss what a trainer imports from elsewhere. So the list is of what is not."""
    (tmp_path / "project" / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "project" / file).write_text("x")
    done = merge_request(CI_MERGE_REQUEST_LABELS="")

    assert decide(FILES=f"README.md\n{file}", CHANGED="2", LISTED="2") == {"run": "true"}
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    "event",
    [
        {"FILES": CODE},
        {"GPU": "true"},
        {"ACTION": "synchronize", "GPU": "true"},
        {"ACTION": "reopened", "GPU": "true"},
        {"ACTION": "unlabeled", "LABEL": "gpu"},
    ],
)
def test_forks_wait(decide, tmp_path, event):
    """A fork's commit that should be measured is red, and not run, in any event but that of the label."""
    assert "a commit of a fork is measured when a maintainer adds the label gpu" in decide(FORK="true", **event)
    assert outputs(tmp_path) == {}


def test_decide_without_an_answer(decide, tmp_path):
    """Where GitHub does not answer, nothing is decided."""
    decide(gh="exit 1")

    assert outputs(tmp_path) == {}


SLOWER = {"ACTION": "labeled", "LABEL": "slower-accepted"}


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("Fixes it.\r\n\r\nSlower because: exact softmax\r\nSlower because: more", "exact softmax"),
        ("Slower because: $(touch owned) `touch owned`; run=false", "$(touch owned) `touch owned`; run=false"),
    ],
)
def test_accepted_reason(decide, tmp_path, description, reason):
    """The reason of an accepted slowdown is a line of the description, and only text."""
    assert decide(**SLOWER, DESCRIPTION=description) == {"run": "true", "accepted": reason}
    assert not (tmp_path / "owned").exists()


def test_accepted_without_a_reason(decide):
    """The label alone is an error that says what to write where."""
    told = decide(**SLOWER, DESCRIPTION="trust me")

    assert 'slower-accepted needs a line "Slower because: ..." in the description' in told


@pytest.mark.parametrize("event", [{"ACTION": "synchronize"}, {"ACTION": "labeled", "LABEL": "gpu"}])
def test_accepted_is_the_commit_that_was_labelled(decide, event):
    """No other event accepts, also where the label was not taken away."""
    assert decide(**event, FILES=CODE, DESCRIPTION="Slower because: x") == {"run": "true"}


@pytest.mark.parametrize(
    ("labels", "accepted"), [("bug\nslower-accepted", {"accepted": "of the queue"}), ("not-slower-accepted", {})]
)
def test_merge_queue_knows_what_was_accepted(decide, tmp_path, labels, accepted):
    """There the label is asked of the pull request that the queue's branch is named after."""
    told = decide(QUEUED="refs/heads/gh-readonly-queue/main/pr-12-1a2b", LABELS=labels)

    assert told == {"run": "true", **accepted}
    assert "repos/our/repo/pulls/12 " in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ("skipped skipped _ skipped skipped", 0),
        ("skipped success false skipped skipped", 0),
        ("skipped success true success skipped", 0),
        ("success success true failure success", 0),
        ("skipped success true failure failure", 1),
        ("skipped success true failure skipped", 1),
        ("skipped success true cancelled skipped", 1),
        ("skipped success true skipped skipped", 1),
        ("skipped failure _ skipped skipped", 1),
        ("failure success true success skipped", 1),
        ("failure success false skipped skipped", 1),
        ("skipped success _ skipped skipped", 1),
    ],
)
def test_conclude(run, results, status):
    """Passed is what was measured well, at the second try perhaps, or holds no code; and no label stayed."""
    names = ("WITHDRAW", "DECIDE", "RUN", "MEASURE", "AGAIN")
    environment = dict(zip(names, results.replace("_", "").split(" "), strict=True))

    assert run(step_of(GATES[0], "conclude", "DECIDE"), **environment).returncode == status


def test_withdraw(run, tmp_path):
    """A push takes away the labels that spoke of the commit before, and no other."""
    gh = 'case "$*" in *DELETE*) echo "$*" >> "$CALLS" ;; *) printf "bug\\nslower-accepted\\nnot-gpu\\n" ;; esac'
    withdrawn = {"WITHDRAWN": "slower-accepted gpu", "NUMBER": "7"}
    done = run(step_of(GATES[0], "withdraw", "WITHDRAWN"), {"gh": gh}, **withdrawn)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == (
        "api --silent --method DELETE repos/our/repo/issues/7/labels/slower-accepted\n"
    )


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
def test_disturbed_is_tried_once_more(run, tmp_path, ends, status, calls):
    """A session of the main branch that ends with 7 is repeated, once; every other status is the job's at once."""
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    pytest_there = tmp_path / "environment" / "bin" / "pytest"
    pytest_there.write_text('#!/bin/bash\necho x >> "$CALLS"\nends=($ENDS)\nexit ${ends[$(wc -l < "$CALLS") - 1]}\n')
    pytest_there.chmod(stat.S_IRWXU)
    done = run(step_of(OURS / "main-branch.yml", "measure", "judge()"), ENDS=ends)

    assert done.returncode == status
    assert len((tmp_path / "calls").read_text().splitlines()) == calls


GIT = "git -c user.name=t -c user.email=t@localhost"
PYTHON = """
bin="${@: -1}/bin"
mkdir -p "$bin"
echo exit > "$bin/pip"
printf '#!/bin/bash\\n%s\\n' "$PYTEST" > "$bin/pytest"
chmod +x "$bin"/*
"""
"""Makes an environment whose pytest is $PYTEST."""
CHECK_OUT = """
[ -d {path}/.git ] || git clone --quiet origin {path}
git -C {path} fetch --quiet --all
git -C {path} clean -ffdxq
git -C {path} checkout --quiet --force {ref}
"""
"""What actions/checkout does: a repository that is there is cleaned and used again."""


@pytest.fixture
def gate(run, tmp_path):
    """Runs a job of the gate, on a change of a repository whose main branch went on; gives it and its outputs."""
    history = f"""
        git init --quiet --initial-branch main origin
        echo honest > origin/conftest.py
        echo ignored > origin/.gitignore
        git -C origin add .
        {GIT} -C origin commit --quiet --message shared
        git -C origin branch change
        {GIT} -C origin commit --quiet --allow-empty --message later
        git -C origin switch --quiet change
        {GIT} -C origin commit --quiet --allow-empty --message change
    """
    assert run(history).returncode == 0

    def job(name, pytest_there, **environment):
        checkouts = iter([("base", "origin/main"), ("head", "origin/change")])
        for step in load(GATES[0])["jobs"][name]["steps"]:
            folder = tmp_path / step.get("working-directory", "")
            script = step.get("run", "")
            if "actions/checkout" in step.get("uses", ""):
                path, ref = next(checkouts)
                script = CHECK_OUT.format(path=path, ref=ref)
            chosen = {"ACCEPTED": "", "PYTEST": pytest_there, **environment}
            done = run(script, {"python3": PYTHON}, folder=folder, **chosen)
            if done.returncode:
                break
        return done, outputs(tmp_path)

    return job


def test_base_is_where_head_left(gate, tmp_path):
    """The base is the commit that head left the main branch at; a reason is one argument, no option and no command."""
    reason = '-x" --perf-tolerance 0.9 $(touch owned)'
    done, told = gate("measure", 'git log -1 --format=%s > "$CALLS"; printf "%s\\n" "$@" >> "$CALLS"', ACCEPTED=reason)
    subject, *arguments = (tmp_path / "calls").read_text().splitlines()

    assert (done.returncode, told) == (0, {}), done.stderr
    assert subject == "shared"
    assert arguments[arguments.index("--perf-head") + 1] == "../head"
    assert arguments[-1] == f"--perf-accepted={reason}"


POISON = """
echo poisoned > conftest.py
echo poisoned > ignored
echo 'echo poisoned > conftest.py' > .git/hooks/post-checkout
chmod +x .git/hooks/post-checkout
echo 'echo poisoned > "$CALLS"' > ../environment/bin/pip
exit 7
"""


def test_second_try_is_in_a_new_tree(gate, tmp_path):
    """What the measured code wrote into base, its .git and the environment before it broke off is gone."""
    first, told = gate("measure", POISON)
    second, told_again = gate("again", 'cat conftest.py > "$CALLS"; ls ignored >> "$CALLS"; exit 0')

    assert (first.returncode, told) == (7, {"disturbed": "true"})
    assert (second.returncode, told_again) == (0, {}), second.stderr
    assert (tmp_path / "calls").read_text() == "honest\n"


def test_second_try_is_the_last(gate):
    """A machine that stays disturbed is red, as is what fails otherwise."""
    assert [gate("again", f"exit {status}")[0].returncode for status in (1, 6, 7)] == [1, 6, 7]
    assert gate("measure", "exit 6")[1] == {}


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
    remote = f"file://t:secret@{tmp_path}/origin.git"
    for clone in ("first", "second"):
        done = run(script, folder=tmp_path / clone, GITHUB_SHA="1a2b3c4", REMOTE=remote)

        assert done.returncode == 0, done.stderr
        assert run("grep -r secret .git", folder=tmp_path / clone).returncode == 1
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
    environment = {"GITHUB_RUN_ID": "42", "GITHUB_REF_NAME": "main", "REMOTE": str(tmp_path / "origin.git")}
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


@pytest.fixture
def merge_request(run, tmp_path):
    """Runs GitLab's gate on a merge request that left the main branch at `shared`."""
    git = "git -C project -c user.name=t -c user.email=t@localhost commit --quiet --allow-empty --message"
    run(f"git init --quiet project; {git} shared; {git} change")
    base = run("git -C project rev-parse HEAD~1").stdout.strip()
    script = "\n".join(load(GITLAB)["gpu-gate"]["script"])
    project = tmp_path / "project"
    event = {"CI_PROJECT_DIR": str(project), "CI_MERGE_REQUEST_DIFF_BASE_SHA": base, **GITLAB_EVENT}
    pytest_there = 'git log -1 --format=%s > "$CALLS"; printf "%s\\n" "$@" >> "$CALLS"'

    def judge(**changes):
        assert run(f"git add --all; {GIT} commit --quiet --allow-empty --message more", folder=project).returncode == 0
        return run(script, {"python3": PYTHON}, folder=project, **event | {"PYTEST": pytest_there} | changes)

    return judge


def test_gitlab_gate(merge_request, tmp_path):
    """On GitLab too the merge base judges, the merge request is measured, and a reason is one argument."""
    again = [merge_request(), merge_request()]
    calls = (tmp_path / "calls").read_text().splitlines()

    assert [done.returncode for done in again] == [0, 0], again[1].stderr
    assert calls[0] == "shared"
    assert calls[calls.index("--perf-head") + 1] == str(tmp_path / "project")
    assert calls[-1] == "--perf-accepted=exact softmax"


def test_gitlab_measures_no_documents(merge_request, tmp_path):
    """A change of documents alone is not measured, unless a label asks for it."""
    (tmp_path / "project" / "README.md").write_text("x")

    assert "no code was changed" in merge_request(CI_MERGE_REQUEST_LABELS="bug").stdout
    assert not (tmp_path / "calls").exists()
    assert merge_request().returncode == 0
    assert (tmp_path / "calls").exists()


def test_gitlab_keeps_no_token():
    """A token stands in the commands that push, not in what a runner keeps between jobs."""
    text = GITLAB.read_text()

    assert "remote set-url" not in text
    assert len(re.findall(r"push [^\n]*\s+[^\n]*https://trainpace:\$PERF_PUSH_TOKEN@", text)) == 2


def test_gitlab_accepted_without_a_reason(merge_request):
    """There too the label alone is an error."""
    done = merge_request(CI_MERGE_REQUEST_DESCRIPTION="trust me")

    assert done.returncode == 1
    assert "slower-accepted needs a line" in done.stdout


def test_options_exist(checkout):
    """Every option of ours that a workflow gives is one that pytest knows."""
    given = {option for path in [*WORKFLOWS, GITLAB] for option in re.findall(r"--perf-[a-z-]+", path.read_text())}
    command = [sys.executable, "-m", "pytest", "--help", *BARE]
    told = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout

    assert given <= set(re.findall(r"--perf-[a-z-]+", told))
