"""transformers' Trainer, its own loop: `train()` of the user's subclass with the user's arguments."""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

from trainpace.adapters.deepspeed_step import mark_before_step
from trainpace.adapters.library import LibraryTrainer, Marks

_AT_ONCE = 2
"""Micro-steps up to which a median sees that a group's batches are fetched before its first one."""


def transformers_trainer(build: Callable[[Any], Any]) -> "TransformersTrainer":
    """Make a trainer of a function that returns a transformers.Trainer.

        @transformers_trainer
        def trainer(context):
            args = TrainingArguments(..., gradient_accumulation_steps=context.workload.accumulation)
            return MyTrainer(model=model, args=args, train_dataset=dataset)

    A step is its `training_step`. Clipping, optimizer, scheduler, callbacks, and what it logs, evaluates or saves in
    between are the optimizer step. DDP, FSDP and DeepSpeed are as its arguments say.
    """
    return TransformersTrainer(build)


class TransformersTrainer(LibraryTrainer):
    """The four parts of a transformers.Trainer."""

    def begin(self, context: Any) -> Callable[[Marks], None]:
        """Build the Trainer; its loop is its own `train()`."""
        trainer = self._trainer = self._build(context)
        if not all(hasattr(trainer, name) for name in ("training_step", "get_batch_samples", "add_callback")):
            raise TypeError(
                "@transformers_trainer expected a function that returns a transformers.Trainer (4.46 or newer), got "
                f"{type(trainer).__name__}"
            )
        return self._train

    def _train(self, marks: Marks) -> None:
        from transformers import TrainerCallback

        trainer = self._trainer
        step, accumulation = trainer.training_step, trainer.args.gradient_accumulation_steps
        self._group = group = _Group(trainer.get_batch_samples, accumulation)
        stepped = False

        def training_step(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            marks.batch(inputs)
            told = mark_before_step(trainer.accelerator, lambda loss: marks.loss(loss * accumulation))
            # The Trainer divides each loss by the accumulation, so that a group's add up to its mean.
            loss = step(model, inputs, *rest, **named)
            if not told():
                marks.loss(loss * accumulation)
            return loss

        def get_batch_samples(*given: Any, **named: Any) -> Any:
            nonlocal stepped
            if stepped:  # here, so that what comes once a group (logging, a callback) is counted once a group
                stepped = False
                marks.updated()
            return group.samples(*given, **named)

        class Stepped(TrainerCallback):
            """Sees that the optimizer stepped."""

            def on_step_end(self, *_: Any, **__: Any) -> None:
                nonlocal stepped
                stepped = True

        trainer.training_step, trainer.get_batch_samples = training_step, get_batch_samples
        trainer.add_callback(Stepped())
        trainer.train()
        if stepped:
            marks.updated()

    def check(self) -> tuple[int, float, str]:
        """As its arguments and its state say."""
        state, args = self._trainer.state, self._trainer.args
        return args.gradient_accumulation_steps, state.max_steps, "gradient_accumulation_steps"

    def load(self, step: int) -> Any:
        """The next batch; of a larger group one batch of the next group is fetched besides."""
        batch = super().load(step)
        self._group.fetch()
        return batch


class _Group:
    """The batches of an accumulation group, which the Trainer fetches all at once before the group's first micro-step.

    With three or more, most micro-steps would then load nothing, and a median would not see what loading takes. So one
    of the next group is fetched with each micro-step, and the Trainer finds them ready.
    """

    def __init__(self, samples: Callable[..., Any], accumulation: int) -> None:
        """`samples` is `Trainer.get_batch_samples`."""
        self._samples = samples
        self._ahead = accumulation > _AT_ONCE
        self._iterator: Iterator[Any] = iter(())
        self._ready: list[Any] = []

    def samples(self, iterator: Iterator[Any], number: int, *rest: Any, **named: Any) -> Any:
        """As `Trainer.get_batch_samples`."""
        if iterator is not self._iterator:
            self._iterator, self._ready = iterator, []
        return self._samples(chain(self._fetched(), iterator), number, *rest, **named)

    def _fetched(self) -> Iterator[Any]:
        while self._ready:  # what is not asked for stays for the next group
            yield self._ready.pop(0)

    def fetch(self) -> None:
        """Fetch one of the next group."""
        if self._ahead:
            self._ready.extend(islice(self._iterator, 1))
