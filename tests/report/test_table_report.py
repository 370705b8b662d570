"""One table in three forms: on a terminal, in Markdown, on a page."""

import re
from dataclasses import dataclass

import pytest

from hostile import HOSTILE, drawn, seen, text_of
from trainpace.report.console import as_text
from trainpace.report.table import Column, Table, stacked, to_html, to_markdown, with_outcomes

LONG = "a word or two"


@dataclass(frozen=True)
class Row:
    """A row that was measured, or not."""

    case: str
    tgs: float | None = 1000.0
    verdict: str = "pass"
    model: str = "llama"


CASE = Column("case", lambda row: row.case, quoted=True)
TGS = Column(
    "TGS\nnow", lambda row: "-" if row.tgs is None else f"{row.tgs:.1f}", lambda row: row.tgs or 0.0, align="right"
)
VERDICT = Column("verdict", lambda row: row.verdict, kind=lambda row: row.verdict)
ROWS = [Row("a"), Row("b", None, "invalid"), Row("c", 20.5)]


def terminal(*columns, rows=ROWS, width=80, **options):
    """The lines of a table on a terminal, without its last line."""
    return as_text(Table(columns, rows), [("", "")], width, **options).splitlines()[:-1]


# On a terminal


def test_terminal_aligns_and_breaks_titles():
    """A figure stands at the right; a title in two lines keeps them."""
    assert terminal(CASE, TGS, VERDICT) == [
        "         TGS",
        "case     now  verdict",
        "──────────────────────",
        "a     1000.0  pass",
        "b          -  invalid",
        "c       20.5  pass",
    ]


def test_terminal_colours_by_kind():
    """A kind has the style that the report gives it, any other none."""
    text = "\n".join(terminal(CASE, VERDICT, styles={"invalid": "bold red"}, colour=True))

    assert "\x1b[1;31minvalid" in text
    assert "mpass" not in text


@pytest.mark.parametrize(
    ("too_long", "lines"), [("cut", ["a word…"]), ("wrap", ["a word", "or two"]), ("fold", ["a word", "or two"])]
)
def test_terminal_is_too_narrow(too_long, lines):
    """A column says what becomes of a text that has no room."""
    found = terminal(Column("", lambda row: row.case, too_long=too_long), rows=[Row(LONG)], width=8)

    assert [line.strip() for line in found if not line.startswith("─")][1:] == lines


@pytest.mark.parametrize(("too_long", "lines"), [("wrap", ["abcdef…"]), ("fold", ["abcdefg", "hij"])])
def test_a_long_word_is_cut_or_folded(too_long, lines):
    """To fold is to break it anywhere."""
    found = terminal(Column("", lambda row: row.case, too_long=too_long), rows=[Row("abcdefghij")], width=8)

    assert [line.strip() for line in found if not line.startswith("─")][1:] == lines


def test_stacked_columns_share_a_cell():
    """Titles and texts stand below each other, aligned as the first is."""
    column = stacked(TGS, VERDICT)

    assert (column.title, column.text(ROWS[1]), column.align) == ("TGS\nnow\nverdict", "-\ninvalid", "right")


def test_rows_stand_below_their_heading():
    """A heading once for the rows that share it, with a gap before the next."""
    table = Table([CASE, TGS], [*ROWS, Row("d", model="yi")], heading=lambda row: row.model)
    lines = as_text(table, [("", "")], 80).splitlines()

    assert [line.split()[0] if line else "" for line in lines[3:-1]] == ["llama", "a", "b", "c", "", "yi", "d"]


def test_column_of_other_rows():
    """A column serves rows that hold its own."""
    pair = Column("verdict", lambda row: row.verdict, kind=lambda row: row.verdict, link=lambda row: row.case).of(
        lambda pair: pair[1]
    )

    assert (pair.text((1, ROWS[1])), pair.kind((1, ROWS[1])), pair.link((1, ROWS[1]))) == ("invalid", "invalid", "b")
    assert pair.value is None


def test_outcomes_are_the_last_column():
    """Coloured, beside the columns of the rows themselves."""
    table = with_outcomes([CASE], ROWS[:2], "outcome", ["recorded", "refused"])

    assert [column.title for column in table.columns] == ["case", "outcome"]
    assert [[column.text(row) for column in table.columns] for row in table.rows] == [
        ["a", "recorded"],
        ["b", "refused"],
    ]
    assert table.columns[1].kind(table.rows[1]) == "refused"


# In Markdown


def test_markdown_is_a_line_a_row():
    """A title is one line, figures are aligned at the right, what is not known is a dash."""
    assert to_markdown(Table([CASE, TGS, VERDICT], [*ROWS[:1], Row("-", None)])) == (
        "| case | TGS now | verdict |\n| --- | --: | --- |\n| a | 1000.0 | pass |\n| - | - | pass |\n"
    )


@pytest.mark.parametrize("hostile", HOSTILE)
def test_quoted_text_stays_in_its_cell(hostile):
    """What others chose is escaped where a column says that it is theirs."""
    page = drawn(to_markdown(Table([CASE, TGS], [Row(hostile)])))

    assert page.count("<td") == 2
    assert seen(hostile) in text_of(page)


# On a page


def test_page_sorts_by_value():
    """A column of figures has their values, any other has none."""
    page = to_html(Table([CASE, TGS], ROWS))

    assert re.findall(r"<td[^>]*>[^<]*", page) == [
        "<td>a",
        '<td class="number" data-value="1000.0">1000.0',
        "<td>b",
        '<td class="number" data-value="0.0">-',
        "<td>c",
        '<td class="number" data-value="20.5">20.5',
    ]
    assert '<button type="button">TGS now</button>' in page


def test_page_links_and_colours():
    """A link where there is one; the kind beside the words that say the same."""
    column = Column("case", lambda row: row.case, kind=lambda row: row.verdict, link=lambda row: row.model or None)
    page = to_html(Table([column], [Row("a"), Row("b", model="")]))

    assert '<td data-kind="pass"><a href="#llama">a</a></td>' in page
    assert '<td data-kind="pass">b</td>' in page


def test_page_escapes_everything():
    """Title, text, link and kind."""
    hostile = '<b>"&'
    column = Column(hostile, lambda _: hostile, kind=lambda _: hostile, link=lambda _: hostile)

    assert "<b>" not in to_html(Table([column], ROWS))
