"""Locks between processes: one session a device, one writer a file. The system frees a lock when its holder dies."""

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from trainpace.errors import DeviceBusy
from trainpace.store.files import writing

_SHARED = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - links are not followed there
_TOKEN = "TRAINPACE_LOCK"  # noqa: S105 - the name of a variable


@contextmanager
def exclusive(lock: Path, *, taken: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `lock`; its folder is made where it is missing.

    `taken` is called once where another process holds the lock, before this one waits for it. Raise there to not wait.

    Raises:
        OSError: where the lock cannot be written.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        taken()
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Keep other processes from changing the file `path` meanwhile; wait for those that do.

    Raises:
        FileError: where locks cannot be written.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    lock = _folder() / f"{path.stem}-{name}.lock"
    with ExitStack() as stack:
        with writing(lock.parent):
            stack.enter_context(exclusive(lock, taken=lambda: None))
        yield


@contextmanager
def device_lock(slug: str) -> Iterator[None]:
    """Hold the device `slug`: two sessions that train at once would measure each other.

    A session inside one that holds it (by its token in the environment) takes no lock.

    Raises:
        DeviceBusy: at once, where another session holds it, whoever's it is.
        FileError: where locks cannot be written.
    """
    if os.environ.get(_TOKEN) == slug:
        yield
        return
    descriptor = _device_file(f"trainpace-device-{slug}.lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceBusy(
                f"{slug} is being measured by another suite (process {_holder(descriptor)}): two at once would measure "
                "each other; wait for it, then run the same command again"
            ) from None
        with suppress(OSError):  # on a full disk, or in another user's file: who is refused reads what stands there
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)
        os.environ[_TOKEN] = slug
        yield
    finally:
        if os.environ.get(_TOKEN) == slug:
            del os.environ[_TOKEN]
        os.close(descriptor)  # which frees the lock; so does this process's end


def _device_file(name: str) -> int:
    """A device's lock file: in TRAINPACE_LOCKS, else where all users of the machine see it, else in the user's state.

    Raises:
        FileError: where it cannot be.
    """
    given = os.environ.get("TRAINPACE_LOCKS")
    if not given:
        for folder in _SHARED:
            if _is_for_all(folder):
                with suppress(OSError):
                    return _opened(folder / name)
                break  # the next folder would be another lock than that of other users
    own = Path(given) if given else _folder()
    with writing(own):
        own.mkdir(parents=True, exist_ok=True)
        return _opened(own / name)


def _is_for_all(folder: Path) -> bool:
    """Whether everybody may write there, and nobody take away what is another's. Users agree on it, root included."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and bool(mode & stat.S_ISVTX) and bool(mode & stat.S_IWOTH)


def _opened(path: Path) -> int:
    """A file that everybody may lock, made where it is missing; never what a link points to, and nothing but a file.

    Raises:
        OSError: where it is something else, or cannot be opened.
    """
    how = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in its place would be waited for
    while True:
        # With O_CREAT the kernel refuses another user's file in such a folder (fs.protected_regular).
        try:
            descriptor = os.open(path, os.O_RDWR | how)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | how, 0o666))
                with suppress(OSError):
                    path.chmod(0o666)  # whatever the user's mask is
            continue
        except PermissionError:
            descriptor = os.open(path, os.O_RDONLY | how)  # enough for a lock
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, f"{path.name} is no plain file", str(path))
        return descriptor


def _folder() -> Path:
    """The folder of all locks, in the user's state: a lock beside the baselines would be committed."""
    from platformdirs import user_state_path

    return user_state_path("trainpace") / "locks"


def _holder(descriptor: int) -> str:
    """The process id that the holder wrote."""
    try:
        return str(int(json.loads(os.pread(descriptor, 256, 0))["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
