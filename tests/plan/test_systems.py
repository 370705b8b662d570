"""Several systems in rounds: who drops out, who the others are compared with, and whether they trained the same."""

from types import SimpleNamespace

import pytest

from factories import CPU, DATA, LOSSES, make_full_workload, make_run, make_workload
from trainpace.app.systems import compare
from trainpace.cases import PUBLISHED
from trainpace.cases.machine import Device
from trainpace.errors import RunFailed, Skipped
from trainpace.judge.command import Command
from trainpace.runs import flops
from trainpace.runs.verdict import Verdict

CASE = PUBLISHED[0]
A100 = Device(slug="a100-sxm4-80gb", name="NVIDIA A100-SXM4-80GB", kind="cuda", count=8, memory_bytes=80 << 30)


def compared(workload=make_workload, device=CPU, absent=(), **systems):
    """The finding of `systems`, by trainer: what a run of each is, or how it fails."""

    def measure(task, _):
        made = systems[task.side]
        if isinstance(made, Exception):
            return made
        run = make_run(workload=task.workload, device=device)
        samples = tuple(rank.model_copy(update=made.get("samples", {})) for rank in run.ranks)
        return run.model_copy(update={"ranks": samples, **made.get("run", {})})

    def check(description, _):
        if description.name in absent:
            raise Skipped(f"{description.title} is not installed")

    speed = SimpleNamespace(
        options=SimpleNamespace(trainers=tuple(systems), runs_per_case=2),
        workloads=SimpleNamespace(
            resolve=lambda case, trainer: SimpleNamespace(workload=workload(case.id, trainer=trainer)),
            device_of=lambda _: device,
        ),
        resources=SimpleNamespace(start_programs=lambda: SimpleNamespace(check=check)),
        driver=SimpleNamespace(measure=measure, commands={}),
    )
    return compare("test", CASE, speed, Command())


def footnotes(found, trainer):
    """Of one system, without those of its description."""
    (system,) = (each for each in found.systems.systems if each.trainer == trainer)
    return [text for text in system.footnotes if "losses" in text]


LOGS_NONE = {"samples": {"losses": None}, "run": {"source": "reported"}}


@pytest.mark.parametrize(
    ("native", "other", "said"),
    [
        ({}, {}, []),
        ({}, LOGS_NONE, ["losses not logged: not compared"]),
        (LOGS_NONE, {}, ["losses not compared: native (deepspeed) logs none"]),
        ({}, {"run": {"data": None}}, ["losses not compared: it does not say which tokens it trained on"]),
        (
            {"run": {"data": None}},
            {},
            ["losses not compared: native (deepspeed) does not say which tokens it trained on"],
        ),
        (
            {},
            {"run": {"data": DATA.model_copy(update={"seed": 1})}},
            ["losses not compared: it trained on other tokens than native (deepspeed)"],
        ),
    ],
    ids=["same", "logs none", "reference logs none", "data unknown", "reference's unknown", "other data"],
)
def test_losses_that_are_not_compared_are_a_footnote(native, other, said):
    """At the system that they are of; it is measured all the same."""
    found = compared(native=native, hf=other)

    assert [system.status for system in found.systems.systems] == ["measured", "measured"]
    assert footnotes(found, "hf") == said
    assert footnotes(found, "native") == []


def test_another_loss_is_another_job():
    """Who trained something else has no number."""
    found = compared(native={}, hf={"samples": {"losses": [2 * LOSSES[0]] * 43}})

    assert [system.status for system in found.systems.systems] == ["measured", "invalid"]
    assert "expected native (deepspeed)'s loss 6.2400 at step 0" in found.systems.systems[1].reason
    assert found.verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("wishes", "statuses"),
    [
        ({"native": RunFailed("exit status 1")}, ["invalid", "measured", "measured"]),
        ({"native": RunFailed("out of memory: 80 GiB")}, ["out of memory", "measured", "measured"]),
    ],
    ids=["invalid", "out of memory"],
)
def test_the_next_is_the_reference_where_the_first_drops_out(wishes, statuses):
    """All ratios are to it, and it says so."""
    found = compared(**wishes, hf={}, trl={})

    assert [system.status for system in found.systems.systems] == statuses
    assert [system.reference for system in found.systems.systems] == [False, True, False]
    assert found.systems.reference.trainer == "hf"
    assert [system.ratio for system in found.systems.systems] == [None, 1.0, 1.0]


def test_the_next_is_the_reference_where_the_first_is_absent():
    """As where it fails; nothing is wrong then."""
    found = compared(hf={}, trl={}, native={}, absent=["hf"])

    assert [system.status for system in found.systems.systems] == ["skipped", "measured", "measured"]
    assert found.systems.reference.trainer == "trl"
    assert found.verdict is Verdict.PASS


def test_one_alone_is_not_measured():
    """Nothing is called measured that was not, and nothing is said of the case."""
    found = compared(native={}, hf={}, absent=["hf"])

    assert [system.status for system in found.systems.systems] == ["skipped", "skipped"]
    assert found.systems.systems[0].reason == "not measured: no other system is there to be compared with"
    assert found.systems.reference is None
    assert found.verdict is Verdict.INCONCLUSIVE


def test_shares_of_the_peak_are_known_on_a_known_device():
    """MFU of every system, since they train one model; HFU of the native trainer alone, whose recompute is known."""
    found = compared(make_full_workload, A100, native={}, hf={})
    workload = make_full_workload()
    model, executed = flops.model_flops(workload), flops.hardware_flops(workload)

    assert [system.mfu for system in found.systems.systems] == [
        pytest.approx(system.tgs * model / 312e12) for system in found.systems.systems
    ]
    assert [system.hfu for system in found.systems.systems] == [
        pytest.approx(found.systems.systems[0].tgs * executed / 312e12),
        None,
    ]
