"""The commands that reports print: what was typed, for one test alone, with what a hint changes of it."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainpace.cases.scaling import default_steps
from trainpace.cases.workload import Workload

EXCLUDED: Mapping[str, tuple[str, ...]] = {
    "--perf-refresh": ("--perf-against-runs", "--perf-runs-per-case", "--perf-missing"),
    "--perf-against": ("--perf-missing", "--perf-refresh", "--perf-accept-slower", "--perf-against-runs"),
}
"""Typed options that a command does not carry beside one that a hint sets: what excludes it (app/exclusions.py has the
whole table), and a number of runs that was meant for judging."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What runs a test again as it was run. The shell makes one a test of what was typed (app/typed.py).

    A hint is a keyword: `runs_per_case=10` is `--perf-runs-per-case 10`, and `refresh=True` is `--perf-refresh`.
    """

    test: str | None = None
    """Node id, as it is typed in the folder in which the session's command was; None: whatever holds the case's id."""
    selection: tuple[str, ...] = ("perf",)
    """What the session's command selected: its paths, -k and -m."""
    pytest: tuple[str, ...] = ()
    """pytest's own options that decide what is collected."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The suite's own that were typed, by flag, with their values; an option that takes none has an empty tuple."""
    own_steps: bool = False
    """Whether what is measured is a program that has steps of its own, which no option changes."""

    def speed(self, workload: Workload, **hints: object) -> str:
        """The command that measures `workload` again.

        The workload's own options are named where they differ from the defaults, for a run that is replayed was
        measured by another command than the one that was typed.
        """
        found: dict[str, tuple[str, ...]] = {flag: (str(value),) for flag, value in self._of_workload(workload).items()}
        found |= {flag: values for flag, values in self.options.items() if flag not in found}
        if workload.attention == "varlen":
            found["--perf-varlen"] = ()
        if workload.compile and "compile" not in workload.case.split("-"):
            found["--perf-compile"] = ()
        if workload.nodes > 1:  # a workload does not say what started it, and torchrun cannot be typed like this
            found.setdefault("--perf-launcher", ("slurm",))
        return self._text([self.test] if self.test else ["perf", "-k", workload.case], found, hints)

    def cost(self, workload: Workload, **hints: object) -> str:
        """The command that counts `workload` again."""
        found = dict(self.options)
        if workload.dtype != "bf16" or "--perf-dtype" in found:
            found["--perf-dtype"] = (workload.dtype,)
        selected = [self.test] if self.test else ["perf", "-k", f"test_cost and {workload.case}"]
        return self._text(selected, found, hints)

    def typed(self, **hints: object) -> str:
        """The test's command with the options that were typed."""
        return self._text([self.test] if self.test else list(self.selection), self.options, hints)

    def session(self, **hints: object) -> str:
        """The command of all the tests that were selected."""
        return self._text(self.selection, self.options, hints)

    def _of_workload(self, workload: Workload) -> dict[str, object]:
        warmup, steps = default_steps(
            workload.scale, workload.sequence, workload.sp, workload.accumulation, workload.trainer
        )
        numbers = (("--perf-warmup", workload.warmup, warmup), ("--perf-steps", workload.steps, steps))
        native = workload.trainer == "native"
        return {
            option: value
            for option, value, default in (
                ("--perf-scale", workload.scale, None),
                ("--perf-trainer", workload.trainer, "native"),
                # What shards a user's own trainer is its own affair, and no choice of ours.
                ("--perf-engine", workload.engine, "deepspeed" if native else workload.engine),
                ("--perf-dtype", workload.dtype, "bf16"),
                *(() if self.own_steps else numbers),
            )
            # Typed at its default it may stand above an ini option.
            if value != default or (option in self.options and (native or option != "--perf-engine"))
        }

    def _text(
        self, selected: Iterable[str], options: Mapping[str, tuple[str, ...]], hints: Mapping[str, object]
    ) -> str:
        changed = {f"--perf-{name.replace('_', '-')}": value for name, value in hints.items()}
        left_out = {flag for hint in changed for flag in (hint, *EXCLUDED.get(hint, ()))}
        words = ["pytest", *selected, *self.pytest]
        for flag, values in options.items():
            if flag not in left_out:
                words += [word for value in values for word in (flag, value)] if values else [flag]
        for flag, value in changed.items():
            words += [flag] if value is True else [flag, str(value)]
        return shlex.join(words)
