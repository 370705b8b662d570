"""`--perf-table`: the rows of a published table, or of a user's own, as the cases of a session."""

import pytest

from trainpace.app.options import Options
from trainpace.cases import LLAMA2_7B, Case
from trainpace.cases.scaling import full_workload
from trainpace.cases.tables import features
from trainpace.judge.baseline import find
from trainpace.judge.tables import published
from trainpace.store.tables import load_table, table_names

OURS = """model,length,gpus,tgs,micro_batch,tp,device
llama2_7b,8k,8,3000,1,1,a100-sxm4-80gb
llama2_7b,8k,16,2900,2,1,a100-sxm4-80gb
llama2_7b,16k,16,2500,4,1,a100-sxm4-80gb
llama2_7b,8k,16,1500,1,8,a100-sxm4-80gb
"""
TEST = """
import pytest

@pytest.mark.perf_table
def test_speed(case, judge_speed):
    judge_speed(case)
"""


@pytest.fixture
def ours(repository):
    """A repository with a table of its own, and the test that runs it."""
    (repository.path / "ours.csv").write_text(OURS)
    (repository.path / "perf" / "test_ours.py").write_text(TEST)
    return repository


def test_a_table_of_ones_own_is_trained(ours):
    """At mini one case of each set of features is, the others name it; without --perf-refresh nothing is recorded."""
    done = ours.suite("--perf-table=ours.csv", "-rs", "-k", "not tp8")

    assert done.code == 0
    assert "as llama2_7b-8k-sp1-g16-mb2: at mini scale one case of each set of features is trained" in done.text
    assert done.last_line.startswith("2 cases: 2 no baseline (llama2_7b-8k-sp1-g8 ")
    assert not (ours.path / "baselines").exists()


def test_a_row_that_the_native_trainer_lacks_is_skipped(ours, pytester):
    """With what it lacks, without training; a trainer of one's own is given it."""
    done = ours.inside(pytester, "--perf-table=ours.csv", "-k", "tp8", "-rs", "--perf-trainer=native")

    assert done.code == 0
    assert "not executable: tp=8" in done.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("nobody", "--perf-table: expected a table, xtuner, llm-foundry, torchtitan, or the path of a .csv"),
        ("none.csv", "none.csv: cannot be read: No such file"),
    ],
)
def test_a_table_that_is_none_is_refused(ours, pytester, table, message):
    """Before anything is collected, with exit status 4."""
    done = ours.inside(pytester, f"--perf-table={table}", "--collect-only")

    assert (done.code, message in done.text) == (4, True)


@pytest.mark.parametrize(
    ("typed", "engine"),
    [
        ((), "deepspeed"),
        (("--perf-table=llm-foundry",), "fsdp2"),
        (("--perf-table=llm-foundry", "--perf-engine=deepspeed"), "deepspeed"),
    ],
)
def test_the_engine_is_the_tables(pytester, typed, engine):
    """Unless another one is asked for."""
    config = pytester.parseconfigure("-p", "no:cacheprovider", *typed)

    assert Options.of(config).engine == engine


def test_a_tables_figure_is_the_baseline_of_its_device():
    """At scale full, of origin published; a row that cannot be run has none, and another device its own."""
    table = load_table("llm-foundry")
    case = next(each for each in table.cases if each.id == "mpt_30b-8k-sp1-g8-ga21")

    found = {device: find(published(table, device), full_workload(case)) for device in table.devices}

    assert {device: row and row.tgs for device, row in found.items()} == {
        "a100-sxm4-80gb": 574.0,
        "a100-sxm4-40gb": None,
        "h100-sxm5-80gb": 1384.0,
    }
    assert len(published(table, "h100-sxm5-80gb")) == 70


def test_the_features_of_a_case_are_what_mini_has_too():
    """Lengths, GPUs and how many micro-batches are cut; what is trained another way stays."""
    case = Case(model=LLAMA2_7B, length="8k", sp=1, gpus=8, micro_batch=2)

    assert features(case) == features(Case(model=LLAMA2_7B, length="32k", sp=1, gpus=64, micro_batch=6))
    assert features(case) != features(Case(model=LLAMA2_7B, length="8k", sp=1, gpus=8, micro_batch=2, recompute="none"))


def test_how_many_sets_of_features_the_tables_have():
    """Of the rows that can be run: so many runs train everything that they name."""
    found = {features(row.case) for name in table_names() for row in load_table(name).rows if row.executable}

    assert len(found) == 30
