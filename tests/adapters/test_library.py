"""A library's own loop between the step loop's calls: what runs when, what is refused, what an error says."""

from types import SimpleNamespace

import pytest

from trainpace.adapters.library import LibraryTrainer


class Toy(LibraryTrainer):
    """A library that trains without torch, and writes down what it does."""

    def __init__(self, accumulation=2, updates=100, steps_of_epoch=10**6):
        super().__init__(build=None)
        self.accumulation, self.updates, self.steps_of_epoch = accumulation, updates, steps_of_epoch
        self.done = []

    def begin(self, context):
        return self._fit

    def check(self):
        return self.accumulation, self.updates, "accumulate"

    def _fit(self, marks):
        for step in range(self.accumulation * self.updates):
            self.done.append(f"load {step}")
            marks.batch(step)
            self.done.append(f"train {step}")
            marks.loss(float(step))
            if (step % self.steps_of_epoch + 1) % self.accumulation == 0:
                self.done.append("update")
                marks.updated()


def test_the_librarys_order_is_kept(measured):
    """Its loop runs as by itself; the step loop sees each loss, and an optimizer step a group."""
    trainer = Toy()
    window = measured(trainer)

    assert window["losses"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(window["optimizer_seconds"]) == 2
    assert trainer.done == [
        *("load 0", "train 0", "load 1", "train 1", "update"),
        *("load 2", "train 2", "load 3", "train 3", "update"),
        *("load 4", "train 4", "load 5", "train 5", "update"),
    ]


@pytest.mark.parametrize(("warmup", "first"), [(1, 3), (2, 2), (3, 1), (4, 0), (5, 3)])
def test_groups_end_where_the_warmup_does(measured, warmup, first):
    """What a warm-up lacks to whole groups is trained at set-up: each measured group is one of the library's."""
    window = measured(Toy(accumulation=4), warmup=warmup, steps=8, accumulation=4)

    assert window["losses"][0] == first
    assert len(window["optimizer_seconds"]) == 2


def test_groups_are_whole_after_a_step_that_is_counted(measured):
    """A step alone after the measured ones: what follows begins with a group."""
    trainer = Toy()
    measured(trainer)
    trainer.forward_backward(trainer.load(6))

    assert [trainer.forward_backward(trainer.load(step)) for step in (6, 7)] == [8.0, 9.0]
    trainer.optimizer_step()
    assert trainer.done[-1] == "update"


def test_a_run_ends_early_after_a_whole_group(measured):
    """Where three steps are enough, the fourth ends the group: the optimizer's seconds are those of a step."""
    asked = []
    enough = SimpleNamespace(reached=lambda seconds, _: asked.append(len(seconds)) or len(seconds) >= 3)

    window = measured(Toy(), steps=8, enough=enough)

    assert asked == [2, 4]
    assert len(window["optimizer_seconds"]) == 2


@pytest.mark.parametrize(
    ("trainer", "named", "said"),
    [
        (Toy(accumulation=4), {}, "accumulate is 4 and the workload's accumulation 2: write accumulate=context"),
        (Toy(), {"steps": 5}, "every 2 micro-steps, and 5 are measured: measure whole groups, with --perf-steps 6"),
        (Toy(updates=5), {}, "would end after 5 optimizer steps, measuring takes 7"),
    ],
)
def test_what_does_not_fit_is_refused(measured, trainer, named, said):
    """Before the first step, with both numbers and what to write."""
    with pytest.raises(ValueError, match=said):
        measured(trainer, **named)


def test_a_group_that_is_cut_short_is_said(measured):
    """An epoch that ends within a group."""
    with pytest.raises(RuntimeError, match=r"expected an optimizer step next, but .* came to a batch"):
        measured(Toy(steps_of_epoch=3), steps=8)


def test_what_a_user_sets_on_it_is_asked(measured):
    """Tokens of a batch, where its shapes do not tell them."""
    trainer = Toy()
    trainer.tokens = lambda batch: 10 + batch

    assert measured(trainer)["tokens"]["said"]["most"] == 15


def test_an_error_of_the_library_is_its_own(measured):
    """It is raised where the step loop waits, with the library's line in its traceback."""

    class Broken(Toy):
        def _fit(self, marks):
            marks.batch(0)
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left") as raised:
        measured(Broken())

    assert raised.traceback[-1].name == "_fit"


def test_a_library_that_ends_at_once_is_said(measured):
    """Without a batch there is nothing to measure."""
    with pytest.raises(RuntimeError, match="expected a batch next, but the library's loop came to its end"):
        measured(Toy(updates=0))
