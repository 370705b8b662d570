"""`python -m trainpace init`: what it sees of a repository, what it writes there, and what it leaves as it is."""

import ast
from importlib.metadata import version

import pytest

from trainpace.__main__ import main
from trainpace.app.revisions import _git as git
from trainpace.app.stubs import LIBRARIES, TRAINERS
from trainpace.app.user_repository import address
from workflow_files import EXAMPLE, load

TORCH = version("torch").partition("+")[0]
WRITTEN = [".github/workflows/perf.yml", ".gitignore", "perf/ours_trainer.py", "perf/test_ours.py", "pytest.ini"]


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """An empty repository of a user, in which commands are typed."""
    (tmp_path / "ours").mkdir()
    git(tmp_path / "ours", "init", "-q", "-b", "trunk")
    monkeypatch.chdir(tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def init(capsys):
    """Types the command, without its run; gives the exit status and what it printed."""

    def typed(*arguments):
        status = main(["init", "--no-run", *arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return typed


def contents(folder):
    """Every file with its text, git's own aside."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_writes_what_lacks_and_nothing_twice(ours, init):
    """Five files and the next three commands; typed again, it finds them there."""
    status, text = init()
    first = contents(ours)
    again, said = init()

    assert (status, again) == (0, 0)
    assert sorted(first) == WRITTEN
    assert text.count("wrote ") == 4
    assert "git add perf pytest.ini .gitignore .github baselines && git commit" in text
    assert text.rstrip().splitlines()[-1].strip().startswith("pytest perf --perf-against trunk  #")
    assert contents(ours) == first
    assert "wrote" not in said


def test_leaves_what_is_there(ours, init):
    """Files of the user keep their text; .gitignore gets the lines that it lacks."""
    theirs = {
        "perf/test_ours.py": "THEIRS = 1\n",
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-q'\n",
        ".github/workflows/perf.yml": "name: theirs\n",
        ".gitignore": "*.pt\nruns",
    }
    for name, text in theirs.items():
        (ours / name).parent.mkdir(parents=True, exist_ok=True)
        (ours / name).write_text(text)
    _, text = init()
    found = contents(ours)

    assert found.pop(".gitignore") == "*.pt\nruns\n/report/\n/traces/\n__pycache__/\n"
    assert {name: found[name] for name in theirs if name in found} == {
        name: text for name, text in theirs.items() if name != ".gitignore"
    }
    assert sorted(found.keys() - theirs.keys()) == ["perf/ours_trainer.py"]
    assert "perf/test_ours.py: is there, and left as it is" in text
    assert 'for your tests alone add `testpaths = ["tests"]` there' in text


@pytest.mark.parametrize("addopts", ["'-q -n 2'", "['-x', '--numprocesses=auto']"])
def test_cases_are_not_run_side_by_side(ours, init, addopts):
    """Where settings ask for pytest-xdist's workers, the commands take them back, and it is said of the workflow."""
    (ours / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\naddopts = {addopts}\n")
    _, text = init()

    assert "\n  pytest perf -n 0  # " in text
    assert "\n  pytest perf -n 0 --perf-against trunk  # " in text
    assert "`PYTEST_ADDOPTS: -n 0` beside CASES" in text


def test_a_file_in_another_encoding_stays_as_it_is(ours, init):
    """Of .gitignore the bytes that are there are kept."""
    (ours / ".gitignore").write_bytes(b"caf\xe9\r\nruns")
    init()

    assert (ours / ".gitignore").read_bytes() == b"caf\xe9\r\nruns\n/report/\n/traces/\n__pycache__/\n"


def test_pytests_own_path_is_said(ours, init):
    """A trainer is imported without it."""
    (ours / "pytest.ini").write_text("[pytest]\npythonpath = src\n")

    assert "pytest.ini: its pythonpath is for pytest alone" in init()[1]


def test_no_trainer_is_taken_for_a_test(ours, init, monkeypatch):
    """A repository whose name begins as a test's."""
    monkeypatch.chdir(ours.rename(ours.with_name("test-bench")))
    init()

    assert "perf/case_test_bench_trainer.py" in contents(ours.with_name("test-bench"))


def test_dry_run_writes_nothing(ours, init):
    """It prints each file's text."""
    status, text = init("--dry-run")

    assert status == 0
    assert contents(ours) == {}
    assert "    def test_ours(case, judge_speed):\n" in text
    assert "      CASES: ours\n" in text
    assert "would add to .gitignore: /report/ /runs/ /traces/ __pycache__/" in text


@pytest.mark.parametrize(
    ("source", "adapter"),
    [
        ("import torch", "plain"),
        ("from torch import nn\nimport torch.distributed", "plain"),
        ("from transformers import (\n    AutoModel,\n    Trainer,\n)\nimport torch", "transformers"),
        ("import transformers\nclass Mine(transformers.Trainer): ...", "transformers"),
        ("from trl import SFTTrainer", "transformers"),
        ("from transformers import AutoModel\nimport torch", "plain"),
        ("from accelerate import Accelerator\nimport torch", "accelerate"),
        ("import lightning as L\nimport torch", "lightning"),
        ("import pytorch_lightning", "lightning"),
        ("import numpy", "none"),
        ("this is no Python", "none"),
    ],
)
def test_sees_what_the_repository_uses(ours, init, source, adapter):
    """The trainer is written for the library that the repository imports."""
    (ours / "train.py").write_text(source)
    _, text = init()
    written = (ours / "perf" / "ours_trainer.py").read_text()

    assert adapter == next(each for each in TRAINERS if TRAINERS[each][:60] == written[:60])
    assert adapter == "none" or f"train.py says --adapter {adapter}" in text
    assert ("import lightning.pytorch as lightning" in written) == source.startswith("import lightning")


def test_a_name_and_an_adapter_may_be_said(ours, init):
    """They go before what is seen."""
    (ours / "train.py").write_text("import lightning")
    init("--name", "qwen", "--adapter", "plain")

    assert (ours / "perf" / "qwen_trainer.py").read_text() == TRAINERS["plain"]
    assert "def test_qwen(case, judge_speed)" in (ours / "perf" / "test_qwen.py").read_text()


def test_a_trainer_that_is_there(ours, init):
    """None is written, and the case names it."""
    _, text = init("--trainer", "ours.training:Trainer")

    assert not (ours / "perf" / "ours_trainer.py").exists()
    assert '@pytest.mark.perf_trainer("ours.training:Trainer")' in (ours / "perf" / "test_ours.py").read_text()
    assert "  pytest perf  # records a baseline, and judges a run by it" in text


def test_workflow_is_the_example_made_theirs(ours, init):
    """Pinned to this trainpace, with their case, their branch and what their trainer needs; else as the example."""
    (ours / "pyproject.toml").write_text("[project]\nname = 'ours'\n")
    init()
    found, example = load(ours / ".github" / "workflows" / "perf.yml"), load(EXAMPLE)
    steps = found["jobs"]["measure"]["steps"]
    (install,) = [step for step in steps if step.get("name") == "install"]

    assert found["env"]["TRAINPACE"].startswith("trainpace @ git+")
    assert found["env"]["CASES"] == "ours"
    assert found["on"]["pull_request_target"]["branches"] == ["trunk"]
    assert install["run"].endswith('pip install --quiet "$TRAINPACE" -e base\n')
    found["env"], found["on"]["pull_request_target"]["branches"] = example["env"], ["main"]
    install["run"] = next(step for step in example["jobs"]["measure"]["steps"] if step.get("name") == "install")["run"]
    assert found == example


@pytest.mark.parametrize(
    ("files", "needs"),
    [
        ({"requirements.txt": ""}, "-r base/requirements.txt"),
        ({"requirements.txt": "", "setup.py": ""}, "-r base/requirements.txt -e base"),
        ({"train.py": "import torch, json, numpy.random, train, pytest"}, f"numpy=={version('numpy')} torch=={TORCH}"),
        ({"train.py": "import no_such.thing"}, "# and what your trainer needs: -r base/requirements.txt"),
    ],
)
def test_what_the_workflow_installs(ours, init, files, needs):
    """What the repository says that it needs; else what its files import, in the versions that are here."""
    for name, text in files.items():
        (ours / name).write_text(text)
    init()
    steps = load(ours / ".github" / "workflows" / "perf.yml")["jobs"]["measure"]["steps"]
    (install,) = [step["run"] for step in steps if step.get("name") == "install"]

    assert install.strip().endswith(f'pip install --quiet "$TRAINPACE" {needs}')


def test_gitlab_gets_no_workflow(ours, init):
    """Its file is another one, which the documents have."""
    git(ours, "remote", "add", "origin", "git@gitlab.com:ours/training.git")
    _, text = init()

    assert not (ours / ".github").exists()
    assert "docs/gate.md" in text


COMMIT = "1a2b" * 10


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, "trainpace==0.1.0"),
        (
            {"url": "https://git.example/t.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"trainpace @ git+https://git.example/t.git@{COMMIT}",
        ),
        ({"url": "https://files.example/t.whl", "archive_info": {}}, "trainpace @ https://files.example/t.whl"),
        ({"url": "file:///nowhere/t.whl", "archive_info": {}}, "trainpace @ git+URL@REVISION"),
    ],
)
def test_pinned_as_it_was_installed(told, expected):
    """By its version where it came from an index, else by the address and the commit that pip noted."""
    assert address(told, "0.1.0") == expected


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://me:word@git.example/t.git", "git+https://git.example/t.git"),
        ("git@git.example:us/t.git", "git+ssh://git@git.example/us/t.git"),
        ("/srv/t.git", "git+URL"),
    ],
)
def test_pinned_by_the_clone_it_was_installed_from(ours, remote, expected):
    """By the clone's origin and commit, without the name and the word of who cloned it."""
    git(ours, "-c", "user.name=u", "-c", "user.email=u@example.com", "commit", "-q", "--allow-empty", "-m", "one")
    git(ours, "remote", "add", "origin", remote)
    head = git(ours, "rev-parse", "HEAD")

    assert address({"url": ours.as_uri(), "dir_info": {}}, "0.1.0") == f"trainpace @ {expected}@{head}"


def _write(path):
    def write(folder):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")

    return write


@pytest.mark.parametrize(
    ("prepare", "arguments", "said"),
    [
        (_write("perf.py"), (), "perf.py is in the way"),
        (_write("src/perf/__init__.py"), (), "src/perf/__init__.py is in the way: `perf` is that module"),
        (_write("perf"), (), "perf is in the way: expected a folder or nothing there, got a file"),
        (_write(".github"), (), ".github is in the way"),
        (lambda folder: (folder / "pytest.ini").mkdir(), (), "pytest.ini is in the way: expected a file"),
        (_write("pyproject.toml"), (), "pyproject.toml cannot be read"),
        (lambda _: None, ("--name", "my-llm"), "--name: expected letters, digits and _"),
        (lambda _: None, ("--name", "class"), "got 'class'"),
        (lambda _: None, ("--trainer", "ours.training"), "expected package.module:object, got 'ours.training'"),
    ],
)
def test_refuses_before_it_writes(ours, init, prepare, arguments, said):
    """What stands in the way is named, with exit status 4, and nothing is written."""
    prepare(ours)
    before = contents(ours)
    status, text = init(*arguments)

    assert status == 4
    assert said in text
    assert contents(ours) == before


def test_perf_py_and_a_trainer_elsewhere(ours, init):
    """Only a trainer in perf/ would be hidden by perf.py."""
    (ours / "perf.py").write_text("")

    assert init("--trainer", "ours.training:Trainer")[0] == 0


def test_outside_a_repository(tmp_path, monkeypatch, init):
    """It names the folder and what to type."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert init() == (4, f"init: {tmp_path} is in no git repository: run `git init` first, or go to one\n")


def test_in_our_own_repository(checkout, monkeypatch, init):
    """There are cases already."""
    monkeypatch.chdir(checkout)
    status, text = init()

    assert status == 4
    assert "is trainpace's own repository" in text


@pytest.mark.parametrize("adapter", TRAINERS)
def test_trainers(adapter):
    """Each is Python that defines `trainer`, by its adapter, and imports no more than pip is told to install."""
    tree = ast.parse(TRAINERS[adapter].replace("{package}", "pytorch_lightning"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} or {
        target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    }
    roots = {module.partition(".")[0] for module in modules}

    assert defined == {"trainer"}
    libraries = {each.replace("-", "_") for each in LIBRARIES[adapter]}
    assert roots - {"trainpace", "tempfile"} <= {*libraries, *(["numpy"] if adapter == "none" else [])}
    assert ("trainpace.adapters" in modules) == (adapter != "none")
