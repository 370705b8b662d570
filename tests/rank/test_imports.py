"""What a run host of one side imports and opens while the other side's checkout is on every path that there is."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_host import HOST, PATIENCE, settings

from trainpace.launch.host_client import Side, host_command
from trainpace.rank.imports import Own, search_path

LOOK = """
import importlib, os, subprocess, sys
def file(name):
    try:
        return importlib.import_module(name).__file__
    except ImportError:
        return None
raise RuntimeError({code})
"""
# As setuptools writes it for `pip install -e`, without its namespaces.
FINDER = """
import importlib.util, sys
MAPPING = {mapping!r}
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        place = MAPPING.get(name)
        return place and importlib.util.spec_from_file_location(name, place)
sys.meta_path.append(Finder)
"""


@dataclass
class Pair:
    """Two checkouts and an interpreter with an environment of its own."""

    base: Path
    head: Path
    python: Path

    @property
    def installed(self):
        """Where that environment's packages lie."""
        (found,) = self.python.parent.parent.glob("lib/python*/site-packages")
        return found

    def told(self, code, *, side="head", **environment):
        """What `code` gives where a side's host preloads: `file(name)` is the file of a module, or None."""
        own, other = (self.head, self.base) if side == "head" else (self.base, self.head)
        (own / "look.py").write_text(LOOK.format(code=code))
        started = Side(python=str(self.python), checkout=own, apart=(other,), folder=own)
        command = host_command(started, ["look"], "cpu")
        done = subprocess.run(
            command.words,
            env=command.variables(os.environ | environment),
            cwd=self.base,
            input="",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return json.loads(done.stdout)["cause"].removeprefix("RuntimeError: ")


@pytest.fixture
def pair(tmp_path, started):
    """A base with the module `gone`, which head has deleted."""
    made = Pair(tmp_path / "base", tmp_path / "head", tmp_path / "environment" / "bin" / "python")
    for folder in (made.base, made.head):
        folder.mkdir()
        (folder / "both.py").touch()
        (folder / "where.txt").write_text(folder.name)
    (made.base / "gone.py").touch()
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    return made


def by_pythonpath(pair):
    return {"PYTHONPATH": str(pair.base)}


def by_relative_pythonpath(pair):
    return {"PYTHONPATH": os.path.relpath(pair.base)}


def by_pth(pair):
    (pair.installed / "ours.pth").write_text(f"{pair.base}\n")
    return {}


def by_finder(pair):
    mapping = {name: str(pair.base / f"{name}.py") for name in ("both", "gone")}
    (pair.installed / "__editable___ours_finder.py").write_text(FINDER.format(mapping=mapping))
    (pair.installed / "ours.pth").write_text("import __editable___ours_finder\n")
    return {}


def by_pth_that_imports(pair):
    (pair.installed / "ours.pth").write_text(f"{pair.base}\nimport gone\n")
    return {}


def by_pip(pair, told='py-modules = ["both", "gone"]'):
    pytest.importorskip("setuptools")
    (pair.base / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "ours"\nversion = "1"\n[tool.setuptools]\n{told}\n'
    )
    pip = [sys.executable, "-m", "pip", "--python", pair.python, "install", "-q", "--no-deps", "--no-build-isolation"]
    (pair.installed / "setuptools.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, "-e", pair.base], check=True)
    return {}


WAYS = [by_pythonpath, by_relative_pythonpath, by_pth, by_finder, by_pth_that_imports, by_pip]


@pytest.mark.parametrize("way", WAYS)
def test_what_head_deleted_is_gone(pair, way):
    """However the base is put on the path, head imports its own modules, and none that only the base has."""
    environment = way(pair)

    assert pair.told("f\"{file('both')} {file('gone')}\"", **environment) == f"{pair.head / 'both.py'} None"


@pytest.mark.parametrize("way", WAYS)
def test_the_base_keeps_its_own(pair, way):
    """The same ways leave the base with what it has."""
    environment = way(pair)
    found = pair.told("f\"{file('both')} {file('gone')}\"", side="base", **environment)

    assert found == f"{pair.base / 'both.py'} {pair.base / 'gone.py'}"


def test_a_module_that_shadows_an_installed_one(pair):
    """Where only the base has a module named like an installed one, head gets the installed one."""
    (pair.base / "twin.py").touch()
    (pair.installed / "twin.py").touch()

    assert pair.told("file('twin')", **by_pythonpath(pair)) == str(pair.installed / "twin.py")


def test_a_folder_below_the_checkout(pair):
    """What is installed from src/ of the base comes from head's own src/."""
    for folder in (pair.base, pair.head):
        (folder / "src" / "ours").mkdir(parents=True)
        (folder / "src" / "ours" / "__init__.py").touch()
    (pair.base / "src" / "gone.py").touch()
    (pair.installed / "ours.pth").write_text(f"{pair.base / 'src'}\n")

    assert pair.told("f\"{file('ours')} {file('gone')}\"") == f"{pair.head / 'src/ours/__init__.py'} None"


def test_a_finder_of_another_layout(pair):
    """A package that an editable install maps to a folder of another name comes from head's own such folder."""
    for folder in (pair.base, pair.head):
        (folder / "library").mkdir()
        (folder / "library" / "__init__.py").touch()
    mapping = {"ours": str(pair.base / "library" / "__init__.py")}
    (pair.installed / "__editable___ours_finder.py").write_text(FINDER.format(mapping=mapping))
    (pair.installed / "ours.pth").write_text("import __editable___ours_finder\n")

    assert pair.told("file('ours')") == str(pair.head / "library" / "__init__.py")


def test_a_namespace_of_an_editable_install(pair):
    """Of a package without an __init__.py that is installed from the base, head has its own part alone."""
    for folder in (pair.base, pair.head):
        (folder / "space").mkdir()
        (folder / "space" / "both.py").touch()
    (pair.base / "space" / "gone.py").touch()
    by_pip(pair, 'packages = ["space"]')
    found = pair.told("f\"{file('space.both')} {file('space.gone')}\"")

    assert found == f"{pair.head / 'space' / 'both.py'} None"


def test_an_environment_inside_the_other_checkout(pair):
    """What is installed in an environment that lies in the base serves both sides."""
    pair.python = pair.base / ".venv" / "bin" / "python"
    venv.create(pair.base / ".venv", with_pip=False, symlinks=True)
    (pair.installed / "library.py").touch()

    assert pair.told("file('library')") == str(pair.installed / "library.py")


def test_a_head_inside_the_base(pair):
    """A head that is checked out inside the base keeps what is its own, and gets nothing of the base's."""
    pair.head = pair.head.rename(pair.base / "head")

    assert pair.told("f\"{file('both')} {file('gone')}\"", **by_pythonpath(pair)) == f"{pair.head / 'both.py'} None"
    assert pair.told("file('gone')", side="base", **by_pythonpath(pair)) == str(pair.base / "gone.py")


def test_files_are_opened_in_the_own_checkout(pair):
    """A relative path is a file of the side's own, and so is $PWD."""
    assert pair.told("f\"{open('where.txt').read()} {os.environ['PWD']}\"") == f"head {pair.head}"
    assert pair.told("open('where.txt').read()", side="base") == "base"


def test_processes_of_a_rank_import_its_own(pair):
    """What a trainer starts inherits a PYTHONPATH that names nothing of the base."""
    code = "subprocess.check_output([sys.executable, '-c', 'import both; print(both.__file__)'], cwd='/', text=True)"

    assert pair.told(code, **by_pythonpath(pair)).strip() == str(pair.head / "both.py")


def test_without_a_comparison_nothing_moves(tmp_path, started):
    """A host that measures one side works where it was started, and PYTHONPATH counts."""
    (tmp_path / "look.py").write_text(LOOK.format(code="f\"{os.getcwd()} {file('elsewhere')}\""))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "elsewhere.py").touch()
    done = subprocess.run(
        [sys.executable, HOST, json.dumps(settings(checkout=str(tmp_path), preload=["look"]))],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "lib")},
        cwd=tmp_path / "lib",
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    assert json.loads(done.stdout)["cause"] == f"RuntimeError: {tmp_path / 'lib'} {tmp_path / 'lib' / 'elsewhere.py'}"


def test_the_package_inside_perf_is_on_the_path(tmp_path):
    """A checkout whose perf/ holds the suite's package imports that too; another's perf/ is no place to import from."""
    assert search_path(tmp_path) == [str(tmp_path)]
    (tmp_path / "perf" / "trainpace").mkdir(parents=True)
    assert search_path(tmp_path) == [str(tmp_path), str(tmp_path / "perf")]


def test_a_file_of_the_other_side_is_told_by_its_folder(tmp_path):
    """Of a file in the other side's checkout the folder is named; what is installed there is nobody's."""
    own = Own(str(tmp_path / "head"), [str(tmp_path / "base")])
    inside = Own(str(tmp_path / "base" / "head"), [str(tmp_path / "base")])

    assert own.root(str(tmp_path / "base" / "ours.py")) == tmp_path / "base"
    assert own.root(str(tmp_path / "head" / "ours.py")) is None
    assert inside.root(str(tmp_path / "base" / "head" / "ours.py")) is None
    assert inside.root(str(tmp_path / "base" / "ours.py")) == tmp_path / "base"
    assert own.root(str(tmp_path / "base" / ".venv" / "lib" / "site-packages" / "ours.py")) is None
