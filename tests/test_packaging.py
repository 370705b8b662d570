"""What is declared, and that the suite judges with no more than it declares for that."""

import ast
import subprocess
import sys
import tomllib

import pytest

from factories import make_published_run
from repository import BARE
from trainpace.errors import TRAIN, what_to_install
from trainpace.store.runs import write_run

DISTRIBUTIONS = {
    "_pytest": "pytest",
    "flash_attn": "flash-attn",
    "markdown_it": "markdown-it-py",
    "mlflow": "mlflow-skinny",
    "prometheus_client": "prometheus-client",
    "pynvml": "nvidia-ml-py",
    "pytest_benchmark": "pytest-benchmark",
    "pytorch_lightning": "pytorch-lightning",
    "kubernetes_validate": "kubernetes-validate",
    "ruamel": "ruamel.yaml",
}
"""Of modules that are not called as what is installed."""
RUN_ONLY = {"check-jsonschema", "pytest-timeout", "pytest-xdist"}
"""Commands and plugins: nothing imports them."""
BY_TOX = {"atheris", "mlflow-skinny", "pytorch-lightning", "torchtitan", "wandb"}
"""Installed by a tox environment, and used where it is there."""
IN_TORCH = {"functorch"}
"""Of another name, and in torch's own wheel."""
WITHOUT_TRAIN = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def declared(checkout):
    """The distributions that pyproject.toml names: those of all, and by extra."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {line.partition(">=")[0] for line in lines} for extra, lines in lists.items()}


def imported(folder):
    """The distributions that the files below `folder` import themselves, in functions too."""
    own = {path.stem for path in folder.rglob("*.py")} | {path.name for path in folder.rglob("*") if path.is_dir()}
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in found - set(sys.stdlib_module_names) - own - {"trainpace"}}


def test_what_the_package_imports_is_declared(checkout, declared):
    """Each direct import, and nothing that is not imported."""
    wanted = declared[""] | declared["train"] | declared["flash"] | declared["charts"] | declared["exports"]

    assert imported(checkout / "perf") == wanted


def test_what_the_tests_import_is_declared(checkout, declared):
    """So is that of the tests, which come with the package and what it trains with."""
    wanted = declared["test"] | declared["train"] | declared[""]
    found = imported(checkout / "tests")

    assert found <= wanted | BY_TOX | IN_TORCH
    assert declared["test"] <= found | RUN_ONLY


def test_versions_are_tested_ones(checkout, declared):
    """constraints.txt has one of all but what nobody tests here."""
    lines = (checkout / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if not line.startswith("#")}

    assert set().union(*declared.values()) - pinned == declared["flash"]
    assert len(pinned) == len([line for line in lines if not line.startswith("#")])


def test_the_extra_is_what_errors_name(declared):
    """What is missing without it is told from what a user's own trainer lacks."""
    assert set(TRAIN) == declared["train"]
    assert what_to_install("No module named 'torch.nn'") == 'torch is not installed: pip install "trainpace[train]"'
    assert what_to_install("No module named 'torchvision'") is None


@pytest.fixture
def without_train(tmp_path, monkeypatch):
    """Every Python that starts from here on lacks the packages of the extra."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_TRAIN.format(names=set(TRAIN)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def suite(checkout, *arguments):
    """Run the repository's own cases."""
    command = [sys.executable, "-m", "pytest", "perf", *arguments, *BARE]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_judges_without_the_extra(checkout, tmp_path, without_train):
    """A replay is judged, reported and exported."""
    write_run(make_published_run(), tmp_path / "runs")
    done = suite(
        checkout,
        f"--perf-replay={tmp_path / 'runs'}",
        f"--perf-report={tmp_path / 'report'}",
        f"--benchmark-json={tmp_path / 'benchmark.json'}",
    )

    assert done.returncode == 0, done.stdout
    assert "1 case: 1 pass" in done.stdout
    assert (tmp_path / "report" / "summary.md").exists()
    assert (tmp_path / "benchmark.json").exists()


@pytest.mark.parametrize("command", [("predict", "h100-sxm5-80gb"), ("published",), ("schema",)], ids=" ".join)
def test_commands_without_the_extra(checkout, without_train, command):
    """Neither does what is no test run need it."""
    done = subprocess.run(
        [sys.executable, "-m", "trainpace", *command],
        cwd=checkout / "perf",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_what_trains_says_what_to_install(checkout, tmp_path, without_train, monkeypatch):
    """A rank, a trace and a tokenizer name the extra, and show no traceback."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINPACE_CACHE", str(tmp_path))
    done = suite(checkout, "--perf-scale=mini", "-k", "llama2_7b-8k and (speed or cost)")

    assert done.returncode == 7
    assert done.stdout.count("Failed: invalid") == 2
    assert 'the trainer could not be imported: torch is not installed: pip install "trainpace[train]"' in done.stdout
    assert 'counting traces the trainer: torch is not installed: pip install "trainpace[train]"' in done.stdout
    assert "Traceback" not in done.stdout
