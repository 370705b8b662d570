"""One suite per device at a time: two that train at once would measure each other."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trainpace.errors import DeviceBusy
from trainpace.store.files import writing

_TOKEN = "TRAINPACE_LOCK"  # noqa: S105 - the name of a variable


@contextmanager
def device_lock(slug: str) -> Iterator[None]:
    """Hold the device `slug`. A session inside one that holds it (by its token in the environment) takes no lock.

    Raises:
        DeviceBusy: at once, where another suite holds it.
        FileError: where locks cannot be written.
    """
    from filelock import FileLock, Timeout
    from platformdirs import user_state_path

    if os.environ.get(_TOKEN) == slug:
        yield
        return
    folder = user_state_path("trainpace") / "locks"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"device-{slug}.json"
    lock = FileLock(folder / f"device-{slug}.lock", timeout=0)
    with writing(folder):
        try:
            lock.acquire()
        except Timeout:
            raise DeviceBusy(
                f"{slug} is being measured by another suite (process {_holder(holder)}): two at once would measure "
                "each other; wait for it, then run the same command again"
            ) from None
    try:
        with suppress(OSError):  # on a full disk: whoever is refused meanwhile reads that the holder is unknown
            holder.write_text(json.dumps({"pid": os.getpid()}))
        os.environ[_TOKEN] = slug
        yield
    finally:
        os.environ.pop(_TOKEN, None)
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: os.PathLike[str]) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a PathLike
            return str(json.load(file)["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
