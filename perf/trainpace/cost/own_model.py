"""A model that is not ours, as functions of a user's module: named in the session, found again where it is traced.

Imports no torch.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainpace.records import Record


class Function(Record):
    """A function at the top of a module."""

    module: str
    name: str
    file: str

    @classmethod
    def of(cls, what: str, given: Any) -> "Function":
        """How `given`, itself or `package.module:name`, is found in another process; `what` it is called in a message.

        Raises:
            ValueError: where it cannot be found there.
        """
        if isinstance(given, str):
            module, _, name = given.partition(":")
            spec = _found(module) if module and name.isidentifier() else None
            if spec is None or not spec.origin:
                raise ValueError(f"{what} must be a function, or package.module:name of one, got {given!r:.80}")
            return cls(module=module, name=name, file=os.path.realpath(spec.origin))
        name, module = getattr(given, "__qualname__", ""), getattr(given, "__module__", "")
        file = getattr(sys.modules.get(module), "__file__", None)
        if not (callable(given) and name.isidentifier() and file):
            raise ValueError(
                f"{what} must be a function or a class at the top of a module, which the process that traces imports, "
                f"got {given!r:.80}"
            )
        return cls(module=module, name=name, file=os.path.realpath(file))

    def load(self) -> Callable[..., Any]:
        """The function, in this process.

        Raises:
            ValueError: where its module does not hold it.
        """
        module = sys.modules.get(self.module) or self._imported()
        if (found := getattr(module, self.name, None)) is None:
            raise ValueError(f"{self.file} has no {self.name}: name a function at its top")
        return found

    def _imported(self) -> Any:
        spec = _found(self.module)
        if spec is not None and spec.origin and Path(spec.origin).resolve() == Path(self.file):
            return importlib.import_module(self.module)
        # A test's file, which pytest imports in a way of its own.
        spec = importlib.util.spec_from_file_location(self.module, self.file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        spec.loader.exec_module(module)
        return module


def _found(module: str) -> Any:
    """Where it would be imported from; None: nowhere. Its packages are imported."""
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of its parent
        return None


class OwnModel(Record):
    """What is traced: `build(workload)` gives the module, `batch(workload)` a rank's micro-batch."""

    build: Function
    batch: Function
    loss: Function | None = None
    """`loss(model, batch)`, a number; None: what the model returns of the batch, or its `loss`."""
    folder: str
    """In which relative paths are the session's."""
    path: tuple[str, ...]
    """Where the session imports from, before what is installed."""

    @property
    def name(self) -> str:
        """What stands in the place of a trainer."""
        return f"{self.build.module}:{self.build.name}"

    def enter(self) -> None:
        """Have this process import as the session does."""
        os.chdir(self.folder)
        sys.path[:0] = [entry for entry in self.path if entry not in sys.path]


def own_model(build: Any, batch: Any, loss: Any, *, folder: Path, root: Path) -> OwnModel:
    """Functions of a test as what is traced; what is named is looked for in `root` too, as trainers are.

    Raises:
        ValueError: where one of them cannot be found in another process.
    """
    given = {"build": build, "batch": batch, **({} if loss is None else {"loss": loss})}
    search = list(sys.path)
    sys.path.append(str(root))
    try:
        functions = {what: Function.of(what, each) for what, each in given.items()}
    finally:
        sys.path[:] = search
    return OwnModel(
        **functions,
        folder=str(folder),
        path=_own_path([*sys.path, str(root)], {Path(each.file).parent for each in functions.values()}),
    )


def _own_path(entries: Sequence[str], folders: set[Path]) -> tuple[str, ...]:
    """Those of `entries` that neither Python nor what is installed brings, and that hold one of `folders`."""
    found = []
    for entry in entries:
        place = Path(entry or ".").resolve()
        if not {"site-packages", "dist-packages"} & set(place.parts) and any(
            folder.resolve().is_relative_to(place) for folder in folders
        ):
            found.append(str(place))
    return tuple(dict.fromkeys(found))
