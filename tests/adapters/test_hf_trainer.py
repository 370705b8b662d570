"""transformers' Trainer as a trainer: the losses of its own `train()`, and the seconds of its own callbacks."""

from itertools import islice

import pytest
from clocks import agree

from trainpace.adapters import transformers_trainer
from trainpace.adapters.hf_trainer import _Group


def samples(iterator, number, device):
    """As the Trainer's own `get_batch_samples`: a group, shorter at an epoch's end."""
    return list(islice(iterator, number)), device


@pytest.mark.parametrize(
    ("accumulation", "taken"),
    [(2, [2, 2, 4, 4, 6, 6, 7]), (3, [4, 5, 6, 7, 7, 7, 7])],
)
def test_batches_of_a_large_group_are_fetched_one_a_step(accumulation, taken):
    """The Trainer's groups are the same; of three or more each micro-step fetches one of the next group."""
    drawn = []
    epoch = iter(drawn.append(number) or number for number in range(7))
    group, groups, after = _Group(samples, accumulation), [], []
    for step in range(7):
        if step % accumulation == 0:
            groups.append(group.samples(epoch, accumulation, "cpu"))
        group.fetch()
        after.append(len(drawn))

    assert [number for found, _ in groups for number in found] == list(range(7))
    assert {device for _, device in groups} == {"cpu"}
    assert after == taken
    assert group.samples(iter("ab"), accumulation, "cpu")[0] == ["a", "b"]  # the next epoch


def test_no_batch_is_lost_that_was_fetched_too_early():
    """More than a group is ready: the rest is the next group's."""
    epoch, group = iter(range(9)), _Group(samples, 3)
    group.samples(epoch, 0, "cpu")
    for _ in range(5):
        group.fetch()

    assert [group.samples(epoch, 3, "cpu")[0] for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.fixture
def ours():
    """A user's Trainer."""
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: tox run -e adapters")
    import in_transformers

    return in_transformers


def untouched(ours, folder, accumulation):
    """Losses of the Trainer's own loop, when nothing has to do with it."""
    trainer = ours.build(folder, accumulation)
    trainer.train()
    return trainer.losses


@pytest.mark.parametrize(
    ("accumulation", "warmup", "steps"),
    [(2, 2, 10), pytest.param(1, 2, 10, marks=pytest.mark.slow), pytest.param(4, 4, 12, marks=pytest.mark.slow)],
)
def test_losses_and_seconds(measured, ours, tmp_path, accumulation, warmup, steps):
    """Losses of its own `train()`; seconds of its callbacks and of the user's own `training_step` within 2 %."""
    made = []
    trainer = transformers_trainer(lambda _: made.append(ours.build(tmp_path, accumulation)) or made[0])
    window = measured(trainer, warmup=warmup, steps=steps - warmup, accumulation=accumulation)

    assert untouched(ours, tmp_path, accumulation)[:steps] == pytest.approx(window["losses"], abs=1e-6)
    trained = [step - load for step, load in zip(window["seconds"], window["data_seconds"], strict=True)]
    assert agree(made[0].seconds[warmup:steps], trained)
    assert min(trained) > 2 * ours.ASLEEP  # the model's, and that of the user's training_step
    told = next(each for each in made[0].callback_handler.callbacks if isinstance(each, ours.Told))
    clock = [end - begin for begin, end in zip(told.begun, told.ended, strict=False)]
    groups = [sum(window["seconds"][at : at + accumulation]) for at in range(0, len(trained), accumulation)]
    seconds = [group + optimizer for group, optimizer in zip(groups, window["optimizer_seconds"], strict=True)]
    assert agree(clock[-len(seconds) :], seconds)
    assert told.calls[: accumulation + 1] == ["begin", *["substep"] * (accumulation - 1), "end"]
