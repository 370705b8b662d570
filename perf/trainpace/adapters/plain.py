"""A loop of model, optimizer, batches and loss: nothing of it belongs to a library."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Build = Callable[[Any], Any]
"""A user's function, called with the rank's context."""


def plain_loop(build: Build) -> "PlainLoop":
    """Make a trainer of a function that returns `(model, optimizer, batches, loss)`.

        @plain_loop
        def trainer(context):
            model = Model().to(context.device)
            return model, torch.optim.AdamW(model.parameters()), batches(context), loss

    `optimizer` has `step()` and `zero_grad()`, or is a function without arguments that applies and clears the gradients
    (clipping and scheduler included). `batches` is an iterable, begun anew where it ends. `loss(model, batch)` returns
    the mean loss of a micro-batch; it is divided by the workload's accumulation before its backward.
    """
    return PlainLoop(build)


class PlainLoop:
    """The trainer of a plain loop. The optimizer steps after every `accumulation`-th micro-step of the warm-up too."""

    def __init__(self, build: Build) -> None:
        self._build = build

    def setup(self, context: Any) -> None:
        """Build what is trained."""
        built = parts(self._build(context), "@plain_loop", "model, optimizer, batches, loss")
        self._model, optimizer, batches, self._loss = built
        self._update = update_of(optimizer)
        self._batches = endless(batches)
        self._accumulation = context.workload.accumulation
        self._waiting = 0

    def load(self, step: int) -> Any:  # noqa: ARG002 - a trainer's part takes it
        """The next batch; before it what the warm-up's micro-steps have accumulated is applied."""
        if self._waiting == self._accumulation:
            self.optimizer_step()
        return next(self._batches)

    def forward_backward(self, batch: Any) -> Any:
        """The loss, and the gradients of its share."""
        loss = mean_loss(self._loss(self._model, batch))
        (loss / self._accumulation).backward()
        self._waiting += 1
        return loss.detach()

    def optimizer_step(self) -> None:
        """Apply and clear the gradients."""
        self._update()
        self._waiting = 0


def parts(built: Any, decorator: str, names: str) -> tuple[Any, ...]:
    """What a user's function returned, checked for its length.

    Args:
        built: what it returned.
        decorator: that the function has.
        names: of the parts, `model, loss`.

    Raises:
        TypeError: where it is no tuple of so many parts.
    """
    if not isinstance(built, tuple) or len(built) != names.count(",") + 1:
        got = f"{len(built)} parts" if isinstance(built, tuple) else type(built).__name__
        raise TypeError(f"{decorator} expected a function that returns ({names}), got {got}")
    return built


def mean_loss(loss: Any) -> Any:
    """What a user's `loss(model, batch)` returned, if a backward can begin there.

    Raises:
        TypeError: where it is no tensor of one number.
    """
    begins = hasattr(loss, "backward")
    if not begins or math.prod(getattr(loss, "shape", ())) != 1:
        got = f"one of {list(loss.shape)}" if begins else type(loss).__name__
        raise TypeError(
            "loss(model, batch) must return the mean loss of the micro-batch, a tensor of one number whose backward is "
            f"still to be called, got {got}"
        )
    return loss


def update_of(optimizer: Any) -> Callable[[], Any]:
    """A function that applies and clears the gradients, of an optimizer or of what is one already.

    Raises:
        TypeError: where it is neither.
    """
    if hasattr(optimizer, "step") and hasattr(optimizer, "zero_grad"):

        def update() -> None:
            optimizer.step()
            optimizer.zero_grad()

        return update
    if not callable(optimizer):
        raise TypeError(
            "expected an optimizer, or a function that applies and clears the gradients, got "
            f"{type(optimizer).__name__}"
        )
    return optimizer  # type: ignore[no-any-return]


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, and from the first again.

    Raises:
        ValueError: where there are none (any more: an iterator ends once and for all).
    """
    while True:
        number = 0
        for batch in batches:
            number += 1
            yield batch
        if number == 0:
            raise ValueError(
                "no batches are left: a generator ends for good, so let it go on for ever, or return a DataLoader or a "
                "list, which can be begun anew"
            )
