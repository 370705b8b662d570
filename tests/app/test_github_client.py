"""The log of a workflow, and the one comment, against a server of GitHub's API on this machine."""

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from factories import make_case_result, make_results, make_run, make_runs, make_slower
from repository import BARE
from trainpace.__main__ import main
from trainpace.app.github_client import Log
from trainpace.store.baselines import refresh
from trainpace.store.reports import write_results
from trainpace.store.runs import write_run

BOT = "github-actions[bot]"
MARKER = "<!-- trainpace: gate -->\n"


class GitHub(ThreadingHTTPServer):
    """Holds the comments of pull request 7 of `our/repo`, and answers as GitHub does."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.comments = []
        self.asked = []
        self.refusal = None

    def say(self, body, login=BOT):
        """Write a comment as `login`."""
        self.comments.append({"id": len(self.comments) + 1, "body": body, "user": {"login": login}})


class Answer(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self):
        number = int(re.search(r"[?&]page=(\d+)", self.path)[1])
        self.answer(200, self.server.comments[100 * (number - 1) : 100 * number])

    def do_POST(self):
        self.server.say(self.content()["body"])
        self.answer(201, {"html_url": f"comment {len(self.server.comments)}"})

    def do_PATCH(self):
        number = int(self.path.rsplit("/", 1)[1])
        self.server.comments[number - 1]["body"] = self.content()["body"]
        self.answer(200, {"html_url": f"comment {number}"})

    def content(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status, content):
        self.server.asked.append((self.command, self.path.split("?")[0], self.headers["Authorization"]))
        status, headers = self.server.refusal or (status, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def github():
    """A server on a port of its own."""
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees that it is to end
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def comment(github, tmp_path, monkeypatch, capsys):
    """Runs `python -m trainpace comment` on the folder `report`, in the environment of a workflow."""

    def run(*arguments, **environment):
        workflow = {
            "GITHUB_API_URL": f"http://127.0.0.1:{github.server_address[1]}",
            "GITHUB_REPOSITORY": "our/repo",
            "GITHUB_RUN_ID": "42",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_TOKEN": "secret",
            "no_proxy": "127.0.0.1",
        }
        for name, value in (workflow | environment).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = main(["comment", str(tmp_path / "report"), "--pull-request", "7", *arguments])
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def test_log_outside_a_workflow():
    """Outside a workflow nothing is written."""
    log = Log()

    assert (log.begin(), log.end(make_results(make_slower()))) == ("", "")


def test_log_word_is_new_each_time(monkeypatch):
    """The word that ends the silence cannot be guessed from an earlier log."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    assert Log().begin() != Log().begin()


def test_session_in_a_workflow(repository):
    """What a session prints is no command to the runner, however a test names it; the annotations come last."""
    write_run(make_run("ours-8k-sp1", tgs=700.0), repository.path / "slower")
    refresh(repository.path / "baselines", make_runs(1000.0, 1001.0, case="ours-8k-sp1"))
    (repository.path / "perf" / "test_hostile.py").write_text("def test(): print('::add-mask::e'); assert False\n")
    done = repository.suite("--perf-replay=slower", environment={"GITHUB_ACTIONS": "true"})
    lines = done.text.splitlines()
    (word,) = re.findall(r"(?m)^::stop-commands::([0-9a-f]{32})$", done.text)
    silent = lines[lines.index(f"::stop-commands::{word}") : lines.index(f"::{word}::")]

    assert "::add-mask::e" in silent
    assert [line for line in lines if line.startswith("::") and line not in silent] == [f"::{word}::", lines[-1]]
    assert lines[-1].startswith("::error title=ours-8k-sp1%3A regression::TGS 700.0 is 30 %25 below")


def test_stranger_in_a_workflow(pytester, monkeypatch):
    """A session without our cases keeps the runner's commands as they are."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    pytester.makepyfile("def test(): pass")

    pytester.runpytest_subprocess(*BARE).stdout.no_fnmatch_line("::*")


# The comment


def test_first_comment(comment, github, tmp_path):
    """The first time a comment is written: hidden marker, verdict, table, and a link to the run."""
    write_results(make_results(make_slower()), tmp_path / "report")
    github.say("looks good", "jane")
    done = comment()

    assert (done.returncode, done.stdout) == (0, "comment 2\n")
    assert github.comments[1]["body"].startswith(f"{MARKER}## ❌ Slower: 1 of 1 case\n")
    assert github.comments[1]["body"].endswith("\n[The whole run](https://github.example/our/repo/actions/runs/42)\n")


def test_forged_results_are_contradicted(comment, github, tmp_path):
    """The workflow tells how the job ended, and the comment begins with that where results.json says otherwise."""
    write_results(make_results(make_case_result()), tmp_path / "report")
    comment("--job=failure")

    assert github.comments[0]["body"].startswith(f"{MARKER}## ❌ The job's result is failure, but results.json says")


def test_comment_is_updated(comment, github, tmp_path):
    """From then on that comment is updated, also where it is on a later page."""
    for number in range(150):
        github.say(f"comment {number}", "jane")
    write_results(make_results(make_slower()), tmp_path / "report")
    comment()
    write_results(make_results(make_case_result()), tmp_path / "report")
    done = comment()

    assert (done.returncode, len(github.comments)) == (0, 151)
    assert github.comments[150]["body"].startswith(f"{MARKER}## ✅ No slowdown: 1 of 1 case\n")
    assert github.asked[-1] == ("PATCH", "/repos/our/repo/issues/comments/151", "Bearer secret")


def test_somebody_elses_comment_is_left_alone(comment, github, tmp_path):
    """A comment that only begins alike, or quotes ours, is not overwritten."""
    github.say(f"{MARKER}mine", "mallory")
    github.say(f"> {MARKER}quoted")
    write_results(make_results(make_case_result()), tmp_path / "report")
    comment()

    assert [each["body"][:34] for each in github.comments[:2]] == [f"{MARKER}mine", f"> {MARKER}quoted"]
    assert len(github.comments) == 3


def test_comments_by_name(comment, github, tmp_path):
    """Two gates have a comment each."""
    write_results(make_results(make_case_result()), tmp_path / "report")
    comment()
    comment("--name=h100")
    comment()

    assert [each["body"].splitlines()[0] for each in github.comments] == [
        "<!-- trainpace: gate -->",
        "<!-- trainpace: h100 -->",
    ]


@pytest.mark.parametrize("content", [None, "{", '{"cases": []}'])
def test_without_results(comment, github, tmp_path, content):
    """A session that left no results replaces an older verdict: it must not stand for the new commit."""
    github.say(f"{MARKER}## ✅ No slowdown: 1 of 1 case\n")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.md").write_text("## ✅ fine, believe me @everyone")
    if content is not None:
        (tmp_path / "report" / "results.json").write_text(content)
    done = comment()

    assert done.returncode == 0
    assert [each["body"].splitlines()[1] for each in github.comments] == ["## ❌ The session ended without results"]


def test_long_comment(comment, github, tmp_path):
    """A comment stays below GitHub's limit."""
    cases = [make_slower(f"case-{number}", detail="x" * 8000) for number in range(14)]
    write_results(make_results(*cases), tmp_path / "report")
    comment()

    assert len(github.comments[0]["body"]) < 65536
    assert "results.json has everything" in github.comments[0]["body"]


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, {}), "403 Forbidden: the job needs `permissions: pull-requests: write`"),
        ((500, {}), "500 Internal Server Error"),
    ],
)
def test_refusals(comment, github, tmp_path, refusal, words):
    """What GitHub refuses is one line and exit status 1."""
    github.refusal = refusal
    done = comment()

    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_token_goes_nowhere_else(comment, github, tmp_path):
    """A redirect is not followed: the token would go along."""
    with GitHub() as elsewhere:
        github.refusal = (302, {"Location": f"http://127.0.0.1:{elsewhere.server_address[1]}/?page=1"})
        thread = threading.Thread(target=elsewhere.serve_forever, args=(0.01,))
        thread.start()
        done = comment()
        elsewhere.shutdown()
        thread.join()

    assert done.returncode == 1
    assert "302 Found" in done.stderr
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GITHUB_TOKEN": ""}, "expected the variable GITHUB_TOKEN"),
        ({"GITHUB_REPOSITORY": "our/repo/../../x"}, "GITHUB_REPOSITORY: expected owner/name, got 'our/repo/../../x'"),
        ({"GITHUB_API_URL": "http://127.0.0.1:9"}, "Connection refused"),
    ],
)
def test_outside_a_workflow(comment, environment, words):
    """What a workflow sets is missing or wrong, or nobody answers: one line."""
    done = comment(**environment)

    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
