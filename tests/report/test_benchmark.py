"""The export to pytest-benchmark, through real sessions and the real compare command."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import median

import pytest

import factories
import trainpace
from judgements import of_stored_gate
from repository import BARE
from trainpace.cases.machine import Machine
from trainpace.errors import RunFailed
from trainpace.judge.verdict import judge, judge_failure
from trainpace.report.benchmark import Clock, extra_info, machine_info, properties, step_seconds
from trainpace.runs import metrics

SESSION = """
import pytest
import factories
from trainpace.judge.verdict import judge, judge_failure
from trainpace.errors import RunFailed
from trainpace.report.benchmark import Clock, export

TGS = {tgs}

@pytest.mark.parametrize("tgs", TGS)
def test_speed(tgs, request, benchmark):
    runs = factories.make_runs(tgs, 1.01 * tgs, noise=0.05)
    export(benchmark, request.node.get_closest_marker("benchmark").kwargs["timer"], runs, judge(runs, None))

def test_killed(request, benchmark):
    judgement = judge_failure("llama2_7b-8k-sp1", None, RunFailed("killed", rank=1))
    export(benchmark, request.node.get_closest_marker("benchmark").kwargs["timer"], [], judgement)
"""

JUDGEMENT = """
    baseline case comparison compile_seconds convention convention_version data data_share excused explanation hfu mfu
    notes peak_memory_bytes peak_tflops ratio reasons set_aside startup_seconds tflops tflops_ratio tgs
    tgs_of_runs tolerance tolerance_source trained_on verdict version_differences what_decides workload
"""
"""Keys of a judgement in the file."""

CONFTEST = """
import pytest
from trainpace.probe.device import present
from trainpace.report import benchmark

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=benchmark.Clock()))

def pytest_collection_finish(session):
    benchmark.silence_table(session.config)

@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_machine_info():
    return benchmark.machine_info(present())
"""


@pytest.fixture
def session(tmp_path):
    """Runs a pytest session of two cases and a killed one in a process of its own; returns the finished process."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    path = [str(Path(trainpace.__file__).parents[1]), str(Path(factories.__file__).parent)]

    def run(*arguments: str, tgs: tuple[float, ...] = (1000.0, 500.0)) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_ours.py").write_text(f"import sys\nsys.path[:0] = {path}\n" + SESSION.format(tgs=tgs))
        # Not the plugin itself: it brings the same hooks, and these tests are of the functions behind them.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:trainpace.plugin", *BARE, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": ":".join(path)}, capture_output=True, text=True, check=False
        )

    return run


def benchmarks(path: Path) -> list[dict]:
    return json.loads(path.read_text())["benchmarks"]


def test_statistics_are_those_of_the_steps(session, tmp_path):
    """A case is one benchmark whose data are its recorded steps, and whose median gives the TGS."""
    done = session("--benchmark-json=out.json")
    first, second = benchmarks(tmp_path / "out.json")
    runs = factories.make_runs(1000.0, 1010.0, noise=0.05)

    assert (done.stdout.splitlines()[-1][:8], done.returncode) == ("3 passed", 0)
    assert [seconds for run in runs for seconds in step_seconds(run)] == pytest.approx(first["stats"]["data"])
    assert (first["stats"]["rounds"], first["stats"]["iterations"]) == (80, 1)
    assert pytest.approx(second["stats"]["median"] / first["stats"]["median"]) == 2


def test_extra_info_carries_runs_and_judgement(session, tmp_path):
    """Every run's value and the verdict travel with the benchmark."""
    session("--benchmark-json=out.json")
    info = benchmarks(tmp_path / "out.json")[0]["extra_info"]
    runs = factories.make_runs(1000.0, 1010.0, noise=0.05)

    assert info["judgement"]["verdict"] == "no baseline"
    assert [metrics.tgs(run) for run in runs] == pytest.approx([run["tgs"] for run in info["runs"]])
    assert [run["id"] for run in info["runs"]] == ["run0", "run1"]


def test_parameters_are_text(session, tmp_path):
    """A parameter is written as its name, whatever it is."""
    session("--benchmark-json=out.json")

    assert benchmarks(tmp_path / "out.json")[0]["params"] == {"tgs": "1000.0"}


def test_case_without_a_run_is_left_out(session, tmp_path):
    """A case whose run was killed is in no file, and nothing complains that its fixture was not used."""
    done = session("--benchmark-json=out.json")

    assert [each["name"] for each in benchmarks(tmp_path / "out.json")] == ["test_speed[1000.0]", "test_speed[500.0]"]
    assert "warning" not in done.stdout


def test_compare_reads_the_files(session, tmp_path):
    """`pytest-benchmark compare` reads two exported files and shows both medians."""
    session("--benchmark-json=a.json")
    session("--benchmark-json=b.json", tgs=(1000.0, 400.0))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "a.json", "b.json", "--columns=median,rounds"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.count("test_speed[1000.0]") == 2
    assert "Median" in done.stdout


def test_own_table_is_silent(session):
    """pytest-benchmark's table is not printed beside ours."""
    assert "Name (time in" not in session().stdout


def test_own_table_on_request(session):
    """`--benchmark-verbose` brings it back."""
    assert "Name (time in" in session("--benchmark-verbose").stdout


def test_disabled_benchmarks(session):
    """Where benchmarks are disabled the export does nothing and fails nothing."""
    assert session("--benchmark-disable").returncode == 0


def test_machine_info_is_ours(session, tmp_path):
    """The machine in the file is described by the device's facts, without py-cpuinfo."""
    session("--benchmark-json=out.json")
    machine = json.loads((tmp_path / "out.json").read_text())["machine_info"]

    assert {"brand_raw", "count"} == machine["cpu"].keys()


def test_machine_info_of_gpus():
    """GPUs are part of the machine."""
    gpus = factories.CPU.model_copy(update={"kind": "cuda", "slug": "a100-sxm4-80gb", "count": 8})
    info = machine_info(Machine(gpus=gpus, cpu=factories.CPU, free_bytes=1))

    assert (info["gpus"]["slug"], info["gpus"]["count"]) == ("a100-sxm4-80gb", 8)


def test_steps_are_the_slowest_ranks():
    """The median of the exported steps is what the run's TGS is made of."""
    run = factories.make_run("llama2_7b-128k-sp8", tgs=100.0, noise=0.1)

    assert metrics.tgs(run) == pytest.approx(run.workload.rank_tokens / median(step_seconds(run)))


def test_extra_info_without_runs():
    """A case without a run still has its judgement."""
    info = extra_info([], judge_failure("llama2_7b-8k-sp1", None, RunFailed("killed", rank=1)))

    assert (info["judgement"]["verdict"], info["runs"]) == ("invalid", [])


def test_keys_of_the_file_stay():
    """Readers outside look for these, whatever our own records call them."""
    judgement = judge(factories.make_runs(1000.0), None).model_copy(update={"waiver": "a fix costs it"})
    info = extra_info(factories.make_runs(1000.0), judgement)

    assert info.keys() == {"judgement", "device", "software", "runs"}
    assert info["judgement"].keys() == set(JUDGEMENT.split())
    assert info["judgement"]["excused"] == "a fix costs it"


def test_clocks_are_their_own():
    """A clock stands still until it is set forward, and others do not move with it."""
    clock, other = Clock(), Clock()
    clock.advance(1.5)
    clock.advance(0.5)

    assert (clock(), other()) == (2.0, 0.0)


def test_properties_of_a_judged_case():
    """JUnit properties are named, worded, and without what is not known."""
    actual = properties(judge(factories.make_runs(1000.0), None))

    assert (
        actual["perf.verdict"],
        actual["perf.case"],
        actual["perf.scale"],
    ) == ("no baseline", "llama2_7b-8k-sp1", "mini")
    assert pytest.approx(1000.0) == float(actual["perf.tgs"])
    assert {"perf.ratio", "perf.tolerance", "perf.mfu", "perf.hfu", "perf.baseline_tgs"}.isdisjoint(actual)


def test_properties_of_a_failed_run():
    """A run that ended without its steps has a verdict and a reason and no figure."""
    actual = properties(judge_failure("llama2_7b-8k-sp1", None, RunFailed("killed", rank=1)))

    assert {"perf.case", "perf.verdict", "perf.reasons"} == actual.keys()
    assert "rank 1: killed" in actual["perf.reasons"]


def test_a_property_has_a_line_a_reason():
    """As a reader of JUnit's file gets them back."""
    judged = of_stored_gate()["slower"]
    written = ET.tostring(ET.Element("property", value=properties(judged)["perf.reasons"]))

    assert len(judged.reasons) > 1
    assert ET.fromstring(written).get("value").split("\n") == list(judged.reasons)  # noqa: S314 - our own
