"""Lightning's Trainer as a trainer: the losses of its own `fit`, and the seconds of its own hooks."""

import pytest
from clocks import agree

from trainpace.adapters import lightning_trainer

STEPS = 10


@pytest.fixture
def ours():
    """A user's module and Trainer."""
    pytest.importorskip("pytorch_lightning", reason="needs Lightning: tox run -e adapters")
    import in_lightning

    return in_lightning


@pytest.mark.parametrize(("accumulation", "warmup"), [(1, 3), (2, 2)])
def test_losses_and_seconds(measured, ours, tmp_path, accumulation, warmup):
    """Losses of its own `fit`; the seconds of its hooks, of step and optimizer, within 2 %."""
    told = ours.Told()
    trainer = lightning_trainer(lambda _: ours.build(tmp_path, accumulation, told))
    window = measured(trainer, warmup=warmup, steps=STEPS - warmup, accumulation=accumulation)

    alone, module, loader = ours.build(tmp_path, accumulation, limit_train_batches=STEPS)
    alone.fit(module, loader)
    assert module.losses == pytest.approx(window["losses"], abs=1e-6)
    trained = [step - load for step, load in zip(window["seconds"], window["data_seconds"], strict=True)]
    clock = [end - begin for begin, end in zip(told.begun, told.trained, strict=False)][warmup:STEPS]
    assert agree(clock, window["seconds"])
    assert min(trained) > 2 * ours.ASLEEP  # the model's, and that of the user's training_step
    groups = slice(accumulation - 1, None, accumulation)
    clock = [end - begin for begin, end in zip(told.begun, told.ended, strict=False)][warmup:STEPS][groups]
    seconds = [step + last for step, last in zip(window["seconds"][groups], window["optimizer_seconds"], strict=True)]
    assert agree(clock, seconds)


def test_what_does_not_fit_is_said(measured, ours, tmp_path):
    """Another accumulation; a module that optimizes by hand."""
    by_hand = ours.Ours()
    by_hand.automatic_optimization = False

    with pytest.raises(ValueError, match="accumulate_grad_batches is 4 and the workload's accumulation 2"):
        measured(lightning_trainer(lambda _: ours.build(tmp_path, 4)))
    with pytest.raises(ValueError, match="Ours optimizes by hand"):
        measured(lightning_trainer(lambda _: (ours.build(tmp_path, 1)[0], by_hand, [])))
    with pytest.raises(TypeError, match="expected a Lightning Trainer first, got Ours"):
        measured(lightning_trainer(lambda _: (by_hand, by_hand, [])))
