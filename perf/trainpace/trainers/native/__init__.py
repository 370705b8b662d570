"""The native trainer: transformers' decoder, ZeRO-3 or FSDP2, Ulysses sequence parallelism, fused loss.

As the published rows were trained: full fine-tuning, batch 1 a GPU, accumulation = sp, AdamW, clipping, warm-up and
cosine, full activation checkpointing, plain causal attention across the packed sequence.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers.models.llama.modeling_llama  # noqa: F401 - the run host imports this module once, before the ranks fork
from torch import Tensor

from trainpace.data import packed
from trainpace.runs.flops import mean_attended
from trainpace.trainers.native.attention import Ulysses, kernel
from trainpace.trainers.native.engines import ENGINES
from trainpace.trainers.native.loss import IGNORED
from trainpace.trainers.native.model import CausalLm


class Native:
    """The trainer that the suite brings along."""

    _note_backward: Callable[[], None] | None = None
    """Says that the backward is compiled next; None where it is not."""

    def setup(self, context: Any) -> None:
        """Join the process group, map the packed tokens, build the sharded model."""
        workload = context.workload
        # Told its device, NCCL connects here and not in the first step, and makes groups of parts of that connection.
        own = None if context.device == "cpu" else torch.device(context.device, context.local_rank)
        dist.init_process_group(dist.get_default_backend_for_device(context.device), device_id=own)
        self.kernels = {"attention": kernel(context.device)}
        self._take_place(workload, context.rank, context.device)
        micro_steps, batch = workload.warmup + workload.steps, workload.micro_batch
        self._data = packed(
            sources=context.data.sources,
            tokenizer=context.data.tokenizer,
            sequence=workload.sequence,
            count=micro_steps * self._replicas * batch,
            seed=context.data.seed,
            cache=context.cache,
            progress=lambda done, text: context.note(f"{text} {done:.0%}"),
            skip_bad=getattr(context.data, "skip_bad", False),  # an older base's step loop does not say it
        )
        self.data_identity, self.trained_on = self._data.identity, self._data.trained_on
        measured = range(workload.warmup * self._replicas * batch, micro_steps * self._replicas * batch)
        if workload.attention == "varlen":
            self.mean_attended = mean_attended([size for row in measured for size in np.diff(self._ends(row))])
        context.note("building the model")
        self._build()
        if workload.compile:
            from trainpace.trainers.native.compiled import compile_layers

            compile_layers(self._engine.model.layers, workload)
            # Both are compiled when they are first asked for; a line restarts the clock that finds a hang.
            context.note("compiling the layers (step 1)")
            self._note_backward = partial(context.note, "compiling the layers' backward (step 1)")

    def _take_place(self, workload: Any, rank: int, device: str) -> None:
        """Find this rank's place among those of the process group."""
        self._workload, self._device = workload, device
        # Ranks that share a sequence stand next to each other, within a node as far as sp fits one.
        self._replica, self._part = divmod(rank, workload.sp)
        self._ulysses = Ulysses(_sequence_group(rank, workload.ranks, workload.sp), workload.sp)
        self._replicas = workload.ranks // workload.sp

    def _model(self) -> CausalLm:
        return CausalLm(self._workload.shape, self._workload.sequence, self._workload.recompute)

    def _build(self, **settings: Any) -> None:
        """Make the sharded model and its optimizer; `settings` are the engine's own."""
        workload = self._workload
        total = 2 + workload.steps // workload.accumulation
        self._engine = ENGINES[workload.engine](self._model, workload, self._device, total=total, **settings)

    def load(self, step: int) -> dict[str, Any]:
        """This rank's part of its replica's micro-batch: ids, labels of the next token, positions, document ends.

        The sequences of a micro-batch follow each other as one, whose documents end at least where they do.
        """
        workload = self._workload
        self._last = optimizer_steps_after(step, workload)
        # A profile asks for a few steps beyond those that were packed.
        first = (step % (workload.warmup + workload.steps) * self._replicas + self._replica) * workload.micro_batch
        rows = range(first, first + workload.micro_batch)
        labels = np.concatenate([np.append(self._data.labels[row, 1:], IGNORED) for row in rows])
        ids = np.concatenate([self._data.ids[row] for row in rows])
        # On purpose, as published: without document masks attention and positions run on across a sequence's documents.
        own = [self._ends(row) if workload.attention == "varlen" else np.array([0, workload.sequence]) for row in rows]
        ends = np.concatenate([[0], *(each[1:] + place * workload.sequence for place, each in enumerate(own))])
        positions = np.arange(len(ids)) - np.repeat(ends[:-1], np.diff(ends))
        tokens = len(ids) // workload.sp
        mine = slice(self._part * tokens, (self._part + 1) * tokens)
        return {
            "tokens": self._put(ids[mine], torch.int64),
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
        if self._note_backward is not None:
            self._note_backward()
            self._note_backward = None
        self._engine.backward(loss, last=self._last)
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


def optimizer_steps_after(step: int, workload: Any) -> bool:
    """Whether the step loop has the optimizer step after micro-step `step`, 0 the first of the warm-up."""
    measured = step - workload.warmup
    if measured < 0:
        return measured == -1
    return (measured + 1) % workload.accumulation == 0 or measured >= workload.steps - 1


def _sequence_group(rank: int, ranks: int, sp: int) -> dist.ProcessGroup | None:
    """The group of the ranks that share this rank's sequence; None where nothing is shared."""
    if sp == 1:
        return None
    groups = [list(range(first, first + sp)) for first in range(0, ranks, sp)]
    mine = [dist.new_group(members) for members in groups][rank // sp]
    assert isinstance(mine, dist.ProcessGroup)
    return mine


trainer = Native
