"""Load by others: whose cores it is counted on, and who is named."""

import os

import pytest

from trainpace.cases.machine import Device, Machine
from trainpace.launch.health import health_of
from trainpace.probe.device import present
from trainpace.runs.run import Health

FIREFOX = {"pid": 4242, "name": "firefox", "cores": 0.9}
CODE = {"pid": 77, "name": "code", "cores": 0.1}


def samples(busy, own, *others, seconds=2.0):
    return {"window_seconds": seconds, "busy_cpu_seconds": busy, "own_cpu_seconds": own, "others": list(others)}


def told(*ranks, cores=None):
    """Of ranks on a machine where this many cores may be used; None: all that it has."""
    machine, cores = present(), cores or os.cpu_count()
    cpu = Device(slug="cpu", name="CPU", kind="cpu", count=cores, memory_bytes=1)
    return health_of(Machine(gpus=None, cpu=cpu, free_bytes=machine.free_bytes), "cpu", ranks, Health())


def test_the_rank_whose_core_is_busiest_decides():
    """Load on one rank's core makes the run invalid, whatever the others' give; it is said who it was."""
    found = told(samples(2.0, 1.99), samples(2.0, 1.0, FIREFOX, CODE), samples(2.0, 1.98, CODE))

    assert found.foreign_cores == pytest.approx(0.5)
    assert [each.name for each in found.others] == ["firefox", "code"]
    assert found.faults == (
        "other processes kept 0.50 of a rank's cores busy (limit 0.05): firefox (pid 4242) 0.90, code (pid 77) 0.10; "
        "end them, or keep them off these cores",
    )


def test_nobody_is_named_where_nobody_disturbed():
    """Of a quiet run no process of others is recorded."""
    assert told(samples(2.0, 1.95, CODE)) == Health(foreign_cores=(2.0 - 1.95) / 2)


def test_load_of_processes_that_ended():
    """Work of what has ended, or runs in another container, is found and has no name."""
    assert told(samples(2.0, 1.0)).faults == (
        "other processes kept 0.50 of a rank's cores busy (limit 0.05): none that still runs and can be seen here",
    )


@pytest.mark.parametrize(
    ("ranks", "cores"),
    [
        ([samples(2.0, 1.0)], 1 + (os.cpu_count() or 1)),
        ([samples(None, 1.0)], None),
        ([samples(0.0, 0.0, seconds=0.0)], None),
    ],
    ids=["a share of the cores", "cores that are not told", "no window"],
)
def test_load_that_cannot_be_told(ranks, cores):
    """Where load cannot be told the run has a note and no figure."""
    found = told(*ranks, cores=cores)

    assert found.foreign_cores is None
    assert found.notes == ("whether other processes disturbed the run cannot be told on this machine",)
