"""Trainers side by side: a table on the terminal; table, charts and page in the report's folder.

Nothing is judged here, and nobody is named the winner: a ratio stands with its interval, what differs between two
systems in footnotes, and a system without a number with the reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import trainpace
from trainpace.judge.systems import CONFIDENCE, SideBySide, Status, System
from trainpace.records import Record
from trainpace.report import charts, html
from trainpace.report.charts import Bar, Chart
from trainpace.report.markdown import fenced, plain, sentence
from trainpace.report.terminal import GIB, PLAIN_WIDTH, WIDE, as_text
from trainpace.text import percent

if TYPE_CHECKING:
    from rich.table import Table

NAME = "compare"
"""Of every file of the report."""
STYLES: dict[Status, str] = {
    "measured": "green",
    "skipped": "yellow",
    "out of memory": "bold red",
    "invalid": "bold magenta",
}
ABSENT: Mapping[Status, str] = {"out of memory": "OOM", "invalid": "invalid"}
"""What a chart shows in place of a bar; who was skipped has no place in it."""


class Comparison(Record):
    """compare.json: one session for machines."""

    # 1: first format (2026-11).

    schema_version: Literal[1] = 1
    trainpace: str = trainpace.__version__
    said: tuple[str, ...]
    """Choices that the suite made by itself."""
    cases: tuple[SideBySide, ...]


# What every form of the report says


@dataclass(frozen=True)
class _Column:
    name: str
    text: Callable[[System], str]
    value: Callable[[System], float | None] = lambda _: None


def _range(low: float | None, high: float | None, form: str) -> str:
    return "-" if low is None or high is None else f"{low:{form}} .. {high:{form}}"


def _ratio_range(system: System) -> str:
    # The reference's own ratio is 1 and nothing else.
    return "reference" if system.reference else _range(system.ratio_low, system.ratio_high, ".3f")


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _tflops(system: System) -> str:
    if system.tflops is None:
        return "-"
    return f"{system.tflops:.4g}" if system.tflops >= 1 else f"{system.tflops:#.2g}"


TGS = _Column("TGS", lambda system: _known(system.tgs, ".1f"), lambda system: system.tgs)
TGS_RANGE = _Column("TGS, 95 %", lambda system: _range(system.low, system.high, ".1f"), lambda system: system.low)
RATIO = _Column("ratio", lambda system: _known(system.ratio, ".3f"), lambda system: system.ratio)
RATIO_RANGE = _Column("ratio, 95 %", _ratio_range, lambda system: system.ratio_low)
TFLOPS = _Column("TFLOPs", _tflops, lambda system: system.tflops)
PEAK = _Column(
    "of peak",
    lambda system: f"{100 * system.peak_share:.1f} %" if system.peak_share else "-",
    lambda system: system.peak_share,
)
MEMORY = _Column(
    "memory",
    lambda system: f"{system.peak_memory_bytes / GIB:.2f} GiB" if system.peak_memory_bytes else "-",
    lambda system: system.peak_memory_bytes,
)
STARTUP = _Column(
    "start-up",
    lambda system: "-" if system.startup_seconds is None else f"{system.startup_seconds:.1f} s",
    lambda system: system.startup_seconds,
)
COLUMNS = (TGS, TGS_RANGE, RATIO, RATIO_RANGE, TFLOPS, PEAK, MEMORY, STARTUP)
STACKED = ((TGS, TGS_RANGE), (RATIO, RATIO_RANGE), (TFLOPS, PEAK), (MEMORY, STARTUP))
"""The same for narrow terminals, two in a cell."""


def names(found: SideBySide) -> list[str]:
    """The systems' names, told apart by their trainer where two have the same title."""
    count = Counter(system.title for system in found.systems)
    return [
        system.title if count[system.title] == 1 else f"{system.title} ({system.trainer})" for system in found.systems
    ]


def _each(comparisons: Iterable[SideBySide]) -> Iterable[tuple[SideBySide, str, System]]:
    """Every system of every case, with its name."""
    for found in comparisons:
        for name, system in zip(names(found), found.systems, strict=True):
            yield found, name, system


def footnotes(comparisons: Iterable[SideBySide]) -> dict[str, int]:
    """Each footnote once, with its number."""
    texts = dict.fromkeys(text for found in comparisons for system in found.systems for text in system.footnotes)
    return {text: number for number, text in enumerate(texts, 1)}


def _numbered(comparisons: Iterable[SideBySide]) -> list[str]:
    return [f"[{number}] {text}" for text, number in footnotes(comparisons).items()]


def _marks(system: System, notes: Mapping[str, int]) -> str:
    """` [1, 2]`; empty without footnotes."""
    numbers = ", ".join(str(number) for number in sorted(notes[text] for text in system.footnotes))
    return f" [{numbers}]" if numbers else ""


def facts(found: SideBySide) -> str:
    """What was trained, in a line."""
    work = found.workload
    return (
        f"{found.case}: {found.title}, {work.scale}, {work.sequence} tokens, sp {work.sp}, {_ranks(found)}, "
        f"{work.dtype}, accumulation {work.accumulation}, {work.steps} steps after {work.warmup}, "
        f"{found.rounds} round{'s' if found.rounds > 1 else ''} on {found.device.slug}"
    )


def _ranks(found: SideBySide) -> str:
    count, what = found.workload.ranks, "GPU" if found.device.kind == "cuda" else "CPU rank"
    return f"{count} {what}{'s' if count > 1 else ''}"


def legend(comparisons: Sequence[SideBySide]) -> list[str]:
    """How the table is read."""
    lines = _references(comparisons)
    if any(found.rounds > 1 for found in comparisons):
        lines.append(f"a .. b: {percent(CONFIDENCE)} interval over the rounds")
    if any(found.rounds == 1 for found in comparisons):
        lines.append("one round has no interval: `--perf-runs-per-case 3` measures three")
    conventions = dict.fromkeys(found.convention for found in comparisons)
    lines.append(f"TFLOPs: in the convention {', '.join(conventions)}")
    return lines


def _references(comparisons: Sequence[SideBySide]) -> list[str]:
    """What the ratios are to: by case where that is not the same system in all of them, or not the first asked for."""
    cases: dict[str, list[str]] = {}
    for found in comparisons:
        named = dict(zip((system.trainer for system in found.systems), names(found), strict=True))
        if found.reference is None:
            text = "no ratios: no system was measured"
        else:
            text = f"ratio: TGS / that of {named[found.reference.trainer]} in the same round; above 1 is faster"
            first = found.systems[0]
            if not first.reference:
                text += f" ({named[first.trainer]}, asked for first, has no number: {first.status})"
        cases.setdefault(text, []).append(found.case)
    return [text if len(cases) == 1 else f"{', '.join(of)}: {text}" for text, of in cases.items()]


def reasons(comparisons: Sequence[SideBySide]) -> list[tuple[Status, str]]:
    """Why systems have no number, each reason once, with its cases where it is not that of all."""
    cases: dict[tuple[Status, str], list[str]] = {}
    for found, name, system in _each(comparisons):
        if system.status != "measured":
            cases.setdefault((system.status, f"{system.status}: {name}: {system.reason}"), []).append(found.case)
    return [
        (status, text if len(of) == len(comparisons) else f"{text} ({', '.join(of)})")
        for (status, text), of in cases.items()
    ]


def last_line(comparisons: Sequence[SideBySide]) -> str:
    """The counts, with everything named that has no number: `1 case side by side: 2 measured, 1 skipped (TRL)`."""
    named: dict[Status, list[str]] = {status: [] for status in STYLES}
    for _, name, system in _each(comparisons):
        named[system.status].append(name)
    parts = [
        f"{len(of)} {status}" + ("" if status == "measured" else f" ({', '.join(dict.fromkeys(of))})")
        for status, of in named.items()
        if of
    ]
    return f"{len(comparisons)} case{'' if len(comparisons) == 1 else 's'} side by side: {', '.join(parts)}"


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
    worst = next((STYLES[status] for status in reversed(STYLES) if status in statuses), "")
    return as_text(table(comparisons, width=width), [*lines, (last_line(comparisons), worst)], width, colour=colour)


def table(comparisons: Sequence[SideBySide], *, width: int) -> "Table":
    """The table: the systems of a case below its id; a line a system from WIDE columns on.

    Below, cells are stacked, and the status of a system without a number stands in place of the number.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE
    stacks = tuple((column,) for column in COLUMNS) if wide else STACKED
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("case, system" if wide else "case\n  system", overflow="fold")
    for stack in stacks:
        drawn.add_column("\n".join(column.name for column in stack), justify="right", no_wrap=True)
    if wide:
        drawn.add_column("status", no_wrap=True)
    notes = footnotes(comparisons)
    for found in comparisons:
        drawn.add_row(Text(found.case, style="bold"))
        for name, system in zip(names(found), found.systems, strict=True):
            status = Text(system.status, style=STYLES[system.status])
            cells = [Text("\n".join(column.text(system) for column in stack)) for stack in stacks]
            if wide:
                cells.append(status)
            elif system.status != "measured":
                cells = [status]
            drawn.add_row(Text(f"  {name}{_marks(system, notes)}"), *cells)
        drawn.add_section()
    return drawn


# Charts


def draw(comparisons: Sequence[SideBySide]) -> dict[str, Chart]:
    """A chart a model, by the name of its files; none without matplotlib or without a number."""
    if not charts.can_draw():
        return {}
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
            drawn[chart_name(model)] = charts.draw(of[0].title, shown, notes=notes)
    return drawn


def chart_name(model: str) -> str:
    """Of the chart's files, without ending."""
    return f"{NAME}-{re.sub(r'[^A-Za-z0-9_.-]', '-', model)}"


def bars(comparisons: Iterable[SideBySide]) -> list[Bar]:
    """A bar a system and case; none of systems that were skipped."""
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
    """compare.md."""
    lines = [f"## {plain(last_line(comparisons))}", ""]
    lines += [f"![{plain(chart.words)}]({name}.svg)\n" for name, chart in drawn.items()]
    lines += markdown_table(comparisons)
    for title, listed in _sections(comparisons, said, drawn):
        lines += ["", f"### {title}", "", *(f"- {sentence(text)}" for text in listed)]
    for found, name, system in _commands(comparisons):
        lines += ["", f"### {plain(f'{found.case}, {name}')}", "", fenced(system.command).rstrip("\n")]
    return "\n".join(lines) + "\n"


def markdown_table(comparisons: Sequence[SideBySide]) -> list[str]:
    """The lines of the table, a line a system."""
    notes = footnotes(comparisons)
    lines = [
        f"| case | system | {' | '.join(column.name for column in COLUMNS)} | status |",
        f"| --- | --- | {' | '.join('--:' for _ in COLUMNS)} | --- |",
    ]
    for found, name, system in _each(comparisons):
        cells = [plain(found.case), plain(name + _marks(system, notes)), *(each.text(system) for each in COLUMNS)]
        lines.append(f"| {' | '.join([*cells, system.status])} |")
    return lines


def below_table(comparisons: Sequence[SideBySide]) -> list[str]:
    """What must be said for the table to be read: footnotes, what was trained, and how it is read."""
    return [*_numbered(comparisons), *map(facts, comparisons), *legend(comparisons)]


def _sections(
    comparisons: Sequence[SideBySide], said: Sequence[str], drawn: Mapping[str, Chart]
) -> Iterable[tuple[str, list[str]]]:
    """The words of a report, by their titles; without those that have none."""
    undrawn = [] if drawn or charts.can_draw() else [charts.INSTALL]
    sections = [
        ("Without a number", [text for _, text in reasons(comparisons)]),
        ("Footnotes", _numbered(comparisons)),
        ("What was trained", [*map(facts, comparisons), *said]),
        ("How to read it", [*legend(comparisons), *undrawn]),
    ]
    return [(title, listed) for title, listed in sections if listed]


def _commands(comparisons: Iterable[SideBySide]) -> list[tuple[SideBySide, str, System]]:
    return [each for each in _each(comparisons) if each[2].command]


# As a page


def page(
    comparisons: Sequence[SideBySide], *, said: Sequence[str], drawn: Mapping[str, Chart], assets: html.Assets
) -> str:
    """compare.html."""
    notes = footnotes(comparisons)
    commands = {(found.case, name): f"command-{at}" for at, (found, name, _) in enumerate(_commands(comparisons))}
    rows = []
    for found, name, system in _each(comparisons):
        chart = chart_name(found.workload.model)
        rows.append(
            [
                html.Cell(found.case, link=chart if chart in drawn else None),
                html.Cell(name + _marks(system, notes), link=commands.get((found.case, name))),
                # What is not known sorts below everything.
                *(html.Cell(column.text(system), column.value(system) or 0.0) for column in COLUMNS),
                html.Cell(system.status, kind=system.status),
            ]
        )
    pictures = [html.picture(name, chart.svg, words=chart.words) for name, chart in drawn.items()]
    parts = [html.heading("Environment"), html.items(_devices(comparisons)), _software(comparisons)]
    if commands:
        parts.append(html.heading("The command behind each bar"))
        parts += [
            html.listing(commands[found.case, name], f"{found.case}, {name}", system.command)
            for found, name, system in _commands(comparisons)
        ]
    return html.page(
        "Training speed, side by side",
        html.paragraph(last_line(comparisons)),
        *pictures,
        html.table(["case", "system", *(column.name for column in COLUMNS), "status"], rows),
        *(
            fragment
            for title, listed in _sections(comparisons, said, drawn)
            for fragment in (html.heading(title), html.items(listed))
        ),
        *parts,
        assets=assets,
    )


def _devices(comparisons: Iterable[SideBySide]) -> list[str]:
    devices = {found.device.slug: found.device for found in comparisons}.values()
    return [
        f"{each.slug}: {each.name}, {each.count} {'GPUs' if each.kind == 'cuda' else 'cores'} on a node, "
        f"{each.memory_bytes / GIB:.0f} GiB"
        + (f", limited to {each.power_limit_watts:g} W" if each.power_limit_watts else "")
        for each in devices
    ]


def _software(comparisons: Iterable[SideBySide]) -> html.Fragment:
    """Versions: a column a system, two where a system had other versions for another case."""
    columns = list(
        dict.fromkeys(
            (name, tuple(sorted(system.software.items()))) for _, name, system in _each(comparisons) if system.software
        )
    )
    if not columns:
        return html.paragraph("No versions are known: no system has a number.")
    rows = [
        [html.Cell(package), *(html.Cell(dict(versions).get(package, "-")) for _, versions in columns)]
        for package in sorted({package for _, versions in columns for package, _ in versions})
    ]
    return html.table(["software", *(name for name, _ in columns)], rows)
