"""A model of torch whose forward and optimizer take known times, and its data: what each library trains in tests."""

import time

import torch
from torch.nn.functional import cross_entropy

ASLEEP = 0.02
"""Seconds of a forward, and of an optimizer step."""
VOCABULARY, TOKENS = 11, 8


class Model(torch.nn.Module):
    """Bigrams, with dropout: a step more or less, or in another order, draws other numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scores = torch.nn.Sequential(
            torch.nn.Embedding(VOCABULARY, 16), torch.nn.Dropout(0.1), torch.nn.Linear(16, VOCABULARY)
        )

    def forward(self, input_ids, labels=None):
        time.sleep(ASLEEP)
        return {"loss": cross_entropy(self.scores(input_ids[:, :-1]).flatten(0, 1), labels[:, 1:].flatten())}


class Optimizer(torch.optim.AdamW):
    """Takes its time."""

    def step(self, closure=None):
        loss = super().step(closure)
        time.sleep(ASLEEP)
        return loss


def optimizer_of(model):
    return Optimizer(model.parameters(), lr=0.05)


def data(number=400):
    """Sequences, each with its labels."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (number, TOKENS), generator=draw)
    return [{"input_ids": each, "labels": each} for each in ids]
