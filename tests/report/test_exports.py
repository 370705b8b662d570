"""What other tools are given of a session: read back as they read it, every value is what the session found."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from factories import make_case_result, make_results, make_run, make_runs
from trainpace.report import exports
from trainpace.report.record import Reference
from trainpace.runs.verdict import Verdict
from trainpace.store.baselines import refresh
from trainpace.store.runs import write_run

SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"
COMMIT = "1a2b3c4d5e6f708192a3b4c5d6e7f80912345678"
BASE = Reference(kind="base", name="0f1e2d3", tgs=1234.5678901234567, head="5d6e7f8", pairs=4, low=0.881, high=0.943)
SLOWER = make_case_result(
    "slower", verdict="regression", revision=COMMIT, tgs=1123.4567890123456, ratio=0.91, versus=BASE, mfu=0.41
)
UNSURE = make_case_result("unsure", verdict="inconclusive", revision=COMMIT, reasons=("4 pairs would decide",))
FIRST = make_case_result("first", verdict="no baseline", versus=None, ratio=None, tolerance=None)
BROKEN = make_case_result("broken", verdict="invalid", revision=COMMIT, reasons=("thermal slowdown for 3.1 s",))
PASSED = make_case_result("passed", trainer='a "b"\\c:d\nX')
RESULTS = make_results(SLOWER, UNSURE, FIRST, BROKEN, PASSED, exit_status=7)
NAMED = "{} mini on cpu-test-2c"


def validated(text, schema):
    """Parsed JSON, valid by a public schema."""
    content = json.loads(text)
    jsonschema.validate(content, json.loads((SCHEMAS / schema).read_text()))
    return content


def test_bencher():
    """Numbers by case and measure, the ratio with its interval; an invalid case has none."""
    found = validated(exports.bencher(RESULTS), "bencher.json")
    slower = found[NAMED.format("slower")]

    assert len(found) == len(RESULTS.cases)
    assert slower["tgs"] == {"value": SLOWER.tgs}
    assert slower["ratio"] == {"value": 0.91, "lower_value": 0.881, "upper_value": 0.943}
    assert slower["tolerance"] == {"value": SLOWER.tolerance}
    assert [measures.get("verdict", {}).get("value") for measures in found.values()] == [-2, 0, -1, None, 1]
    assert found[NAMED.format("broken")] == {}


def test_bencher_tells_every_verdict():
    """Each verdict but `invalid` has a number of its own, and a regression is the lowest."""
    numbers = exports.VERDICT_NUMBERS

    assert {*numbers} == {*Verdict} - {Verdict.INVALID}
    assert len({*numbers.values()}) == len(numbers)
    assert min(numbers, key=numbers.__getitem__) is Verdict.REGRESSION


def test_github_action_benchmark():
    """An entry a case with TGS; verdict, commit and all else in its text; the invalid case is left out."""
    entries = validated(exports.github_action_benchmark(RESULTS), "github-action-benchmark.json")
    found = {each["name"]: each for each in entries}
    slower = found[NAMED.format("slower")]
    extra = dict(line.split(": ", 1) for line in slower["extra"].splitlines())

    assert NAMED.format("broken") not in found
    assert len(found) == len(RESULTS.cases) - 1
    assert (slower["value"], slower["range"]) == (SLOWER.tgs, "0.881 .. 0.943 of the base")
    assert (extra["verdict"], extra["judged"], extra["commit"]) == ("regression", "yes", COMMIT)
    assert "judged: no" in found[NAMED.format("unsure")]["extra"]


def test_csv():
    """A line a case; what is not known is empty, and every figure of an invalid case."""
    found = {row["case"]: row for row in csv.DictReader(io.StringIO(exports.comma_separated(RESULTS)))}
    slower, broken = found["slower"], found["broken"]

    assert [row["verdict"] for row in found.values()] == [case.verdict for case in RESULTS.cases]
    assert (float(slower["tgs"]), float(slower["ratio_low"]), float(slower["ratio_high"])) == (SLOWER.tgs, 0.881, 0.943)
    assert (slower["commit"], slower["device"], slower["scale"]) == (COMMIT, "cpu-test-2c", "mini")
    assert {broken[figure.name] for figure in exports.FIGURES} == {""}
    assert (broken["judged"], broken["reasons"]) == ("no", "thermal slowdown for 3.1 s")
    assert found["passed"]["trainer"] == PASSED.trainer


def test_openmetrics():
    """As Prometheus' own client reads it: figures by case, verdict and commit as labels, text of others as it was."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = {each.name: each for each in parser.text_string_to_metric_families(exports.openmetrics(RESULTS))}
    by_case = {
        name: {sample.labels.get("case"): sample for sample in family.samples} for name, family in families.items()
    }

    assert by_case["trainpace_tgs"]["slower"].value == SLOWER.tgs
    assert by_case["trainpace_reference_tgs"]["slower"].value == BASE.tgs
    assert [by_case[f"trainpace_ratio{end}"]["slower"].value for end in ("", "_low", "_high")] == [0.91, 0.881, 0.943]
    assert {case: sample.labels["verdict"] for case, sample in by_case["trainpace_verdict"].items()} == {
        case.case: case.verdict for case in RESULTS.cases
    }
    assert by_case["trainpace_verdict"]["slower"].labels["commit"] == COMMIT
    assert by_case["trainpace_verdict"]["unsure"].labels["judged"] == "no"
    assert {name for name, samples in by_case.items() if "broken" in samples} == {"trainpace_verdict"}
    assert by_case["trainpace_tgs"]["passed"].labels["trainer"] == PASSED.trainer
    assert by_case["trainpace_exit_status"][None].value == 7


def test_openmetrics_is_read_as_prometheus_text():
    """The textfile collector reads Prometheus' older format: the same file, the same values."""
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    found = {each.name: each for each in text_string_to_metric_families(exports.openmetrics(RESULTS))}

    assert {each.type for each in found.values()} == {"gauge"}
    assert found["trainpace_tgs"].samples[0].value == SLOWER.tgs


def test_an_empty_session():
    """No case: valid files that say so by holding nothing."""
    empty = make_results()

    assert validated(exports.bencher(empty), "bencher.json") == {}
    assert validated(exports.github_action_benchmark(empty), "github-action-benchmark.json") == []
    assert exports.comma_separated(empty).count("\n") == 1
    assert exports.openmetrics(empty).endswith("# EOF\n")


# The option


@pytest.fixture
def recorded(repository):
    """A repository with a baseline for its first case, and runs of that case that are 30 % slower."""
    write_run(make_run("ours-8k-sp1", tgs=700.0, revision=COMMIT), repository.path / "slower")
    refresh(repository.path / "baselines", make_runs(1000.0, 1001.0, 999.0, case="ours-8k-sp1"))
    return repository


def test_session_exports(recorded, pytester):
    """`--perf-export` once a format: each file is there, with the verdict and the commit of the run."""
    names = {"bencher": "b.json", "csv": "deep/c.csv", "github-action-benchmark": "g.json", "openmetrics": "o.prom"}
    wanted = [f"--perf-export={format_}:{name}" for format_, name in names.items()]
    done = recorded.inside(pytester, "--perf-replay=slower", *wanted)
    (row,) = csv.DictReader((recorded.path / "deep" / "c.csv").open())

    assert done.code == 1
    assert all((recorded.path / name).is_file() for name in names.values())
    assert (row["verdict"], row["commit"], float(row["tgs"])) == ("regression", COMMIT, pytest.approx(700.0))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("csv", "expected bencher:FILE, csv:FILE, github-action-benchmark:FILE, openmetrics:FILE, mlflow:EXPERIMENT, "),
        ("xml:a", "wandb:PROJECT, got 'xml:a'"),
        ("csv:perf", "expected a file, got the folder "),
        ("csv:pytest.ini/a.csv", "expected a folder that can be written"),
    ],
)
def test_what_cannot_be_exported_is_refused_first(recorded, pytester, value, said):
    """Before anything is measured, with what was expected."""
    done = recorded.inside(pytester, "--perf-replay=slower", f"--perf-export={value}")

    assert done.code == 4
    assert "--perf-export: " in done.text
    assert said in done.text.replace("\n", " ")


def test_what_is_not_installed_is_refused_first(recorded, pytester, monkeypatch):
    """Without the library: what to install."""
    monkeypatch.setattr("trainpace.app.option_values.find_spec", lambda name: None)
    done = recorded.inside(pytester, "--perf-replay=slower", "--perf-export=wandb:speed")

    assert done.code == 4
    assert "wandb is not installed here: run `pip install wandb`" in done.text


# Services, in the tox environment `exports`


def test_mlflow(tmp_path, monkeypatch):
    """MLflow on SQLite gives back what it was given: a run a case, tags, metrics; none of an invalid case."""
    mlflow = pytest.importorskip("mlflow")
    from trainpace.app.services import to_mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    to_mlflow(RESULTS, "speed")
    to_mlflow(make_results(PASSED), "speed")
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("speed").experiment_id])
    by_case = {run.data.tags["trainpace.case"]: run.data for run in runs}
    slower, broken = by_case["slower"], by_case["broken"]

    assert len(runs) == len(RESULTS.cases) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert slower.metrics == exports.figures(SLOWER)
    assert slower.metrics["tgs"] == SLOWER.tgs
    assert (slower.tags["trainpace.verdict"], slower.tags["trainpace.commit"]) == ("regression", COMMIT)
    assert slower.tags["mlflow.source.git.commit"] == COMMIT
    assert (broken.metrics, broken.tags["trainpace.verdict"]) == ({}, "invalid")
    assert by_case["unsure"].tags["trainpace.judged"] == "no"


READ_WANDB = """
import json, struct, sys
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

def records(path):
    data, at, part = Path(path).read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield part
            part = b""

for path in sys.argv[1:]:
    config, figures, name = {}, {}, ""
    for data in records(path):
        record = Record()
        record.ParseFromString(data)
        name = name or record.run.display_name
        for each in record.run.config.update:
            config[each.key] = json.loads(each.value_json)
        for each in record.history.item:
            key = each.nested_key[0] if each.nested_key else each.key
            if key[0] != "_":
                figures[key] = json.loads(each.value_json)
    print(json.dumps([name, config, figures]))
"""
"""W&B has no reader in Python: its file is LevelDB's log, a header of 7 bytes and blocks of 32 KiB."""


def test_wandb(tmp_path, monkeypatch):
    """W&B offline holds what it was given: a run a case, config, figures; none of an invalid case."""
    pytest.importorskip("wandb")
    from trainpace.app.services import to_wandb

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    to_wandb(RESULTS, "speed")
    files = sorted(map(str, tmp_path.glob("wandb/offline-run-*/*.wandb")))
    read = subprocess.run([sys.executable, "-c", READ_WANDB, *files], check=True, capture_output=True, text=True)
    found = {config["case"]: (name, config, known) for name, config, known in map(json.loads, read.stdout.splitlines())}
    name, config, figures = found["slower"]

    assert len(found) == len(RESULTS.cases)
    assert name == NAMED.format("slower")
    assert (config["verdict"], config["commit"], config["device"]) == ("regression", COMMIT, "cpu-test-2c")
    assert figures == exports.figures(SLOWER)
    assert found["broken"][2] == {}
    assert found["broken"][1]["verdict"] == "invalid"
