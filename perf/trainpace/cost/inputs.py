"""What a process's results depend on: noted while it imports, and checked later without importing anything.

A count follows from the code that was imported to make it. `Recorder` notes every file that was imported, every file of
one's own tree that was opened, where each name was found, and which names were looked for in vain. `unchanged` looks
whether a process that starts now would import the same: an edited file, a new one that comes first, and a package that
was missing and is there now are all seen.

Not seen: what a process reads by other means than Python's `open`, a new file in the middle of an installed package,
and code that is compiled into libraries that are no modules (those change with the version of their package).
"""

import hashlib
import importlib
import json
import os
import pkgutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainpace.rank.imports import file_of

LATE_SECONDS = 0.05
"""A file that changed so short before the process began may have changed after it was read: clocks of file systems lag
behind by a tick of the kernel."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_BEFORE = ("sitecustomize", "usercustomize")
"""Python imports them before anything can be noted."""
_NO_INPUT = ("/proc/", "/sys/", "/dev/")

State = tuple[int, int, str]
"""Of a file: bytes, time of its last change in ns, hash."""


class Recorder:
    """Notes what this process imports and opens, from now on and in its forks. There should be one a process.

    Args:
        began: when the process was started, seconds since the epoch.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._standard = tuple(
            f"{os.path.realpath(sysconfig.get_path(name))}{os.sep}" for name in ("stdlib", "platstdlib")
        )
        self._opened: set[str] = set()
        self._in_vain: set[tuple[str, tuple[str, ...] | None]] = set()
        self._states: dict[str, State | None] = {}
        self._kinds: dict[str, str] = {}
        self._last: tuple[tuple[int, int, int], str | None] | None = None
        sys.addaudithook(self._audit)
        sys.meta_path.append(self)  # the last to be asked: only for what nobody else has found

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:  # noqa: ARG002
        """See importlib.abc.MetaPathFinder. Finds nothing."""
        self._in_vain.add((name, None if path is None else tuple(path)))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open":
            return
        path, mode, _ = arguments
        if isinstance(path, str) and not path.endswith(".pyc") and (mode is None or "r" in mode):
            self._opened.add(path)

    def inputs(self) -> str | None:
        """All of it until now, as JSON; None where a file changed while this process may have been reading it."""
        amount = len(sys.modules), len(self._opened), len(self._in_vain)
        if self._last is None or self._last[0] != amount:
            self._last = amount, self._inputs()
        return self._last[1]

    def _inputs(self) -> str | None:
        own: dict[str, str] = {}
        library: dict[str, State] = {}
        modules = {name: file_of(module) for name, module in list(sys.modules.items())}
        opened = {os.path.abspath(path) for path in self._opened if not path.startswith(_NO_INPUT)}  # noqa: PTH100 - no link is followed
        imported = set(filter(None, modules.values()))
        for path in sorted(imported | opened):
            kind = self._kind(path)
            if kind == "standard" or (kind == "library" and path not in imported):
                continue
            # A module was read once, other files may be read again.
            state = self._state(path) if path in imported else _state(path)
            if state is None:
                continue
            if self._is_late(path):
                return None
            if kind == "own":
                own[path] = state[2]
            else:
                library[path] = state
        search = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
        names = sorted(self._names(modules), key=str)
        content = {
            "own": own,
            "library": library,
            "search": search,
            "names": [(name, path, _found(name, search if path is None else path)) for name, path in names],
        }
        return json.dumps(content, sort_keys=True)

    def _names(self, modules: Mapping[str, str | None]) -> set[tuple[str, tuple[str, ...] | None]]:
        """Names to look for again, and where: those at the top, those in one's own packages, those not found."""
        found: set[tuple[str, tuple[str, ...] | None]] = {(name, None) for name in _BEFORE}
        for name, file in modules.items():
            parent, _, _ = name.rpartition(".")
            if not parent:
                if file is not None and name != "__main__":
                    found.add((name, None))
            elif file is not None and self._kind(file) == "own" and (path := _places(parent)) is not None:
                found.add((name, path))
        for name, path in self._in_vain:
            if path is None or any(self._kind(os.path.join(place, "")) == "own" for place in path):  # noqa: PTH118
                found.add((name, path))
        return found

    def _kind(self, path: str) -> str:
        """`standard` library, installed `library`, or `own`: a checkout, a user's tree."""
        if path not in self._kinds:
            standard = os.path.realpath(path).startswith(self._standard)
            installed = _INSTALLED.intersection(Path(path).parts)
            self._kinds[path] = "library" if installed else "standard" if standard else "own"
        return self._kinds[path]

    def _is_late(self, path: str) -> bool:
        # What is put in another file's place keeps its own time; the inode's is the system's.
        try:
            now = os.stat(path)  # noqa: PTH116
        except OSError:
            return True
        return max(now.st_mtime, now.st_ctime) > self._began - LATE_SECONDS

    def _state(self, path: str) -> State | None:
        if path not in self._states:
            self._states[path] = _state(path)
        return self._states[path]


def unchanged(content: str | bytes) -> bool:
    """Whether a process that starts now in the same way would import and open what `Recorder.inputs` noted.

    Raises:
        ValueError, KeyError, TypeError: where `content` is none of it.
    """
    noted = json.loads(content)
    if not all(_hash(path) == was for path, was in noted["own"].items()):
        return False
    importlib.invalidate_caches()
    for name, path, found in noted["names"]:
        if _found(name, noted["search"] if path is None else path) != found:
            return False
    return all(_as_noted(path, *state) for path, state in noted["library"].items())


def _as_noted(path: str, size: int, changed: int, was: str) -> bool:
    """Thousands of files, most of them never edited: read only where it was touched, as by installing it again."""
    try:
        now = os.stat(path)  # noqa: PTH116 - half the time of Path's
    except OSError:
        return False
    return (now.st_size == size and now.st_mtime_ns == changed) or _hash(path) == was


def _state(path: str) -> State | None:
    """None for what is no file, or cannot be read."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113
            return None
        now = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    content = _hash(path)
    return None if content is None else (now.st_size, now.st_mtime_ns, content)


def _hash(path: str) -> str | None:
    with suppress(OSError):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return None


def _places(package: str) -> tuple[str, ...] | None:
    path = getattr(sys.modules.get(package), "__path__", None)
    return None if path is None else tuple(path)


def _found(name: str, path: Iterable[str]) -> str | None:
    """Where the import of `name` from the folders `path` ends: a file, the folders of a namespace, or nowhere."""
    folders: list[str] = []
    for place in path:
        finder = pkgutil.get_importer(place)
        spec = finder.find_spec(name) if finder else None
        if spec is None:
            continue
        if spec.loader is not None:
            return spec.origin
        folders += spec.submodule_search_locations or ()
    return os.pathsep.join(folders) or None
