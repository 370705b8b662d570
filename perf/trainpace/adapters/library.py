"""A library's own loop as a trainer: it runs from mark to mark, and stands still while the step loop is at work.

The library's loop runs in a greenlet of the rank's thread: the same thread for torch, CUDA, autograd and the profiler,
and no other is ever woken. The step loop's `load`, `forward_backward` and `optimizer_step` each let it run to the next
mark of that kind. So all that the library does lies in one of the three, and is timed; none of its code is copied.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

BATCH, LOSS, UPDATED, ENDED = "a batch", "a loss", "an optimizer step", "its end"
_AFTERWARDS = 4
"""Optimizer steps that may follow the measured ones: of a counted step, of two profiled groups; and the library's loop
must go on behind the last.
"""


class Marks:
    """The library's side of the hand-over: each call stands still there until the step loop asks for more."""

    def __init__(self, loop: Callable[["Marks"], None]) -> None:
        """
        Args:
            loop: runs the library's whole training, and calls the marks.

        Raises:
            ModuleNotFoundError: naming the command that installs it, where greenlet is missing.
        """
        try:
            import greenlet
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "an adapter around a library's loop needs greenlet: pip install greenlet", name="greenlet"
            ) from None
        self._inside = greenlet.greenlet(self._run)
        self._home = self._inside.parent
        self._loop = loop

    def _run(self) -> tuple[str, Any]:
        self._loop(self)
        return ENDED, None

    def next(self) -> tuple[str, Any]:
        """Let the library run to its next mark: which, and what it told. An exception of the library is raised here."""
        return (ENDED, None) if self._inside.dead else self._inside.switch()

    def batch(self, batch: Any) -> None:
        """A batch is ready, and its forward comes next."""
        self._home.switch((BATCH, batch))

    def loss(self, loss: Any) -> None:
        """Its backward is done; `loss` is the mean of the micro-batch."""
        self._home.switch((LOSS, loss))

    def updated(self) -> None:
        """The gradients are applied."""
        self._home.switch((UPDATED, None))

    def close(self) -> None:
        """End the library's loop where it stands."""
        import greenlet

        with suppress(BaseException):  # what it says of being ended is nobody's concern
            self._inside.throw(greenlet.GreenletExit)


class LibraryTrainer:
    """The four parts, of a loop that a library keeps.

    The library decides when its optimizer steps: after every `accumulation`-th micro-step from the first. The step loop
    wants that after the last step of the warm-up, and after every `accumulation`-th measured one. Where the warm-up is
    no multiple of the accumulation, the micro-steps that are missing are made at set-up; and those of a group's rest
    where a step was counted alone, after the measured ones.
    """

    whole_groups = True
    """Read by the step loop: the optimizer cannot step before its group of micro-steps is whole."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self._build = build
        self._marks: Marks | None = None
        self._ready: list[Any] = []

    def begin(self, context: Any) -> Callable[[Marks], None]:
        """Build what is trained. Returns the library's loop."""
        raise NotImplementedError

    def check(self) -> tuple[int, float, str]:
        """Micro-steps that share an optimizer step and optimizer steps in all, as the library has them at its first
        batch; and the words of the setting of the first.
        """
        raise NotImplementedError

    def setup(self, context: Any) -> None:
        """Build, and let the library run to its first batch.

        Raises:
            ValueError: where the library accumulates otherwise than the workload, or would end too soon.
        """
        self._marks = Marks(self.begin(context))
        self._ready = [self._until(BATCH)]
        workload = context.workload
        accumulation, updates, setting = self.check()
        _check(workload, accumulation, updates, setting)
        self._workload, self._made = workload, 0
        self._align(0)

    def load(self, step: int) -> Any:
        """All up to the next batch, and what of a group's optimizer step was not asked for."""
        self._align(step)
        return self._batch()

    def forward_backward(self, batch: Any) -> Any:  # noqa: ARG002 - the library holds it
        """From the batch to its loss."""
        self._made += 1
        return self._until(LOSS)

    def optimizer_step(self) -> None:
        """What is done once a group: clipping, optimizer, scheduler, callbacks."""
        self._until(UPDATED)

    def close(self) -> None:
        """End the library's loop; a rank simply ends, tests go on in one process."""
        if self._marks is not None:
            self._marks.close()

    def _align(self, step: int) -> None:
        """Make the micro-steps that lack to where `step` lies in its group; step `warmup` is the first of one."""
        while (self._made - step + self._workload.warmup) % self._workload.accumulation:
            self.forward_backward(self._batch())

    def _batch(self) -> Any:
        return self._ready.pop() if self._ready else self._until(BATCH)

    def _until(self, wanted: str) -> Any:
        """Let the library run to the mark that is wanted.

        Raises:
            RuntimeError: where another comes first that must not.
        """
        assert self._marks is not None
        while True:
            mark, value = self._marks.next()
            if mark == wanted:
                return value
            if mark == ENDED or (wanted != BATCH and mark == BATCH):
                raise RuntimeError(
                    f"expected {wanted} next, but the library's loop came to {mark}: an epoch that ends within a group "
                    "of accumulated micro-steps, a step that is skipped, or a callback that stops the training; give "
                    "it as many batches as the accumulation divides, and nothing that ends it early"
                )


def _check(workload: Any, accumulation: int, updates: float, setting: str) -> None:
    """Refuse a library that accumulates otherwise than the workload, or would end too soon.

    Raises:
        ValueError: with both numbers, and what to write.
    """
    wanted = workload.accumulation
    if accumulation != wanted:
        raise ValueError(
            f"{setting} is {accumulation} and the workload's accumulation {wanted}: write "
            f"{setting}=context.workload.accumulation, and accumulation={accumulation} in the Case if that is what you "
            "want measured (the mini scale cuts it to 2)"
        )
    if workload.steps % wanted:
        whole = -(-workload.steps // wanted) * wanted
        raise ValueError(
            f"the library's optimizer steps after every {wanted} micro-steps, and {workload.steps} are measured: "
            f"measure whole groups, with --perf-steps {whole}"
        )
    needed = -(-workload.warmup // wanted) + workload.steps // wanted + _AFTERWARDS
    if updates < needed:
        raise ValueError(
            f"the library would end after {updates} optimizer steps, measuring takes {needed}: give it more data, more "
            "epochs or a larger max_steps"
        )
