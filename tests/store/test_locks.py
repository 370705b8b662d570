"""One suite per device at a time."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainpace.errors import DeviceBusy, FileError
from trainpace.store import locks
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
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TRAINPACE_LOCKS", str(tmp_path / "locks"))
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


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The folder that all users of a machine see, with nobody's TRAINPACE_LOCKS."""
    monkeypatch.delenv("TRAINPACE_LOCKS")
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        folder = Path(made)
        folder.chmod(0o1777)
        monkeypatch.setattr(locks, "_SHARED", (tmp_path / "absent", folder))
        yield folder


def child(user, act):
    """What another user's process says; it is forked, since that user may read none of our files."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        said = "nothing"
        try:
            os.setgid(user)
            os.setuid(user)
            act()
            said = "held"
        except (DeviceBusy, FileError) as error:
            said = str(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as file:
        return file.read()


def test_a_user_sees_anothers_lock(shared, monkeypatch):
    """Two users of a machine exclude each other, whoever came first; each can take what the other has left."""
    if os.getuid():
        pytest.skip("only root can be another user")

    def of_another(user):
        monkeypatch.delenv("TRAINPACE_LOCK", raising=False)
        return child(user, take)

    assert of_another(12345) == "held"
    with device_lock("card"):
        said = of_another(12345)
    assert said.startswith(f"card is being measured by another suite (process {os.getpid()})")
    assert of_another(12346) == "held"
    assert [path.name for path in shared.iterdir()] == ["trainpace-device-card.lock"]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("target"), os.mkfifo, lambda path: path.mkdir()])
def test_what_is_no_lock_file_is_not_taken_for_one(shared, make):
    """A link, a pipe or a folder in its place leads nowhere: the lock is the user's own."""
    make(shared / "trainpace-device-card.lock")

    assert take() == "card"
    assert not (shared / "target").exists()
    assert [path.name for path in locks._folder().iterdir()] == ["trainpace-device-card.lock"]


def test_a_folder_of_one_user_is_not_all_users(shared):
    """Where others could not write, or take the file away, it is the user's own: users would not agree on it."""
    shared.chmod(0o755)

    assert take() == "card"
    assert list(shared.iterdir()) == []


def test_garbage_in_the_file_is_an_unknown_holder(holder, tmp_path):
    """Whatever stands there, who is refused is told so."""
    (tmp_path / "locks" / "trainpace-device-card.lock").write_text('{"pid": "\\u001b[2J"}')

    with pytest.raises(DeviceBusy, match=r"another suite \(process unknown\)"):
        take()
