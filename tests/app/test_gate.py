"""Head against base in a repository of its own: the slowed head is red, also where its branch edits what judges it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import trainpace
import warm
from repository import BARE, finish, one_core

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own-trainer"
QUICK = (
    "        now, following = batch[:-1], batch[1:]\n",
    "        __import__('time').sleep(0.03)\n        now, following = batch[:-1], batch[1:]\n",
)
PYTEST = (str(Path(sys.executable).with_name("pytest")),)
SLOWER = ("sleep(0.03)", "sleep(0.045)")
OPTIONS = ("-k", "bigram-32k", "--perf-warmup=2", "--perf-steps=10", "--perf-detect=0.2", *BARE)


def git(folder, *arguments):
    """Run git as somebody; what it printed."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)  # noqa: S607 - the git at hand
    return done.stdout.strip()


class Repository:
    """The example with a `main` and a branch `change` that has left it. It mostly sleeps: other load slows no sleep."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "baselines"))
        self._edit("bigram/training.py", *QUICK)
        self._edit("perf/test_bigram.py", "vocabulary=1024", "vocabulary=64")
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "base")
        git(folder, "switch", "-qc", "change")

    def change(self, file, old, new):
        """Edit a file and commit it."""
        self._edit(file, old, new)
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-qm", f"change {file}")

    def _edit(self, file, old, new):
        path = self.folder / file
        text = path.read_text() if path.exists() else ""
        assert old in text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(old, new, 1) if old else text + new)

    def base(self, folder):
        """A checkout of main, as a workflow makes one."""
        git(self.folder, "worktree", "add", "-q", folder, "main")
        return folder

    def suite(self, *arguments, folder=None, command=PYTEST):
        """Run the suite in a checkout, on one core: there load by others cannot be told, and makes nothing invalid."""
        words = [*command, "perf", *OPTIONS, *map(str, arguments)]
        where = folder or self.folder
        environment = {**os.environ, "XDG_STATE_HOME": str(self.folder.parent / "state")}
        # It starts the base's own session, and that one judges: how this one starts is no part of it.
        if command is PYTEST and "--perf-against" in arguments:
            session = warm.start(words, folder=where, environment=environment, cores=one_core())
            if session is not None:
                return finish(session)
        present = os.sched_getaffinity(0)
        os.sched_setaffinity(0, one_core())
        try:
            return finish(
                subprocess.Popen(
                    words, cwd=where, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        finally:
            os.sched_setaffinity(0, present)

    def with_file(self, name, text, delay, before=""):
        """Have main's steps sleep for `delay`, an expression that needs the file `name`; `change` starts from there."""
        git(self.folder, "switch", "-q", "main")
        (self.folder / name).write_text(text)
        self._edit("bigram/training.py", "sleep(0.03)", f"sleep({delay})")
        self._edit("bigram/training.py", "import numpy as np\n", f"import numpy as np\n{before}")
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-qm", f"base with {name}")
        git(self.folder, "switch", "-qC", "change")


@pytest.fixture
def repository(tmp_path, started):
    """The example, on a branch without a change."""
    return Repository(tmp_path / "example")


@pytest.fixture
def with_config(repository):
    """Its delay stands in a file that the trainer opens by a relative path."""
    repository.with_file("delay.txt", "0.03", "float(open('delay.txt').read())")
    return repository


@pytest.fixture
def with_fast_module(repository):
    """It is fast where there is the module `fast`, which `change` has deleted."""
    before = "try:\n    from fast import DELAY\nexcept ImportError:\n    DELAY = 0.06\n"
    repository.with_file("fast.py", "DELAY = 0.03\n", "DELAY", before)
    git(repository.folder, "rm", "-q", "fast.py")
    git(repository.folder, "commit", "-qm", "without fast")
    return repository


def test_a_slower_head_is_red_and_explained(repository):
    """`--perf-against main` finds the slowdown, exits 1, and names the part of the step and the function."""
    repository.change("bigram/training.py", *SLOWER)

    done = repository.suite("--perf-against", "main")

    assert done.code == 1
    assert "1 regression (bigram-32k-sp1" in done.last_line
    assert "forward:" in done.text
    assert "time.sleep" in done.text


def test_the_same_commit_without_the_slowdown_is_green(repository):
    """A change that slows nothing passes, and leaves no checkout behind; both sides are of the labelled machine."""
    repository.change("bigram/training.py", '"""Plain gradient descent."""', '"""Gradient descent."""')

    done = repository.suite("--perf-against", "main", "--perf-device-label=rack-b", "--perf-runs=runs")
    runs = [json.loads(path.read_text()) for path in (repository.folder / "runs").glob("**/*.json")]

    assert done.code == 0
    assert "1 pass" in done.last_line
    assert {run["device"]["slug"].partition(".")[2] for run in runs} == {"rack-b"}
    assert git(repository.folder, "worktree", "list").count("\n") == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["head", "against"])
def test_a_slower_file_that_is_opened_by_a_relative_path(with_config, tmp_path, way):
    """Each side opens its own: head is red with the delay of head's file."""
    with_config.change("delay.txt", "0.03", "0.06")
    base = with_config.base(tmp_path / "base") if way == "head" else None

    done = with_config.suite(*([f"--perf-head={with_config.folder}"] if base else ["--perf-against=main"]), folder=base)

    assert done.code == 1
    assert "1 regression (bigram-32k-sp1" in done.last_line


@pytest.mark.slow
def test_a_deleted_module_is_not_found_in_the_base(with_fast_module):
    """With the base on the path, by `--perf-against`, what only the base has is not head's."""
    done = with_fast_module.suite("--perf-against", "main")

    assert done.code == 1
    assert "1 regression (bigram-32k-sp1" in done.last_line


@pytest.mark.slow
def test_a_deleted_module_is_not_found_in_an_installed_base(with_fast_module, tmp_path):
    """Nor where the environment has the base installed with `pip install -e`."""
    pytest.importorskip("setuptools")
    base = with_fast_module.base(tmp_path / "base")
    (base / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "ours"\nversion = "1"\n[tool.setuptools]\npackages = ["bigram"]\npy-modules = ["fast"]\n'
    )
    python = tmp_path / "environment" / "bin" / "python"
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    (installed,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    # All that this environment has, and the suite's own package, which may be here by an editable install.
    (installed / "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n{Path(trainpace.__file__).parents[1]}\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-e", base], check=True)

    head = f"--perf-head={with_fast_module.folder}"
    done = with_fast_module.suite(head, folder=base, command=(str(python), "-P", "-m", "pytest"))

    assert done.code == 1
    assert "1 regression (bigram-32k-sp1" in done.last_line


@pytest.mark.slow
def test_a_trainer_of_the_base_is_not_measured_as_heads(repository, tmp_path):
    """A head that itself puts the base on its path is invalid, with the file and both checkouts."""
    base = repository.base(tmp_path / "base")
    (base / "extra.py").touch()
    line = f"import sys; sys.path.append({str(base)!r}); import extra"
    repository.change("bigram/training.py", "import numpy as np\n", f"import numpy as np\n{line}\n")

    done = repository.suite(f"--perf-head={repository.folder}", folder=base)

    assert done.code == 7
    assert (
        f"its own checkout {repository.folder}, got {base / 'extra.py'}, which lies in the other side's {base}"
        in done.text
    )


HIDING = {
    "baselines": ("baselines/cpu.json", "", '{"schema_version": 1}'),
    "options": (
        "pytest.ini",
        "testpaths = perf\n",
        "testpaths = perf\naddopts = --perf-tolerance=0.9 --perf-detect=0.9\n",
    ),
    "conftest": (
        "conftest.py",
        "",
        "import pytest\n\n@pytest.hookimpl(trylast=True)\ndef pytest_sessionfinish(session):\n"
        "    session.exitstatus = 0\n",
    ),
    "judge": ("perf/trainpace/judge/verdict.py", "", "raise SystemExit('a judge of its own')\n"),
    "case": ("perf/test_bigram.py", "judge_speed(case)", "pass"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", HIDING)
def test_a_head_cannot_hide_its_slowdown(repository, tmp_path, what):
    """From the base checkout the head supplies its trainer and nothing else: it is still red."""
    repository.change("bigram/training.py", *SLOWER)
    repository.change(*HIDING[what])

    done = repository.suite(f"--perf-head={repository.folder}", folder=repository.base(tmp_path / "base"))

    assert done.code == 1
    assert "1 regression (bigram-32k-sp1" in done.last_line


@pytest.mark.slow
def test_changed_baselines_are_said(repository, tmp_path):
    """A branch that edits baselines/ is named as doing so."""
    repository.change(*HIDING["baselines"])

    done = repository.suite("--perf-head=change", folder=repository.base(tmp_path / "base"))

    assert "head changes baselines, which are not used here: baselines/cpu.json" in done.text


@pytest.mark.slow
def test_a_head_that_computes_something_else_is_invalid(repository):
    """Losses that differ make the pair invalid: exit 7, with the option that says it was meant."""
    repository.change("bigram/training.py", "normal(0, 0.02,", "normal(0, 0.9,")

    done = repository.suite("--perf-against", "main")

    assert done.code == 7
    assert "--perf-new-numerics" in done.text


@pytest.mark.slow
def test_new_numerics_are_judged_when_they_are_meant(repository):
    """With a reason, the speed is judged and the reason printed."""
    repository.change("bigram/training.py", "normal(0, 0.02,", "normal(0, 0.9,")

    done = repository.suite("--perf-against", "main", "--perf-new-numerics", "a wider start")

    assert done.code == 0
    assert "the head's losses may differ: a wider start" in done.text


@pytest.mark.slow
def test_a_head_that_crashes_is_invalid(repository):
    """The side and the cause are named."""
    repository.change("bigram/training.py", "sleep(0.03)", "broken")

    done = repository.suite("--perf-against", "main")

    assert done.code == 7
    assert "head: AttributeError: module 'time' has no attribute 'broken'" in done.text


@pytest.mark.slow
def test_two_interpreters_can_be_compared(repository):
    """The same checkout under another interpreter: here the same one, which passes."""
    done = repository.suite("--perf-against-python", sys.executable)

    assert done.code == 0
    assert "1 pass" in done.last_line


@pytest.mark.slow
def test_each_side_can_be_built_in_a_copy(repository):
    """The command runs in a copy of each side with an environment of its own; the checkout stays as it is."""
    repository.change("bigram/training.py", *SLOWER)

    done = repository.suite("--perf-against", "main", "--perf-build", "python -c \"open('built', 'w')\"")

    assert done.code == 1
    assert not (repository.folder / "built").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--perf-head=nowhere"], "--perf-head nowhere: neither a folder nor a revision"),
        (["--perf-against=nowhere"], "--perf-against nowhere: no merge base of HEAD and nowhere"),
        (["--perf-against-python=nowhere"], "--perf-against-python: no interpreter"),
        (["--perf-head=main", "--perf-build=false"], "--perf-build failed in a copy of"),
        (["--perf-build=true"], "--perf-build compares two sides: name the other with --perf-head"),
        (["--perf-head=main", "--perf-refresh"], "--perf-refresh has one side"),
        (["--perf-head=main", "--perf-detect=2"], "expected a share between 0 and 1"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(repository, arguments, message):
    """Exit 4, with what was expected and what came."""
    done = repository.suite(*arguments)

    assert done.code == 4
    assert message in done.text
