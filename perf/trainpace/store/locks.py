"""Locks between processes: one session a device, one writer a file. The system frees a lock when its holder dies."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from trainpace.errors import DeviceBusy
from trainpace.store.files import writing

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
        DeviceBusy: at once, where another session holds it.
        FileError: where locks cannot be written.
    """
    if os.environ.get(_TOKEN) == slug:
        yield
        return
    holder = _folder() / f"device-{slug}.json"

    def busy() -> None:
        raise DeviceBusy(
            f"{slug} is being measured by another suite (process {_holder(holder)}): two at once would measure "
            "each other; wait for it, then run the same command again"
        )

    with ExitStack() as stack:
        with writing(holder.parent):
            stack.enter_context(exclusive(holder.with_name(f"device-{slug}.lock"), taken=busy))
        try:
            with suppress(OSError):  # on a full disk: whoever is refused meanwhile reads that the holder is unknown
                holder.write_text(json.dumps({"pid": os.getpid()}))
            os.environ[_TOKEN] = slug
            yield
        finally:
            os.environ.pop(_TOKEN, None)
            holder.unlink(missing_ok=True)


def _folder() -> Path:
    """The folder of all locks, in the user's state: a lock beside the baselines would be committed."""
    from platformdirs import user_state_path

    return user_state_path("trainpace") / "locks"


def _holder(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
