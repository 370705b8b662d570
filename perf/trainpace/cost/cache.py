"""Counted costs of earlier sessions: a folder of files, each found by what its count depends on. Never stale.

    <cache>/costs/<request>-<inputs>.json    a cost
    <cache>/costs/inputs-<inputs>.json       the files and names that it was counted from (inputs.py), shared by many

The request is the workload, the interpreter, what is installed, and the environment that reaches the trainer. A cost is
found only where the files of its inputs still hold what they held. Files are written whole and replaced by none but the
same, so sessions need no lock; a file that is broken is as good as none.
"""

import hashlib
import json
import os
import re
import site
import sys
import sysconfig
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainpace.cases.workload import Workload
from trainpace.cost.inputs import unchanged
from trainpace.cost.own_model import OwnModel
from trainpace.errors import FileError
from trainpace.runs.cost import Cost
from trainpace.store.files import write_whole

# Part of every request: a change of what stands in these files needs a new number. 1: first format (2026-11).
FORMAT = 1
MAX_BYTES = 64 << 20
"""Of the folder; what was used last is kept. A cost takes 10 KiB, its inputs 500."""
SOFTWARE = ("numpy", "torch", "transformers")
"""Distributions whose versions are asked for by name, besides the names of all that are installed."""
_READ = re.compile(r"PYTHON\w*|TORCH\w*|PYTORCH_\w*|TRANSFORMERS_\w*|FLASH_\w*")
"""Environment variables that change what is imported or traced."""
_STALE_SECONDS = 3600.0
"""A temporary file as old as this was left by a process that was killed."""


class CostCache:
    """The cache, as one process that counts would meet it.

    Args:
        folder: of all caches; made where it is missing.
        package: whose trainer is counted: the folder of the package.
        environment: that the counting process is given.
        added: names of those of its variables that the user asked for.
    """

    def __init__(self, folder: Path, *, package: Path, environment: Mapping[str, str], added: tuple[str, ...]) -> None:
        self._folder = folder / "costs"
        self._facts = _facts(package, environment, added)
        self._valid: dict[str, bool] = {}
        self._found: dict[str, list[str]] = {}
        self._written: set[str] = set()
        self._broken = False
        for entry in sorted(self._entries(), key=lambda each: each[1], reverse=True):
            request, _, inputs = entry[0].name.removesuffix(".json").partition("-")
            self._found.setdefault(request, []).append(inputs)

    def find(self, workload: Workload, own: OwnModel | None = None) -> Cost | None:
        """What counting `workload` would give, with the model of `own`; None: it was not counted, or from what is not
        there any more."""
        request = self._request(workload, own)
        for inputs in self._found.get(request, ()):
            if self._is_valid(inputs):
                path = self._folder / f"{request}-{inputs}.json"
                with suppress(OSError, ValueError):
                    cost = Cost.model_validate_json(_read(path))
                    if cost.workload == workload:
                        _touch(path)
                        return cost
        return None

    def keep(self, cost: Cost, inputs: str, own: OwnModel | None = None) -> None:
        """Keep what was just counted from `inputs`, as Recorder gives it."""
        digest = _digest(inputs)
        path = self._folder / f"{self._request(cost.workload, own)}-{digest}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if digest not in self._written:  # in another session's place too, whose file may be broken
                _write(self._folder / f"inputs-{digest}.json", inputs)
                self._written.add(digest)
            _write(path, cost.model_dump_json())
        except (OSError, FileError) as error:
            if not self._broken:
                warnings.warn(f"counts are not kept for the next session: {error}", stacklevel=2)
            self._broken = True

    def clean(self) -> None:
        """Keep the folder within MAX_BYTES: what was used last stays."""
        now = time.time()
        with suppress(OSError):
            for path in self._folder.glob(".*.tmp"):
                if now - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
        files = sorted(self._entries(of="*"), key=lambda each: each[1], reverse=True)
        total = 0
        for path, _, size in files:
            total += size
            if total > MAX_BYTES:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _request(self, workload: Workload, own: OwnModel | None) -> str:
        model = [own.model_dump(mode="json")] if own else []
        return _digest(json.dumps([self._facts, workload.model_dump(mode="json"), *model], sort_keys=True))

    def _is_valid(self, inputs: str) -> bool:
        if inputs not in self._valid:
            path = self._folder / f"inputs-{inputs}.json"
            self._valid[inputs] = False
            with suppress(OSError, ValueError, KeyError, TypeError):
                self._valid[inputs] = unchanged(_read(path))
                _touch(path)
        return self._valid[inputs]

    def _entries(self, of: str = "[0-9a-f]*-*") -> list[tuple[Path, float, int]]:
        """Files, when each was used last, their sizes."""
        found = []
        for path in self._folder.glob(f"{of}.json"):
            with suppress(OSError):
                status = path.stat()
                found.append((path, status.st_mtime, status.st_size))
        return found


def _facts(package: Path, environment: Mapping[str, str], added: tuple[str, ...]) -> dict[str, Any]:
    """What decides what a process imports, besides the files themselves."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    python_path = environment.get("PYTHONPATH", "").split(os.pathsep)
    installed, lines = [], []
    for folder in [*filter(None, python_path), *sorted(folders)]:
        with suppress(OSError):
            names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone
            installed += [name for name in names if name.endswith((".dist-info", ".egg-info"))]
            lines += [(name, Path(folder, name).read_text(errors="replace")) for name in names if name.endswith(".pth")]
    return {
        "format": FORMAT,
        "python": sys.version,
        "executable": sys.executable,
        "package": str(package),
        "installed": installed,
        "versions": {name: _version(name) for name in SOFTWARE},
        "lines": lines,
        "environment": {
            name: value for name, value in sorted(environment.items()) if _READ.fullmatch(name) or name in added
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _digest(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def _write(path: Path, content: str) -> None:
    write_whole(path, f"{_digest(content)}\n{content}")


def _read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError, ValueError: where it cannot be read, or does not hold what was written.
    """
    digest, _, content = path.read_bytes().partition(b"\n")
    if digest.decode() != _digest(content):
        raise ValueError(f"{path} is broken")
    return content


def _touch(path: Path) -> None:
    """It was used now. Another user's cache may be read only."""
    with suppress(OSError):
        os.utime(path)
