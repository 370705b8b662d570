"""The plugin in a session: in a checkout, a user's repository, beside other plugins, and where it has no business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from factories import make_run, make_runs
from repository import BARE, Repository
from trainpace.cases import PUBLISHED
from trainpace.store.baselines import refresh
from trainpace.store.runs import write_run

STRANGER = """
def test_theirs(benchmark):
    assert benchmark(lambda: 1) == 1
"""
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "matplotlib", "accelerate", "scipy.stats")
LOOK = f"""
import sys

def pytest_unconfigure():
    print("HEAVY", sorted(sys.modules.keys() & {set(HEAVY)!r}))
"""
LIKE_XDIST = """
def pytest_addoption(parser):
    parser.addoption("--dist", default="no")
    parser.addoption("--workers", dest="numprocesses", type=int)
"""


@pytest.fixture
def checked_out(checkout):
    """Runs the suite of this checkout, as `pytest perf` does in it."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "pytest", "perf", *BARE, *map(str, arguments)]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture
def fourteen(tmp_path, monkeypatch):
    """A folder with a run of each published case, and baselines that these are judged against."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for case in PUBLISHED:
        write_run(make_run(case.id), tmp_path / "runs")
        refresh(tmp_path / "baselines", make_runs(1000.0, 1001.0, case=case.id))
    return tmp_path


# A repository with several folders of cases


def test_a_monorepo_has_equal_names(tmp_path, monkeypatch, pytester):
    """`pytest a/perf b/perf` with equal file names works by importlib; one baselines/ serves both, or each its own."""
    for name in ("a", "b"):
        created = Repository.create(tmp_path / name)
        file = created.path / "perf" / "test_ours.py"
        file.write_text(file.read_text().replace('name="ours"', f'name="{name}"'))
        run = make_run(f"{name}-8k-sp1")
        write_run(run, tmp_path / "runs")
        for folder in (tmp_path, created.path):
            refresh(folder / "baselines", make_runs(1000.0, 1001.0, case=run.workload.case))
        (created.path / "pytest.ini").unlink()
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    monkeypatch.chdir(tmp_path)

    options = ("-k", "8k", "--perf-replay=runs", "--perf-require-verdict")
    both = pytester.runpytest_inprocess("a/perf", "b/perf", *options)
    own = pytester.runpytest_inprocess("b/perf", "--perf-baselines=b/baselines", *options)

    assert (both.ret, both.parseoutcomes()["passed"]) == (0, 2)
    assert (own.ret, own.parseoutcomes()["passed"]) == (0, 1)


# A checkout


def test_checkout_lists_the_published_table(checked_out):
    """`pytest perf` finds the fourteen rows by their names, with the plugin registered by entry point and conftest."""
    done = checked_out("--collect-only", "-q", "-k", "test_speed")

    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "::" in line] == [
        f"perf/test_speed.py::test_speed[{case.id}]" for case in PUBLISHED
    ]


@pytest.mark.parametrize(
    ("words", "cases"),
    [
        ("llama2_7b", 5),
        ("llama2_7b-8k", 1),
        ("llama2_70b", 5),
        ("yi_34b_200k", 4),
        ("llama2_7b-8k or llama2_7b-32k", 2),
    ],
)
def test_selecting(pytester, checkout, monkeypatch, words, cases):
    """A case's name picks it, a model's its rows."""
    monkeypatch.chdir(checkout)
    monkeypatch.delitem(sys.modules, "test_cost", raising=False)  # the tests have one of that name too
    done = pytester.runpytest_inprocess("perf", *BARE, "--collect-only", "-q", "-k", f"test_speed and ({words})")

    assert done.stdout.str().count("::test_speed[") == cases


def test_collecting_imports_nothing_heavy(checked_out, tmp_path, monkeypatch):
    """Collecting needs no torch."""
    (tmp_path / "look.py").write_text(LOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert "HEAVY []" in checked_out("--collect-only", "-p", "look").stdout


def test_replay_imports_nothing_heavy(checked_out, fourteen, monkeypatch):
    """Neither does judging and reporting fourteen recorded cases."""
    (fourteen / "look.py").write_text(LOOK)
    monkeypatch.setenv("PYTHONPATH", str(fourteen))
    done = checked_out(f"--perf-replay={fourteen / 'runs'}", f"--perf-baselines={fourteen / 'baselines'}", "-p", "look")

    assert done.returncode == 0
    assert "14 cases: 14 pass" in done.stdout
    assert "HEAVY []" in done.stdout


# A user's repository


def test_own_perf_folder_needs_no_conftest(repository):
    """In a repository with a perf/ folder of its own the installed plugin serves its cases."""
    done = repository.suite("--collect-only", "-q")

    assert done.code == 0
    assert "perf/test_ours.py::test_ours[ours-8k-sp1]\nperf/test_ours.py::test_ours[ours-32k-sp2]\n" in done.text


def test_own_perf_folder_with_a_conftest(repository):
    """A conftest that names the plugin too registers it once."""
    (repository.path / "conftest.py").write_text('pytest_plugins = ["trainpace.plugin"]\n')

    assert repository.suite("-k", "8k").last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"


def test_own_package_named_perf_is_no_obstacle(repository):
    """A repository whose perf/ is a package of its own, or that has a perf.py, is measured like any other."""
    (repository.path / "perf" / "__init__.py").touch()

    assert repository.suite("-k", "8k").last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"


def test_case_must_be_a_parameter(pytester, repository):
    """A test that uses judge_speed without a parameter `case` is a usage error, before anything is measured."""
    test = repository.path / "perf" / "test_ours.py"
    test.write_text("def test_without(judge_speed): judge_speed(None)\n")
    done = repository.inside(pytester)

    assert done.code == 4
    assert "a test that uses judge_speed takes a parameter `case`, a trainpace.cases.Case, got None" in done.text


def test_the_parameter_is_what_is_judged(pytester, repository):
    """A test that has another case judged fails before anything is measured, and both are named."""
    test = repository.path / "perf" / "test_ours.py"
    test.write_text(test.read_text().replace("judge_speed(case)", "judge_speed(CASES[0])"))
    done = repository.inside(pytester, "-k", "32k")

    assert done.code == 1
    assert "judge_speed: expected the test's own parameter `case`, ours-32k-sp2, got ours-8k-sp1" in done.text


ALIKE = """
import dataclasses
import pytest
from test_ours import CASES
def at(gpus):
    return dataclasses.replace(CASES[0], length="4k", gpus=gpus)
@pytest.mark.parametrize("case", [at(2), pytest.param(at(8), marks=pytest.mark.filterwarnings("error"))], ids=str)
def test_sweep(case, judge_speed):
    judge_speed(case)
"""


def test_cases_that_differ_in_gpus_are_told_apart(pytester, repository):
    """Each has an id of its own; cases of other tests are refused, before anything is measured."""
    sweep = repository.path / "perf" / "test_our_sweep.py"
    sweep.write_text(ALIKE)
    pytester.syspathinsert(repository.path / "perf")
    done = repository.inside(pytester, "-k", "ours-4k-sp1-g8", "--collect-only", "-q")

    assert "perf/test_our_sweep.py::test_sweep[ours-4k-sp1-g8]\n\n1/4 tests collected" in done.text

    sweep.write_text(ALIKE.replace('length="4k", gpus', "gpus").replace("at(8)", "at(4)").replace("at(2), ", ""))
    done = repository.inside(pytester)

    assert done.code == 4
    assert "are two cases with one id, ours-8k-sp1: gpus=" in done.text
    assert "write name_gpus=True in both" in done.text


def test_fixture_distributed(repository, started):
    """A test may ask for fresh process groups itself."""
    (repository.path / "perf" / "test_ours.py").write_text(
        "from trainpace.cases import Workload\n"
        "from test_theirs import CASES\n"
        "def test_groups(distributed):\n"
        "    workload = Workload(case='own', model='own', scale='mini', shape=CASES[0].model.mini, sequence=64,\n"
        "        ranks=3, sp=1, accumulation=1, warmup=1, steps=2, trainer='training:toy', engine='own')\n"
        "    assert len(distributed.run(workload).ranks) == 3\n"
    )
    Repository.create(repository.path / "other")
    (repository.path / "other" / "perf" / "test_ours.py").rename(repository.path / "perf" / "test_theirs.py")
    done = repository.suite("-k", "groups")

    assert done.code == 0
    assert "1 passed" in done.text
    assert started.left() == []


# Options of other plugins


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip"])
def test_benchmark_options_are_refused(pytester, repository, option):
    """What would drop the measurement of a selected case is a usage error."""
    done = repository.inside(pytester, option)

    assert done.code == 4
    assert f"{option} drops the measurement of perf cases: leave it out" in done.text


@pytest.mark.parametrize("option", ["--workers=2", "--dist=load"])
def test_xdist_is_refused(pytester, repository, option):
    """So is running cases side by side."""
    (repository.path / "like_xdist.py").write_text(LIKE_XDIST)
    pytester.syspathinsert(repository.path)
    done = repository.inside(pytester, "-p", "no:xdist", "-p", "like_xdist", option)

    assert done.code == 4
    assert "-n runs cases side by side, where they measure each other: leave it out for perf cases" in done.text


def test_cases_fail_in_a_worker_of_xdist(pytester, repository):
    """There, where alone they are collected, each fails with what to type; nothing is measured."""
    (repository.path / "like_a_worker.py").write_text("def pytest_configure(config): config.workerinput = {}")
    pytester.syspathinsert(repository.path)
    done = repository.inside(pytester, "-p", "like_a_worker")

    assert done.code == 1
    assert "leave it out for perf cases, or add -n 0" in done.text
    assert "TGS" not in done.text


def test_without_pytest_benchmark(pytester, repository):
    """Without pytest-benchmark there is nothing to hand cases to: a usage error."""
    done = repository.inside(pytester, "-p", "no:benchmark")

    assert done.code == 4
    assert "perf cases need pytest-benchmark: leave -p no:benchmark out" in done.text


@pytest.mark.parametrize(
    "options",
    [
        ["--benchmark-disable"],
        ["--benchmark-skip"],
        ["-p", "no:benchmark", "--deselect", "test_theirs.py::test_theirs"],
        ["-p", "no:terminal"],
        ["-p", "no:xdist", "-p", "like_xdist", "--workers=2"],
    ],
    ids=" ".join,
)
def test_strangers_may_use_them(pytester, monkeypatch, options):
    """A session without perf cases is none of our business."""
    pytester.makepyfile(test_theirs=STRANGER + "def test_plain(): pass", like_xdist=LIKE_XDIST)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))

    assert pytester.runpytest_subprocess(*BARE, *options).ret == 0


@pytest.mark.slow
def test_strangers_keep_their_benchmarks(pytester):
    """A session with benchmarks of its own keeps its table, and its file describes the machine as ever."""
    pytester.makepyfile(test_theirs=STRANGER)
    done = pytester.runpytest_subprocess(*BARE, "--benchmark-json=theirs.json")
    machine = json.loads((pytester.path / "theirs.json").read_text())["machine_info"]

    done.stdout.fnmatch_lines(["* benchmark: 1 tests *", "test_theirs *", "* 1 passed in *"])
    done.stdout.no_fnmatch_line("*trainpace ===*")
    assert "python_compiler" in machine


def test_strangers_import_little(pytester, monkeypatch):
    """All that a stranger's session pays for an installed suite is a plugin without anything heavy."""
    pytester.makepyfile(test_theirs="def test_plain(): pass", look=LOOK)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    done = pytester.runpytest_subprocess(*BARE, "-p", "look")

    done.stdout.fnmatch_lines(["HEAVY []"])


def test_help(pytester):
    """The options are in pytest's help, under one heading."""
    done = pytester.runpytest_subprocess(*BARE, "--help")

    done.stdout.fnmatch_lines(["trainpace: speed of LLM training:", "*--perf-scale=*", "*--perf-step-timeout=SECONDS*"])


# Files for other tools


def test_cases_beside_benchmarks(repository):
    """In a session with both, pytest-benchmark prints its table of all, and ours is there too."""
    (repository.path / "perf" / "test_theirs.py").write_text(STRANGER)
    done = repository.suite("-k", "8k or theirs")

    assert done.code == 0
    assert "benchmark: 2 tests" in done.text
    assert done.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"


@pytest.mark.slow
def test_exported_files_compare(repository):
    """`pytest-benchmark compare` reads the files of two sessions, a case a row."""
    for name in ("one.json", "two.json"):
        repository.suite("-k", "8k", f"--benchmark-json={name}")
    command = [Path(sys.executable).with_name("pytest-benchmark"), "compare", "one.json", "two.json"]
    done = subprocess.run(command, cwd=repository.path, capture_output=True, text=True, check=False)
    exported = json.loads((repository.path / "two.json").read_text())

    assert done.returncode == 0
    assert done.stdout.count("test_ours[ours-8k-sp1]") == 2
    assert exported["benchmarks"][0]["stats"]["rounds"] == 40
    assert exported["benchmarks"][0]["extra_info"]["judgement"]["verdict"] == "no baseline"


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": NaN}', "\xff"], ids=["cut", "list", "NaN", "latin"])
def test_broken_replay_file(pytester, repository, content):
    """A file that holds no run is a usage error that names it."""
    (repository.path / "broken.json").write_text(content, encoding="latin-1")
    done = repository.inside(pytester, "--perf-replay=broken.json")

    assert done.code == 4
    assert f"--perf-replay: {repository.path / 'broken.json'}" in done.text
    assert "INTERNALERROR" not in done.text


def test_empty_replay_folder(pytester, repository):
    """So is a folder without one."""
    done = repository.inside(pytester, "--perf-replay=perf")

    assert done.code == 4
    assert f"--perf-replay: {repository.path / 'perf'}: no run file (*.json) in this folder" in done.text
