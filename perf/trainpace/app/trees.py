"""Whether the files that a side is made of are still what they were: the other side's code runs as the same user."""

import importlib.util
import marshal
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from trainpace.app.revisions import content_of, tracked_files

_IMPORTED = frozenset({".py", ".pyc", ".so", ".pth", ".egg-link"})
# Bytecode is looked at where it would be used; baselines are recorded from case to case, and trained with none of them.
_SKIPPED = frozenset({".git", "__pycache__", "baselines", ".tox", ".nox", "node_modules"})
_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
_HEADER = 16
"""Bytes of a .pyc before its code: magic, flags, and the source's time and size (PEP 552)."""
_Mark = tuple[int, ...] | str


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The files of a folder at one moment: those that git tracks (without git all), and those that can be imported."""

    folder: Path
    besides: frozenset[Path]
    """Folders inside of it that are another side's."""
    commit: str | None
    """What the folder is a checkout of; None: no checkout, or a copy that was built."""
    tracked: frozenset[str] | None
    """Paths relative to the folder; None: without git."""
    marks: dict[str, _Mark]
    """Of each file what changes with it: inode, size, and both times in nanoseconds; of a link where it points."""
    compiled: dict[str, _Mark]
    """The same of bytecode, by its source's path."""

    @classmethod
    def of(
        cls, folder: Path, *, besides: Collection[Path] = (), commit: str | None = None, source: Path | None = None
    ) -> Self:
        """What stands in `folder` now.

        Args:
            folder: a checkout, or a copy of one.
            besides: folders that are another side's.
            commit: that it is a checkout of.
            source: the checkout that it is a copy of; None: it is none.
        """
        tracked = tracked_files(source or folder)
        apart = frozenset(each.resolve() for each in besides) - {folder.resolve()}
        folder = folder.resolve()
        tree = cls(folder=folder, besides=apart, commit=commit, tracked=tracked, marks={}, compiled={})
        tree.marks.update(tree._marks())
        tree.compiled.update(tree._compiled())
        return tree

    def changed(self) -> list[str]:
        """Files that differ from what they were, are gone, or are new and can be imported; sorted."""
        now, compiled = dict(self._marks()), dict(self._compiled())
        differ = {name for name in self.marks.keys() | now.keys() if self.marks.get(name) != now.get(name)}
        found = {name for name in differ if self._counts(name) and not self._is_content(name)}
        for name, mark in compiled.items():
            if mark != self.compiled.get(name) and _lies(self.folder / name):
                found.add(f"{name} (its bytecode)")
        return sorted(found)

    def _counts(self, name: str) -> bool:
        if self.tracked is not None and name in self.tracked:
            return True
        # Nothing in caches, in logs of a run (wandb/run-2026..) and in temporary folders is imported by a name.
        if not all(map(str.isidentifier, Path(name).parts[:-1])):
            return False
        return Path(name).suffix in _IMPORTED or (self.tracked is None and name in self.marks)

    def _is_content(self, name: str) -> bool:
        """Whether a file that was written anew says what its commit says."""
        path = self.folder / name
        if self.commit is None or name not in (self.tracked or ()) or path.is_symlink() or not path.is_file():
            return False
        return path.read_bytes() == content_of(self.folder, self.commit, name)

    def _marks(self) -> Iterator[tuple[str, _Mark]]:
        for above, folders, files in os.walk(self.folder):
            here = Path(above)
            folders[:] = [each for each in folders if not self._is_skipped(here / each)]
            for name in files:
                path = here / name
                if (mark := _mark(path)) is not None:
                    yield str(path.relative_to(self.folder)), mark

    def _compiled(self) -> Iterator[tuple[str, _Mark]]:
        for name in list(self.marks):
            if name.endswith(".py") and (mark := _mark(_bytecode(self.folder / name))) is not None:
                yield name, mark

    def _is_skipped(self, folder: Path) -> bool:
        environment = any((folder / name).exists() for name in _ENVIRONMENTS)
        return folder.name in _SKIPPED or environment or folder.is_symlink() or folder in self.besides


def _mark(path: Path) -> _Mark | None:
    try:
        if path.is_symlink():
            return str(path.readlink())
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _bytecode(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def _lies(source: Path) -> bool:
    """Whether Python would take a module's bytecode for what its source says, and it is not."""
    try:
        text, found = source.read_bytes(), _bytecode(source).read_bytes()
        begin, own = found[:_HEADER], source.stat()
        expected = importlib.util.MAGIC_NUMBER + bytes(4) + _four(int(own.st_mtime)) + _four(own.st_size)
        if begin[:4] != importlib.util.MAGIC_NUMBER or (not any(begin[4:8]) and begin != expected):
            return False  # of another Python, or of another state of the source: it is compiled anew
        code = compile(text, str(source), "exec", dont_inherit=True)
        # What is made to crash this crashes the session, which is red then.
        return bool(marshal.loads(found[_HEADER:]) != code)  # noqa: S302
    except (OSError, SyntaxError):
        return False
    except (ValueError, EOFError, TypeError):
        return True


def _four(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")
