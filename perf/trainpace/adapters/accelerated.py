"""A loop around Accelerate: `accelerator.prepare`, `accumulate` and `backward`."""

from collections.abc import Callable
from typing import Any

from trainpace.adapters.deepspeed_step import mark_before_step
from trainpace.adapters.library import LibraryTrainer, Marks
from trainpace.adapters.plain import endless, mean_loss, parts, update_of


def accelerate_loop(build: Callable[[Any], Any]) -> "AccelerateLoop":
    """Make a trainer of a function that returns `(accelerator, model, optimizer, batches, loss)`, prepared.

        @accelerate_loop
        def trainer(context):
            accelerator = Accelerator(gradient_accumulation_steps=context.workload.accumulation)
            model, optimizer, loader = accelerator.prepare(...)
            return accelerator, model, optimizer, loader, loss

    The loop is that of Accelerate's documentation: `with accelerator.accumulate(model)`, then `loss(model, batch)`,
    `accelerator.backward`, `optimizer.step()` and `zero_grad()`. In the place of the optimizer a function may stand
    that does the last two, with what else belongs there (`clip_grad_norm_`, a scheduler). As in those loops it is
    called after each backward, and Accelerate skips what only the end of a group does.
    """
    return AccelerateLoop(build)


class AccelerateLoop(LibraryTrainer):
    """The four parts of a loop around Accelerate."""

    def begin(self, context: Any) -> Callable[[Marks], None]:
        """Build what is trained, and write the loop around it."""
        built = parts(self._build(context), "@accelerate_loop", "accelerator, model, optimizer, batches, loss")
        self._accelerator, model, optimizer, batches, loss_of = built
        update = update_of(optimizer)

        def loop(marks: Marks) -> None:
            accelerator = self._accelerator
            for batch in endless(batches):
                marks.batch(batch)
                with accelerator.accumulate(model):
                    loss = mean_loss(loss_of(model, batch))
                    told = mark_before_step(accelerator, marks.loss)
                    accelerator.backward(loss)
                    if not told():
                        marks.loss(loss.detach())
                    update()
                if accelerator.sync_gradients:
                    marks.updated()

        return loop

    def check(self) -> tuple[int, float, str]:
        """As the accelerator says; its batches never end."""
        return self._accelerator.gradient_accumulation_steps, float("inf"), "gradient_accumulation_steps"
