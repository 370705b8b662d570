"""What is printed while a session runs: progress of a run, and the sections of the report at the end."""

import shutil
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from trainpace.report.console import PLAIN_WIDTH

if TYPE_CHECKING:
    import pytest

LINE_SECONDS = 10.0
"""Least time between two lines of progress where there is no terminal."""
BAR_SECONDS = 0.5
"""Least time between two drawings of the bar: drawing takes time from ranks that share the cores."""


def width() -> int:
    """Columns of the terminal; PLAIN_WIDTH where the output is none."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns


class Render(Protocol):
    """A report as text, of `width` columns, with ANSI codes where `colour`."""

    def __call__(self, *, width: int, colour: bool) -> str: ...  # noqa: D102


def print_section(
    terminal: "pytest.TerminalReporter", title: str, render: Render, *, warnings: Iterable[str] = ()
) -> None:
    """Print a report below `title`, coloured where pytest itself colours; `warnings` stand in front of it."""
    terminal.section(title)
    for warning in warnings:
        terminal.write_line(warning, yellow=True, bold=True)
    terminal.write_raw(render(width=width(), colour=terminal.hasmarkup))


class Progress:
    """Shows how far a run is. This one shows nothing, for a session without a reporter."""

    @classmethod
    def on(cls, terminal: "pytest.TerminalReporter | None") -> "Progress":
        """The one that fits: a bar on a terminal, plain lines elsewhere, nothing without a reporter."""
        if terminal is None:
            return Progress()
        return Bar(terminal) if terminal.isatty else Lines(terminal)

    def start(self, title: str, steps: int) -> None:
        """Begin a run of `steps` steps, warm-up included."""

    def update(self, step: int, text: str) -> None:
        """`step` steps are done, and `text` is under way."""

    def stop(self) -> None:
        """End the run, however it ended."""


class Lines(Progress):
    """A line when a run starts, then at most one every LINE_SECONDS: for a log."""

    def __init__(self, terminal: "pytest.TerminalReporter") -> None:
        self._terminal = terminal
        self._title = ""
        self._steps = 0
        self._started = self._shown = 0.0

    def start(self, title: str, steps: int) -> None:  # noqa: D102
        self._title, self._steps = title, steps
        self._started = self._shown = time.monotonic()
        self._line(f"{title}: {steps} steps")

    def update(self, step: int, text: str) -> None:  # noqa: D102
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS:
            self._shown = now
            self._line(f"{self._title}: step {step}/{self._steps}, {text}, {now - self._started:.0f} s")

    def _line(self, text: str) -> None:
        self._terminal.write_line(text)
        self._terminal.flush()


class Bar(Progress):
    """A bar on the terminal, gone when the run ends."""

    def __init__(self, terminal: "pytest.TerminalReporter") -> None:
        self._terminal = terminal
        self._shown = 0.0
        self._bar: Any = None
        self._task: Any = None

    def start(self, title: str, steps: int) -> None:  # noqa: D102
        from rich import progress
        from rich.console import Console

        # pytest has written the file's name on this line, and the bar takes its own line away when it ends.
        self._terminal.ensure_newline()
        self._terminal.flush()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[text]}", markup=False),
            progress.TimeElapsedColumn(),
            console=Console(file=sys.stdout),
            # No thread that draws by itself, and pytest's streams as they are.
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=steps, text="starting")
        self._bar.refresh()

    def update(self, step: int, text: str) -> None:  # noqa: D102
        now = time.monotonic()
        if now - self._shown >= BAR_SECONDS:
            self._shown = now
            self._bar.update(self._task, completed=step, text=text, refresh=True)

    def stop(self) -> None:  # noqa: D102
        self._bar.stop()
