"""Where runs write while they go on, and what is read there when one fails."""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from trainpace.errors import RunFailed
from trainpace.store.files import writing

_TAIL_BYTES = 1 << 16
"""Read of a log from its end: a program may write gigabytes, and no newline."""
_FULL_BYTES = 1 << 12
"""Less free space than this is none: a line of a rank does not fit."""


def work_folder(parent: Path | None = None) -> Path:
    """A new folder for what runs write; launch/orphans.py removes it where its suite cannot.

    Args:
        parent: a folder that several machines see; None: this machine's temporary files.

    Raises:
        FileError: where there is no room for it.
    """
    parent = parent or Path(tempfile.gettempdir())
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        # The machine's name: elsewhere the same number is another process.
        return Path(tempfile.mkdtemp(prefix=f"trainpace-{os.getpid()}-{socket.gethostname()}-", dir=parent))


def run_folder(parent: Path, run_id: str, ranks: int) -> Path:
    """A new folder for one run of `ranks` ranks.

    The files that one machine writes and another waits for are there from the beginning: over NFS a name that was not
    there stays so for up to half a minute, while a file that is there is looked at anew whenever it is opened.

    Raises:
        RunFailed: where there is no room for it.
    """
    folder = parent / run_id
    try:
        folder.mkdir()
        for name in ("rendezvous", *(f"rank-{rank}.jsonl" for rank in range(ranks))):
            (folder / name).touch()
    except OSError as error:
        raise RunFailed(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


def explained(error: RunFailed, folder: Path, kept: Path | None, said: str) -> RunFailed:
    """`error` with what ranks printed, what they could not even write, what is `said` of all, where logs are `kept`."""
    cause, disk = error.cause, folder.parent.parent
    if shutil.disk_usage(disk).free < _FULL_BYTES:
        cause += f"; no space is left under {disk}"
    where = (
        f"every rank's log: {kept}" if kept else "--perf-keep-logs DIR, added to the command, keeps every rank's log"
    )
    detail = error.detail or rank_logs(folder)
    return RunFailed(cause, rank=error.rank, detail="\n".join(filter(None, (detail.rstrip("\n"), said, where))))


def keep_logs(folder: Path | None, host_log: Path, kept: Path) -> None:
    """Copy what a run wrote, and what its host printed until now, to `kept`: as much of it as there is room for.

    Args:
        folder: the run's; None for a run whose host did not start.
        host_log: what the host, or what started it on nodes, printed; torchrun sends that elsewhere: there is none.
        kept: a folder that is made; missing or half of it where it cannot be written, which fails no run.
    """
    with suppress(OSError, shutil.Error):
        kept.mkdir(parents=True, exist_ok=True)
        if host_log.exists():
            shutil.copy(host_log, kept / "host.log")
        if folder is not None:
            shutil.copytree(folder, kept, dirs_exist_ok=True)


def rank_logs(folder: Path) -> str:
    """The ends of what the ranks of a run printed."""
    return "\n".join(
        f"--- {path.name}\n{tail(path)}" for path in sorted(folder.glob("rank-*.log")) if path.stat().st_size
    )


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a file, at most _TAIL_BYTES of them; none where it is not there."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read(_TAIL_BYTES).decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
