"""A loop around Accelerate as a trainer: the losses and the seconds of such a loop by hand."""

import time

import pytest
from clocks import agree

from trainpace.adapters import accelerate_loop

STEPS = 10


@pytest.fixture
def prepared():
    """Makes everything that the loop is made of."""
    pytest.importorskip("accelerate", reason="the loop is around Accelerate: tox run -e adapters")
    import accelerate
    import torch
    from toys import Model, data, optimizer_of

    def make(accumulation):
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        model = Model()
        optimizer = optimizer_of(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        loader = torch.utils.data.DataLoader(data(), batch_size=2, shuffle=False)
        model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)

        def update():
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

        return accelerator, model, update, loader, lambda model, batch: model(**batch)["loss"]

    return make


def by_hand(prepared, accumulation):
    """The loop of Accelerate's documentation: its losses."""
    accelerator, model, update, loader, loss_of = prepared(accumulation)
    losses = []
    for _, batch in zip(range(STEPS), loader, strict=False):
        with accelerator.accumulate(model):
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            update()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("accumulation", "warmup"), [(2, 2), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_losses_and_seconds(measured, prepared, accumulation, warmup):
    """Losses of a loop by hand; the seconds of a stopwatch around the loss and the optimizer within 2 %."""
    begun, ended, updates = [], [], []

    def build(context):
        accelerator, model, update, loader, loss_of = prepared(accumulation)
        backward = accelerator.backward

        def timed_backward(loss):
            backward(loss)
            ended.append(time.perf_counter())

        def timed_loss(model, batch):
            begun.append(time.perf_counter())
            return loss_of(model, batch)

        def timed_update():
            begin = time.perf_counter()
            update()
            if accelerator.sync_gradients:
                updates.append(time.perf_counter() - begin)

        accelerator.backward = timed_backward
        return accelerator, model, timed_update, loader, timed_loss

    window = measured(accelerate_loop(build), warmup=warmup, steps=STEPS - warmup, accumulation=accumulation)

    assert by_hand(prepared, accumulation) == pytest.approx(window["losses"], abs=1e-6)
    trained = [step - load for step, load in zip(window["seconds"], window["data_seconds"], strict=True)]
    clock = [end - begin for begin, end in zip(begun, ended, strict=True)][warmup:]
    assert agree(clock, trained)
    assert min(trained) > 0.02  # the model's
    kept = updates[-len(window["optimizer_seconds"]) :]
    assert agree(kept, window["optimizer_seconds"])
