"""A toy with torch whose ranks meet in a collective in every step."""

import torch
from torch import distributed
from toy_trainer import Toy


class MeetingToy(Toy):
    """Joins the process group, and waits for all in every step."""

    def setup(self, context):
        distributed.init_process_group("gloo")
        super().setup(context)

    def forward_backward(self, batch):
        loss = super().forward_backward(batch)
        distributed.all_reduce(torch.ones(1))
        return loss
