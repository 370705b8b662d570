"""What the judging side sees of a run's window by its own clock."""

import os
import subprocess
import sys

import pytest

from factories import make_workload
from repository import TOY, one_core
from trainpace.judge.claims import claim_faults, clock_fault
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.probe.device import present

PAIRS = 200


@pytest.fixture
def train(tmp_path, started):
    """Trains a toy once."""
    sides = {"here": Side(checkout=TOY)}
    with Distributed(machine=present(), cache=tmp_path / "cache", step_timeout=60.0, sides=sides) as distributed:
        yield distributed.run


def toy(*, ranks, steps, seconds):
    """A workload of the toy."""
    shape = make_workload().shape.model_copy(update={"config": {"seconds": seconds, "optimizer": 0.001}})
    return make_workload(shape=shape, trainer="toy_trainer:Toy", engine="own", ranks=ranks, warmup=2, steps=steps)


def test_every_rank_has_a_window(train):
    """What a rank claims fits into what was seen of it, and the window is known more closely than by a poll a run."""
    run = train(toy(ranks=2, steps=20, seconds=0.02))

    assert not claim_faults(run)
    for samples in run.ranks:
        assert samples.claimed_seconds <= samples.observed.most
        assert samples.observed.most - samples.observed.least < samples.claimed_seconds


@pytest.fixture
def loaded_core():
    """This process and all that it starts on one core, which two others keep busy."""
    present_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one_core())
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for other in others:
        other.kill()
        other.wait()
    os.sched_setaffinity(0, present_cores)


@pytest.mark.slow
def test_unchanged_code_on_a_busy_core_is_valid(loaded_core, train):
    """200 pairs of the same code, where the rank, two strangers and the judging side share a core: none is at fault."""
    workload = toy(ranks=1, steps=10, seconds=0.03)
    runs = [train(workload) for _ in range(2 * PAIRS)]

    assert not [fault for run in runs for fault in claim_faults(run)]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    assert not [fault for base, head in pairs if (fault := clock_fault(base, head, 0.05))]
