"""Keeps what one side of a comparison imports apart from the other side's checkout.

With the base on PYTHONPATH, or installed by `pip install -e`, what head deletes is still found, in the base, and head
is as fast as before: nobody need mean it. Inside run hosts and ranks, loaded by path, and imported by the judging side;
imports nothing else of `trainpace`.
"""

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_STANDARD = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, importlib.machinery.PathFinder)
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def search_path(checkout: Path) -> list[str]:
    """Where a checkout's own code is imported from: itself, and its perf/ where that holds the suite's package."""
    package = checkout / "perf" / "trainpace"
    return [str(checkout), *([str(package.parent)] if package.is_dir() else [])]


class Own:
    """A checkout, and the other side's, which nothing of it may come from."""

    def __init__(self, checkout: str | None, apart: Iterable[str]) -> None:
        """
        Args:
            checkout: the own one; None: everything that is imported is installed.
            apart: folders of the other side; none where nothing is compared. One may lie in another.
        """
        self._checkout = None if checkout is None else Path(checkout)
        self._roots = [Path(folder).resolve() for folder in ((checkout, *apart) if checkout else ())]
        self._apart = len(self._roots) > 1
        # An environment often lies in a checkout, and serves both sides.
        self._library = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]

    def place(self, path: str) -> str:
        """`path`; of one in the other side's checkout the same place in the own one, whether there is a file or not."""
        if not self._apart:
            return path
        there = Path(path).resolve()
        # The innermost folder decides: a workflow may check head out inside the base.
        root = max((each for each in self._roots if there.is_relative_to(each)), key=_depth, default=self._roots[0])
        if root == self._roots[0]:
            return path
        inside = there.relative_to(root)
        if _INSTALLED.intersection(inside.parts) or any(map(there.is_relative_to, self._library)):
            return path
        return str(self._roots[0] / inside)

    def root(self, path: str) -> Path | None:
        """The other side's folder that `path` lies in; None where it lies in none."""
        if self.place(path) == path:
            return None
        return max((each for each in self._roots if Path(path).resolve().is_relative_to(each)), key=_depth)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Environment variables for the own side's processes, with a PYTHONPATH that names nothing of the other's."""
        found = dict(inherited)
        if self._apart and found.get("PYTHONPATH"):
            # Relative ones (an empty one is `.`) are relative to this process's folder, which is not the own side's.
            entries = [self.place(os.path.abspath(each)) for each in found["PYTHONPATH"].split(os.pathsep)]  # noqa: PTH100 - no link is followed
            found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(entries))
        return found

    def apply(self) -> None:
        """Have this process import the own checkout's code first, and the other side's never."""
        first = search_path(self._checkout) if self._checkout else []
        sys.path[:] = dict.fromkeys([*first, *map(self.place, sys.path)])
        if not self._apart:
            return
        for name, module in list(sys.modules.items()):
            if name.startswith("__editable__"):  # setuptools': its finder of namespaces sits behind the standard one
                for places in getattr(module, "NAMESPACES", {}).values():
                    places[:] = map(self.place, places)
        sys.meta_path[:] = [each if each in _STANDARD else _Guard(each, self) for each in sys.meta_path]
        for name in self._strays():  # a line of a .pth file, or a sitecustomize, was there before
            del sys.modules[name]

    def strays(self) -> list[str]:
        """Files of this process's modules that lie in the other side's checkout."""
        return sorted(set(self._strays().values()))

    def _strays(self) -> dict[str, str]:
        """By the module's name; the suite's own, which a base that judges lends to head's host, are none."""
        found = {}
        for name, module in list(sys.modules.items()):
            # multiprocessing knows the main module by a second name.
            suite = module is sys.modules["__main__"] or name.startswith("trainpace_")
            file = None if suite else file_of(module)
            if file is not None and self.place(file) != file:
                found[name] = file
        return found


class _Guard:
    """A finder of imports, an editable install's, of which what lies in the other side's checkout is not taken."""

    def __init__(self, finder: Any, own: Own) -> None:
        self._finder, self._own = finder, own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)  # some also find distributions

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """See importlib.abc.MetaPathFinder. What is the other side's is looked for at the same place in the own one."""
        spec = self._finder.find_spec(name, path, target)
        if spec is None:
            return None
        inside = spec.submodule_search_locations
        places = None if inside is None else [self._own.place(each) for each in inside]
        own = self._own.place(spec.origin) if spec.has_location else spec.origin
        if own != spec.origin:
            if not Path(own).exists():
                return None
            return importlib.util.spec_from_file_location(name, own, submodule_search_locations=places)
        if places is not None and places != list(inside):
            spec.submodule_search_locations = places
        return spec


def file_of(module: Any) -> str | None:
    """The file that a module was imported from; None where there is none, or it does not say."""
    # Not getattr, which would wake modules that import themselves when they are asked for something.
    found = module.__dict__.get("__file__") if isinstance(module, ModuleType) else None
    return found if isinstance(found, str) else None


def _depth(folder: Path) -> int:
    return len(folder.parts)
