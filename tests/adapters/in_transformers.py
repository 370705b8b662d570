"""A user's own transformers Trainer; imported by tests that use it, since it takes seconds."""

import time

from toys import ASLEEP, Model, data, optimizer_of
from transformers import Trainer, TrainerCallback, TrainingArguments


class Told(TrainerCallback):
    """A clock at the Trainer's own callbacks."""

    def __init__(self):
        self.begun, self.ended, self.calls = [], [], []

    def on_step_begin(self, *_, **__):
        self.calls.append("begin")
        self.begun.append(time.perf_counter())

    def on_substep_end(self, *_, **__):
        self.calls.append("substep")

    def on_step_end(self, *_, **__):
        self.calls.append("end")
        self.ended.append(time.perf_counter())


class Ours(Trainer):
    """A user's own: sees each loss, takes its time, and has a clock."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.losses, self.seconds = [], []

    def training_step(self, *given, **named):
        begin = time.perf_counter()
        loss = super().training_step(*given, **named)
        time.sleep(ASLEEP)
        self.losses.append(loss.item() * self.args.gradient_accumulation_steps)
        self.seconds.append(time.perf_counter() - begin)
        return loss


def build(folder, accumulation=1, updates=14, **named):
    """With a schedule and clipping, which losses depend on."""
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, max_steps=updates, gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=2, max_grad_norm=0.1, lr_scheduler_type="linear", warmup_steps=3,
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True, seed=7, **named,
    )  # fmt: skip
    model = Model()
    return Ours(model, args, train_dataset=data(), optimizers=(optimizer_of(model), None), callbacks=[Told()])
