"""Makes the files beside this one: losses of eight runs of a small decoder in bf16, which differ by the order of sums.

python tests/judge/losses/record.py fresh       # every step sees new tokens; half a minute a run
python tests/judge/losses/record.py by_heart    # four batches again and again: the loss falls to 0.02
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

RUNS, STEPS, BATCH, LENGTH, VOCABULARY, HIDDEN, LAYERS = 8, 500, 8, 24, 64, 48, 2
LEARNING_RATE = 0.01
"""High: what is small at first grows by all that it can."""


class Decoder(nn.Module):
    """Two layers, causal."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(LENGTH, HIDDEN)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(HIDDEN, 4, 2 * HIDDEN, 0.0, batch_first=True, norm_first=True)
            for _ in range(LAYERS)
        )
        self.head = nn.Linear(HIDDEN, VOCABULARY)
        mask = torch.triu(torch.full((LENGTH, LENGTH), float("-inf"), dtype=torch.bfloat16), 1)
        self.register_buffer("mask", mask)

    def forward(self, tokens):
        hidden = self.embed(tokens) + self.place.weight
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.mask)
        return self.head(hidden)


def batches(number):
    """Text whose every token depends on the one before: shape (number, BATCH, LENGTH + 1)."""
    chance = np.random.default_rng(5)
    following = chance.dirichlet(np.full(VOCABULARY, 0.05), size=VOCABULARY).cumsum(1)
    found = np.zeros((number, BATCH, LENGTH + 1), int)
    found[..., 0] = chance.integers(VOCABULARY, size=(number, BATCH))
    drawn = chance.random((number, BATCH, LENGTH))
    for at in range(LENGTH):
        last = (following[found[..., at]] < drawn[..., at, None]).sum(-1)
        found[..., at + 1] = np.minimum(last, VOCABULARY - 1)
    return torch.tensor(found)


def losses(data, seed):
    """Of one run; its seed orders the sums and nothing else."""
    torch.manual_seed(0)
    model = Decoder().bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    order, found = torch.Generator().manual_seed(1000 + seed), []
    for step in range(STEPS):
        batch, whole = data[step % len(data)][torch.randperm(BATCH, generator=order)], 0.0
        for part in batch.split(BATCH // 2):
            scores = model(part[:, :-1]).float().flatten(0, 1)
            loss = nn.functional.cross_entropy(scores, part[:, 1:].flatten()) / 2
            loss.backward()
            whole += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(f"{whole:.5g}"))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    data = batches({"fresh": STEPS, "by_heart": 4}[sys.argv[1]])
    lines = [json.dumps(losses(data, seed), separators=(",", ":")) for seed in range(RUNS)]
    Path(__file__).with_name(f"{sys.argv[1]}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
