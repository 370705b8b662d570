"""A table and the lines below it as the text of a terminal, with colours or without."""

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from trainpace.report.table import Column, T, Table, to_rich
from trainpace.text import command_apart

PLAIN_WIDTH = 160
"""Columns where the output is no terminal: wide enough for a line a case. There the last line stays one, for whoever
looks for it in a log."""

_QUOTED = re.compile(r"`[^`]*`")
_KEPT = "\x00"
"""Stands for a blank that no line is broken at, while lines are made."""

Line = tuple[str, str]
"""Text and its style in rich's words; empty for none."""


def fitting(layouts: Sequence[Sequence[Column[T]]], rows: Sequence[T], width: int) -> Sequence[Column[T]]:
    """The first of several ways to show `rows` that a terminal of `width` columns has room for; else the last one."""
    return next((each for each in layouts if _natural_width(each, rows) <= width), layouts[-1])


def _natural_width(columns: Sequence[Column[T]], rows: Sequence[T]) -> int:
    """Columns that a table needs without a cell being cut or broken."""

    def widest(column: Column[T]) -> int:
        texts = [column.title, *(column.text(row) for row in rows)]
        return max(len(line) for text in texts for line in text.split("\n"))

    # A blank at the end of each cell, and one between two.
    return sum(widest(column) + 2 for column in columns)


def as_text(
    table: Table[T],
    lines: Iterable[Line],
    width: int,
    *,
    styles: Mapping[str, str] | None = None,
    colour: bool = False,
    leading: int = 0,
) -> str:
    """The table and the lines below it.

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
        parts = _wrapped(words, width)
        if command:
            parts.append(f"{_indent(line)}  {command}")
        for part in parts or [""]:
            console.print(Text(part, style=style), soft_wrap=True)
    for part in on_terminal([last[0]], width):
        console.print(Text(part, style=last[1]), soft_wrap=True)
    text = file.getvalue()
    return text if colour else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def on_terminal(lines: Iterable[str], width: int) -> list[str]:
    """`lines` as a terminal of `width` columns shows them without cutting a word; as they are where there is none."""
    if width == PLAIN_WIDTH:
        return list(lines)
    return [part for line in lines for part in _wrapped(line, width)]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _wrapped(line: str, width: int) -> list[str]:
    """`line` in lines of at most `width`; what is to be typed is never broken: it could not be copied. Nor is `5 %`."""
    whole = _QUOTED.sub(lambda typed: typed[0].replace(" ", _KEPT), line).replace(" %", f"{_KEPT}%")
    after = _indent(line) + "  "
    parts = textwrap.wrap(whole, width, subsequent_indent=after, break_long_words=False, break_on_hyphens=False)
    return [part.replace(_KEPT, " ") for part in parts]
