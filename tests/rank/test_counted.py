"""FLOPs of a step more: what is counted where, and what is said of what cannot be."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainpace.rank import counted

FORWARD = 2 * 2 * 16 * 32 * 64
"""Two products of 16 tokens."""


@torch.library.custom_op("trainpace_test::twice", mutates_args=())
def twice(given: torch.Tensor) -> torch.Tensor:
    """An operator of somebody else's."""
    return 2 * given


class Trainer:
    """Two linear layers and what a test puts between them."""

    def __init__(self, between=lambda hidden: hidden, recompute=None, frozen=False):
        self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 32)
        self.first.requires_grad_(not frozen)
        self.between, self.recompute = between, recompute

    def load(self, step):
        assert step == 7
        return torch.ones(16, 32, requires_grad=True)

    def forward_backward(self, batch):
        def layers(batch):
            return self.second(self.between(self.first(batch)))

        if self.recompute:
            made = checkpoint(layers, batch, use_reentrant=self.recompute == "reentrant")
        else:
            made = layers(batch)
        made.sum().backward()


def attention(hidden):
    """Four heads of 16, causal."""
    heads = hidden.view(1, 16, 4, 16).transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True).transpose(1, 2).flatten(2)[0]


PAIRS = 2 * 2 * 16 * 16 * 64 // 2
"""Scores and weighted sum, of half of the square."""


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        (Trainer(), ([FORWARD, 0], [0, 0], [2 * FORWARD, 0])),
        (Trainer(frozen=True), ([FORWARD, 0], [0, 0], [3 * FORWARD // 2, 0])),
        (Trainer(recompute="reentrant"), ([FORWARD, 0], [FORWARD, 0], [2 * FORWARD, 0])),
        # It ends before the last product, which nobody needs again.
        (Trainer(recompute="stopped"), ([FORWARD, 0], [FORWARD // 2, 0], [2 * FORWARD, 0])),
        (Trainer(attention), ([FORWARD, PAIRS], [0, 0], [2 * FORWARD, 5 * PAIRS // 2])),
    ],
    ids=["plain", "frozen", "recompute", "recompute that stops", "attention"],
)
def test_products_are_counted_where_they_are_made(trainer, expected):
    """In the forward, in what is made again, in the backward; attention apart, causal as half."""
    found = counted.count(trainer, 7)

    assert tuple(found[part] for part in ("forward", "recompute", "backward")) == expected
    assert (found["unknown"], found["compiled"]) == ({}, False)


def test_an_operator_without_a_formula_is_named():
    """What others add to torch may multiply; what torch has besides products does not."""
    found = counted.count(Trainer(lambda hidden: twice(hidden.detach()) + hidden.softmax(-1)), 7)

    assert found["unknown"] == {"trainpace_test.twice": 1}


def test_what_ends_the_step_is_said():
    """All that was asked for is measured already: a step more that fails is no failed run."""
    assert counted.count(Trainer(lambda hidden: hidden @ hidden), 7)["error"].startswith("RuntimeError: mat1 and mat2")


def test_what_is_done_to_load_is_no_part_of_the_step():
    """A library may evaluate between two steps."""

    class Evaluates(Trainer):
        def load(self, step):
            batch = super().load(step)
            self.first(batch)
            return batch

    assert counted.count(Evaluates(), 7)["forward"] == [FORWARD, 0]
