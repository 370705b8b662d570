"""Which cases are trained once for several: proxies that are one computation."""

import pytest

from factories import CPU, make_run
from trainpace.app.hours import Selected
from trainpace.app.speed import same
from trainpace.cases import PUBLISHED
from trainpace.cases.machine import Device, Machine
from trainpace.cases.scaling import resolve
from trainpace.cost.estimate import counted_memory
from trainpace.judge.baseline import find
from trainpace.judge.refresh import baselines_of
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs

H100 = Device(slug="h100-sxm5-80gb", name="NVIDIA H100 80GB HBM3", kind="cuda", count=1, memory_bytes=85520809984)
MEMORY = counted_memory(load_costs(published_folder()).values())


def on_one_gpu(case, **options):
    """A published case on one H100."""
    return resolve(case, Machine(gpus=H100, cpu=CPU, free_bytes=1 << 40), memory=MEMORY, **options).workload


@pytest.fixture
def grouped():
    """The published cases by what makes them one computation on one H100."""
    groups = {}
    for case in PUBLISHED:
        workload = on_one_gpu(case)
        what, _ = same(Selected(test=case.id, case=case, trainer="native"), workload, by_features=False)
        groups.setdefault(what, []).append(workload)
    return list(groups.values())


def test_one_computation_is_one_group(grouped):
    """Of Llama2-7B three lengths are cut to the same on one GPU; nothing else than the case differs in a group."""
    together = [[workload.case for workload in group] for group in grouped]

    assert ["llama2_7b-128k-sp8", "llama2_7b-256k-sp8", "llama2_7b-1m-sp16"] in together
    assert all(len({each.model_copy(update={"case": ""}).hash for each in group}) == 1 for group in grouped)
    assert len({group[0].model_copy(update={"case": ""}).hash for group in grouped}) == len(grouped)


def test_a_full_case_is_trained_itself(grouped):
    """However alike the computations of whole cases may be, each is measured."""
    case = PUBLISHED[0]
    workload = on_one_gpu(case).model_copy(update={"scale": "full"})

    assert same(Selected(test="", case=case, trainer="native"), workload, by_features=False) is None


def test_they_have_one_baseline():
    """What one of them recorded the others are judged by; another computation is not."""
    cases = {case.id: case for case in PUBLISHED}
    recorded, other = (on_one_gpu(cases[name]) for name in ("llama2_7b-128k-sp8", "llama2_7b-256k-sp8"))
    stored = [*baselines_of([make_run(workload=recorded, device=H100)], H100.slug)]

    assert find(stored, other) == stored[0]
    assert find(stored, on_one_gpu(cases["llama2_7b-8k-sp1"])) is None
    assert find(stored, on_one_gpu(cases["llama2_7b-256k-sp8"], dtype="bf16", engine="fsdp2")) is None
