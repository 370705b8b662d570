"""What the scripts of the workflows do, run step by step as a runner runs them."""

import re
import stat
from functools import partial

import pytest

from workflow_files import (
    EXAMPLE,
    GATES,
    GITLAB,
    GITLAB_EXAMPLE,
    GITLABS,
    NIGHTLY,
    OURS,
    load,
    outputs,
    run_as_a_runner,
    step_of,
)


@pytest.fixture
def run(tmp_path):
    """Runs a script as the runner does."""
    return partial(run_as_a_runner, tmp_path)


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
@pytest.mark.parametrize("path", [OURS / "main-branch.yml", NIGHTLY], ids=["ours", "example"])
def test_disturbed_is_tried_once_more(run, tmp_path, path, ends, status, calls):
    """A session of the main branch that ends with 7 is repeated, once; every other status is the job's at once."""
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    pytest_there = tmp_path / "environment" / "bin" / "pytest"
    pytest_there.write_text('#!/bin/bash\necho x >> "$CALLS"\nends=($ENDS)\nexit ${ends[$(wc -l < "$CALLS") - 1]}\n')
    pytest_there.chmod(stat.S_IRWXU)
    done = run(step_of(path, "measure", "judge()"), ENDS=ends, CASES="bigram")

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


REFRESH = pytest.mark.parametrize("refresh", [OURS, EXAMPLE.parent], ids=["ours", "example"])


@REFRESH
def test_refresh_collects_reasons(run, tmp_path, refresh):
    """A refresh takes the reasons of accepted pull requests, unless it is given one."""
    script = step_of(refresh / "refresh.yml", "reasons", "gh pr list")
    commands = {"gh": 'echo "$*" > "$CALLS"; echo "#7: exact softmax; #9: more heads"', "git": "echo 2026-11-01"}
    run(script, commands, REASON="")
    collected = outputs(tmp_path)
    run(script, commands, REASON="because\nrun=true")

    assert collected == {"reason": "#7: exact softmax; #9: more heads"}
    assert "--state merged --label slower-accepted" in (tmp_path / "calls").read_text()
    assert outputs(tmp_path) == {"reason": "becauserun=true"}


@pytest.mark.parametrize("path", [OURS / "main-branch.yml", NIGHTLY], ids=["ours", "example"])
def test_history_is_kept_on_a_branch(run, tmp_path, path):
    """Runs go to a branch of their own, the first time and later, and leave the main branch alone."""
    script = step_of(path, "history", "cp runs/")
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


TRACKER = """
echo "$1 $2" >> "$CALLS"
case "$1 $2" in
  "issue list") cat open 2>/dev/null || true ;;
  "issue create") echo 7 > open; cat issue.md ;;
  "issue edit") [ "$3" = 7 ]; cat issue.md ;;
  "issue close") [ "$3" = 7 ]; rm open ;;
esac
"""
"""A stand-in for gh, with the tracker of a repository in a file."""
NIGHT = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_RUN_ID": "42", "GITHUB_SHA": "1a2b3c4"}


@pytest.fixture
def night(run, tmp_path):
    """Runs a night's trend and what follows of it on the tracker; `status` is that of the history."""

    def steps(status, said="regression: ours: 904 TGS, @you"):
        (tmp_path / "calls").unlink(missing_ok=True)
        python = f"echo '{said}'; exit {status}"
        trend = run(step_of(NIGHTLY, "history", "trend.txt ||"), {"python": python})
        told = outputs(tmp_path)
        if trend.returncode:
            return trend.returncode, [], trend.stdout
        done = run(step_of(NIGHTLY, "history", "gh issue"), {"gh": TRACKER}, BROKEN=told["broken"], **NIGHT)
        return done.returncode, (tmp_path / "calls").read_text().splitlines(), done.stdout

    return steps


def test_a_broken_trend_has_one_issue(night, tmp_path):
    """Broken: an issue. Still broken: no second one. Mended: closed. Well: nothing. Broken anew: an issue."""
    calls = [night(status)[:2] for status in (0, 1, 1, 0, 0, 1)]

    assert calls == [
        (0, ["issue list"]),
        (1, ["issue list", "label create", "issue create"]),
        (1, ["issue list", "issue edit"]),
        (0, ["issue list", "issue close"]),
        (0, ["issue list"]),
        (1, ["issue list", "label create", "issue create"]),
    ]


def test_the_issue_says_what_broke(night):
    """Its text holds the lines of the history as code, so that nobody is mentioned, the commit and the run."""
    text = night(1)[2]

    assert "    regression: ours: 904 TGS, @you\n" in text
    assert "Seen last at 1a2b3c4, by https://github.com/our/repo/actions/runs/42" in text


def test_a_history_that_cannot_be_read_touches_no_issue(night):
    """Nothing is known of the trend then: red, and no issue is opened or closed."""
    assert night(4)[:2] == (4, [])


def test_the_page_is_published(run, tmp_path):
    """The page of the history goes to gh-pages, the first time and later; what else lies there stays."""
    script = step_of(NIGHTLY, "history", "performance/index.html")
    start = f"""
        git init --quiet --bare --initial-branch main origin.git
        git clone --quiet origin.git first
        {GIT} -C first commit --quiet --allow-empty --message main
        git -C first push --quiet origin main
        git clone --quiet origin.git second
        git clone --quiet origin.git third
        mkdir first/page second/page third/page
        echo one > first/page/history.html
        echo two > second/page/history.html
        echo two > third/page/history.html
    """
    assert run(start).returncode == 0
    remote = f"file://t:secret@{tmp_path}/origin.git"
    for clone in ("first", "second", "third"):
        done = run(script, folder=tmp_path / clone, GITHUB_SHA="1a2b3c4", REMOTE=remote)

        assert done.returncode == 0, done.stderr
        assert run("grep -r secret .git", folder=tmp_path / clone).returncode == 1
        if clone == "first":
            other = f"""
                git clone --quiet --branch gh-pages origin.git docs
                echo docs > docs/index.html
                git -C docs add .
                {GIT} -C docs commit --quiet --message docs
                git -C docs push --quiet origin gh-pages
            """
            assert run(other).returncode == 0
    kept = run(
        "git -C origin.git ls-tree -r --name-only gh-pages; git -C origin.git show gh-pages:performance/index.html"
    )

    assert kept.stdout.split() == [".nojekyll", "index.html", "performance/index.html", "two"]


@pytest.mark.parametrize("path", [NIGHTLY, OURS / "main-branch.yml"], ids=["example", "ours"])
def test_what_judges_the_trend_installs_no_torch(path):
    """The job that reads the history installs what judges, without the extra that trains."""
    (install,) = [
        step["run"] for step in load(path)["jobs"]["history"]["steps"] if "pip install" in step.get("run", "")
    ]

    assert "train]" not in install
    assert "requirements" not in install


@REFRESH
def test_refresh_opens_a_pull_request(run, tmp_path, refresh):
    """A refresh that recorded something opens a pull request with the difference and the summary; else it does not."""
    script = step_of(refresh / "refresh.yml", "open", "gh pr create")
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


GITLAB_TRACKER = """
call="$*"
echo "$call" >> "$CALLS"
case "$call" in
  *state=opened*) printf '[%s]' "$([ -f open ] && echo '{"iid": 7}')" ;;
  *"POST https://gitlab/api/v4/projects/3/issues "*) touch open; cat issue.md ;;
  *notes*) [ -f open ] ;;
  *state_event=close*) rm open ;;
  *issues/7*) cat issue.md ;;
esac
"""
"""A stand-in for curl, with the tracker of a project in a file."""
GITLAB_NIGHT = {
    "CI_API_V4_URL": "https://gitlab/api/v4",
    "CI_PROJECT_ID": "3",
    "CI_COMMIT_SHA": "1a2b3c4",
    "CI_PIPELINE_URL": "https://gitlab/our/repo/-/pipelines/42",
    "PERF_ISSUE_TOKEN": "secret",
}


@pytest.fixture
def gitlab_night(run, tmp_path):
    """Runs a night's trend and what follows of it on GitLab's tracker; `status` is that of the history."""
    jobs = load(GITLAB_EXAMPLE)

    def steps(status):
        (tmp_path / "calls").unlink(missing_ok=True)
        trend = run(jobs["history"]["script"][-1], {"python": f"echo 'regression: ours, @you'; exit {status}"})
        if trend.returncode:
            return trend.returncode, [], trend.stdout
        done = run("\n".join(jobs["trend"]["script"]), {"curl": GITLAB_TRACKER}, **GITLAB_NIGHT)
        calls = [line.partition("issues")[2] for line in (tmp_path / "calls").read_text().splitlines()]
        return done.returncode, calls, done.stdout + done.stderr

    return steps


def test_gitlabs_broken_trend_has_one_issue(gitlab_night):
    """Broken: an issue. Still broken: no second. Mended: closed, with a word. Well: nothing. Unreadable: no call."""
    asks, text = "?labels=perf-trend&state=opened&per_page=1", "--data-urlencode description@issue.md --output "
    opened = f" --data labels=perf-trend --data-urlencode title=Training became slower {text}created.json"
    mended = (
        "/7/notes --data-urlencode body=Mended at 1a2b3c4: https://gitlab/our/repo/-/pipelines/42 --output note.json"
    )
    nights = [gitlab_night(status) for status in (0, 1, 1, 0, 0, 4)]

    assert [each[:2] for each in nights] == [
        (0, [asks]),
        (1, [asks, opened]),
        (1, [asks, f"/7 {text}changed.json"]),
        (0, [asks, mended, "/7 --data state_event=close --output changed.json"]),
        (0, [asks]),
        (4, []),
    ]
    assert "    regression: ours, @you\n" in nights[1][2]
    assert "Seen last at 1a2b3c4, by https://gitlab/our/repo/-/pipelines/42" in nights[1][2]


def test_gitlabs_page_is_published(run, tmp_path):
    """The page of the history is the artifact of the job `pages`, as GitLab Pages takes it."""
    pages = load(GITLAB_EXAMPLE)["pages"]
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "history.html").write_text("trend")

    assert run("\n".join(pages["script"])).returncode == 0
    assert (tmp_path / "public" / "performance" / "index.html").read_text() == "trend"
    assert pages["artifacts"]["paths"] == ["public"]


@pytest.mark.parametrize("path", GITLABS, ids=["ours", "example"])
def test_gitlab_keeps_no_token(path):
    """A token stands in the commands that push, not in what a runner keeps between jobs."""
    text = path.read_text()

    assert "remote set-url" not in text
    assert len(re.findall(r"push [^\n]*\s+[^\n]*https://trainpace:\$PERF_PUSH_TOKEN@", text)) == 2


def test_gitlab_accepted_without_a_reason(merge_request):
    """There too the label alone is an error."""
    done = merge_request(CI_MERGE_REQUEST_DESCRIPTION="trust me")

    assert done.returncode == 1
    assert "slower-accepted needs a line" in done.stdout
