"""Judging counts: no tolerance, every difference named, a missing counter never a pass; the file believes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.errors import FileError
from trainpace.judge.cost import judge_cost
from trainpace.runs.cost import Cost
from trainpace.runs.verdict import Verdict
from trainpace.store.baselines import published_folder
from trainpace.store.costs import FILE, load_costs, refresh_costs

COUNTERS = {
    "step.flops.matmul": 900,
    "step.flops.attention_forward": 40,
    "step.flops.attention_backward": 50,
    "step.flops.loss": 10,
    "step.flops.rest": 5,
    "step.calls": 2400,
    "fsdp2.memory.peak": 3 << 30,
    "fsdp2.memory.activations": 1 << 30,
    "fsdp2.memory.temporary": 2 << 30,
}
OPERATORS = {"step aten.mm": (60, 900, 4096), "step aten.add": (20, 5, 128)}
SOFTWARE = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.24.0"}


def cost(case=0, counters=None, operators=None, software=None, unknown=None):
    """A small cost of a published row; `counters` and `operators` replace some."""
    return Cost(
        workload=full_workload(PUBLISHED[case]),
        traced_layers=4,
        counters=COUNTERS | (counters or {}),
        operators=OPERATORS | (operators or {}),
        unknown=unknown or {},
        software=SOFTWARE | (software or {}),
    )


def test_equal_counts_pass():
    """The same counts say nothing more."""
    judged = judge_cost(cost(), cost())

    assert judged.verdict is Verdict.PASS
    assert judged.reasons == ()


def test_more_of_one_counter_is_a_regression():
    """One operator more is red: the counter with both numbers, and the operator that is called more."""
    judged = judge_cost(cost(counters={"step.calls": 2401}, operators={"step aten.mm": (61, 900, 4096)}), cost())

    assert judged.verdict is Verdict.REGRESSION
    assert judged.reasons == (
        "step.calls 2,400 -> 2,401 (+0.0417 %)",
        "operators: step aten.mm 60 -> 61 calls",
        "where that is meant, record it with `pytest perf -k 'test_cost and llama2_7b-8k-sp1' --perf-refresh`",
    )


def test_less_is_an_improvement():
    """Fewer FLOPs pass, with the command that keeps the next regression from hiding."""
    judged = judge_cost(cost(counters={"step.flops.matmul": 800}), cost())

    assert judged.verdict is Verdict.IMPROVEMENT
    assert judged.reasons[0] == "step.flops.matmul 900 -> 800 (-11.1 %)"
    assert "--perf-refresh" in judged.reasons[-1]


def test_more_of_one_and_less_of_another_is_a_regression():
    """What got cheaper does not pay for what got dearer; both are named."""
    judged = judge_cost(cost(counters={"step.calls": 2500, "step.flops.matmul": 800}), cost())

    assert judged.verdict is Verdict.REGRESSION
    assert "less, too: step.flops.matmul 900 -> 800 (-11.1 %)" in judged.reasons


def test_a_peak_is_told_with_what_it_is_made_of():
    """Of memory the peak is judged, and its categories explain it."""
    more = {"fsdp2.memory.peak": 4 << 30, "fsdp2.memory.activations": 3 << 30, "fsdp2.memory.temporary": 1 << 30}

    judged = judge_cost(cost(counters=more), cost())

    assert judged.verdict is Verdict.REGRESSION
    assert judged.reasons[0] == (
        "fsdp2.memory.peak 3.000 GiB -> 4.000 GiB (+33.3 %): activations 1.000 GiB -> 3.000 GiB, "
        "temporary 2.000 GiB -> 1.000 GiB"
    )


def test_categories_alone_are_not_judged():
    """Another moment may peak as high with other parts: that costs nothing."""
    moved = {"fsdp2.memory.activations": 2 << 30, "fsdp2.memory.temporary": 1 << 30}

    assert judge_cost(cost(counters=moved), cost()).verdict is Verdict.PASS


def test_no_row_is_no_baseline():
    """A row that was never stored is not judged, and the command stores it."""
    judged = judge_cost(cost(), None)

    assert judged.verdict is Verdict.NO_BASELINE
    assert "--perf-refresh" in judged.reasons[0]


@pytest.mark.parametrize(
    ("now", "stored", "said"),
    [({"new": 1}, {}, "counter new in the baseline"), ({}, {"old": 1}, "counter old as in the baseline")],
)
def test_a_missing_counter_is_invalid(now, stored, said):
    """A counter that only one side has is an error, however the others compare."""
    judged = judge_cost(cost(counters=now), cost(counters=stored))

    assert judged.verdict is Verdict.INVALID
    assert said in judged.reasons[0]


def test_other_versions_are_judged_and_named():
    """Counts under another torch are compared all the same; the message shows both versions."""
    other = cost(counters={"step.calls": 2300}, software={"torch": "2.12.0"})

    same, more = judge_cost(cost(), cost(software={"torch": "2.12.0"})), judge_cost(cost(), other)

    assert same.verdict is Verdict.PASS
    assert same.version_differences == ("torch 2.12.0 -> 2.13.0",)
    assert more.verdict is Verdict.REGRESSION
    assert "the baseline was counted with other versions: torch 2.12.0 -> 2.13.0" in more.reasons


def test_unknown_operators_are_invalid():
    """What is not counted cannot be judged, whatever the other counters say; the operator is told with its calls."""
    judged = judge_cost(cost(unknown={"theirs.product": 3}), cost())

    assert judged.verdict is Verdict.INVALID
    assert judged.reasons[0].startswith("expected a formula for the FLOPs of theirs.product (3 calls), got none: ")


def test_a_refresh_keeps_the_other_rows(tmp_path):
    """Rows that are not counted stay; each change is told, old -> new."""
    refresh_costs(tmp_path, [cost(), cost(1)])

    (change,) = refresh_costs(tmp_path, [cost(counters={"step.calls": 2300})])
    stored = load_costs(tmp_path)

    assert str(change) == f"{cost().key}: step.calls 2,400 -> 2,300 (-4.17 %)"
    assert stored[cost().key].counters["step.calls"] == 2300
    assert stored[cost(1).key] == cost(1)


def test_a_refresh_changes_no_line_of_other_rows(tmp_path, checkout):
    """Rows of an older file stand as they stood, without the fields that records have today."""
    before = (checkout / "baselines" / FILE).read_text()
    (tmp_path / FILE).write_text(before)
    refresh_costs(tmp_path, [cost()])
    after = (tmp_path / FILE).read_text()
    block = f'  "{cost().key}": {{\n'

    assert before.split(block)[0] == after.split(block)[0]
    assert before.split(block)[1].split("\n  },\n", 1)[1] == after.split(block)[1].split("\n  },\n", 1)[1]


def test_two_refreshes_at_once_lose_nothing(tmp_path):
    """Processes that refresh different rows of one file at the same time all leave theirs."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from test_cost import cost, refresh_costs;"
        "refresh_costs(Path(sys.argv[2]), [cost(int(sys.argv[3]))])"
    )
    here = str(Path(__file__).parent)
    writers = [subprocess.Popen([sys.executable, "-c", code, here, str(tmp_path), str(row)]) for row in range(4)]

    assert [writer.wait() for writer in writers] == [0] * 4
    assert {cost(row).key for row in range(4)} <= load_costs(tmp_path).keys()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content | {"schema_version": 2}, "expected schema_version 1, got 2"),
        (lambda content: {"schema_version": 1}, "expected the fields schema_version and costs"),
        (lambda content: _with(content, "step.calls", -1), "step.calls: Input should be greater than or equal to 0"),
        (lambda content: _with(content, "step.calls", 1.5), "step.calls: Input should be a valid integer"),
        (lambda content: _with(content, "step.calls", True), "step.calls: Input should be a valid integer"),
        (lambda content: content | {"costs": {"other": next(iter(content["costs"].values()))}}, "expected the key"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, said):
    """The file, the row, the field, what was expected and what came."""
    refresh_costs(tmp_path, [cost()])
    path = tmp_path / FILE
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))

    with pytest.raises(FileError, match=said) as refusal:
        load_costs(tmp_path)

    assert str(path) in str(refusal.value)


def _with(content, counter, value):
    for row in content["costs"].values():
        row["counters"][counter] = value
    return content


def test_every_published_row_is_stored():
    """The file that travels with the package holds all fourteen rows, counted with nothing unknown."""
    stored = load_costs(published_folder())

    assert {full_workload(case).key for case in PUBLISHED} == stored.keys()
    assert [row.unknown for row in stored.values() if row.unknown] == []
