"""A native trainer that counts its own steps on real tensors, by other means than the trace's.

FLOPs by torch's FlopCounterMode. Collectives by a mode that notes, of each that passes the dispatcher, its kind and the
bytes that leave the rank. Rank 0 counts, and writes a line a step into the file TRAINPACE_COUNTS_OUT.
"""

import gc
import json
import os
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - the run host imports it once, ZeRO-3 in every rank
import torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from trainpace.trainers.native import Native

gc.freeze()  # what was imported is never garbage: every rank of ZeRO-3 looks for some

SHARE = {"all_gather": 1, "reduce_scatter": 1, "all_to_all": 1, "all_reduce": 2}


class Collectives(TorchDispatchMode):
    """Bytes that leave the rank, by kind."""

    def __init__(self, ranks, sp):
        super().__init__()
        self.ranks, self.sp = ranks, sp
        self.calls, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        name = str(func).replace("allgather", "all_gather").replace("allreduce", "all_reduce")
        kind = next((kind for kind in SHARE if f".{kind}" in name or f"._{kind}" in name), None)
        if "c10d" in name and kind:
            small, large = sorted((_size(args[0]), _size(args[1]) or _size(out)))
            ranks = self.sp if kind == "all_to_all" else self.ranks
            assert kind in {"all_to_all", "all_reduce"} or large == ranks * small
            self.calls[kind] += 1
            self.bytes[kind] += SHARE[kind] * large * (ranks - 1) // ranks
        return out


def _size(tensors):
    tensors = tensors if isinstance(tensors, list) else [tensors]
    return sum(each.nbytes for each in tensors if isinstance(each, torch.Tensor))


class Counting(Native):
    """The native trainer, counted."""

    def forward_backward(self, batch):
        """One micro-step and its counts."""
        if dist.get_rank():
            return super().forward_backward(batch)
        # What is counted below is not seen above: the FLOPs' mode stands on top and passes on.
        with self._collectives() as collectives, FlopCounterMode(display=False) as flops:
            loss = super().forward_backward(batch)
        by_operator = {str(name): count for name, count in flops.get_flop_counts()["Global"].items()}
        _write("step", collectives, by_operator)
        return loss

    def optimizer_step(self):
        """One optimizer step and its counts."""
        with self._collectives() if dist.get_rank() == 0 else nullcontext() as collectives:
            super().optimizer_step()
        if collectives:
            _write("optimizer", collectives, {})

    def _collectives(self):
        return Collectives(self._workload.ranks, self._workload.sp)


def _write(part, collectives, flops):
    with Path(os.environ["TRAINPACE_COUNTS_OUT"]).open("a") as file:
        line = {"part": part, "calls": collectives.calls, "bytes": collectives.bytes, "flops": flops}
        file.write(json.dumps(line) + "\n")
