"""One real step of the native trainer on this process alone, and torch's own count of it: forward, recompute, backward.

    of_a_real_step(workload) -> {"forward": {"aten.mm": 123, ...}, "recompute": {...}, "backward": {...}}

One rank, real tensors, FSDP2. What is made again is what runs within the profiler's range `recompute`.
"""

from collections import Counter
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from trainpace.trainers.native import Native

_range = torch.profiler.record_function


class Tokens:
    """Random sequences of `count` tokens, whose documents begin where `starts` say."""

    def __init__(self, rows, count, vocabulary, starts=(0,)):
        self.ids = np.random.default_rng(0).integers(0, vocabulary, (rows, count), dtype=np.int32)
        self.labels = self.ids
        self.starts = starts

    def document_starts(self, _row):
        """Where the documents of any row begin."""
        return np.array(self.starts)


class Alone(Native):
    """The native trainer in this process, on tensors with values."""

    def __init__(self, workload, starts=(0,)):
        self._take_place(workload, 0, "cpu")
        rows = (workload.warmup + workload.steps) * workload.micro_batch
        self._data = Tokens(rows, workload.sequence, workload.shape.vocabulary, starts)
        self._build()

    @property
    def model(self):
        """The sharded model."""
        return self._engine.model


@contextmanager
def group_of_one():
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def of_a_real_step(workload, starts=(0,)):
    """FLOPs that torch's FlopCounterMode counts, by phase and operator."""
    assert (workload.ranks, workload.engine) == (1, "fsdp2")
    found = {phase: Counter() for phase in ("forward", "recompute", "backward")}

    @contextmanager
    def counted(phase):
        mode = FlopCounterMode(display=False)
        try:  # what is made again ends early, with an exception
            with mode:
                yield
        finally:
            found[phase].update({str(name): flops for name, flops in mode.get_flop_counts().get("Global", {}).items()})

    def ranged(name, *rest):
        return counted("recompute") if name == "recompute" else _range(name, *rest)

    with group_of_one(), mock.patch.object(torch.profiler, "record_function", ranged):
        trainer = Alone(workload, starts)
        engine = trainer._engine
        phases = {"forward": engine.forward, "backward": engine.backward}
        for name, run in phases.items():
            setattr(engine, name, lambda *args, _name=name, _run=run, **more: _within(counted(_name), _run, args, more))
        trainer.forward_backward(trainer.load(0))
        trainer.optimizer_step()
    return {phase: dict(flops) for phase, flops in found.items()}


def _within(context, run, args, more):
    with context:
        return run(*args, **more)
