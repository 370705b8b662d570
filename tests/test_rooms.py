"""The rooms of the package: imports point one way, pure rooms touch no file and no clock, no circle of files is left.

Every import counts, wherever it stands: at the top of a file, in a function, below TYPE_CHECKING.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trainpace

FOLDER = Path(trainpace.__file__).parent
PURE = ("cases", "runs", "stats", "judge", "plan", "report")
ORDER = (*PURE, "store", "probe", "data", "rank", "adapters", "trainers", "launch", "cost", "app")
"""A room imports itself and the rooms before it."""
IN_A_RANK = {"rank", "adapters"}
"""They import themselves alone."""
FOR_ALL = {"trainpace", "trainpace.errors", "trainpace.records", "trainpace.text"}
SHELL = {"trainpace.plugin", "trainpace.__main__"}
"""They import what they like, and nothing imports them."""

IMPURE_MODULES = {"os", "subprocess", "time", "socket", "tempfile", "shutil", "torch", "urllib", "http"}
IMPURE_FUNCTIONS = {"open", "print", "input"}
IMPURE_METHODS = {
    *("chmod", "cwd", "exists", "expanduser", "glob", "home", "is_dir", "is_file", "is_symlink", "iterdir", "lstat"),
    *("mkdir", "open", "read_bytes", "read_text", "readlink", "rename", "rglob", "rmdir", "samefile", "stat"),
    *("symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text"),
    *("now", "today", "utcnow"),
}


def module_of(path: Path) -> str:
    """`trainpace.judge.verdict` of its file."""
    return ".".join(("trainpace", *path.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def imports(module: str, source: str) -> Iterator[str]:
    """The modules that `source` imports, of trainpace and others."""
    package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            inside = [f"{origin}.{name.name}" for name in node.names]
            yield from (name if name in MODULES else origin for name in inside)


def upward(module: str, source: str) -> list[str]:
    """What `source` must not import, with `module` as its name."""
    if module in SHELL:
        return []
    return sorted({name for name in imports(module, source) if name.split(".")[0] == "trainpace"} - allowed(module))


def allowed(module: str) -> set[str]:
    """The modules that `module` may import."""
    if module in FOR_ALL:
        return FOR_ALL
    room = module.split(".")[1]
    if room in IN_A_RANK:
        rooms: tuple[str, ...] = (room,)
    elif room == "simulate":
        rooms = (*PURE, "simulate")
    else:
        rooms = ORDER[: ORDER.index(room) + 1]
        if room in PURE:
            rooms = tuple(each for each in rooms if each in PURE)
    inside = {name for name in MODULES if len(name.split(".")) > 1 and name.split(".")[1] in rooms}
    return inside if room in IN_A_RANK else inside | FOR_ALL


def impure(source: str) -> list[str]:
    """Modules and calls in `source` that reach outside the process."""
    found = {name.split(".")[0] for name in imports("trainpace.any", source)} & IMPURE_MODULES
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_FUNCTIONS:
                found.add(f"{name}()")
            case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_METHODS:
                found.add(f".{name}()")
            # Of a path: text takes two arguments, a record takes names.
            case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):
                found.add(".replace()")
            case ast.Call(func=ast.Attribute(attr="resolve"), args=[], keywords=[]):
                found.add(".resolve()")
    return sorted(found)


EDGE = "trainpace.cases.config_file"
"""Reads a model's config.json while a user's test module is collected: no session is there that could pass a reader."""


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    """A file imports its own room and those before it, nothing imports the shell, rank imports itself alone."""
    assert upward(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[1:2] and name.split(".")[1] in PURE])
def test_pure_rooms_are_pure(module):
    """Records and numbers in, records and text out."""
    assert impure(MODULES[module].read_text()) == ([".read_bytes()"] if module == EDGE else [])


def test_no_circle_of_files():
    """Every file can be read after those that it imports."""
    graph = {
        module: {name for name in imports(module, path.read_text()) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("trainpace.cases.planted", "from trainpace.runs.run import Run"),
        ("trainpace.judge.planted", "def f():\n    from trainpace.store import files"),
        ("trainpace.store.planted", "if TYPE_CHECKING:\n    from ..app.options import Options"),
        ("trainpace.launch.planted", "import trainpace.plugin"),
        ("trainpace.rank.planted", "from trainpace.errors import RunFailed"),
        ("trainpace.adapters.planted", "from trainpace.rank import loop"),
        ("trainpace.simulate.planted", "from trainpace.store.files import write_whole"),
        ("trainpace.errors", "from trainpace.cases import Case"),
    ],
)
def test_an_import_that_points_up_is_red(module, source):
    """Wherever it stands in the file."""
    assert len(upward(module, source)) == 1


@pytest.mark.parametrize(
    "source",
    ["import os.path", "def f():\n    from time import sleep", "open('x')", "Path('x').read_text()", "a.replace(b)"],
)
def test_what_reaches_outside_is_red(source):
    """A module, a function, a method of a path."""
    assert len(impure(source)) == 1


def test_text_and_records_are_pure():
    """What looks like a method of a path."""
    assert impure("text.replace('a', 'b'); replace(record, a=1); record.replace(a=1); session.resolve(case)") == []
