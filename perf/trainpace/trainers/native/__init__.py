"""The native trainer: transformers' decoder, ZeRO-3 or FSDP2, Ulysses sequence parallelism, fused loss.

As the published rows were trained: full fine-tuning, batch 1 a GPU, accumulation = sp, AdamW, clipping, warm-up and
cosine, full activation checkpointing, plain causal attention across the packed sequence.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers.models.llama.modeling_llama  # noqa: F401 - the run host imports this module once, before the ranks fork
from torch import Tensor

from trainpace.data import packed
from trainpace.runs.flops import mean_attended
from trainpace.trainers.native.attention import Ulysses
from trainpace.trainers.native.engines import ENGINES
from trainpace.trainers.native.loss import IGNORED
from trainpace.trainers.native.model import CausalLm


class Native:
    """The trainer that the suite brings along."""

    def setup(self, context: Any) -> None:
        """Join the process group, map the packed tokens, build the sharded model."""
        workload = context.workload
        if context.device == "cuda" and workload.dtype != "bf16":
            raise ValueError(
                f"attention on a GPU needs --perf-dtype bf16, got {workload.dtype}: flash kernels have no other"
            )
        dist.init_process_group("nccl" if context.device == "cuda" else "gloo")
        self._take_place(workload, context.rank, context.device)
        micro_steps = workload.warmup + workload.steps
        self._data = packed(
            sources=context.data.sources,
            tokenizer=context.data.tokenizer,
            sequence=workload.sequence,
            count=micro_steps * self._replicas,
            seed=context.data.seed,
            cache=context.cache,
            progress=lambda done, text: context.note(f"{text} {done:.0%}"),
        )
        self.data_identity = self._data.identity
        measured = range(workload.warmup * self._replicas, micro_steps * self._replicas)
        if workload.attention == "varlen":
            self.mean_attended = mean_attended([size for row in measured for size in np.diff(self._ends(row))])
        context.note("building the model")
        self._build()

    def _take_place(self, workload: Any, rank: int, device: str) -> None:
        """Find this rank's place among those of the process group."""
        self._workload, self._device = workload, device
        # Ranks that share a sequence stand next to each other, within a node as far as sp fits one.
        self._replica, self._part = divmod(rank, workload.sp)
        self._ulysses = Ulysses(_sequence_group(rank, workload.ranks, workload.sp), workload.sp)
        self._replicas = workload.ranks // workload.sp

    def _model(self) -> CausalLm:
        return CausalLm(self._workload.shape, self._workload.sequence)

    def _build(self, **settings: Any) -> None:
        """Make the sharded model and its optimizer; `settings` are the engine's own."""
        workload = self._workload
        total = 2 + workload.steps // workload.accumulation
        self._engine = ENGINES[workload.engine](self._model, workload, self._device, total=total, **settings)

    def load(self, step: int) -> dict[str, Any]:
        """This rank's part of its replica's sequence: ids, labels of the next token, positions, document ends."""
        workload = self._workload
        # A profile asks for a few steps beyond those that were packed.
        index = step % (workload.warmup + workload.steps) * self._replicas + self._replica
        labels = np.append(self._data.labels[index, 1:], IGNORED)
        tokens = workload.sequence // workload.sp
        mine = slice(self._part * tokens, (self._part + 1) * tokens)
        if workload.attention == "varlen":
            ends = self._ends(index)
            positions = np.arange(workload.sequence) - np.repeat(ends[:-1], np.diff(ends))
        else:
            # On purpose, as published: attention and positions run on across the documents of a sequence.
            ends = np.array([0, workload.sequence])
            positions = np.arange(workload.sequence)
        return {
            "tokens": self._put(self._data.ids[index, mine], torch.int64),
            "labels": self._put(labels[mine], torch.int64),
            "positions": self._put(positions[mine], torch.int64),
            "document_ends": self._put(ends, torch.int32),
            "longest": int(np.diff(ends).max()),
            "judged": max(1, int((labels != IGNORED).sum())),
        }

    def forward_backward(self, batch: dict[str, Any]) -> Tensor:
        """One micro-step. Returns this rank's share of the mean loss, times sp: the ranks' mean is the loss."""
        judged = batch.pop("judged")
        loss = self._engine.forward(**batch, ulysses=self._ulysses) * (self._workload.sp / judged)
        self._engine.backward(loss)
        return loss.detach()

    def optimizer_step(self) -> None:
        """Clip, AdamW, schedule."""
        self._engine.step()

    def _ends(self, index: int) -> np.ndarray[Any, Any]:
        """Where the documents of one sequence begin, and its length."""
        return np.append(self._data.document_starts(index), self._workload.sequence)

    def _put(self, values: np.ndarray[Any, Any], dtype: torch.dtype) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
        if self._device == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _sequence_group(rank: int, ranks: int, sp: int) -> dist.ProcessGroup | None:
    """The group of the ranks that share this rank's sequence; None where nothing is shared."""
    if sp == 1:
        return None
    groups = [list(range(first, first + sp)) for first in range(0, ranks, sp)]
    mine = [dist.new_group(members) for members in groups][rank // sp]
    assert isinstance(mine, dist.ProcessGroup)
    return mine


trainer = Native
