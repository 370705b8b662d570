"""What a trainer is: four parts that the step loop calls and times. A trainer has no clock and reports no speed.

    class Trainer:                                   # in ours/training.py, used as --perf-trainer ours.training:Trainer
        def setup(self, context): ...                # build the model, join the process group
        def load(self, step): ...                    # the next micro-batch of this rank
        def forward_backward(self, batch): ...       # returns the loss; leave it on the device
        def optimizer_step(self): ...                # after every `accumulation`-th step

`torch.distributed.init_process_group()` finds its rendezvous in the environment, as under torchrun. Whatever the module
imports at its top is imported once, before the ranks are forked: it must not initialise CUDA.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Context(Protocol):
    """What a rank knows when it sets up. Made by the step loop; fields are only ever added."""

    workload: Any
    """The fields of `trainpace.cases.Workload` as attributes (nested: `context.workload.shape.hidden`; None where the
    case says no shape). `shape.config` is a mapping."""
    rank: int
    local_rank: int
    world_size: int
    device: str
    """`cuda` (this rank's GPU is already current) or `cpu`."""
    data: Any
    """`sources` (files or hub names; none: the generated corpus), `tokenizer`, `skip_bad`, `seed`."""
    cache: Path
    """A folder that outlives the run and that ranks share."""
    note: Callable[[str], None]
    """Says in one line what is being done before the first step; restarts the clock that finds a hang."""


class Trainer(Protocol):
    """A system under test.

    Six attributes are read if they are there: `data_identity`, the fields of trainpace.runs.run.DataIdentity, so that
    losses are compared with the baseline's; `trained_on`, the fields of
    trainpace.runs.run.TrainedOn of each source, which reports show; `mean_attended`, the keys that a token attends to
    on average where documents are masked, without which the TFLOPs of such a run cannot be told; `flops_per_step`, the
    FLOPs of one micro-step on this rank, two a multiply-add: forward and backward, and nothing that is made again (a
    number, or a method without arguments); `whole_groups`, True where the optimizer can step after every
    `accumulation`-th micro-step alone, as in a library's own loop (trainpace/adapters); `notes`, sentences that reports
    show with the run. A method is called if it is there: `tokens(batch) -> int`, the tokens that a batch of `load`
    holds, where its shapes do not tell them.
    """

    def setup(self, context: Context) -> None:
        """Build everything that the first step needs."""

    def load(self, step: int) -> Any:
        """This rank's batch for micro-step `step`, counted from 0 over warm-up and measured steps.

        It holds `micro_batch` x `sequence` / `sp` tokens, or `sp` times as many where each of sp ranks has the whole;
        else the run is invalid. They are told by the shapes of its integer arrays (trainpace/rank/batch.py).
        """

    def forward_backward(self, batch: Any) -> Any:
        """One forward and backward. Returns the loss, a number or a tensor that is still on the device.

        The mean of all ranks' losses is the loss of the step.
        """

    def optimizer_step(self) -> None:
        """Apply and clear the accumulated gradients."""
