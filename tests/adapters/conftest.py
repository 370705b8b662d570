"""What tests of adapters share: the step loop around a trainer, in this process."""

import os
from types import SimpleNamespace

import pytest

from trainpace.rank import loop


@pytest.fixture(autouse=True)
def environment():
    """What libraries write into it for their own later use is not left to other tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def measured(monkeypatch):
    """Train with the step loop: what it measured. Nothing of the suite's own stands between two steps."""
    begun = []
    monkeypatch.setattr(loop, "yardstick", lambda: 1.0)

    def measure(trainer, warmup=2, steps=4, accumulation=2, enough=None):
        begun.append(trainer)
        workload = SimpleNamespace(warmup=warmup, steps=steps, accumulation=accumulation)
        trainer.setup(SimpleNamespace(workload=workload, device="cpu"))
        return loop.measure(trainer, workload, loop.CpuClock(), lambda *_, **__: None, watch=[], enough=enough)

    yield measure
    for trainer in begun:
        getattr(trainer, "close", lambda: None)()
