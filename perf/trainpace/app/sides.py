"""The two sides of a comparison: which interpreter and which checkout each is measured with."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import trainpace
from trainpace.app.revisions import RevisionError, changed_files, checked_out, dirty_files
from trainpace.app.trees import Tree
from trainpace.errors import UsageError
from trainpace.launch.environment import given, say_withheld, withheld
from trainpace.launch.host_client import Side
from trainpace.launch.quiet import nothing_left
from trainpace.probe.device import revision

_PACKAGE = Path(trainpace.__file__).resolve().parent
_MOST_FILES = 5
"""Of those that changed this many are named."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Base and head, and what must be said of them before anything else."""

    base: Side
    head: Side
    base_name: str
    """`1a2b3c4`, or the interpreter where that is what differs."""
    head_name: str
    changed: tuple[str, ...] = ()
    """Files that head changes, as far as git knows."""
    trees: tuple[Tree, ...] = ()
    """The base's checkout, what was built of it and the suite's package, before anything of head ran; none where both
    sides share a checkout."""

    def named(self, text: str) -> str:
        """`text` with `base/` and `head/` for their checkouts: who reads it has no such folders, or no longer."""
        if self.base.checkout == self.head.checkout:
            return text
        for name, side in (("base", self.base), ("head", self.head)):
            text = text.replace(f"{side.checkout}{os.sep}", f"{name}{os.sep}")
        return text

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be said first."""
        edited = [file for file in self.changed if file.startswith("baselines/")]
        return (f"head changes baselines, which are not used here: {', '.join(edited)}",) if edited else ()

    def spoilt(self) -> str | None:
        """Why nothing that was measured counts: the base is not what it was. None: it is."""
        for tree in self.trees:
            if found := tree.changed():
                more = f" and {len(found) - _MOST_FILES} more" if len(found) > _MOST_FILES else ""
                return (
                    f"expected {tree.folder} as it was before anything of head ran, got changes to "
                    f"{', '.join(found[:_MOST_FILES])}{more}: check out the base, or install the suite, anew, and run "
                    "the same command again"
                )
        return None


def prepare(
    stack: ExitStack,
    root: Path,
    *,
    head: str | None,
    python: str | None,
    build: str | None,
    environment: Sequence[str] = (),
    folder: Path,
    within: Path | None = None,
) -> Sides:
    """Make both sides ready; what was made for them is gone when `stack` closes.

    Args:
        stack: takes over what has to be cleaned up.
        root: the base checkout, which this suite runs from.
        head: a folder (relative to `folder`), or a revision of `root`'s repository; None: the same checkout.
        python: the head's interpreter; None: this one.
        build: a command that builds a side, run in a copy of each with an environment of its own; None: none.
        environment: names of variables that a build is given besides those of launch/environment.py.
        folder: what relative paths are relative to.
        within: a folder that all nodes see, for what is made; None: this machine's temporary files.

    Raises:
        UsageError: naming what cannot be had.
    """
    head_checkout = root
    if head is not None:
        path = (folder / head).resolve()
        if path.is_dir():
            head_checkout = path
        else:
            try:
                head_checkout = stack.enter_context(checked_out(root, head, within=within))
            except RevisionError as error:
                raise UsageError(f"--perf-head {head}: neither a folder nor a revision: {error}") from None
    interpreter = sys.executable
    if python is not None:
        interpreter = str(folder / python)
        if shutil.which(interpreter) is None:
            raise UsageError(f"--perf-against-python: no interpreter {interpreter}")
    base_side, head_side = Side(checkout=root), Side(checkout=head_checkout, python=interpreter)
    same = head_checkout == root
    trees = []
    if not same:
        _refuse_dirty(root)
        trees.append(Tree.of(root, besides=[head_checkout], commit=_commit(root)))
        if not _PACKAGE.is_relative_to(root):
            trees.append(Tree.of(_PACKAGE))
    if build is not None:
        base_side = _built(stack, base_side, build, environment, within)
        assert base_side.checkout
        if not same:
            trees.append(Tree.of(base_side.checkout, source=root))
        head_side = _built(stack, head_side, build, environment, within)
    folders = {root, head_checkout} | {side.checkout for side in (base_side, head_side) if side.checkout}
    return Sides(
        base=_alone(base_side, folders),
        head=_alone(head_side, folders),
        base_name="this python" if same else _name(root),
        head_name=interpreter if same else _name(head_checkout),
        changed=_changed(root, head_checkout),
        trees=tuple(trees),
    )


def _refuse_dirty(base: Path) -> None:
    """A base that differs from its commit is not what its name says: an earlier head may have changed it."""
    if found := dirty_files(base):
        more = f" and {len(found) - _MOST_FILES} more" if len(found) > _MOST_FILES else ""
        raise UsageError(
            f"--perf-head: expected the base {base} as its commit has it, got changes to "
            f"{', '.join(found[:_MOST_FILES])}{more}: commit them, or put them aside with "
            f"`git -C {shlex.quote(str(base))} stash`"
        )


def _commit(checkout: Path) -> str | None:
    found = revision(checkout)
    return None if found is None else found.removesuffix("+dirty")


def _alone(side: Side, folders: set[Path]) -> Side:
    """The side at work in its own checkout, apart from all other `folders` of the comparison."""
    return replace(side, folder=side.checkout, apart=tuple(sorted(folders - {side.checkout})))


def _changed(root: Path, head: Path) -> tuple[str, ...]:
    base = revision(root)
    if head == root or base is None:
        return ()
    return tuple(changed_files(head, base.removesuffix("+dirty")))


def _name(checkout: Path) -> str:
    found = revision(checkout)
    return checkout.name if found is None else found[:7] + ("+dirty" if found.endswith("+dirty") else "")


def _built(stack: ExitStack, side: Side, build: str, added: Sequence[str], within: Path | None) -> Side:
    """A copy of the side's checkout, built by `build` in an environment of its own on top of the side's.

    A second editable install into one environment would make both sides import the same code.
    """
    assert side.checkout is not None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trainpace-build-", dir=within)))
    copy, environment = folder / side.checkout.name, folder / "environment"
    # Temporary files may lie in the checkout itself.
    left_out = shutil.ignore_patterns(".git", ".venv", ".tox", "trainpace-build-*")
    shutil.copytree(side.checkout, copy, symlinks=True, ignore=left_out)
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    below = _output([side.python, "-c", "import site; print(*site.getsitepackages(), sep='\\n')"], folder).splitlines()
    own = _output([str(python), "-c", "import site; print(site.getsitepackages()[0])"], folder).strip()
    # The packages of the environment below, without its own editable installs: a path in a .pth file is not searched
    # for further .pth files.
    Path(own, "below.pth").write_text("".join(f"{path}\n" for path in below))
    searched = {
        **given(os.environ, added),
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(environment),
    }
    with nothing_left():  # it would run while sides are measured
        done = subprocess.run(
            shlex.split(build),
            cwd=copy,
            env=searched,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = f"{(done.stdout + done.stderr)[-2000:].rstrip()}\n{say_withheld(withheld(os.environ, added))}"
        raise UsageError(f"--perf-build failed in a copy of {side.checkout}:\n{said.rstrip()}")
    return Side(checkout=copy, python=str(python))


def _output(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
