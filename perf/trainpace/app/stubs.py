"""What `init` writes into a user's repository: a case, and a trainer to be made theirs. Text alone."""

CASE = '''\
"""What this repository promises of its training speed."""

import pytest

from trainpace.cases import Case

CASES = [Case.of("{name}", tokens=2048, gpus=1)]


@pytest.mark.perf_trainer("{trainer}")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_{name}(case, judge_speed):
    """No slower than its baseline."""
    judge_speed(case)
'''

_FOUR_PARTS = '''\
"""What is measured: the four parts of a trainer (docs/own-trainer.md of trainpace)."""

import numpy as np

# A placeholder, so that there is something to run. Put your own model, data and steps in its place.


class Trainer:
    def setup(self, context):  # once, in every rank
        workload = context.workload
        self.tokens = workload.micro_batch * workload.sequence // workload.sp
        self.draw = np.random.default_rng(context.rank)
        self.weights = np.random.default_rng(0).normal(0, 0.02, (512, 512))
        self.gradient = np.zeros_like(self.weights)

    def load(self, step):  # this rank's batch: micro_batch x sequence / sp tokens
        return self.draw.integers(0, 512, self.tokens)

    def forward_backward(self, ids):  # returns the loss
        scores = self.weights[ids]
        target = np.roll(ids, -1)
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(self.tokens), target]).mean()
        shares[np.arange(self.tokens), target] -= 1
        np.add.at(self.gradient, ids, shares / self.tokens)
        return float(loss)

    def optimizer_step(self):  # after every `accumulation`-th micro-step
        self.weights -= 0.1 * self.gradient
        self.gradient[:] = 0


trainer = Trainer
'''

_PLAIN = '''\
"""What is measured: your training loop, by trainpace.adapters.plain_loop."""

import torch
from torch.nn.functional import cross_entropy
from trainpace.adapters import plain_loop


@plain_loop
def trainer(context):
    # A placeholder, so that there is something to run. Import and return your own four instead.
    workload = context.workload
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(512, 64), torch.nn.Linear(64, 512)).to(context.device)
    optimizer = torch.optim.AdamW(model.parameters())
    batches = [torch.randint(512, (workload.micro_batch, workload.sequence), device=context.device)]

    def loss(model, ids):
        return cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    return model, optimizer, batches, loss
'''

_TRANSFORMERS = '''\
"""What is measured: your transformers.Trainer, by trainpace.adapters.transformers_trainer."""

import tempfile

import torch
from trainpace.adapters import transformers_trainer
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments


@transformers_trainer
def trainer(context):
    # A placeholder, so that there is something to run. Return your own Trainer instead; what it must take from the
    # workload are the two sizes of a batch below.
    workload = context.workload
    args = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=workload.micro_batch,
        gradient_accumulation_steps=workload.accumulation,
        max_steps=1000,
        use_cpu=context.device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(num_attention_heads=4, num_key_value_heads=2, **sizes))
    ids = torch.randint(512, (64, workload.sequence))
    data = [{"input_ids": each, "labels": each} for each in ids]
    return Trainer(model, args, train_dataset=data)
'''

_ACCELERATE = '''\
"""What is measured: your loop around Accelerate, by trainpace.adapters.accelerate_loop."""

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from trainpace.adapters import accelerate_loop


@accelerate_loop
def trainer(context):
    # A placeholder, so that there is something to run. Import and return your own five instead.
    workload = context.workload
    accelerator = Accelerator(gradient_accumulation_steps=workload.accumulation, cpu=context.device == "cpu")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(512, 64), torch.nn.Linear(64, 512))
    data = torch.randint(512, (64, workload.sequence))
    batches = torch.utils.data.DataLoader(data, batch_size=workload.micro_batch)
    model, optimizer, batches = accelerator.prepare(model, torch.optim.AdamW(model.parameters()), batches)

    def loss(model, ids):
        return cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    return accelerator, model, optimizer, batches, loss
'''

_LIGHTNING = '''\
"""What is measured: your Lightning Trainer, by trainpace.adapters.lightning_trainer."""

import tempfile

import {package} as lightning
import torch
from torch.nn.functional import cross_entropy
from trainpace.adapters import lightning_trainer


class Placeholder(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Embedding(512, 64), torch.nn.Linear(64, 512))

    def training_step(self, ids, number):
        return cross_entropy(self.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


@lightning_trainer
def trainer(context):
    # A placeholder, so that there is something to run. Return your own Trainer, module and data instead.
    workload = context.workload
    trainer = lightning.Trainer(
        accelerator="cpu" if context.device == "cpu" else "gpu",
        devices=1,
        max_epochs=1,
        accumulate_grad_batches=workload.accumulation,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.mkdtemp(),
    )
    torch.manual_seed(0)
    data = torch.randint(512, (1000 * workload.micro_batch, workload.sequence))
    return trainer, Placeholder(), torch.utils.data.DataLoader(data, batch_size=workload.micro_batch)
'''

TRAINERS = {
    "lightning": _LIGHTNING,
    "transformers": _TRANSFORMERS,
    "accelerate": _ACCELERATE,
    "plain": _PLAIN,
    "none": _FOUR_PARTS,
}
"""By adapter, in the order in which they are looked for: what uses Lightning uses torch too. Each defines `trainer`."""

LIBRARIES = {
    "lightning": ("torch", "pytorch-lightning", "greenlet"),
    "transformers": ("torch", "transformers", "accelerate", "greenlet"),
    "accelerate": ("torch", "accelerate", "greenlet"),
    "plain": ("torch",),
    "none": (),
}
"""What pip installs for each adapter (who imports `lightning` has installed `lightning`)."""
