"""transformers' Trainer as a trainer: the losses of its own `train()`, and the seconds of its own callbacks."""

import pytest
from clocks import agree

from trainpace.adapters import transformers_trainer

STEPS = 10


@pytest.fixture
def ours():
    """A user's Trainer."""
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: tox run -e adapters")
    import in_transformers

    return in_transformers


def untouched(ours, folder, accumulation):
    """Losses of the first ten micro-steps of the Trainer's own loop, when nothing has to do with it."""
    trainer = ours.build(folder, accumulation)
    trainer.train()
    return trainer.losses[:STEPS]


@pytest.mark.parametrize(("accumulation", "warmup"), [(1, 2), (2, 2)])
def test_losses_and_seconds(measured, ours, tmp_path, accumulation, warmup):
    """Losses of its own `train()`; seconds of its callbacks and of the user's own `training_step` within 2 %."""
    made = []
    trainer = transformers_trainer(lambda _: made.append(ours.build(tmp_path, accumulation)) or made[0])
    window = measured(trainer, warmup=warmup, steps=STEPS - warmup, accumulation=accumulation)

    assert untouched(ours, tmp_path, accumulation) == pytest.approx(window["losses"], abs=1e-6)
    trained = [step - load for step, load in zip(window["seconds"], window["data_seconds"], strict=True)]
    assert agree(made[0].seconds[warmup:], trained)
    assert min(trained) > 2 * ours.ASLEEP  # the model's, and that of the user's training_step
    told = next(each for each in made[0].callback_handler.callbacks if isinstance(each, ours.Told))
    clock = [end - begin for begin, end in zip(told.begun, told.ended, strict=False)]
    groups = [sum(window["seconds"][at : at + accumulation]) for at in range(0, len(trained), accumulation)]
    seconds = [group + optimizer for group, optimizer in zip(groups, window["optimizer_seconds"], strict=True)]
    assert agree(clock[-len(seconds) :], seconds)
    assert told.calls[: accumulation + 1] == ["begin", *["substep"] * (accumulation - 1), "end"]
