"""A case without a baseline: its first runs are recorded, and fresh ones are judged by them."""

import pytest

from factories import make_run, make_runs, make_workload
from trainpace.judge.refresh import baseline_of
from trainpace.plan.stored import LONG_RUN_SECONDS, StoredPlan, stored_case
from trainpace.probe.device import present
from trainpace.runs.run import Health
from trainpace.runs.verdict import Verdict
from trainpace.stats.tolerance import NoiseModel

CASE = "llama2_7b-8k-sp1"
QUIET, LOUD = (1000.0, 1000.5, 999.8, 1000.1, 1000.2, 999.9), (1000.0, 1030.0, 975.0, 1015.0, 985.0, 1000.0)


def recording(*speeds, stored=(), resumed=0, startup=2.0, faulty=(), **options):
    """The plan of one case, driven to its end; the runs that were made, and what was given to be stored."""
    workload, noise = make_workload(CASE), NoiseModel()
    case = stored_case(CASE, workload, present().cpu, stored, noise=noise, record=True)
    runs = [
        make_run(workload=workload, tgs=tgs, seed=number, device=present().cpu, startup_seconds=startup).model_copy(
            update={"health": Health(faults=("thermal slowdown",) if number in faulty else ())}
        )
        for number, tgs in enumerate(speeds)
    ]
    case.runs = runs[:resumed]
    plan = StoredPlan([case], tests=[(CASE, CASE)], noise=noise, recorded_at="2026-11-26T00:00:00+00:00", **options)
    made = []
    while task := plan.next(CASE):
        made.append(task)
        plan.add(task, runs[resumed + len(made) - 1])
    return plan, case, made


@pytest.mark.parametrize(("speeds", "recorded"), [(QUIET, 3), (LOUD, 5)], ids=["quiet", "noisy"])
def test_as_many_runs_as_the_noise_needs(speeds, recorded):
    """Alike runs are a baseline when they are three, others when they are five; a fresh one is judged by them."""
    plan, case, made = recording(*speeds)

    assert [task.records for task in made[: recorded + 1]] == [True] * recorded + [False]
    assert [run.id for run in case.recorded_runs] == [f"run{number}" for number in range(recorded)]
    assert plan.to_store == [case]
    assert plan.judgement(CASE).baseline == case.change.new
    assert "same session" in plan.judgement(CASE).notes[-1]


def test_fresh_run_is_judged():
    """A run that is far slower than those just recorded is a regression."""
    plan, _, made = recording(*QUIET[:3], *[800.0] * 5)

    assert plan.judgement(CASE).verdict is Verdict.REGRESSION
    assert len(made) == 8


@pytest.mark.parametrize(
    ("speeds", "faulty", "verdict", "why"),
    [
        ((1000.0, 1400.0, 700.0), (), Verdict.NO_BASELINE, "expected a spread between runs of at most 10 %"),
        ((1000.0,) * 4, range(1, 4), Verdict.INVALID, "thermal slowdown"),
    ],
    ids=["spread", "disturbed"],
)
def test_what_cannot_be_trusted_is_not_recorded(speeds, faulty, verdict, why):
    """Runs that spread too far leave the case without a baseline, disturbed ones make it invalid."""
    plan, case, _ = recording(*speeds, faulty=faulty)

    assert plan.to_store == case.recorded_runs == []
    assert plan.judgement(CASE).verdict is verdict
    assert why in plan.judgement(CASE).reasons[0]


def test_disturbed_run_does_not_lose_the_others():
    """Three good runs become the baseline, though a fourth was wanted and is disturbed at every attempt."""
    plan, case, made = recording(*LOUD[:3], *[1000.0] * 3, 1000.0, faulty=range(3, 6))

    assert [task.records for task in made] == [True] * 6 + [False]
    assert [run.id for run in case.recorded_runs] == ["run0", "run1", "run2"]
    assert plan.judgement(CASE).verdict is not Verdict.INVALID


def test_run_of_minutes_is_recorded_once():
    """One run that takes minutes is stored, and nothing is judged by it yet."""
    plan, case, made = recording(1000.0, startup=LONG_RUN_SECONDS + 1)

    assert len(made) == len(case.recorded_runs) == len(plan.to_store) == 1
    assert plan.judgement(CASE).verdict is Verdict.NO_BASELINE
    assert "nothing can be judged yet" in plan.judgement(CASE).reasons[0]


def test_stored_baseline_is_judged_by():
    """A case that has a baseline records nothing."""
    runs = make_runs(*QUIET[:3], workload=make_workload(CASE), device=present().cpu)
    plan, case, made = recording(1000.0, *QUIET, stored=[baseline_of(runs)])

    assert (case.records, plan.to_store) == (False, [])
    assert not any(task.records for task in made)
    assert plan.judgement(CASE).verdict is Verdict.PASS


def test_runs_of_a_session_that_was_cut_off_count():
    """Two runs that are there leave one to be made before the first fresh one."""
    _, case, made = recording(*QUIET, resumed=2)

    assert [task.records for task in made] == [True, False]
    assert len(case.recorded_runs) == 3


def test_another_session_was_first():
    """What another session has stored meanwhile is judged by, without the note on one session."""
    plan, case, _ = recording(*QUIET)
    theirs = baseline_of(make_runs(500.0, 501.0, 499.0, workload=case.workload, device=present().cpu))
    plan.judge_by(case, theirs)

    assert plan.judgement(CASE).baseline == theirs
    assert not any("same session" in note for note in plan.judgement(CASE).notes)


def test_what_cannot_be_stored_is_no_baseline():
    """Where the file cannot be written the case stays without a baseline, with the reason, and all its runs."""
    plan, case, _ = recording(*QUIET)
    plan.not_stored(case, "the disk is full")

    assert plan.next(CASE) is None
    assert plan.judgement(CASE).verdict is Verdict.NO_BASELINE
    assert "the disk is full" in plan.judgement(CASE).reasons[0]
    assert len(plan.judgement(CASE).tgs_of_runs) == 4
