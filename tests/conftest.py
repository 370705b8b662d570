"""What tests share: who was started, and a user's own repository."""

import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from repository import Repository

pytest_plugins = ["pytester"]

LEAVE_SECONDS = 20.0
"""What is told to end gets this long; it takes a fraction of it."""


# No test is judged by the time that it takes: machines are shared.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_configure():
    """Tests press Ctrl-C, which a shell that started them in the background has told them to ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Started:
    """The processes that a test started, however they detached themselves: all inherit one variable."""

    def __init__(self, mark):
        self._mark = mark

    def pids(self):
        """Of those alive."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TRAINPACE_TEST") == self._mark:
                    found.append(process.pid)
        return sorted(found)

    def left(self, besides=()):
        """Those that are alive after they have had time to leave: empty as soon as there is none `besides`."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while (pids := [pid for pid in self.pids() if pid not in besides]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return pids


@pytest.fixture(autouse=True)
def no_workflow(monkeypatch):
    """Sessions that tests start report to the test, not to the workflow that runs the tests."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def started(monkeypatch):
    """The processes that this test starts; none of them outlives it."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TRAINPACE_TEST", mark)
    yield (processes := Started(mark))
    for pid in processes.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def repository(tmp_path, started):
    """A user's own repository: a toy trainer, and two cases in a perf/ folder that is no package."""
    return Repository.create(tmp_path / "ours")


@pytest.fixture(scope="session")
def checkout():
    """The folder of this checkout."""
    return Path(__file__).resolve().parents[1]
