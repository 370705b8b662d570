"""A user's own repository in a folder, and the suite run in it as a user runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np  # noqa: F401 - pytester forgets what a session imports, and these cannot be imported twice
import pytest
import scipy.stats  # noqa: F401

import warm

TOY = Path(__file__).resolve().parent / "toy"
SUITE_SECONDS = 240
"""No session takes a tenth of it; machines are shared."""
# Left out of the sessions that tests start: pytest would write a cache into a checkout, and the others belong to the
# tests' own environment and cost half of an empty session.
BARE = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:xdist")


def one_core():
    """The core on which tests start a session: another one for each worker of pytest-xdist."""
    present = sorted(os.sched_getaffinity(0))
    return {present[int(os.environ.get("TRAINPACE_TEST_WORKER", "0")) % len(present)]}


@dataclass(frozen=True)
class Repository:
    """`perf/test_ours.py` and `training.py`, which holds the toy."""

    path: Path

    @classmethod
    def create(cls, path):
        """Write one into a new folder."""
        (path / "perf").mkdir(parents=True)
        shutil.copy(TOY / "ours.py", path / "perf" / "test_ours.py")
        shutil.copy(TOY / "toy_trainer.py", path / "training.py")
        (path / "pytest.ini").write_text(f"[pytest]\nperf_trainer = training:Toy\naddopts = {' '.join(BARE)}\n")
        return cls(path)

    def copy(self, path):
        """Another one like it, baselines and runs included."""
        shutil.copytree(self.path, path)
        return Repository(path)

    def start(self, *arguments, paths=("perf",), environment=(), cores=None, within=(), forked=True, **toy):
        """Start the suite on its `paths`, on one core if no `cores` are given; `toy` are the trainer's wishes.

        `within` is a command that takes the suite's own command as its last arguments. A session is `forked` from a
        process that has imported what it needs (warm.py), but for one that has that, or variables of an interpreter.
        """
        chosen = {
            "TRAINPACE_TOY": json.dumps(toy),
            "CI": "1",  # nothing is recorded unless a test says so
            "XDG_STATE_HOME": str(self.path / ".state"),
            "TRAINPACE_LOCKS": str(self.path / ".state"),
            "TRAINPACE_CACHE": str(self.path / ".cache"),
            "TMPDIR": str(self.path / ".tmp"),
        }
        (self.path / ".tmp").mkdir(exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
        environment = inherited | chosen | dict(environment)
        # The script, not `python -m pytest`, which would put this folder on the path.
        words = [str(Path(sys.executable).with_name("pytest")), *map(str, (*paths, *arguments))]
        # On one core of several the load by others cannot be told, and so cannot make a run invalid; the toy sleeps,
        # and is not slowed by it either.
        cores = cores or one_core()
        if forked and not within:
            session = warm.start(words, folder=self.path, environment=environment, cores=cores)
            if session is not None:
                return session
        present = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            return subprocess.Popen(
                [*within, *words],
                cwd=self.path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, present)

    def suite(self, *arguments, **options):
        """Run the suite on it to its end."""
        return finish(self.start(*arguments, **options))

    def inside(self, pytester, *arguments, environment=()):
        """Run the suite on it in this process, which takes a tenth of the time: to judge what was recorded, or refuse.

        What measures is started, as a user starts it: see `suite`.
        """
        state = str(self.path / ".state")
        own = {"XDG_STATE_HOME": state, "TRAINPACE_LOCKS": state, "TRAINPACE_CACHE": str(self.path / ".cache")}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.path)
            patch.delenv("PYTEST_ADDOPTS", raising=False)
            for name, value in (own | dict(environment)).items():
                patch.setenv(name, value)
            done = pytester.runpytest_inprocess("perf", *map(str, arguments))
        return Done(int(done.ret), f"{done.stdout.str()}\n{done.stderr.str()}")

    def cases(self, name="junit.xml"):
        """What a JUnit file says by test: the kind of outcome (`passed`, `failure`, `skipped`), text and properties."""
        found = {}
        for case in ElementTree.parse(self.path / name).iter("testcase"):  # noqa: S314 - our own file
            properties = {each.get("name"): each.get("value") for each in case.iter("property")}
            kinds = [each for each in case if each.tag in {"failure", "skipped", "error"}]
            kind, text = (kinds[0].tag, kinds[0].get("message") + (kinds[0].text or "")) if kinds else ("passed", "")
            found[case.get("name")] = (kind, text, properties)
        return found


@dataclass(frozen=True)
class Done:
    """How a session ended."""

    code: int
    text: str

    @property
    def last_line(self):
        """Of the suite's own report."""
        return [line for line in self.text.splitlines() if re.match(r"\d+ cases?: ", line)][-1]


def finish(process, seconds=SUITE_SECONDS):
    """Wait for a session's end."""
    text, _ = process.communicate(timeout=seconds)
    print(text)  # noqa: T201 - shown where the test fails
    return Done(process.returncode, text)


def wait_for(path, process=None):
    """Wait until a toy has marked its place; `process` must not end before."""
    deadline = time.monotonic() + SUITE_SECONDS
    while not path.exists():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)
