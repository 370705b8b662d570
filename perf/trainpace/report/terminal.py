"""What a user sees of a session: one table, what must be said beside it, and a last line.

Nothing is judged here. A cell that is not known is `-`; a verdict is coloured and worded; without a terminal the same
text comes without colour codes.
"""

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from trainpace.judge.refresh import Change
from trainpace.judge.verdict import Judgement
from trainpace.runs import flops
from trainpace.runs.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_WIDTH = 160
"""Columns where no terminal tells its own: wide enough for a line a case."""
WIDE = 140
"""Columns from which a case takes one line; below, its cells are stacked."""
CASE_WIDTH = 24
"""A longer case id is folded."""
LOADING_SHARE = 0.05
"""Loading that takes more of the steps than this is said."""
GIB = 1 << 30

STYLES: Mapping[str, str] = {
    Verdict.PASS: "green",
    Verdict.REGRESSION: "bold red",
    Verdict.IMPROVEMENT: "cyan",
    Verdict.NO_BASELINE: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.INVALID: "bold magenta",
    "recorded": "green",
    "refused": "bold red",
}
RECORDED = {"recorded", "refused"}
"""What is said of a case in a refresh, which records and does not judge."""


def render(
    judgements: Sequence[Judgement],
    *,
    changes: Sequence[Change] = (),
    said: Iterable[str] = (),
    width: int = PLAIN_WIDTH,
    colour: bool = False,
) -> str:
    """The whole report as text, ending with its last line.

    Args:
        judgements: of every case, in the order of the table.
        changes: what a refresh recorded or refused.
        said: choices that the suite made by itself, each a sentence.
        width: columns.
        colour: with ANSI codes.
    """
    outcomes = _outcomes(judgements, changes)
    lines = [*_details(judgements, changes, outcomes, said), (last_line(judgements, changes), _summary_style(outcomes))]
    return as_text(table(judgements, width=width, outcomes=outcomes), lines, width, colour=colour)


def as_text(drawn: "Table", lines: Iterable[tuple[str, str]], width: int, *, colour: bool) -> str:
    """A table and the lines below it, each with its style, as text of `width` columns; the last line is not wrapped."""
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
    console.print(drawn)
    *above, last = lines
    for line, style in above:
        # A command is not wrapped: broken over two lines it could not be copied.
        wrapped = [line] if "`" in line else _wrapped(line, width)
        for part in wrapped or [""]:
            console.print(Text(part, style=style), soft_wrap=True)
    console.print(Text(last[0], style=last[1]), soft_wrap=True)
    text = file.getvalue()
    return text if colour else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def table(judgements: Sequence[Judgement], *, width: int, outcomes: Sequence[str] = ()) -> "Table":
    """The table: a line a case from WIDE columns on, else stacked cells that fit 80.

    `outcomes` stand in the last column instead of the verdicts.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE
    columns = WIDE_COLUMNS if wide else STACKED_COLUMNS
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, leading=0 if wide else 1)
    for header, justify, stack in columns:
        # The tolerance's source can be read in two lines; an id in two lines can be mistaken for two.
        long_id = stack[0] is _case and any(len(_case(each)) > CASE_WIDTH for each in judgements)
        folds = long_id or not {_tolerance, _tolerance_stacked}.isdisjoint(stack)
        drawn.add_column(header, justify=justify, overflow="fold", no_wrap=not folds)
    drawn.add_column("verdict" if RECORDED.isdisjoint(outcomes) else "outcome", no_wrap=True)
    for judgement, outcome in zip(judgements, outcomes or [each.verdict for each in judgements], strict=True):
        cells = ["\n".join(cell(judgement) for cell in stack) for _, _, stack in columns]
        drawn.add_row(*(Text(cell) for cell in cells), Text(outcome, style=STYLES[outcome]))
    return drawn


def last_line(judgements: Sequence[Judgement], changes: Sequence[Change] = ()) -> str:
    """The counts, with everything named that did not pass: `2 cases: 1 pass, 1 no baseline (llama2_7b-32k-sp1)`."""
    outcomes = _outcomes(judgements, changes)
    refusals = {change.key: change.refused or "" for change in changes}
    parts = []
    for outcome in STYLES:
        named = [judgement for judgement, each in zip(judgements, outcomes, strict=True) if each == outcome]
        if not named:
            continue
        part = f"{len(named)} {outcome}"
        if outcome not in {Verdict.PASS, "recorded"}:
            between = ", " if outcome == Verdict.NO_BASELINE else "; "
            part += f" ({between.join(_named(judgement, outcome, refusals) for judgement in named)})"
        parts.append(part)
    return f"{len(judgements)} case{'' if len(judgements) == 1 else 's'}: {', '.join(parts)}"


def refresh_lines(changes: Iterable[Change]) -> list[str]:
    """What a refresh did, old -> new, a line a baseline."""
    return [str(change) for change in changes]


# Cells: each takes a judgement and gives the text of one figure, `-` where it is not known.

Cell = Callable[[Judgement], str]


def _case(judgement: Judgement) -> str:
    trainer = judgement.workload.trainer if judgement.workload else "native"
    return judgement.case if trainer == "native" else f"{judgement.case} ({trainer})"


def _scale(judgement: Judgement) -> str:
    return judgement.workload.scale if judgement.workload else "-"


def _gpus(judgement: Judgement) -> str:
    workload = judgement.workload
    if workload is None:
        return "-"
    return f"{workload.ranks} cpu" if workload.scale == "mini" else str(workload.ranks)


def _cut(judgement: Judgement) -> str:
    ranks = _gpus(judgement)
    return f"{_scale(judgement)}, {ranks}{' GPU' if ranks.isdecimal() else ''}" if judgement.workload else "-"


def _tgs(judgement: Judgement) -> str:
    return f"{judgement.tgs:.1f}" if judgement.tgs else "-"


def _tflops(judgement: Judgement) -> str:
    # Six characters from a mini model to a B200: 0.0011, 12.35, 2250.
    if judgement.tflops is None:
        return "-"
    return f"{judgement.tflops:.4g}" if judgement.tflops >= 1 else f"{judgement.tflops:#.2g}"


def _peak(judgement: Judgement) -> str:
    return f"{judgement.peak_share:.1%}".replace("%", " %") if judgement.peak_share else "-"


def _memory(judgement: Judgement) -> str:
    return f"{judgement.peak_memory_bytes / GIB:.2f} GiB" if judgement.peak_memory_bytes else "-"


def _baseline(judgement: Judgement) -> str:
    if judgement.comparison:
        return f"{judgement.comparison.base_tgs:.1f}"
    return f"{judgement.baseline.tgs:.1f}" if judgement.baseline else "-"


def _origin(judgement: Judgement) -> str:
    if judgement.comparison:
        return judgement.comparison.base
    return judgement.baseline.origin if judgement.baseline else "-"


def _baseline_and_origin(judgement: Judgement) -> str:
    return f"{_baseline(judgement)} {_origin(judgement)}" if _origin(judgement) != "-" else "-"


def _ratio(judgement: Judgement) -> str:
    return f"{judgement.ratio:.3f}" if judgement.ratio else "-"


def _tolerance(judgement: Judgement) -> str:
    return judgement.tolerance_source or "-"


def _tolerance_stacked(judgement: Judgement) -> str:
    return _tolerance(judgement).replace(": ", ":\n", 1)


Justify = Literal["left", "right"]
Column = tuple[str, Justify, tuple[Cell, ...]]

WIDE_COLUMNS: tuple[Column, ...] = (
    ("case", "left", (_case,)),
    ("scale", "left", (_scale,)),
    ("GPUs", "right", (_gpus,)),
    ("TGS", "right", (_tgs,)),
    ("TFLOPs", "right", (_tflops,)),
    ("of peak", "right", (_peak,)),
    ("memory", "right", (_memory,)),
    ("baseline", "right", (_baseline_and_origin,)),
    ("ratio", "right", (_ratio,)),
    ("tolerance", "left", (_tolerance,)),
)
STACKED_COLUMNS: tuple[Column, ...] = (
    ("case\nscale, GPUs", "left", (_case, _cut)),
    ("TGS\nTFLOPs", "right", (_tgs, _tflops)),
    ("of peak\nmemory", "right", (_peak, _memory)),
    ("baseline\norigin", "right", (_baseline, _origin)),
    ("ratio\ntolerance", "left", (_ratio, _tolerance_stacked)),
)


# Below the table


def _details(
    judgements: Sequence[Judgement], changes: Sequence[Change], outcomes: Sequence[str], said: Iterable[str]
) -> Iterable[tuple[str, str]]:
    """Lines and their styles: reasons of what did not pass, then what is worth knowing, then start-up and loading."""
    yield "", ""
    for judgement, outcome in zip(judgements, outcomes, strict=True):
        if outcome == Verdict.NO_BASELINE:  # the sentence names the case itself
            yield from ((reason, STYLES[outcome]) for reason in judgement.reasons)
        elif judgement.reasons and outcome not in RECORDED:
            yield f"{outcome}: {_case(judgement)}", STYLES[outcome]
            yield from ((f"  {reason}", "") for reason in judgement.reasons)
        yield from ((f"  {line}", "") for line in judgement.explanation)
    yield from ((line, "") for line in [*refresh_lines(changes), *said])
    versions = [(_case(each), each.version_differences) for each in judgements]
    yield from ((f"version, baseline -> now: {line}", "") for line in _grouped(versions))
    yield from ((f"note: {line}", "") for line in _grouped([(_case(each), each.notes) for each in judgements]))
    started = [f"{_case(each)} {_startup(each)}" for each in judgements if each.startup_seconds is not None]
    if started:
        yield f"start-up to the first step: {', '.join(started)}", ""
    reached = [f"{_case(each)} {share:.0%}" for each in judgements if (share := _floor_share(each)) is not None]
    if reached:
        yield f"of the floor, all FLOPs at the device's peak (docs/cost.md): {', '.join(reached)}", ""
    loading = [f"{_case(each)} {each.data_share:.0%}" for each in judgements if (each.data_share or 0) > LOADING_SHARE]
    if loading:
        yield f"loading took of the steps: {', '.join(loading)}", ""


def _floor_share(judgement: Judgement) -> float | None:
    """The least time that the step's FLOPs take on the device / the time that it took; None where that is unknown."""
    workload = judgement.workload
    # Of masked documents the FLOPs depend on the data, which a judgement does not hold.
    if workload is None or workload.attention == "varlen" or not judgement.tgs or not judgement.peak_tflops:
        return None
    return flops.tflops(judgement.tgs, workload, "exact") / judgement.peak_tflops


def _startup(judgement: Judgement) -> str:
    compiled = f" (compiling {judgement.compile_seconds:.1f} s)" if judgement.compile_seconds else ""
    return f"{judgement.startup_seconds:.1f} s{compiled}"


def _grouped(sentences: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Each sentence once, with the cases that it is said of; without them where it is said of all."""
    cases: dict[str, list[str]] = {}
    for case, texts in sentences:
        for text in texts:
            cases.setdefault(text, []).append(case)
    every = len(sentences)
    return [text if len(of) == every else f"{text} ({', '.join(of)})" for text, of in cases.items()]


def _wrapped(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, width, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False)


def _outcomes(judgements: Sequence[Judgement], changes: Sequence[Change]) -> list[str]:
    """What is said of each case: its verdict, or in a refresh whether it was recorded."""
    recorded = {change.key: "recorded" if change.new else "refused" for change in changes}
    return [recorded.get(each.workload.key if each.workload else "", each.verdict) for each in judgements]


def _named(judgement: Judgement, outcome: str, refusals: Mapping[str, str]) -> str:
    case = _case(judgement)
    if outcome == "refused" and judgement.workload:
        return f"{case}: {textwrap.shorten(refusals[judgement.workload.key], 100, placeholder=' ..')}"
    if judgement.ratio and judgement.tolerance:
        tolerance = f"{judgement.tolerance:.1%}".replace("%", " %")
        # A regression may be one of memory alone, which its reason tells better.
        slower = outcome == Verdict.REGRESSION and judgement.ratio < 1 - judgement.tolerance
        if slower or outcome == Verdict.IMPROVEMENT:
            return f"{case} {judgement.ratio:.2f} of baseline, tolerance {tolerance}"
    # More runs do not help a case that was not measured at all: its reason says what does.
    if outcome == Verdict.INCONCLUSIVE and judgement.tgs:
        return f"{case}, {judgement.runs_needed or 'no number of'} runs would decide"
    if outcome == Verdict.NO_BASELINE:
        return case
    return f"{case}: {textwrap.shorten(next(iter(judgement.reasons), ''), 100, placeholder=' ..')}"


def _summary_style(outcomes: Sequence[str]) -> str:
    worst = (Verdict.REGRESSION, "refused", Verdict.INVALID, Verdict.NO_BASELINE, Verdict.INCONCLUSIVE)
    return next((STYLES[outcome] for outcome in worst if outcome in outcomes), "green")


# Progress
