"""Which cases are trained once for several: proxies that are one computation."""

import re

import pytest

from factories import CARDS, make_gpus, make_run
from trainpace.app.driver import Driver
from trainpace.app.hours import Selected
from trainpace.app.speed import same
from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import resolve
from trainpace.cost.estimate import counted_memory
from trainpace.judge.baseline import find
from trainpace.judge.refresh import baselines_of
from trainpace.launch import launcher
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs

MEMORY = counted_memory(load_costs(published_folder()).values())
H100 = make_gpus()
SEVERAL = ("llama2_7b-128k-sp8", "llama2_7b-256k-sp8", "llama2_7b-1m-sp16")


def on_one_gpu(case, **options):
    """A published case on one H100."""
    return resolve(case, H100, memory=MEMORY, **options).workload


def groups(machine):
    """The published cases by what makes them one computation on a machine: their workloads."""
    found = {}
    for case in PUBLISHED:
        workload = resolve(case, machine, memory=MEMORY).workload
        what, _ = same(Selected(test=case.id, case=case, trainer="native"), workload, by_features=False) or (
            case.id,
            "",
        )
        found.setdefault(what, []).append(workload)
    return list(found.values())


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("card", CARDS)
def test_no_computation_is_trained_twice(card, gpus):
    """On real cards: cases whose proxies are one computation are a group, and no two groups train the same."""
    grouped = groups(make_gpus(card, gpus))
    trained = [group[0].computation for group in grouped]

    assert len(set(trained)) == len(trained)
    assert all(each.computation == group[0].computation for group in grouped for each in group)
    assert all(len(group) == 1 for group in grouped if group[0].scale != "proxy")


def test_one_computation_is_one_group():
    """Of Llama2-7B three lengths are cut to the same on one GPU."""
    assert list(SEVERAL) in [[workload.case for workload in group] for group in groups(H100)]


OURS = f"""
import pytest
from trainpace.cases import PUBLISHED

@pytest.mark.parametrize("case", [case for case in PUBLISHED if case.id in {SEVERAL}], ids=str)
def test_ours(case, judge_speed):
    judge_speed(case)
"""


def test_a_group_is_trained_once(repository, pytester, monkeypatch):
    """A session measures, and estimates, the first of a group; the others are skipped and say whose run they go by."""
    trained = []

    def train(_, task):
        trained.append(task.workload.case)
        return make_run(workload=task.workload, device=H100.gpus)

    monkeypatch.setattr(launcher, "present", lambda: H100)
    monkeypatch.setattr(Driver, "train", train)
    (repository.path / "perf" / "test_ours.py").write_text(OURS)
    done = repository.inside(pytester, "--perf-trainer", "native", "-rs")

    assert trained == [SEVERAL[0]], done.text
    assert "GPU hours (1 from predicted)" in done.text
    assert re.search(rf"SKIPPED \[2\] .*: as {SEVERAL[0]}: cut to this machine it is the same", done.text), done.text


def test_a_full_case_is_trained_itself():
    """However alike the computations of whole cases may be, each is measured."""
    case = PUBLISHED[0]
    workload = on_one_gpu(case).model_copy(update={"scale": "full"})

    assert same(Selected(test="", case=case, trainer="native"), workload, by_features=False) is None


def test_they_have_one_baseline():
    """What one of them recorded the others are judged by; another computation is not."""
    cases = {case.id: case for case in PUBLISHED}
    recorded, other = (on_one_gpu(cases[name]) for name in ("llama2_7b-128k-sp8", "llama2_7b-256k-sp8"))
    stored = [*baselines_of([make_run(workload=recorded, device=H100.gpus)], H100.gpus.slug)]

    assert find(stored, other) == stored[0]
    assert find(stored, on_one_gpu(cases["llama2_7b-8k-sp1"])) is None
    assert find(stored, on_one_gpu(cases["llama2_7b-256k-sp8"], dtype="bf16", engine="fsdp2")) is None
