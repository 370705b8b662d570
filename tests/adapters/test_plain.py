"""A plain loop as a trainer: losses of a loop by hand, seconds of a stopwatch. Without torch."""

import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import pytest
from clocks import agree

from trainpace.adapters import plain_loop

ASLEEP = 0.02


class Loss:
    """A number with a gradient."""

    def __init__(self, model, target, share=1):
        self.model, self.target, self.share = model, target, share

    def __truediv__(self, number):
        return Loss(self.model, self.target, self.share * number)

    def backward(self):
        self.model.gradient += 2 * (self.model.weight - self.target) / self.share
        time.sleep(ASLEEP)

    def detach(self):
        return (self.model.weight - self.target) ** 2


class Model:
    """One weight, and what moves it."""

    def __init__(self):
        self.weight, self.gradient = 1.0, 0.0

    def step(self):
        time.sleep(ASLEEP)
        self.weight -= 0.1 * self.gradient

    def zero_grad(self):
        self.gradient = 0.0


def by_hand(accumulation, steps):
    """The same in a loop of one's own: its losses."""
    model, losses = Model(), []
    for step in range(steps):
        loss = Loss(model, step % 3)
        (loss / accumulation).backward()
        losses.append(loss.detach())
        if (step + 1) % accumulation == 0:
            model.step()
            model.zero_grad()
    return losses


@pytest.mark.parametrize(("accumulation", "warmup"), [(1, 3), (2, 2)])
def test_losses_and_seconds(measured, accumulation, warmup):
    """Ten micro-steps: the losses of a loop by hand, and a stopwatch's seconds of step and optimizer within 2 %."""
    model, begun, ended, updates = Model(), [], [], []

    class Timed(Loss):
        def __truediv__(self, number):
            return Timed(self.model, self.target, number)

        def backward(self):
            super().backward()
            ended.append(time.perf_counter())

    def batches():
        for step in count():
            begun.append(time.perf_counter())
            yield step % 3

    def update():
        begin = time.perf_counter()
        model.step()
        model.zero_grad()
        updates.append(time.perf_counter() - begin)

    trainer = plain_loop(lambda _: (model, update, batches(), Timed))
    window = measured(trainer, warmup=warmup, steps=10 - warmup, accumulation=accumulation)

    assert by_hand(accumulation, 10) == pytest.approx(window["losses"], abs=1e-6)
    clock = [end - begin for begin, end in zip(begun, ended, strict=True)][warmup:]
    assert agree(clock, window["seconds"])
    kept = updates[-len(window["optimizer_seconds"]) :]
    assert agree(kept, window["optimizer_seconds"])
    assert len(updates) == 10 // accumulation


def test_batches_begin_anew(measured):
    """A list is read again; an optimizer is asked for both of its parts."""
    window = measured(plain_loop(lambda _: (model := Model(), model, [0, 1, 2], Loss)), accumulation=1, warmup=1)

    assert by_hand(1, 5) == pytest.approx(window["losses"])


@pytest.mark.parametrize(
    ("built", "error", "said"),
    [
        (lambda _: (Model(), Model(), [0]), TypeError, r"returns \(model, optimizer, batches, loss\), got 3 parts"),
        (lambda _: None, TypeError, "got NoneType"),
        (
            lambda _: (Model(), 0.1, [0], Loss),
            TypeError,
            "expected an optimizer, or a function that applies .* got float",
        ),
        (lambda _: (Model(), print, [0], lambda *_: (1.0, 2)), TypeError, r"must return the mean loss .*, got tuple"),
        (
            lambda _: (Model(), print, [0], lambda *_: SimpleNamespace(backward=print, shape=(2, 3))),
            TypeError,
            r"a tensor of one number .* got one of \[2, 3\]",
        ),
        (lambda _: (model := Model(), model, iter([0]), Loss), ValueError, "no batches are left: a generator ends"),
    ],
)
def test_what_is_wrong_is_said(measured, built, error, said):
    """What was expected of the function, and what came."""
    with pytest.raises(error, match=said):
        measured(plain_loop(built), accumulation=1, warmup=1)


def test_importing_adapters_imports_no_library():
    """Not torch, nor what they are around: a run host preloads the user's module, and a plain loop needs none."""
    script = "import sys, trainpace.adapters as a; print([n for n in sys.argv[1:] if n in sys.modules], len(a.__all__))"
    libraries = ["torch", "transformers", "accelerate", "lightning", "pytorch_lightning", "greenlet", "numpy"]
    command = [sys.executable, "-c", script, *libraries]

    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[] 4\n"
