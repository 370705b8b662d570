"""results.json: what it says of each kind of judgement, its schema, and the session that writes it."""

import json
import math
from pathlib import Path

import jsonschema
import pytest

from factories import (
    make_case_result,
    make_cost_result,
    make_results,
    make_run,
    make_runs,
    make_side_by_side,
    make_system,
    make_workload,
)
from trainpace.errors import FileError, RunFailed
from trainpace.judge.comparison import Comparison
from trainpace.judge.cost import CostJudgement
from trainpace.judge.finding import Finding, cost_finding, outcome, speed_finding, systems_finding
from trainpace.judge.refresh import Change
from trainpace.judge.verdict import judge, judge_failure
from trainpace.report import record
from trainpace.report.record import (
    case_result,
    compare_result,
    compare_summary,
    cost_result,
    cost_summary,
    schema_text,
)
from trainpace.runs.verdict import Verdict
from trainpace.store.baselines import refresh
from trainpace.store.reports import read_results, write_results
from trainpace.store.runs import write_run

SCHEMA = Path(record.__file__).with_name("results.schema.json")
CASE = "ours-8k-sp1"
STORED = (1000.0, 1001.0, 999.0)


@pytest.fixture
def stored(tmp_path):
    """A measured baseline."""
    (change,) = refresh(tmp_path / "stored", make_runs(*STORED))
    return change.new


@pytest.fixture
def recorded(repository):
    """A repository with a baseline for its first case, and runs of that case that are 30 % slower."""
    write_run(make_run(CASE, tgs=700.0), repository.path / "slower")
    refresh(repository.path / "baselines", make_runs(*STORED, case=CASE))
    return repository


def validated(path):
    """The content of a results.json, valid by the schema that travels in the package."""
    content = json.loads(path.read_text())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    return content


# One case


def told(judgement, *, require_verdict=False, **fields):
    """What is told of a speed test's judgement."""
    found = speed_finding(judgement, **fields)
    return case_result(found, outcome(found, require_verdict=require_verdict))


def test_against_a_baseline(stored):
    """A case against its baseline: figures, what it was judged against, and what came of it."""
    runs = make_runs(700.0)
    found = told(judge(runs, stored), runs=runs)

    assert (found.verdict, found.outcome, found.label) == (Verdict.REGRESSION, "failed", "regression")
    assert (found.versus.kind, found.versus.name, found.versus.tgs) == ("baseline", "measured", 1000.0)
    assert (found.tgs, found.device, found.scale, found.ranks) == (pytest.approx(700.0), "cpu-test-2c", "mini", 2)
    assert found.ratio == pytest.approx(0.7)


def test_against_a_base():
    """A case against another revision: both revisions, the pairs and the ratio's interval."""
    comparison = Comparison(
        base="1a2b3c4",
        head="5d6e7f8",
        base_tgs=1000.0,
        log_ratios=(math.log(0.9), math.log(0.92)),
        ratio=0.91,
        low=0.88,
        high=0.94,
        detect=0.05,
    )
    judged = judge(make_runs(910.0), None).model_copy(update={"comparison": comparison})
    versus = told(judged).versus

    assert (versus.kind, versus.name, versus.head, versus.tgs) == ("base", "1a2b3c4", "5d6e7f8", 1000.0)
    assert (versus.pairs, versus.low, versus.high) == (2, 0.88, 0.94)


def test_without_a_run():
    """A case that failed: no figures, the cause, and the end of what the run printed."""
    judged = judge_failure("llama2_7b-8k-sp1", make_workload(), RunFailed("killed by SIGKILL", rank=3))
    found = told(judged, detail="x" * 9000 + "the end")

    assert (found.tgs, found.versus, found.outcome) == (None, None, "failed")
    assert "rank 3: killed by SIGKILL" in found.reasons[0]
    assert len(found.detail) == 8000
    assert found.detail.endswith("the end")


@pytest.mark.parametrize(("required", "outcome"), [(False, "skipped"), (True, "failed")])
def test_required_verdict(required, outcome):
    """What could not be judged fails where a verdict is required."""
    assert outcome == told(judge(make_runs(1000.0), None), require_verdict=required).outcome


def test_excused(stored):
    """An excuse takes the failure away, not the verdict."""
    judged = judge(make_runs(700.0), stored).model_copy(update={"waiver": "accepted: exact softmax"})
    found = told(judged)

    assert (found.verdict, found.outcome, found.excused) == ("regression", "excused", "accepted: exact softmax")


def test_recorded_and_refused(stored):
    """In a refresh the word is whether it was recorded; the verdict is of the old baseline."""
    judged = judge(make_runs(700.0), stored)
    recorded = told(judged, change=Change(key="a/mini", old=None, new=stored))
    refused = told(judged, change=Change(key="a/mini", old=stored, new=None, refused="too slow"))

    assert (recorded.label, recorded.outcome, recorded.change) == ("recorded", "passed", "a/mini: none -> 1000.0 TGS")
    assert (refused.label, refused.outcome, refused.change) == ("refused", "failed", "a/mini: not recorded: too slow")


def test_counted_cost():
    """A counted case: its counters, what came of it, and in a refresh what was stored."""
    judged = CostJudgement(case="llama2_7b-8k-sp1", verdict="invalid", reasons=("no counts",))
    finding = cost_finding(judged, detail="Traceback")
    found = cost_result(finding, outcome(finding))
    recorded = make_cost_result(refresh="recorded")

    assert (found.verdict, found.outcome, found.counters, found.detail) == ("invalid", "failed", None, "Traceback")
    assert cost_summary([found, recorded, recorded]) == "3 costs: 1 invalid, 2 recorded"
    assert cost_summary([]) == ""


# The file


def test_round_trip(tmp_path):
    """What is written is valid by the schema, and reads back as it was."""
    results = make_results(make_case_result(), said=("mini: no GPU",))
    write_results(results, tmp_path / "new")

    assert read_results(tmp_path / "new") == results
    assert validated(tmp_path / "new" / "results.json")["cases"][0]["case"] == "llama2_7b-8k-sp1"


def test_schema_is_of_this_version():
    """The schema's file is that of the records; `python -m trainpace schema` writes it."""
    assert schema_text() == SCHEMA.read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON, or cut off"),
        ("{}", "exit_status: Field required"),
        ('{"exit_status": 0, "summary": "", "cases": [], "schema_version": 2}', "schema_version: Input should be 1"),
        ('{"exit_status": 0, "summary": "", "cases": [], "more": 1}', "more: Extra inputs are not permitted"),
        ('{"exit_status": NaN}', "expected finite numbers, got NaN"),
    ],
)
def test_refused_files(tmp_path, text, words):
    """Anything else is refused, with the place."""
    (tmp_path / "results.json").write_text(text)

    with pytest.raises(FileError, match=words):
        read_results(tmp_path)


# The session


def test_session_writes_both_files(pytester, recorded):
    """`--perf-report` leaves the summary and the results of a session, its exit status included."""
    done = recorded.inside(pytester, "--perf-replay=slower", "--perf-report=out")
    content = validated(recorded.path / "out" / "results.json")
    summary = (recorded.path / "out" / "summary.md").read_text()

    assert done.code == content["exit_status"] == 1
    assert [(case["case"], case["verdict"]) for case in content["cases"]] == [(CASE, "regression")]
    assert summary.startswith("## ❌ Slower: 1 of 1 case\n")
    assert content["summary"] == done.last_line


def test_session_without_a_case(pytester, recorded):
    """A session that measures nothing says so, and leaves no older report behind."""
    recorded.inside(pytester, "--perf-replay=slower", "--perf-report=out")
    done = recorded.inside(pytester, "-k", "no_such_case", "--perf-report=out")

    assert done.code == validated(recorded.path / "out" / "results.json")["exit_status"] == 5
    assert "The session ended with status 5" in (recorded.path / "out" / "summary.md").read_text()


def test_session_appends_to_the_page_of_a_workflow(pytester, recorded):
    """Without being asked for, the summary is on the page of the workflow's run."""
    page = recorded.path / "page.md"
    recorded.inside(pytester, "--perf-replay=slower", environment={"GITHUB_STEP_SUMMARY": str(page)})

    assert page.read_text().startswith("## ❌ Slower: 1 of 1 case\n")


QUARANTINE = '[[case]]\ncase = "ours-8k-sp1"\nreason = "noisy node"\nuntil = {until}\nwho = "jane"\n'


def test_quarantined_regression(pytester, recorded):
    """A quarantined regression is named in the table, the report and JUnit, and does not fail the session."""
    (recorded.path / "baselines" / "quarantine.toml").write_text(QUARANTINE.format(until="2999-12-31"))
    write_run(make_run(CASE, tgs=850.0), recorded.path / "noisy")
    done = recorded.inside(pytester, "--perf-replay=noisy", "--perf-report=out", "--junitxml=junit.xml")
    (case,) = validated(recorded.path / "out" / "results.json")["cases"]

    assert done.code == 0
    assert "ours-8k-sp1 is quarantined until 2999-12-31 by jane: noisy node" in done.text
    assert "1 xfailed" in done.text
    assert done.last_line.startswith("1 case: 1 regression (ours-8k-sp1 0.85 of baseline")
    assert (case["verdict"], case["outcome"]) == ("regression", "excused")
    assert recorded.cases()["test_ours[ours-8k-sp1]"][0] == "skipped"


def test_quarantine_is_printed_every_time(pytester, recorded):
    """An entry is printed also where its case is not among those measured."""
    (recorded.path / "baselines" / "quarantine.toml").write_text(
        QUARANTINE.format(until="2999-12-31").replace("8k", "other")
    )
    done = recorded.inside(pytester, "--perf-replay=slower")

    assert done.code == 1
    assert "ours-other-sp1 is quarantined until 2999-12-31 by jane: noisy node" in done.text


def test_expired_quarantine(pytester, recorded):
    """An entry that has expired is a usage error before anything is measured."""
    path = recorded.path / "baselines" / "quarantine.toml"
    path.write_text(QUARANTINE.format(until="2026-01-01"))
    done = recorded.inside(pytester, "--perf-replay=slower")

    assert done.code == 4
    assert f"{path}: the quarantine of ours-8k-sp1 expired on 2026-01-01 (jane: noisy node): take it out" in done.text


def test_accepted_slowdown(pytester, recorded):
    """A regression that was accepted is named with its reason, and does not fail the session."""
    done = recorded.inside(pytester, "--perf-replay=slower", "--perf-accepted=exact softmax", "--perf-report=out")
    (case,) = validated(recorded.path / "out" / "results.json")["cases"]

    assert done.code == 0
    assert "slowdowns are accepted: exact softmax" in done.text
    assert (case["verdict"], case["excused"]) == ("regression", "accepted: exact softmax")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--perf-accepted="], "--perf-accepted: expected a reason, got none"),
        (["--perf-accepted=x", "--perf-refresh"], "--perf-accepted belongs to judging"),
    ],
)
def test_accepting_is_refused(pytester, recorded, options, words):
    """Accepting needs a reason, and is no part of a refresh."""
    done = recorded.inside(pytester, *options)

    assert done.code == 4
    assert words in done.text


def test_comparison():
    """The side-by-side table as in compare.json, with the verdict on its measurement; a summary names who is absent."""
    table = make_side_by_side(make_system("native", 1.0), make_system("trl"))
    measured = systems_finding(table, "")
    failed = Finding(case="a", verdict=Verdict.INVALID, reasons=("no GPU",), detail="x" * 9000)
    found, none = (compare_result(each, outcome(each)) for each in (measured, failed))

    assert (found.side_by_side, found.workload, found.title) == (
        table,
        table.workload.key,
        f"{table.case} side by side",
    )
    assert (none.reasons, len(none.detail)) == (("no GPU",), 8000)
    assert compare_summary([found, none]) == (
        "1 case side by side: 1 measured, 1 skipped (trl); a side by side: not measured"
    )
    assert compare_summary([]) == ""
