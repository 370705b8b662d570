"""What tests share: who was started, and a user's own repository."""

import fcntl
import gc
import os
import signal
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

import warm
from repository import Repository

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent

LOCKS = tempfile.TemporaryDirectory(prefix="trainpace-locks-")

LEAVE_SECONDS = 20.0
"""What is told to end gets this long; it takes a fraction of it."""


# No test is judged by the time that it takes: machines are shared.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


FIRST = (
    "trainers/test_parity",
    "test_docs",
    "app/test_gate",
    "app/test_gate_sides",
    "launch/test_distributed",
    "app/test_session",
    "test_installed",
    "test_plugin",
    "launch/test_external",
    "launch/test_torchrun",
    "cost/test_trace_real",
    "plan/test_recorded",
    "cost/test_trace",
    "faults/test_disk",
    "app/test_gate_attacks",
    "faults/test_processes",
    "launch/test_interrupt",
    "rank/test_host",
    "data/test_packing",
)
"""Files that take longest: begun first, so that no worker waits for another's last file."""


def pytest_collection_finish():
    """What was imported is never garbage.

    A pytest that is run in this process looks through all objects, five times when it ends: with the libraries of a
    worker that took seconds.
    """
    gc.collect()
    gc.freeze()


def pytest_configure():
    """Tests press Ctrl-C, which a shell that started them in the background has told them to ignore.

    The sessions that they start know nothing of a worker: pytest-benchmark measures nothing in one.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Workers hold a device each at once, as users who see each other's locks cannot.
    os.environ["TRAINPACE_LOCKS"] = LOCKS.name
    os.environ["CI"] = "1"  # a case without a baseline is one: tests that want it recorded say so
    os.environ["TRAINPACE_TEST_WORKER"] = os.environ.pop("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")


def pytest_collection_modifyitems(items):
    """The files that take longest come first."""
    places = {f"{HERE / name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(str(item.path), len(FIRST)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """A test that is marked `alone` waits until no other worker runs one, and they wait for it."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    shared = Path(item.config.option.basetemp).parent
    how = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with (shared / "running.lock").open("w") as running:
        with (shared / "next.lock").open("w") as following:  # who waits is not overtaken
            fcntl.flock(following, fcntl.LOCK_EX)
            fcntl.flock(running, how)
        return (yield)


class Started:
    """The processes that a test started, however they detached themselves: all inherit one variable."""

    def __init__(self, mark):
        self._mark = mark

    def pids(self):
        """Of those alive."""
        found = [session.pid for session in warm.running()]  # whose first variables are those of what forked them
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TRAINPACE_TEST") == self._mark:
                    found.append(process.pid)
        return sorted(set(found))

    def left(self, besides=()):
        """Those that are alive after they have had time to leave: empty as soon as there is none `besides`."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while (pids := [pid for pid in self.pids() if pid not in besides]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return pids


@pytest.fixture(autouse=True)
def no_workflow(monkeypatch):
    """Sessions that tests start report to the test: not to the workflow, nor at the width, of who runs the tests."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "COLUMNS", "LINES"):
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
