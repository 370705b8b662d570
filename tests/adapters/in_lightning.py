"""A user's own Lightning module and Trainer; imported by tests that use it, since it takes seconds."""

import time

import pytorch_lightning as lightning
import torch
from toys import ASLEEP, Model, data, optimizer_of


class Ours(lightning.LightningModule):
    """A user's own: sees each loss, and takes its time."""

    def __init__(self):
        super().__init__()
        self.model, self.losses = Model(), []

    def training_step(self, batch, index):
        time.sleep(ASLEEP)
        loss = self.model(**batch)["loss"]
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = optimizer_of(self.model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Told(lightning.Callback):
    """A clock at Lightning's own hooks."""

    def __init__(self):
        self.begun, self.trained, self.ended = [], [], []

    def on_train_batch_start(self, *_):
        self.begun.append(time.perf_counter())

    def on_after_backward(self, *_):
        self.trained.append(time.perf_counter())

    def on_train_batch_end(self, *_):
        self.ended.append(time.perf_counter())


def build(folder, accumulation, told=None, devices=1, **named):
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, max_epochs=1, accumulate_grad_batches=accumulation, gradient_clip_val=0.1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[told or Told()], **named,
    )  # fmt: skip
    return trainer, Ours(), torch.utils.data.DataLoader(data(), batch_size=2)
