"""A trainer that trains nothing: its steps time a fixed product and the two collectives between nodes, in turn.

It runs where trainers do (launch/preflight.py asks for it), so that what is measured goes the way that a run goes:
the same launcher, the same processes, the same interfaces.
"""

import torch
from torch import distributed

KINDS = ("compute", "all_reduce", "all_to_all")
"""What a step times: step k does KINDS[k % 3]."""
GPU_PRODUCTS = 150
"""Products of a step on a GPU: eight such steps keep an H100 busy for 2 s and an A100 for 5. In less a GPU reaches
neither its clock under load nor its temperature."""


class Bandwidth:
    """`workload.sequence` elements of float32 on every rank."""

    def setup(self, context):  # type: ignore[no-untyped-def]
        """Join the process group, make the buffers."""
        distributed.init_process_group(distributed.get_default_backend_for_device(context.device))
        workload = context.workload
        # Random numbers: a GPU that multiplies constants needs less power, and is faster than in training.
        self._buffer = torch.randn(workload.sequence, device=context.device)
        self._received = torch.empty_like(self._buffer)
        self._factor = torch.randn(workload.shape.hidden, workload.shape.hidden, device=context.device).bfloat16()
        self._product = torch.empty_like(self._factor)
        self._repeat = 1 if context.device == "cpu" else GPU_PRODUCTS

    def load(self, step: int) -> str:
        """The kind of step `step`, one of KINDS."""
        return KINDS[step % len(KINDS)]

    def forward_backward(self, kind: str) -> float:
        """Issue the step's work; a loss of 0, for nothing is trained."""
        if kind == "all_reduce":
            distributed.all_reduce(self._buffer, op=distributed.ReduceOp.MAX)  # nothing grows
        elif kind == "all_to_all":
            distributed.all_to_all_single(self._received, self._buffer)
        else:
            for _ in range(self._repeat):
                torch.mm(self._factor, self._factor, out=self._product)
        return 0.0

    def optimizer_step(self) -> None:
        """Nothing is trained; but ranks stay together."""
        distributed.barrier()
