"""Lightning's Trainer, its own loop: `fit` with the user's module, told of by its hooks."""

import sys
from collections.abc import Callable
from typing import Any

from trainpace.adapters.library import LibraryTrainer, Marks
from trainpace.adapters.plain import parts

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""Names under which Lightning is installed, each with classes of its own."""


def lightning_trainer(build: Callable[[Any], Any]) -> "LightningTrainer":
    """Make a trainer of a function that returns `(trainer, module, data)`: a loader, or a LightningDataModule.

        @lightning_trainer
        def trainer(context):
            lightning = L.Trainer(..., accumulate_grad_batches=context.workload.accumulation)
            return lightning, Module(), loader

    A step begins at `on_train_batch_start` and ends at `on_after_backward`, its loss is that of `on_before_backward`;
    the optimizer step ends at `on_train_batch_end`. DDP, FSDP and DeepSpeed are as its strategy says.
    """
    return LightningTrainer(build)


class LightningTrainer(LibraryTrainer):
    """The four parts of a Lightning Trainer."""

    notes = (
        "Lightning keeps its own loop: where a step's backward ends, what its loss is and when the optimizer steps are "
        "taken from Lightning's hooks",
    )

    def begin(self, context: Any) -> Callable[[Marks], None]:
        """Build the Trainer; its loop is its own `fit`."""
        self._trainer, module, data = parts(self._build(context), "@lightning_trainer", "trainer, module, data")
        packages = [sys.modules[name] for name in _PACKAGES if name in sys.modules]
        package = next((each for each in packages if isinstance(self._trainer, each.Trainer)), None)
        if package is None:
            got = type(self._trainer).__name__
            raise TypeError(f"@lightning_trainer expected a Lightning Trainer first, got {got}")
        if not module.automatic_optimization:
            raise ValueError(
                f"{type(module).__name__} optimizes by hand (automatic_optimization is False): Lightning then does not "
                "tell where a step ends; write the four parts of docs/own-trainer.md"
            )

        def fit(marks: Marks) -> None:
            self._trainer.callbacks.append(_callback(package.Callback, marks))
            self._trainer.fit(module, data)

        return fit

    def check(self) -> tuple[int, float, str]:
        """As the Trainer says."""
        trainer = self._trainer
        return trainer.accumulate_grad_batches, trainer.estimated_stepping_batches, "accumulate_grad_batches"


def _callback(callback: Any, marks: Marks) -> Any:
    """A callback that makes the marks."""

    class Marking(callback):  # type: ignore[misc]
        """Hands over at Lightning's hooks."""

        loss: Any = None
        stepping = False

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:  # noqa: ARG002
            self.stepping = False
            marks.batch(batch)

        def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:  # noqa: ARG002
            self.loss = loss.detach() * trainer.accumulate_grad_batches  # Lightning divides it

        def on_after_backward(self, trainer: Any, module: Any) -> None:  # noqa: ARG002
            marks.loss(self.loss)

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:  # noqa: ARG002
            self.stepping = True

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:  # noqa: ARG002
            if self.stepping:
                marks.updated()

    return Marking()
