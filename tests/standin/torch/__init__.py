"""Stands for torch where docs/tutorial.md is run by the tests: a step sleeps as long as its tokens ask for.

A forward of n tokens takes n units, its backward twice as many.
"""

import contextlib
import time
from types import SimpleNamespace

import numpy as np

from torch import distributed, nn  # noqa: F401 - torch's own import these too

UNIT = 2e-5
"""Seconds of a token in a forward: 512 tokens take 10 ms."""


class Generator:
    """Draws the same ids every time."""

    def manual_seed(self, seed):
        self.draw = np.random.default_rng(seed)
        return self


def manual_seed(seed):
    """Nothing here is drawn at random but ids."""


def randint(high, shape, *, generator=None, device="cpu"):
    """Ids, as NumPy has them."""
    draw = generator.draw if generator else np.random.default_rng(0)
    return draw.integers(0, high, shape)


@contextlib.contextmanager
def no_grad():
    """A forward alone."""
    yield


class Guessed:
    """Logits, and what is made of them."""

    def __init__(self, ids):
        self.ids = ids

    def argmax(self, _):
        """The most likely ids: those that came."""
        return Array(self.ids)

    def detach(self):
        return self

    def __getitem__(self, place):
        return Guessed(self.ids[place])


class Array(np.ndarray):
    """With the method of a tensor that the page calls."""

    def __new__(cls, ids):
        return np.asarray(ids).view(cls)

    def float(self):
        return self.astype(float)


class Loss:
    """Its backward sleeps."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __truediv__(self, _):
        return self

    def backward(self):
        time.sleep(2 * UNIT * self.tokens)

    def detach(self):
        return 6.9


class AdamW:
    """Steps at once."""

    def __init__(self, parameters):
        self.parameters = list(parameters)

    def step(self):
        """Nothing is trained."""

    def zero_grad(self):
        """Nothing is there."""


optim = SimpleNamespace(AdamW=AdamW)


def set_num_threads(number):
    """Sleeping takes none."""
