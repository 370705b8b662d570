"""One suite per device at a time."""

import os
import subprocess
import sys

import pytest

from trainpace.errors import DeviceBusy
from trainpace.store.locks import device_lock

HOLD = """
import sys
from trainpace.store.locks import device_lock
with device_lock("card"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Locks of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("TRAINPACE_LOCK", raising=False)


@pytest.fixture
def holder(started):
    """Another process that holds `card`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def take():
    """Hold the device, and let it go."""
    with device_lock("card"):
        return os.environ["TRAINPACE_LOCK"]


def test_second_suite_is_refused(holder):
    """A device that another process holds is refused at once, with the process and what to do."""
    with pytest.raises(DeviceBusy) as raised:
        take()

    assert (
        f"card is being measured by another suite (process {holder.pid}): two at once would measure each other; "
        "wait for it, then run the same command again"
    ) == str(raised.value)


def test_lock_is_free_after_its_holder(holder):
    """A holder that ends well frees the device."""
    holder.communicate(b"")

    assert take() == "card"


def test_lock_is_free_after_a_kill(holder):
    """So does one that is killed: the system lets go of its lock."""
    holder.kill()
    holder.wait()

    assert take() == "card"


def test_other_devices_are_free(holder):
    """A lock is of one device."""
    with device_lock("other"):
        held = os.environ["TRAINPACE_LOCK"]

    assert held == "other"


def test_inner_session_needs_no_lock(holder, monkeypatch):
    """A session that one which holds the device has started goes by its token."""
    monkeypatch.setenv("TRAINPACE_LOCK", "card")

    assert take() == "card"


def test_token_ends_with_the_lock():
    """The token is in the environment only while the device is held."""
    take()

    assert "TRAINPACE_LOCK" not in os.environ
