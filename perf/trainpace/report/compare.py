"""Trainers side by side: a table on the terminal; table, charts and page in the report's folder.

Nothing is judged here, and nobody is named the winner: a ratio stands with its interval, what differs between two
systems in footnotes, and a system without a number with the reason.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import trainpace
from trainpace.judge.systems import CONFIDENCE, SideBySide, Status, System
from trainpace.records import Record
from trainpace.report import charts, html
from trainpace.report.charts import Bar, Chart, Drawing
from trainpace.report.columns import HFU, MEMORY, MFU, RATIO, TFLOPS, TGS
from trainpace.report.console import PLAIN_WIDTH, as_text, fitting
from trainpace.report.escape import fenced, plain, sentence
from trainpace.report.table import Column, Table, stacked, to_html, to_markdown
from trainpace.text import UNKNOWN, count, gib, grouped, percent, tally

NAME = "compare"
"""Name of the report's files, without ending; charts add the model's."""
STYLES: Mapping[str, str] = {
    "measured": "green",
    "skipped": "yellow",
    "out of memory": "bold red",
    "invalid": "bold magenta",
}
THEIR_FILES = (
    "As it can be typed on the machine that measured. The files that a command names lie in this report's folder, and "
    "what it writes goes there too; model and tokens lie in the suite's cache."
)
ABSENT: Mapping[Status, str] = {"out of memory": "OOM", "invalid": "invalid"}
"""Text in place of a bar, by status; a system that was skipped has no place in the chart."""


class Comparison(Record):
    """compare.json: one session for machines."""

    # 1: first format (2026-11).

    schema_version: Literal[1] = 1
    trainpace: str = trainpace.__version__
    said: tuple[str, ...]
    """Messages on choices that the suite made by itself."""
    cases: tuple[SideBySide, ...]


# What every form of the report says


def _range(low: float | None, high: float | None, form: str) -> str:
    return UNKNOWN if low is None or high is None else f"{low:{form}} .. {high:{form}}"


def _ratio_range(system: System) -> str:
    # The reference's own ratio is 1 and nothing else.
    return "reference" if system.reference else _range(system.ratio_low, system.ratio_high, ".3f")


def _startup(system: System) -> str:
    return UNKNOWN if system.startup_seconds is None else f"{system.startup_seconds:.1f} s"


TGS_RANGE: Column[System] = Column(
    "TGS, 95 %", lambda system: _range(system.low, system.high, ".1f"), lambda system: system.low or 0.0, "right"
)
RATIO_RANGE: Column[System] = Column("ratio, 95 %", _ratio_range, lambda system: system.ratio_low or 0.0, "right")
STARTUP: Column[System] = Column("start-up", _startup, lambda system: system.startup_seconds or 0.0, "right")
COLUMNS: tuple[Column[System], ...] = (TGS, TGS_RANGE, RATIO, RATIO_RANGE, TFLOPS, MFU, HFU, MEMORY, STARTUP)
STATUS: Column[System] = Column("status", lambda system: system.status, kind=lambda system: system.status)
STACKED: tuple[Column[System], ...] = (
    stacked(TGS, TGS_RANGE),
    stacked(RATIO, RATIO_RANGE),
    stacked(TFLOPS, MFU, HFU),
    stacked(MEMORY, STARTUP),
)
"""COLUMNS for a terminal that has no room for a line a system."""
STACKED_CPU: tuple[Column[System], ...] = (*STACKED[:2], stacked(TFLOPS, STARTUP), MEMORY)
"""The same where no peak is known."""


@dataclass(frozen=True)
class Row:
    """One system of one comparison: a row of the tables."""

    found: SideBySide
    name: str
    """Of the system, unique in the comparison."""
    system: System


def _system(row: Row) -> System:
    return row.system


def rows(comparisons: Iterable[SideBySide]) -> list[Row]:
    """A row for every system of every case."""
    return [
        Row(found, name, system)
        for found in comparisons
        for name, system in zip(names(found), found.systems, strict=True)
    ]


def names(found: SideBySide) -> list[str]:
    """Unique names of the systems: their titles, with the trainer where two have the same."""
    titles = Counter(system.title for system in found.systems)
    return [
        system.title if titles[system.title] == 1 else f"{system.title} ({system.trainer})" for system in found.systems
    ]


def footnotes(comparisons: Iterable[SideBySide]) -> dict[str, int]:
    """Number of each footnote, from 1, in the order of the table."""
    texts = dict.fromkeys(text for found in comparisons for system in found.systems for text in system.footnotes)
    return {text: number for number, text in enumerate(texts, 1)}


def _numbered(comparisons: Iterable[SideBySide]) -> list[str]:
    return [f"[{number}] {text}" for text, number in footnotes(comparisons).items()]


def table(comparisons: Sequence[SideBySide]) -> Table[Row]:
    """The table of the files: a row a system."""
    notes = footnotes(comparisons)
    return Table(
        [
            Column("case", lambda row: row.found.case, quoted=True),
            Column("system", lambda row: row.name + _marks(row.system, notes), quoted=True),
            *(column.of(_system) for column in (*COLUMNS, STATUS)),
        ],
        rows(comparisons),
    )


def _marks(system: System, notes: Mapping[str, int]) -> str:
    """` [1, 2]`; empty without footnotes."""
    numbers = ", ".join(str(number) for number in sorted(notes[text] for text in system.footnotes))
    return f" [{numbers}]" if numbers else ""


def facts(found: SideBySide) -> str:
    """One line on what was trained: scale, lengths, ranks, steps, device."""
    work = found.workload
    return (
        f"{found.case}: {found.title}, {work.scale}, {work.sequence} tokens, sp {work.sp}, {_ranks(found)}, "
        f"{work.dtype}, accumulation {work.accumulation}, {work.steps} steps after {work.warmup}, "
        f"{count(found.rounds, 'round')} on {found.device.slug}"
    )


def _ranks(found: SideBySide) -> str:
    return count(found.workload.ranks, "GPU" if found.device.kind == "cuda" else "CPU rank")


def legend(comparisons: Sequence[SideBySide]) -> list[str]:
    """Lines on how the table is read: reference, intervals, convention of TFLOPs."""
    lines = _references(comparisons)
    if any(found.rounds > 1 for found in comparisons):
        lines.append(f"a .. b: {percent(CONFIDENCE)} interval over the rounds")
    if any(found.rounds == 1 for found in comparisons):
        lines.append("one round has no interval: `--perf-runs-per-case 3` measures three")
    conventions = dict.fromkeys(found.convention for found in comparisons)
    lines.append(f"TFLOPs: in the convention {', '.join(conventions)}")
    return lines


def _references(comparisons: Sequence[SideBySide]) -> list[str]:
    """Lines that name the reference of the ratios, with its cases where not all have the same."""
    said = []
    for found in comparisons:
        named = dict(zip((system.trainer for system in found.systems), names(found), strict=True))
        if found.reference is None:
            text = "no ratios: no system was measured"
        else:
            text = f"ratio: TGS / that of {named[found.reference.trainer]} in the same round; above 1 is faster"
            first = found.systems[0]
            if not first.reference:
                text += f" ({named[first.trainer]}, asked for first, has no number: {first.status})"
        said.append((found.case, [text]))
    cases = grouped(said)
    return [text if len(cases) == 1 else f"{', '.join(of)}: {text}" for text, of in cases.items()]


def reasons(comparisons: Sequence[SideBySide]) -> list[tuple[Status, str]]:
    """Status and reason of systems without a number, each once; with its cases where not all have it."""
    cases: dict[tuple[Status, str], list[str]] = {}
    for row in rows(comparisons):
        if (status := row.system.status) != "measured":
            cases.setdefault((status, f"{status}: {row.name}: {row.system.reason}"), []).append(row.found.case)
    return [
        (status, text if len(of) == len(comparisons) else f"{text} ({', '.join(of)})")
        for (status, text), of in cases.items()
    ]


def last_line(comparisons: Sequence[SideBySide]) -> str:
    """The counts, with everything named that has no number: `1 case side by side: 2 measured, 1 skipped (TRL)`."""
    statuses = [(row.system.status, row.name) for row in rows(comparisons)]
    counts = tally(statuses, order=STYLES, unnamed={"measured"}, once=True)
    return f"{count(len(comparisons), 'case')} side by side: {counts}"


# On the terminal


def render(
    comparisons: Sequence[SideBySide], *, said: Iterable[str] = (), width: int = PLAIN_WIDTH, colour: bool = False
) -> str:
    """The whole report as text, ending with its last line."""
    lines = [("", "")]
    lines += [(line, STYLES[status]) for status, line in reasons(comparisons)]
    listed = [*_numbered(comparisons), *map(facts, comparisons), *said, *legend(comparisons)]
    lines += [(line, "") for line in listed]
    statuses = {system.status for found in comparisons for system in found.systems}
    worst = next((STYLES[status] for status in reversed(list(STYLES)) if status in statuses), "")
    return as_text(
        terminal_table(comparisons, width=width),
        [*lines, (last_line(comparisons), worst)],
        width,
        styles=STYLES,
        colour=colour,
    )


def terminal_table(comparisons: Sequence[SideBySide], *, width: int) -> Table[Row]:
    """The table of a terminal: the systems of a case below its id, a line a system where there is room for it.

    Else cells are stacked, and the status of a system without a number stands in place of the numbers. MFU and HFU are
    left out where the peak of the device is known of no system.
    """
    notes, found = footnotes(comparisons), rows(comparisons)
    known = any(row.system.mfu is not None or row.system.hfu is not None for row in found)
    shares = {MFU.title, HFU.title}
    first, *others = STACKED if known else STACKED_CPU
    layouts = [
        ("case, system", [each for each in (*COLUMNS, STATUS) if known or each.title not in shares]),
        ("case\n  system", [_or_status(first), *map(_or_nothing, others)]),
    ]

    def system(title: str) -> Column[Row]:
        return Column(title, lambda row: f"  {row.name}{_marks(row.system, notes)}", too_long="fold")

    columns = fitting([[system(title), *(each.of(_system) for each in of)] for title, of in layouts], found, width)
    # By comparison: two of one case are two.
    return Table(columns, found, heading=lambda row: row.found.case, group=lambda row: id(row.found))


def _or_status(column: Column[System]) -> Column[System]:
    return replace(
        column,
        text=lambda system: column.text(system) if system.status == "measured" else system.status,
        kind=lambda system: "" if system.status == "measured" else system.status,
    )


def _or_nothing(column: Column[System]) -> Column[System]:
    return replace(column, text=lambda system: column.text(system) if system.status == "measured" else "")


# Charts


def drawings(comparisons: Sequence[SideBySide]) -> dict[str, Drawing]:
    """One chart a model, by the name of its files; none where nothing has a number or ran out of memory."""
    models: dict[str, list[SideBySide]] = {}
    for found in comparisons:
        models.setdefault(found.workload.model, []).append(found)
    drawn = {}
    for model, of in models.items():
        if shown := bars(of):
            devices = ", ".join(dict.fromkeys(found.device.name for found in of))
            rounds = ", ".join(dict.fromkeys(str(found.rounds) for found in of))
            note = f"whiskers: {percent(CONFIDENCE)} interval over the rounds, {rounds} each"
            notes = [devices, *([note] if any(bar.low for bar in shown) else [])]
            drawn[chart_name(model)] = Drawing(of[0].title, shown, notes)
    return drawn


def draw(comparisons: Sequence[SideBySide]) -> dict[str, Chart]:
    """The charts as files, by their names; none without matplotlib."""
    return charts.drawn_as_files(drawings(comparisons))


def chart_name(model: str) -> str:
    """Name of a model's chart: of its files, without ending, and on the page."""
    return f"{NAME}-{re.sub(r'[^A-Za-z0-9_.-]', '-', model)}"


def bars(comparisons: Iterable[SideBySide]) -> list[Bar]:
    """One bar a system and case, but for systems that were skipped."""
    found_bars: list[Bar] = []
    for found in comparisons:
        scale = "" if found.workload.scale == "full" else f"{found.workload.scale}, "
        group = charts.group(found.length, f"{scale}sp {found.workload.sp}, {_ranks(found)}")
        if any(bar.length == group for bar in found_bars):
            group += f"\n{found.case}"
        for name, system in zip(names(found), found.systems, strict=True):
            if system.tgs is not None or system.status in ABSENT:
                found_bars.append(
                    Bar(
                        system=name,
                        length=group,
                        case=found.case,
                        kind="measured",
                        value=system.tgs,
                        low=system.low,
                        high=system.high,
                        absent="" if system.tgs is not None else ABSENT[system.status],
                    )
                )
    return found_bars


# As Markdown


def markdown(comparisons: Sequence[SideBySide], *, said: Sequence[str], drawn: Mapping[str, Chart]) -> str:
    """The text of compare.md."""
    lines = [f"## {plain(last_line(comparisons))}", ""]
    lines += [f"![{plain(chart.words)}]({name}.svg)\n" for name, chart in drawn.items()]
    lines += to_markdown(table(comparisons)).splitlines()
    undrawn = [] if drawn or charts.can_draw() else [charts.INSTALL]
    for title, listed in _sections(comparisons, said, undrawn):
        lines += ["", f"### {title}", "", *(f"- {sentence(text)}" for text in listed)]
    for row in _with_command(comparisons):
        lines += ["", f"### {plain(f'{row.found.case}, {row.name}')}", "", fenced(row.system.command).rstrip("\n")]
        lines += [f"\nwith {', '.join(map(plain, row.system.files))}"] if row.system.files else []
    return "\n".join(lines) + "\n"


def below_table(comparisons: Sequence[SideBySide]) -> list[str]:
    """Lines that the table needs: footnotes, what was trained, how it is read."""
    return [*_numbered(comparisons), *map(facts, comparisons), *legend(comparisons)]


def _sections(
    comparisons: Sequence[SideBySide], said: Sequence[str], undrawn: Sequence[str] = ()
) -> Iterable[tuple[str, list[str]]]:
    """Titles and lines of the sections below the table, without empty ones."""
    sections = [
        ("Not measured", [text for _, text in reasons(comparisons)]),
        ("Footnotes", _numbered(comparisons)),
        ("What was trained", [*map(facts, comparisons), *said]),
        ("How to read it", [*legend(comparisons), *undrawn]),
    ]
    return [(title, listed) for title, listed in sections if listed]


def _with_command(comparisons: Iterable[SideBySide]) -> list[Row]:
    return [row for row in rows(comparisons) if row.system.command]


# As a page


def files(comparisons: Iterable[SideBySide]) -> dict[str, str]:
    """Texts of the files that the commands name, by their paths below the report's folder."""
    return {path: text for row in rows(comparisons) for path, text in row.system.files.items()}


def page(comparisons: Sequence[SideBySide], *, said: Sequence[str], assets: html.Assets) -> str:
    """The text of compare.html."""
    listed = _with_command(comparisons)
    commands = {(row.found.case, row.name): f"command-{at}" for at, row in enumerate(listed)}
    shown_charts = {
        name: replace(drawing, bars=[_linked(bar, comparisons, commands) for bar in drawing.bars])
        for name, drawing in drawings(comparisons).items()
    }

    def chart_of(row: Row) -> str | None:
        chart = chart_name(row.found.workload.model)
        return chart if chart in shown_charts else None

    case, system, *figures = table(comparisons).columns
    case = replace(case, link=chart_of)
    system = replace(system, link=lambda row: commands.get((row.found.case, row.name)))
    shown = Table([case, system, *figures], rows(comparisons))
    pictures = [charts.on_page(name, drawing) for name, drawing in shown_charts.items()]
    parts = [html.heading("Environment"), html.items(_devices(comparisons)), _software(comparisons)]
    if commands:
        parts.append(html.heading("The command behind each bar"))
        if files(comparisons):
            parts.append(html.paragraph(THEIR_FILES))
        for row in listed:
            name, title = commands[row.found.case, row.name], f"{row.found.case}, {row.name}"
            parts.append(html.listing(name, title, row.system.command))
            parts += [html.folded(path, text) for path, text in row.system.files.items()]
    return html.page(
        "Training speed, side by side",
        html.paragraph(last_line(comparisons)),
        *pictures,
        to_html(shown),
        *(
            fragment
            for title, texts in _sections(comparisons, said)
            for fragment in (html.heading(title), html.items(texts))
        ),
        *parts,
        assets=assets,
    )


def _linked(bar: Bar, comparisons: Iterable[SideBySide], commands: Mapping[tuple[str, str], str]) -> Bar:
    """The bar with what its box says besides, and the command that a click leads to."""
    row = next(each for each in rows(comparisons) if (each.found.case, each.name) == (bar.case, bar.system))
    system, about = row.system, []
    if system.ratio and not system.reference:
        about.append(f"ratio {RATIO.text(system)} ({_ratio_range(system)})")
    if system.tgs:
        about.append(f"memory {MEMORY.text(system)}, start-up {_startup(system)}")
    about += [system.reason] if system.reason else []
    return replace(bar, about=tuple(about), link=commands.get((bar.case, bar.system)))


def _devices(comparisons: Iterable[SideBySide]) -> list[str]:
    devices = {found.device.slug: found.device for found in comparisons}.values()
    return [
        f"{each.slug}: {each.name}, {each.count} {'GPUs' if each.kind == 'cuda' else 'cores'} on a node, "
        f"{gib(each.memory_bytes, 0)}"
        + (f", limited to {each.power_limit_watts:g} W" if each.power_limit_watts else "")
        for each in devices
    ]


def _software(comparisons: Iterable[SideBySide]) -> html.Fragment:
    """The table of versions: a column a system, two where its versions differ between cases."""
    versions = dict.fromkeys(
        (row.name, tuple(sorted(row.system.software.items()))) for row in rows(comparisons) if row.system.software
    )
    if not versions:
        return html.paragraph("No versions are known: no system has a number.")
    columns = [_version_of(name, dict(software)) for name, software in versions]
    packages = sorted({package for _, software in versions for package, _ in software})
    return to_html(Table([Column("software", str), *columns], packages))


def _version_of(system: str, software: Mapping[str, str]) -> Column[str]:
    return Column(system, lambda package: software.get(package, UNKNOWN))
