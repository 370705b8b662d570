"""A native trainer that keeps its first step's loss and whole gradients in the folder TRAINPACE_PARITY_OUT."""

import gc
import os
from pathlib import Path

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - the run host imports it once, ZeRO-3 in every rank
import torch
import torch.distributed as dist
import torch.distributed.fsdp

from trainpace.trainers.native import Native

gc.freeze()  # what was imported is never garbage: every rank of ZeRO-3 looks for some


class Parity(Native):
    """The native trainer, looked at before its first optimizer step."""

    def forward_backward(self, batch):
        """Remember the loss."""
        self._loss = super().forward_backward(batch)
        return self._loss

    def optimizer_step(self):
        """Write what is to be compared; the suite needs one more step, which is not."""
        workload = self._workload
        out = Path(os.environ["TRAINPACE_PARITY_OUT"], workload.tags[0])
        loss = self._loss.clone()
        dist.all_reduce(loss)
        grads = {name: _whole(parameter) for name, parameter in self._engine.model.named_parameters()}
        if dist.get_rank() == 0 and not out.exists():
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            torch.save({"loss": loss / dist.get_world_size(), "grads": grads, "graphs": graphs}, out)
        super().optimizer_step()


def _whole(parameter):
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter).clone()
    return parameter.grad.full_tensor()
