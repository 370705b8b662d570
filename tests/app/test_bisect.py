"""`python -m trainpace bisect`: the planted commit is found, and nothing is left, also when interrupted."""

import os
import signal
import subprocess
import sys

import pytest

from repository import finish, one_core, wait_for
from trainpace.app.bisect import BAD, GOOD, SKIP, STOP, not_bad, verdict

OPTIONS = ("--perf-warmup=1", "--perf-steps=4", "--perf-detect=0.3", "--perf-max-pairs=10")
SLOW = ('"seconds": 0.04', '"seconds": 0.1')
BROKEN = ("    def setup(self, context):\n", "    def setup(self, context):\n        raise ValueError('broken here')\n")


def uneven(number):
    """Runs that differ, in the first commit to be measured of those that have this: which that is depends on git."""
    setup = "    def setup(self, context):\n"
    return setup, (
        f"{setup}"
        "        first = Path(os.environ['HOME'], 'uneven')\n"
        "        if not first.exists():\n"
        f"            first.write_text('{number}')\n"
        f"        if first.read_text() == '{number}':\n"
        "            runs = Path(os.environ['HOME'], f'runs-{context.rank}')\n"
        "            runs.touch()\n"
        "            runs.write_text(runs.read_text() + 'x')\n"
        "            DEFAULTS['seconds'] = 0.02 if len(runs.read_text()) % 2 else 0.08\n"
    )


def git(folder, *arguments):
    """Run git as somebody; what it printed."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)  # noqa: S607 - the git at hand
    return done.stdout.strip()


class History:
    """The toy's repository with a commit a change; the changes, old and new text of training.py, by their number."""

    def __init__(self, repository, commits, changes):
        self.folder = repository.path
        training = self.folder / "training.py"
        (self.folder / ".gitignore").write_text(".*\n!.gitignore\n__pycache__\nmark\nhome\n")
        (self.folder / "home").mkdir()
        git(self.folder, "init", "-q", "-b", "main")
        self.commits = []
        text = training.read_text().replace('"seconds": 0.005', '"seconds": 0.04')  # enough for a busy machine
        for number in range(commits + 1):
            old, new = changes.get(number, ("", ""))
            assert old in text
            if number in changes and (old, new) == SLOW:
                text = text.replace(old, new)
            # What is broken or uneven is mended by the next commit.
            shown = text.replace(old, new, 1) if number in changes else text
            training.write_text(f"{shown}\n# {number}\n")
            git(self.folder, "add", ".")
            git(self.folder, "commit", "-qm", f"commit {number}")
            self.commits.append(git(self.folder, "rev-parse", "HEAD"))
        git(self.folder, "switch", "-qc", "mine")
        self.before = self.state()

    def state(self):
        """What a bisect must leave as it is."""
        parts = [
            git(self.folder, *command)
            for command in (("status", "--porcelain"), ("for-each-ref",), ("worktree", "list"))
        ]
        return [*parts, (self.folder / ".git" / "HEAD").read_text(), sorted(os.listdir(self.folder / ".tmp"))]  # noqa: PTH208

    def start(self, good, bad, *options, environment=()):
        """Start the command, on one core: load by others makes nothing invalid there."""
        state = {name: str(self.folder / ".state") for name in ("XDG_STATE_HOME", "TRAINPACE_LOCKS")}
        own = {"TRAINPACE_CACHE": str(self.folder / ".cache"), "TMPDIR": str(self.folder / ".tmp")}
        command = [sys.executable, "-m", "trainpace", "bisect", good, bad, "-k", "ours-8k", "--", *OPTIONS, *options]
        present = os.sched_getaffinity(0)
        os.sched_setaffinity(0, one_core())
        try:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **state, **own, "HOME": str(self.folder / "home"), **dict(environment)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, present)


@pytest.fixture
def history(repository):
    """Makes a history of the toy's repository."""

    def make(commits, changes):
        (repository.path / ".tmp").mkdir()
        return History(repository, commits, changes)

    return make


GATE = """
import json, pathlib, sys
number = int(pathlib.Path("number").read_text())
report = pathlib.Path(sys.argv[sys.argv.index("--perf-report") + 1])
before = "".join(path.read_text() for path in report.parent.glob("*/results.json"))
# The first two that nothing hangs on; which the second is depends on git.
left = [each for each in ("invalid", "inconclusive") if each not in before] if number not in (10, 11, 16) else []
verdict = left[0] if left else "regression" if number >= 11 else "pass"
case = {"case": "ours-8k-sp1", "verdict": verdict}
case |= {"reasons": [" ".join(sys.argv[1:6])], "explanation": ["forward: slow"]}
report.mkdir()
print("judged", verdict)
(report / "results.json").write_text(json.dumps({"cases": [case]}))
"""


def test_finds_the_planted_commit_among_sixteen(tmp_path):
    """With a stand-in for each step's gate: past one that is invalid and one that is inconclusive, in few steps."""
    folder, commits = tmp_path / "ours", []
    folder.mkdir()
    (tmp_path / "pytest.py").write_text(GATE)
    git(folder, "init", "-q", "-b", "main")
    for number in range(17):
        (folder / "number").write_text(str(number))
        git(folder, "add", ".")
        git(folder, "commit", "-qm", f"commit {number}")
        commits.append(git(folder, "rev-parse", "HEAD"))
    command = [sys.executable, "-m", "trainpace", "bisect", commits[0], "main", "-k", "ours-8k"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    visited = [line for line in done.stdout.splitlines() if line.startswith("bisect: ")]

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"first slower commit: {commits[11][:10]} commit 11\n  ours-8k-sp1: regression\n" in done.stdout
    assert f"perf -k ours-8k --perf-against {commits[0]}\n    forward: slow" in done.stdout
    assert len(visited) <= 9, visited
    assert "judged invalid" in done.stdout
    assert "judged inconclusive" in done.stdout
    assert git(folder, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_finds_the_planted_commit(history, started):
    """Of four commits: named with its subject and the explanation; the user's checkout is as it was."""
    ours = history(4, {3: SLOW})
    done = finish(ours.start(ours.commits[0], "main"))
    last = done.text.rpartition("first slower commit: ")[2]

    assert done.code == 0
    assert last.startswith(f"{ours.commits[3][:10]} commit 3\n  ours-8k-sp1: regression\n")
    assert "forward_backward" in last or "forward" in last
    assert ours.state() == ours.before
    assert started.left() == []


@pytest.mark.slow
def test_passes_over_what_cannot_be_judged(history, started):
    """Of sixteen commits, one invalid and one inconclusive are passed over, and the planted one is found."""
    # The 8th is where git looks first; on the 10th and the 11th hangs which commit was the first slower one.
    changes = {number: uneven(number) for number in range(1, 16) if number not in (10, 11)}
    ours = history(16, changes | {8: BROKEN, 11: SLOW})
    done = finish(ours.start(ours.commits[0], "main"))

    assert done.code == 0
    assert f"first slower commit: {ours.commits[11][:10]} commit 11\n" in done.text
    assert "commit 8\n" in done.text
    assert "1 invalid" in done.text
    assert "1 inconclusive" in done.text
    assert ours.state() == ours.before
    assert started.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted(history, started, number):
    """Ctrl-C, or a job that is cancelled: no worktree, no bisect state, no process is left."""
    ours = history(2, {})
    mark = ours.folder / "mark"
    wishes = f'{{"do": "hang", "step": 0, "mark": "{mark}"}}'
    process = ours.start(ours.commits[0], "main", "--perf-env=TRAINPACE_TOY", environment={"TRAINPACE_TOY": wishes})
    wait_for(mark, process)
    process.send_signal(number)
    done = finish(process)

    assert done.code == 130
    assert "bisect: interrupted; nothing is left of it" in done.text
    assert ours.state() == ours.before
    assert started.left() == []


def test_what_cannot_be_bisected_is_refused(history):
    """Revisions that are unknown, or not one after the other: exit status 4, with what was expected."""
    ours = history(1, {})
    swapped, unknown = finish(ours.start("main", ours.commits[0])), finish(ours.start("v0", "main"))

    assert (swapped.code, unknown.code) == (4, 4)
    assert "expected GOOD to be an ancestor of BAD, got main and " in swapped.text
    assert "v0" in unknown.text
    assert ours.state() == ours.before


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["pass", "improvement"], GOOD),
        (["pass", "regression", "invalid"], BAD),
        (["pass", "invalid"], SKIP),
        (["inconclusive"], SKIP),
        (["no baseline"], SKIP),
        ([], SKIP),
    ],
)
def test_verdicts_for_git(verdicts, status):
    """A regression is bad whatever else there is; what was not judged is passed over, and never called good."""
    assert verdict({"cases": [{"verdict": each} for each in verdicts]}) == status


def test_why_there_is_nothing_to_look_for():
    """A GOOD from before there were cases is told apart from a case that could not be judged."""
    judged = {"cases": [{"case": "a", "verdict": "inconclusive", "reasons": [], "explanation": []}]}

    assert not_bad(SKIP, "v1", "main", {}).startswith("no case was measured (see above): the tests are those of v1")
    assert not_bad(SKIP, "v1", "main", judged).startswith("main could not be judged beside v1\n  a: inconclusive")
    assert not_bad(GOOD, "v1", "main", {}) == "main is not slower than v1"
    assert not_bad(STOP, "v1", "main", {}) == "main did not run beside v1"
