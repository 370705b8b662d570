"""DeepSpeed under Accelerate: there the optimizer steps inside `accelerator.backward`, before it returns the loss."""

from collections.abc import Callable
from typing import Any


def mark_before_step(accelerator: Any, mark: Callable[[Any], None]) -> Callable[[], bool]:
    """Have `mark(loss)` called once before DeepSpeed's optimizer step, if it is what trains and makes one.

    Returns:
        Asks whether it was called, and no longer waits for it.
    """
    wrapped = getattr(accelerator, "deepspeed_engine_wrapped", None)
    if wrapped is None:
        return lambda: False
    engine, backward, step = wrapped.engine, wrapped.engine.backward, wrapped.engine.step
    called, losses = False, list[Any]()

    def with_loss(loss: Any, *rest: Any, **named: Any) -> Any:
        losses.append(loss.detach())
        return backward(loss, *rest, **named)

    def with_mark(*given: Any, **named: Any) -> Any:
        nonlocal called
        if not called:
            called = True
            mark(losses[-1])
        return step(*given, **named)

    engine.backward, engine.step = with_loss, with_mark

    def told() -> bool:
        del engine.backward, engine.step
        return called

    return told
