"""Any published table: each row with its checks, its prediction and whether it can be run, as text, page and charts.

python -m trainpace published llm-foundry --report out/
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainpace.cases.tables import Row
from trainpace.cases.tables import Table as SpeedTable
from trainpace.judge.tables import Examined, Expected
from trainpace.report import charts, html
from trainpace.report.charts import Bar, Chart, Drawing
from trainpace.report.console import PLAIN_WIDTH, as_text
from trainpace.report.escape import plain, sentence
from trainpace.report.table import Column, Table, to_html, to_markdown
from trainpace.text import UNKNOWN, count, known

MOST_GROUPS = 12
"""Rows of one chart: with more their labels would not be read."""
NARROW = 130
"""Columns of a terminal below which HIDDEN is left out; the page has all."""
HIDDEN = {"checks", "TFLOPs,\nMFU printed"}
NO_DEVICE = "not stated"


@dataclass(frozen=True)
class Report:
    """A table and what is said of its rows."""

    table: SpeedTable
    rows: Sequence[Examined]

    @property
    def name(self) -> str:
        """Of its files, without ending."""
        return f"published-{self.table.name}"


def _printed(row: Row) -> str:
    found = [(name, row.printed[name], row.decimals.get(name, 0)) for name in ("tflops", "mfu") if name in row.printed]
    units = {"tflops": "", "mfu": " %"}
    return " ".join(f"{value:.{decimals}f}{units[name]}" for name, value, decimals in found) or UNKNOWN


def _expected(each: Examined) -> str:
    if isinstance(each.expected, Expected):
        found = f"{each.expected.low:.0f} .. {each.expected.high:.0f}"
        return f"{found} (dense)" if each.expected.dense else found
    return UNKNOWN


def _kind(value: str) -> str:
    return {"yes": "pass", "within": "pass", "no": "regression"}.get(value, "")


COLUMNS: tuple[Column[Examined], ...] = (
    Column("case", lambda each: each.row.id, quoted=True, too_long="fold"),
    Column("device", lambda each: each.row.device or NO_DEVICE),
    Column(
        "TGS",
        lambda each: known(each.row.tgs, ".1f") if each.row.tgs else each.row.why_no_tgs,
        lambda each: each.row.tgs or 0.0,
        "right",
    ),
    Column("TFLOPs,\nMFU printed", lambda each: _printed(each.row), align="right"),
    Column("checks", lambda each: str(len(each.checks)), lambda each: len(each.checks), "right"),
    Column("agrees", lambda each: each.agrees, kind=lambda each: _kind(each.agrees)),
    Column("predicted", _expected, align="right"),
    Column("lies", lambda each: each.predicted, kind=lambda each: _kind(each.predicted), too_long="wrap"),
    Column("executable", lambda each: each.executable, too_long="wrap"),
)


def shown(report: Report) -> list[Column[Examined]]:
    """The columns; without predictions those of them are left out."""
    predicted = any(isinstance(each.expected, Expected) for each in report.rows)
    return [column for column in COLUMNS if predicted or column.title not in {"predicted", "lies"}]


def summary(report: Report) -> str:
    """`216 rows: 216 agree with themselves; 209 executable, 7 not (7 fp8)`."""
    rows = report.rows
    agreeing = Counter(each.agrees for each in rows)
    parts = [f"{agreeing['yes']} agree with themselves"]
    if agreeing["no"]:
        parts.append(f"{agreeing['no']} contradict themselves")
    if agreeing["nothing to check"]:
        parts.append(f"{agreeing['nothing to check']} print nothing to check")
    lies = Counter(each.predicted for each in rows if isinstance(each.expected, Expected) and each.row.tgs)
    if lies:
        parts.append(f"{lies['within']} of {sum(lies.values())} lie within their prediction")
    lacking = Counter(lack for each in rows for lack in each.row.lacks)
    ready = sum(each.row.executable for each in rows)
    parts.append(f"{ready} executable")
    if lacking:
        parts[-1] += f", {len(rows) - ready} not ({', '.join(f'{number} {lack}' for lack, number in lacking.items())})"
    return f"{count(len(rows), 'row')}: {'; '.join(parts)}"


def footnotes(report: Report) -> list[str]:
    """Lines below the table: contradictions, doubts, what a row does not say, sources."""
    table = report.table
    lines = [f"{each.row.id}: {check.text} ({each.row.source})" for each in report.rows for check in each.wrong]
    lines += [f"{each.row.id}: doubted: {each.row.doubt} ({each.row.source})" for each in report.rows if each.row.doubt]
    for note, ids in _notes(report):
        lines.append(f"{note}: {ids[0]}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else ""))
    if table.convention:
        lines.append(f"TFLOPs and MFU by the convention {table.convention} (docs/tables.md)")
    lines += [
        f"{slug}: {'network ' + device.network if device.network_bytes_per_second else 'network not stated'}"
        + (f", {device.network_bytes_per_second / 1e9:g} GB/s a GPU" if device.network_bytes_per_second else "")
        + (f"; {device.name}" if device.name else "")
        for slug, device in table.devices.items()
    ]
    stack = ", ".join(f"{name} {version}" for name, version in table.stack.items())
    said = [table.source, f"revision {table.revision}" if table.revision else "", table.attention, stack]
    return [*lines, *filter(None, ["; ".join(filter(None, said))])]


def _notes(report: Report) -> Iterator[tuple[str, list[str]]]:
    notes: dict[str, list[str]] = {}
    for each in report.rows:
        if each.row.note:
            notes.setdefault(each.row.note, []).append(each.row.id)
    yield from notes.items()


def render(report: Report, *, width: int = PLAIN_WIDTH) -> str:
    """The table and the lines below it as text."""
    lines = [(line, "") for line in ["", *footnotes(report), summary(report)]]
    columns = [column for column in shown(report) if width >= NARROW or column.title not in HIDDEN]
    return as_text(Table(columns, report.rows), lines, width)


def draw(report: Report) -> dict[str, Chart]:
    """The charts as files, by their names; none without matplotlib."""
    return charts.drawn_as_files(drawings(report))


def drawings(report: Report) -> dict[str, Drawing]:
    """Charts by the names of their files: of a model on a device, of MOST_GROUPS rows."""
    groups: dict[tuple[str, str], list[Examined]] = {}
    for each in report.rows:
        groups.setdefault((each.row.model.name, each.row.device or NO_DEVICE), []).append(each)
    drawn = {}
    for (model, device), found in groups.items():
        parts = [found[start : start + MOST_GROUPS] for start in range(0, len(found), MOST_GROUPS)]
        for number, part in enumerate(parts, start=1):
            name = "-".join([report.name, model, device.replace(" ", "-"), *([str(number)] if len(parts) > 1 else [])])
            which = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            title = f"{part[0].row.model.title} on {device}{which}"
            drawn[name] = Drawing(title, bars(report, part), [f"{report.table.title}; as published"])
    return drawn


def bars(report: Report, found: Sequence[Examined]) -> list[Bar]:
    """A bar for the published TGS of each row, and one for the predicted TGS where it is known."""
    drawn = []
    for each in found:
        label = _label(each.row)
        gone = {"absent": each.row.why_no_tgs} if each.row.tgs is None else {"value": each.row.tgs}
        drawn.append(Bar(system=report.table.title, length=label, kind="published", **gone))
        if isinstance(each.expected, Expected):
            low, tgs, high = each.expected.low, each.expected.tgs, each.expected.high
            drawn.append(Bar(system="from counts", length=label, kind="predicted", value=tgs, low=low, high=high))
    return drawn


def _label(row: Row) -> str:
    """`2k`, below it what tells the rows of one length apart, in short lines."""
    length, *words = row.id.removeprefix(f"{row.model.name}-").split("-")
    kept = [word for word in words if word != "sp1"]
    return charts.group(length, "\n".join(" ".join(kept[start : start + 2]) for start in range(0, len(kept), 2)))


def markdown(report: Report, drawn: dict[str, Chart]) -> str:
    """The text of the .md file."""
    lines = [f"## {plain(report.table.title)}: {plain(summary(report))}", ""]
    lines += [f"![{plain(chart.words)}]({name}.svg)\n" for name, chart in drawn.items()]
    lines += [
        to_markdown(Table(shown(report), report.rows)),
        *(f"- {sentence(text)}" for text in [*footnotes(report), *_undrawn(drawn)]),
    ]
    return "\n".join(lines) + "\n"


def page(report: Report, assets: html.Assets) -> str:
    """The text of the .html file."""
    return html.page(
        report.table.title,
        html.paragraph(summary(report)),
        to_html(Table(shown(report), report.rows)),
        html.items(html.linked(text, assets) for text in footnotes(report)),
        *(charts.on_page(name, drawing) for name, drawing in drawings(report).items()),
        assets=assets,
    )


def _undrawn(drawn: dict[str, Chart]) -> list[str]:
    return [] if drawn else [charts.INSTALL]
