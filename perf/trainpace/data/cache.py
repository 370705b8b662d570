"""The cache on disk that ranks share: folders named by their content, each built once and seen whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainpace.data.base import Progress, silent
from trainpace.store.locks import exclusive

# Part of every key: a change of template, of tokenised form, of packing or of a file's layout needs a new number.
# 1: first format (2026-11). 2: a sequence without a judged token judges its last. 3: boundaries have a hash.
FORMAT = 3


def content_key(*parts: object) -> str:
    """Sixteen hex digits over `parts` (plain JSON) and the format's version."""
    text = json.dumps([FORMAT, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Sixteen hex digits over a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def entry(cache: Path, name: str, build: Callable[[Path], None], progress: Progress = silent) -> Path:
    """The folder `cache/name`, made by `build` (called with an empty folder to fill) where it is not there yet.

    Many processes may ask at once: one builds under a lock, the others wait. The folder appears by a rename, so what a
    killed builder leaves is a temporary folder under another name, which the next builder of the same entry removes.
    """
    folder = cache / name
    if folder.is_dir():
        return folder
    waiting = partial(progress, 0.0, "waiting for another process that makes the same")
    with exclusive(cache / f"{name}.lock", taken=waiting):
        if not folder.is_dir():
            _build(folder, build)
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{folder.name}."
    # Only the lock's holder makes these, so any that stands here belongs to a builder that was killed.
    for stale in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        build(temporary)
        # Synced for a power cut, and so that no write-back runs into the measurement that follows.
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        # Made for its owner alone; the machine's other users may share the cache.
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
