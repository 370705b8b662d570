"""The suite as an installed package: what the wheel holds, and that it runs away from its checkout."""

import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from factories import make_published_run, make_run
from repository import BARE, Repository
from trainpace.errors import TRAIN
from trainpace.store.runs import write_run

PIP = ("--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="session")
def wheel(checkout, tmp_path_factory):
    """The project's wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", *PIP, "wheel", "--no-deps", "--wheel-dir", folder, checkout]
    subprocess.run(command, check=True)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A folder that the project's wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "pip", *PIP, "install", "--no-deps", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Runs Python away from the checkout, with the installed package before any other."""

    def python(*arguments):
        environment = os.environ | {"PYTHONPATH": str(installed), "HOME": str(tmp_path)}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return python


def test_package_lists_the_published_table(run):
    """`pytest --pyargs trainpace.suite` finds the fourteen rows in the package."""
    done = run("-m", "pytest", "--pyargs", "trainpace.suite", "--collect-only", "-q", "-k", "test_speed", *BARE)

    assert done.returncode == 0
    assert done.stdout.count("test_speed.py::test_speed[") == 14


def test_baselines_travel_in_the_wheel(run, installed):
    """The published rows lie in the package, and only they."""
    done = run("-c", "from trainpace.store.baselines import published_folder as f; print(f())")

    assert done.stdout.strip() == str(installed / "trainpace" / "baselines")
    assert sorted(file.name for file in (installed / "trainpace" / "baselines").iterdir()) == [
        "a100-sxm4-80gb.json",
        "cost.json",
        "tables",
    ]


def test_tests_stay_at_home(installed):
    """Neither the suite's own tests nor a conftest are installed."""
    assert not {"tests", "conftest.py"} & {path.name for path in installed.iterdir()}


def test_package_judges_against_the_published_rows(run, tmp_path):
    """Runs of a full-size case on the published device are judged against the row that travelled along."""
    write_run(make_published_run(), tmp_path / "runs")
    done = run("-m", "pytest", "--pyargs", "trainpace.suite", "--perf-replay=runs", *BARE)

    assert done.returncode == 0
    assert "1 case: 1 pass" in done.stdout
    assert "published" in done.stdout


def test_a_printed_command_finds_its_case_in_the_package(run, tmp_path):
    """What an installed case prints is typed as it stands, and has the same root, where baselines are looked for."""
    write_run(make_run(), tmp_path / "runs")
    done = run("-m", "pytest", "--pyargs", "trainpace.suite", "--perf-replay=runs", *BARE)
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("  pytest ")]
    again = run("-m", *shlex.split(command), "--collect-only")

    assert "1 case: 1 no baseline" in done.stdout
    assert again.stdout.count("<Function ") == 1
    assert "<Function test_speed[llama2_7b-8k-sp1]>" in again.stdout
    assert _root(done) == _root(again)


def _root(done):
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("rootdir: ")]
    return line


def test_user_repository_measures_and_refreshes(installed, tmp_path, started):
    """In a user's repository the installed package measures, records into the user's baselines, judges and replays."""
    repository = Repository.create(tmp_path / "ours")
    environment = {"PYTHONPATH": str(installed)}
    loose = ("--perf-runs=runs", "-k", "8k")
    refreshing = ("--perf-refresh", "--perf-runs-per-case=2", "--perf-max-spread=0.5")
    refreshed = repository.suite(*loose, *refreshing, environment=environment)
    judged = repository.suite(*loose, "--perf-tolerance=0.2", environment=environment)
    replayed = repository.suite("--perf-replay=runs", "--perf-tolerance=0.2", environment=environment)

    assert refreshed.last_line == "1 case: 1 recorded"
    assert judged.last_line == "1 case: 1 pass"
    assert replayed.last_line == "1 case: 1 pass"
    assert len(list((repository.path / "baselines").iterdir())) == 1
    assert started.left() == []


@pytest.mark.slow
def test_judges_in_an_environment_of_its_own(wheel, checkout, tmp_path):
    """What judges, installed alone, needs no torch and stays below 300 MB."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    constraints = checkout / "constraints.txt"
    subprocess.run([python, "-m", "pip", *PIP, "install", "-c", constraints, wheel], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    write_run(make_published_run(), tmp_path / "runs")
    command = [python, "-m", "pytest", "--pyargs", "trainpace.suite", "--perf-replay=runs", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert not set(TRAIN) & {path.name for path in site.iterdir()}
    assert size < 300e6
    assert done.returncode == 0, done.stdout
    assert "1 case: 1 pass" in done.stdout


@pytest.mark.parametrize("own", ["perf.py", "perf/__init__.py"])
def test_beside_a_users_own_perf(installed, repository, own):
    """Who has a module or a package of that name imports their own, and runs their cases."""
    (repository.path / own).write_text("NAME = 'ours'\n")
    (repository.path / "tests").mkdir()
    (repository.path / "tests" / "test_unit.py").write_text(
        "import perf\n\n\ndef test_unit():\n    assert perf.NAME == 'ours'\n"
    )
    # The user's folder comes first, as `python -m pytest` puts it.
    environment = {"PYTHONPATH": os.pathsep.join([str(repository.path), str(installed)])}
    done = repository.suite("tests", "-k", "8k or unit", environment=environment)

    assert done.code == 0
    assert "1 passed, 1 skipped" in done.text
    assert done.last_line.startswith("1 case: 1 no baseline")


def test_the_example_runs(installed, checkout, tmp_path, started):
    """A trainer in a repository of its own is measured by the installed package."""
    shutil.copytree(checkout / "examples" / "own-trainer", tmp_path / "ours")
    done = Repository(tmp_path / "ours").suite("-k", "32k", *BARE, environment={"PYTHONPATH": str(installed)})

    assert done.code == 0
    assert done.last_line.startswith("1 case: 1 no baseline")


def test_init_of_the_package(run, tmp_path):
    """The workflow that it writes travels with the package."""
    (tmp_path / "ours" / ".git" / "objects").mkdir(parents=True)
    (tmp_path / "ours" / ".git" / "refs").mkdir()
    (tmp_path / "ours" / ".git" / "HEAD").write_text("ref: refs/heads/trunk")
    done = run("-c", "import os; os.chdir('ours'); from trainpace.__main__ import main; main(['init', '--no-run'])")

    assert done.returncode == 0, done.stderr
    assert 'branches: ["trunk"]' in (tmp_path / "ours" / ".github" / "workflows" / "perf.yml").read_text()


OLDER = {"METADATA": "Metadata-Version: 2.1\nName: trainpace\nVersion: 0.0.9\n"}
OLDER["entry_points.txt"] = "[pytest11]\nperf.plugin = perf.plugin\n"


@pytest.mark.parametrize("editable", [True, False])
def test_an_environment_from_before_the_move_is_told(checkout, tmp_path, editable):
    """It loads `perf.plugin`: of the checkout if installed in place, else its own. One line says what to do."""
    for name, text in OLDER.items():
        file = tmp_path / "trainpace-0.0.9.dist-info" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    if not editable:
        (tmp_path / "perf").mkdir()
        (tmp_path / "perf" / "__init__.py").touch()
        (tmp_path / "perf" / "plugin.py").touch()
    path = os.pathsep.join([str(tmp_path), str(checkout)])
    pytest_script = Path(sys.executable).with_name("pytest")
    command = [pytest_script, "perf", "--collect-only", "-q", *BARE]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert line.startswith("ERROR: ")
    assert "run `pip install -e .` again" in line
