"""A native trainer that writes its whole gradients and its loss to a file before its first optimizer step."""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from perf.trainers.native import Native


class Parity(Native):
    """`PARITY_OUT` names the file; every replica is given the same sequences, so that only sp differs."""

    def setup(self, context):
        super().setup(context)
        self._losses = []
        self._replicas_of_data, self._replicas, self._replica = self._replicas, 1, 0

    def forward_backward(self, batch):
        loss = super().forward_backward(batch)
        self._losses.append(loss)
        return loss

    def optimizer_step(self):
        out = Path(os.environ["PARITY_OUT"])
        loss = torch.stack(self._losses).mean()
        dist.all_reduce(loss)
        grads = {name: _whole_gradient(parameter) for name, parameter in self._engine.model.named_parameters()}
        if dist.get_rank() == 0 and not out.exists():
            torch.save({"loss": loss / dist.get_world_size(), "grads": grads}, out)
        super().optimizer_step()


def _whole_gradient(parameter):
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter).clone()
    return parameter.grad.full_tensor()
