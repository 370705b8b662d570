"""A table as a record, and its three renderers: for a terminal (to_rich), in Markdown, on a page (to_html).

A column says once what a cell holds; every form of a report that shows it uses the same column.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from trainpace.report.escape import plain
from trainpace.report.html import Fragment
from trainpace.text import UNKNOWN

if TYPE_CHECKING:
    from rich.table import Table as RichTable

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Column(Generic[T_contra]):
    """One column of a table whose rows are records of one type."""

    title: str
    """A line break in it is one on a terminal, and a blank elsewhere."""
    text: Callable[[T_contra], str]
    """The text of a row's cell."""
    value: Callable[[T_contra], float | None] | None = None
    """The cell's number, by which a page sorts the rows; None: it sorts by the text."""
    align: Literal["left", "right"] = "left"
    kind: Callable[[T_contra], str] | None = None
    """The verdict or status that colours the cell; None: no colour."""
    link: Callable[[T_contra], str | None] | None = None
    """Name of the chart, picture or listing on the same page that the cell leads to; None: it is no link."""
    quoted: bool = False
    """Whether the text may hold what others chose: it is escaped in Markdown. (On a page all text is.)"""
    too_long: Literal["cut", "wrap", "fold"] = "cut"
    """On a terminal too narrow for the text: its end is cut off, or it is broken between words, or anywhere."""

    def of(self, get: Callable[[S], T_contra]) -> "Column[S]":
        """The same column in a table of other rows; `get` finds in one of those what a row was here."""

        def through(cell: Callable[[T_contra], R]) -> Callable[[S], R]:
            return lambda row: cell(get(row))

        return Column(
            self.title,
            through(self.text),
            self.value and through(self.value),
            self.align,
            kind=self.kind and through(self.kind),
            link=self.link and through(self.link),
            quoted=self.quoted,
            too_long=self.too_long,
        )


@dataclass(frozen=True)
class Table(Generic[T]):
    """Columns, and the rows that they read."""

    columns: Sequence[Column[T]]
    rows: Sequence[T]
    heading: Callable[[T], str] | None = None
    """The line above rows that share it, on a terminal; None: there are no such lines."""
    group: Callable[[T], object] | None = None
    """What rows below one heading share, where two headings may read alike; None: the heading's text."""


def stacked(*columns: Column[T]) -> Column[T]:
    """One column for a narrow terminal with the cells of `columns` below each other, aligned as the first is."""
    return replace(
        columns[0],
        title="\n".join(column.title for column in columns),
        text=lambda row: "\n".join(column.text(row) for column in columns),
        too_long="fold" if any(column.too_long == "fold" for column in columns) else columns[0].too_long,
    )


def with_outcomes(
    columns: Iterable[Column[T]], rows: Iterable[T], title: str, outcomes: Iterable[str]
) -> Table[tuple[T, str]]:
    """The table of `rows` with their `outcomes` as the last column, coloured."""

    def row(pair: tuple[T, str]) -> T:
        return pair[0]

    last: Column[tuple[T, str]] = Column(title, itemgetter(1), kind=itemgetter(1))
    return Table([*(column.of(row) for column in columns), last], list(zip(rows, outcomes, strict=True)))


def to_rich(table: Table[T], styles: Mapping[str, str], *, leading: int = 0) -> "RichTable":
    """The table for a terminal.

    Args:
        table: columns and rows.
        styles: rich's style of each `kind`; what is not there has none.
        leading: empty lines between rows.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, leading=leading)
    for column in table.columns:
        drawn.add_column(
            column.title,
            justify=column.align,
            overflow="fold" if column.too_long == "fold" else "ellipsis",
            no_wrap=column.too_long == "cut",
        )
    heading_of = table.heading or (lambda _: "")
    for _, group in groupby(table.rows, table.group or heading_of):
        rows = list(group)
        if heading := heading_of(rows[0]):
            drawn.add_row(Text(heading, style="bold"))
        for row in rows:
            kinds = [column.kind(row) if column.kind else "" for column in table.columns]
            cells = zip(table.columns, kinds, strict=True)
            drawn.add_row(*(Text(column.text(row), style=styles.get(kind, "")) for column, kind in cells))
        if heading:
            drawn.add_section()
    return drawn


def to_markdown(table: Table[T]) -> str:
    """The table in Markdown, a line a row."""
    lines = [
        [_title(column) for column in table.columns],
        ["--:" if column.align == "right" else "---" for column in table.columns],
        *([_escaped(column, row) for column in table.columns] for row in table.rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_html(table: Table[T]) -> Fragment:
    """The table on a page; a click on a column's title sorts by it."""
    head = "".join(
        f'<th scope="col"{_number(column)}><button type="button">{html.escape(_title(column))}</button></th>'
        for column in table.columns
    )
    body = "\n".join(f"<tr>{''.join(_cell(column, row) for column in table.columns)}</tr>" for row in table.rows)
    return Fragment(
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _title(column: Column[T]) -> str:
    return column.title.replace("\n", " ")


def _escaped(column: Column[T], row: T) -> str:
    text = column.text(row)
    return plain(text) if column.quoted and text != UNKNOWN else text


def _cell(column: Column[T], row: T) -> str:
    text = html.escape(column.text(row))
    link = column.link(row) if column.link else None
    if link is not None:
        text = f'<a href="#{html.escape(link)}">{text}</a>'
    value = column.value(row) if column.value else None
    number = "" if value is None else f' data-value="{value!r}"'
    kind = f' data-kind="{html.escape(column.kind(row))}"' if column.kind else ""
    return f"<td{_number(column)}{number}{kind}>{text}</td>"


def _number(column: Column[T]) -> str:
    """The class of a column of numbers: its title and all its cells stand on the right, those without a number too."""
    return ' class="number"' if column.align == "right" or column.value else ""
