"""`python -m trainpace bisect GOOD BAD -k CASE`: which commit made a case slower, by `git bisect run`.

Each commit is measured beside GOOD, in pairs, by the gate of a pull request: `pytest perf --perf-against GOOD`. All of
it happens in a worktree of its own, whose bisect state goes with it: the user's checkout, and a bisect of theirs, stay
as they are.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from trainpace.app.revisions import RevisionError, checked_out, commit_of, subject_of
from trainpace.errors import UsageError
from trainpace.report import FILE
from trainpace.runs.verdict import Verdict

GOOD, BAD, SKIP, STOP = 0, 1, 125, 128
"""What `git bisect run` takes a step's exit status for; from 128 on it ends."""
LEAVE_SECONDS = 60.0
"""What is interrupted gets this long to end what it has started."""
_STEP = "TRAINPACE_BISECT"
"""Names, for a step, the JSON of what it measures."""


def bisect(good: str, bad: str, arguments: Sequence[str], *, here: Path) -> int:
    """Find the first commit after `good` that is slower than it; 0 where one was found.

    Args:
        good: a revision that was fast enough, an ancestor of `bad`.
        bad: a slower one. It is measured first: without a regression there is nothing to look for.
        arguments: of pytest: which cases, and how they are measured.
        here: a folder of the user's checkout, from which pytest is started.

    Raises:
        UsageError: for revisions that cannot be had, or are not one after the other.
    """
    root = Path(_git(here, "rev-parse", "--show-toplevel"))
    base, last = _commit(root, good), _commit(root, bad)
    ancestor = _command(root, "merge-base", "--is-ancestor", base, last)
    if base == last or subprocess.run(ancestor, check=False).returncode:
        raise UsageError(f"bisect: expected GOOD to be an ancestor of BAD, got {good} and {bad}")
    with (
        _terminated_like_interrupted(),
        tempfile.TemporaryDirectory(prefix="trainpace-bisect-") as reports,
        checked_out(root, last) as tree,
    ):
        inside = tree / here.resolve().relative_to(root.resolve())
        wanted = {"base": base, "arguments": list(arguments), "reports": reports, "inside": str(inside)}
        environment = {**os.environ, _STEP: json.dumps(wanted)}
        first = _run([*_STEP_COMMAND], tree, environment)
        if first != BAD:
            _say(f"\nnothing to look for: {not_bad(first, good, bad, _report(reports, last))}")
            return 1
        _git(tree, "bisect", "start", last, base)
        status = _run(_command(tree, "bisect", "run", *_STEP_COMMAND), tree, environment)
        found = _git(tree, "rev-parse", "refs/bisect/bad")
        if status == 0:
            _say(f"\nfirst slower commit: {found[:10]} {subject_of(tree, found)}{_told(_report(reports, found))}")
            return 0
        _say(f"\nnot found (git bisect ended with {status}), slower at {found[:10]} at the latest. Of each was said:")
        for path in sorted(Path(reports).iterdir(), key=lambda each: each.stat().st_mtime):
            _say(f"  {path.name[:10]} {subject_of(tree, path.name)}: {_word(_report(reports, path.name))}")
        return 1


_STEP_COMMAND = (sys.executable, "-P", "-m", "trainpace", "bisect-step")


def step() -> int:
    """Measure the commit that is checked out: what `git bisect run` calls."""
    wanted = json.loads(os.environ[_STEP])
    inside = Path(wanted["inside"])
    if not inside.is_dir():
        return SKIP
    commit = _git(inside, "rev-parse", "HEAD")
    _say(f"\nbisect: {commit[:10]} {subject_of(inside, commit)}")
    report = Path(wanted["reports"], commit)
    if not report.exists():  # BAD was measured before
        options = ["--perf-against", wanted["base"], "--perf-require-verdict", "--perf-report", str(report)]
        environment = {name: value for name, value in os.environ.items() if name != _STEP}
        command = [sys.executable, "-P", "-m", "pytest", *wanted["arguments"], *options]
        # Interrupted is the whole process group; this one waits for pytest to end what it has started.
        signal.signal(signal.SIGINT, lambda *_: None)
        status = subprocess.Popen(command, cwd=inside, env=environment).wait()
        if not (report / FILE).is_file():
            _say(f"bisect: `{shlex.join(command)}` ended with {status} and without results")
            return STOP
    return verdict(_report(wanted["reports"], commit))


def not_bad(status: int, good: str, bad: str, report: Mapping[str, Any]) -> str:
    """Why a step's `status` of BAD leaves nothing to look for."""
    if status == SKIP and not report.get("cases"):
        return f"no case was measured (see above): the tests are those of {good}, of which -k selects"
    words = {GOOD: "is not slower than", SKIP: "could not be judged beside"}.get(status, "did not run beside")
    return f"{bad} {words} {good}{_told(report)}"


def verdict(report: Mapping[str, Any]) -> int:
    """What a step's results.json means to git: one regression is bad; what was not judged is passed over."""
    verdicts = {Verdict(case["verdict"]) for case in report.get("cases", ())}
    if Verdict.REGRESSION in verdicts:
        return BAD
    if not verdicts or not all(each.judged for each in verdicts):
        return SKIP
    return GOOD


def _report(reports: str, commit: str) -> Mapping[str, Any]:
    # Of the base's trainpace, which may be another version: read for what is needed, and no more.
    with suppress(OSError, ValueError):
        found: Mapping[str, Any] = json.loads((Path(reports) / commit / FILE).read_text(encoding="utf-8"))
        return found
    return {}


def _word(report: Mapping[str, Any]) -> str:
    return ", ".join(f"{case['case']} {case['verdict']}" for case in report.get("cases", ())) or "no results"


def _told(report: Mapping[str, Any]) -> str:
    """What was said of each case, why, and where the time went; empty without a report."""
    lines = []
    for case in report.get("cases", ()):
        lines.append(f"{case['case']}: {case['verdict']}")
        # Commands are for the checkout that was judged, and traces lie in a report: both are gone.
        texts = (*case["reasons"], *case["explanation"])
        lines += [f"  {text}" for text in texts if not text.startswith(("look again with", "traces, for Perfetto"))]
    return "".join(f"\n  {line}" for line in lines)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run a command in a process group of its own; interrupted, all of it is before this goes on."""
    process = subprocess.Popen(command, cwd=folder, env=dict(environment), process_group=0)
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have pytest end what it started, as Ctrl-C does; what does not leave in time is killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if _left(process):
            return


def _left(process: subprocess.Popen[bytes]) -> bool:
    """Whether all of a process group has ended, after it has had time to."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, a CI job that is cancelled, end as Ctrl-C does: with nothing left."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _commit(root: Path, revision: str) -> str:
    try:
        return commit_of(root, revision)
    except RevisionError as error:
        raise UsageError(f"bisect: expected a revision of {root}, got {revision}: {error}") from None


def _command(folder: Path, *arguments: str) -> list[str]:
    return ["git", "-C", str(folder), "-c", f"core.hooksPath={os.devnull}", *arguments]


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(_command(folder, *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RevisionError(done.stderr.strip() or f"git {arguments[0]} failed")
    return done.stdout.strip()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
