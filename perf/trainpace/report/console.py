"""A table and the lines below it as the text of a terminal, with colours or without."""

import io
import re
import textwrap
from collections.abc import Iterable, Mapping

from trainpace.report.table import T, Table, to_rich
from trainpace.text import command_apart

PLAIN_WIDTH = 160
"""Columns where the output is no terminal: wide enough for a line a case."""
WIDE = 140
"""Columns from which a case takes one line; below, its cells are stacked."""

_QUOTED = re.compile(r"`([^`]*)`")

Line = tuple[str, str]
"""Text and its style in rich's words; empty for none."""


def as_text(
    table: Table[T],
    lines: Iterable[Line],
    width: int,
    *,
    styles: Mapping[str, str] | None = None,
    colour: bool = False,
    leading: int = 0,
) -> str:
    """The table and the lines below it, the last of which is not wrapped.

    Args:
        table: columns and rows.
        lines: at least one.
        width: columns of the terminal.
        styles: of each `kind` of the table's cells; None: they have none.
        colour: with ANSI codes.
        leading: empty lines between rows.
    """
    from rich.console import Console
    from rich.text import Text

    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(to_rich(table, styles or {}, leading=leading))
    *above, last = lines
    for line, style in above:
        words, command = command_apart(line)
        # What is to be typed is not broken over two lines: it could not be copied.
        parts = [words] if any(" " in typed for typed in _QUOTED.findall(words)) else _wrapped(words, width)
        if command:
            parts.append(f"{_indent(line)}  {command}")
        for part in parts or [""]:
            console.print(Text(part, style=style), soft_wrap=True)
    console.print(Text(last[0], style=last[1]), soft_wrap=True)
    text = file.getvalue()
    return text if colour else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _wrapped(line: str, width: int) -> list[str]:
    after = _indent(line) + "  "
    return textwrap.wrap(line, width, subsequent_indent=after, break_long_words=False, break_on_hyphens=False)
