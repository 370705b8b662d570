"""Process groups of toys."""

import tempfile

import pytest

from factories import make_workload
from repository import TOY
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.probe.device import present


@pytest.fixture
def fleet(tmp_path, monkeypatch, started):
    """Runs toys; a run without a step for three seconds has hung."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sides = {"here": Side(checkout=TOY)}
    with Distributed(machine=present(), cache=tmp_path / "cache", step_timeout=3.0, sides=sides) as distributed:
        yield distributed


@pytest.fixture
def toy():
    """A short workload of a toy; `wishes` as in tests/toy/toy_trainer.py."""

    def make(trainer="toy_trainer:Toy", **wishes):
        shape = make_workload().shape.model_copy(update={"config": wishes})
        return make_workload(shape=shape, trainer=trainer, engine="own", ranks=2, warmup=2, steps=4)

    return make
