"""The report of a session on a terminal: one table, the lines below it, and the counts of verdicts.

Nothing is judged here. A cell that is not known is `-`; a verdict is coloured and worded; without a terminal the same
text comes without colour codes.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from trainpace.judge.refresh import Change
from trainpace.judge.verdict import Judgement
from trainpace.report.columns import HFU, MEMORY, MFU, RATIO, TFLOPS, TGS
from trainpace.report.console import PLAIN_WIDTH, as_text, fitting
from trainpace.report.table import Column, Table, stacked, with_outcomes
from trainpace.runs.run import described
from trainpace.runs.verdict import Verdict
from trainpace.text import UNKNOWN, count, fixed_percent, grouped, percent

CASE_WIDTH = 24
"""Characters of a case id above which it is folded."""
LOADING_SHARE = 0.05
"""Share of the steps above which the time of loading is reported."""

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
"""Outcomes of a refresh, which records and does not judge."""


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
        said: messages on choices that the suite made by itself.
        width: columns.
        colour: with ANSI codes.
    """
    outcomes = _outcomes(judgements, changes)
    lines = [*_details(judgements, changes, outcomes, said), (last_line(judgements, changes), _summary_style(outcomes))]
    drawn = table(judgements, outcomes, width=width)
    stacks = any("\n" in column.title for column in drawn.columns)
    return as_text(drawn, lines, width, styles=STYLES, colour=colour, leading=int(stacks))


def table(judgements: Sequence[Judgement], outcomes: Sequence[str], *, width: int) -> Table[tuple[Judgement, str]]:
    """The table: a line a case where the terminal has room for it, else stacked cells. `outcomes` are the last column.

    MFU and HFU are left out where the peak of the device is known of no case.
    """
    known = any(each.mfu is not None or each.hfu is not None for each in judgements)
    layouts = [WIDE_COLUMNS, STACKED_COLUMNS, NARROW_COLUMNS] if known else [WIDE_CPU_COLUMNS, STACKED_CPU_COLUMNS]
    if any(each.comparison for each in judgements):
        layouts = [tuple(map(_of_pairs, columns)) for columns in layouts]
    title = "verdict" if RECORDED.isdisjoint(outcomes) else "outcome"
    last = max(map(len, [title, *outcomes])) + 2
    columns = fitting(layouts, judgements, width - last)
    # An id in two lines can be mistaken for two.
    if any(len(_case(each)) > CASE_WIDTH for each in judgements):
        columns = (replace(columns[0], too_long="fold"), *columns[1:])
    return with_outcomes(columns, judgements, title, outcomes)


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
    gains = [f"; warning: {judgement.large_gain}" for judgement in judgements if judgement.large_gain]
    files = [each.recorded_in for each in judgements if each.recorded_in]
    recorded = [f"; {files.count(file)} recorded in {file}: commit it" for file in dict.fromkeys(files)]
    return f"{count(len(judgements), 'case')}: {', '.join(parts)}{''.join([*gains, *recorded])}"


def verdict_line(judgement: Judgement) -> str:
    """What is said of a case as soon as it is judged: `llama2_7b-8k-sp1: pass, TGS 2045.1, 99.8 % of 2049.0 stored`."""
    parts = [str(judgement.verdict)]
    if judgement.tgs:
        parts.append(f"TGS {judgement.tgs:.1f}")
    if judgement.ratio and judgement.baseline:
        stored = "recorded now" if judgement.recorded_in else "stored"
        parts.append(f"{percent(judgement.ratio)} of {judgement.baseline.tgs:.1f} {stored}")
    if judgement.what_decides:
        parts.append(judgement.what_decides)
    return f"{_case(judgement)}: {', '.join(parts)}"


def refresh_lines(changes: Iterable[Change]) -> list[str]:
    """One line a baseline: old -> new, or why it was refused."""
    return [str(change) for change in changes]


# The columns


def _case(judgement: Judgement) -> str:
    trainer = judgement.workload.trainer if judgement.workload else "native"
    return judgement.case if trainer == "native" else f"{judgement.case} ({trainer})"


def _scale(judgement: Judgement) -> str:
    return judgement.workload.scale if judgement.workload else UNKNOWN


def _gpus(judgement: Judgement) -> str:
    workload = judgement.workload
    if workload is None:
        return UNKNOWN
    return f"{workload.ranks} cpu" if (workload.scale, workload.mini_on) == ("mini", "cpu") else str(workload.ranks)


def _scale_and_gpus(judgement: Judgement) -> str:
    ranks = _gpus(judgement)
    return f"{_scale(judgement)}, {ranks}{' GPU' if ranks.isdecimal() else ''}" if judgement.workload else UNKNOWN


def _baseline(judgement: Judgement) -> str:
    if judgement.comparison:
        return f"{judgement.comparison.base_tgs:.1f}"
    return f"{judgement.baseline.tgs:.1f}" if judgement.baseline else UNKNOWN


def _origin(judgement: Judgement) -> str:
    if judgement.comparison:
        return judgement.comparison.base
    return judgement.baseline.origin if judgement.baseline else UNKNOWN


def _baseline_and_origin(judgement: Judgement) -> str:
    return f"{_baseline(judgement)} {_origin(judgement)}" if _origin(judgement) != UNKNOWN else UNKNOWN


def _tolerance(judgement: Judgement) -> str:
    """The number; where it comes from stands below the table, as a cell it would make rows of several lines."""
    if judgement.comparison:
        return f"{judgement.comparison.low:.3f} .. {judgement.comparison.high:.3f}"
    return UNKNOWN if judgement.tolerance is None else percent(judgement.tolerance)


def _about_tolerance(judgement: Judgement) -> list[str]:
    """Of `5 runs, 1 now: 4.7 %, 0.3 % between sessions assumed` what is not the number; of an interval its pairs."""
    if judgement.comparison:
        return [f"of {count(len(judgement.comparison.log_ratios), 'pair')}"]
    runs, _, number = judgement.tolerance_source.partition(": ")
    besides = number.partition(" %, ")[2]
    return [runs, *(besides.split(", ") if besides else [])] if runs else []


def _of_pairs(column: Column[Judgement]) -> Column[Judgement]:
    """The same column where head is compared with base: an interval stands there instead of a tolerance."""
    title = column.title
    for stored, paired in (("baseline", "base"), ("origin", "revision"), ("tolerance", "interval")):
        title = title.replace(stored, paired)
    return replace(column, title=title)


CASE = Column("case", _case)
TOLERANCE: Column[Judgement] = Column("tolerance", _tolerance, align="right")
_BEGIN = (CASE, Column("scale", _scale), Column("GPUs", _gpus, align="right"), TGS, TFLOPS)
_END = (MEMORY, Column("baseline", _baseline_and_origin, align="right"), RATIO, TOLERANCE)
WIDE_COLUMNS: tuple[Column[Judgement], ...] = (*_BEGIN, MFU, HFU, *_END)
"""A line a case."""
WIDE_CPU_COLUMNS: tuple[Column[Judgement], ...] = (*_BEGIN, *_END)
"""The same where no peak is known."""
_CASE_STACKED = stacked(CASE, Column("scale, GPUs", _scale_and_gpus))
_BASELINE_STACKED = stacked(Column("baseline", _baseline, align="right"), Column("origin", _origin))
_SPEED_STACKED: Column[Judgement] = stacked(TGS, TFLOPS)
_RATIO_STACKED: Column[Judgement] = stacked(RATIO, TOLERANCE)
STACKED_COLUMNS: tuple[Column[Judgement], ...] = (
    _CASE_STACKED,
    _SPEED_STACKED,
    stacked(MFU, HFU),
    MEMORY,
    _BASELINE_STACKED,
    _RATIO_STACKED,
)
"""Two lines a case."""
NARROW_COLUMNS: tuple[Column[Judgement], ...] = (
    _CASE_STACKED,
    _SPEED_STACKED,
    stacked(MFU, HFU, MEMORY),
    _BASELINE_STACKED,
    _RATIO_STACKED,
)
"""Three lines a case."""
STACKED_CPU_COLUMNS: tuple[Column[Judgement], ...] = (
    _CASE_STACKED,
    _SPEED_STACKED,
    MEMORY,
    _BASELINE_STACKED,
    _RATIO_STACKED,
)
"""Two lines a case, where no peak is known."""


# Below the table


def _details(
    judgements: Sequence[Judgement], changes: Sequence[Change], outcomes: Sequence[str], said: Iterable[str]
) -> Iterable[tuple[str, str]]:
    """The lines below the table: reasons of what did not pass, messages, versions, notes, start-up and loading."""
    yield "", ""
    for judgement, outcome in zip(judgements, outcomes, strict=True):
        if outcome == Verdict.NO_BASELINE:  # the sentence names the case itself
            yield from ((reason, STYLES[outcome]) for reason in judgement.reasons)
        elif judgement.reasons and outcome not in RECORDED:
            yield f"{outcome}: {_case(judgement)}", STYLES[outcome]
            yield from ((f"  {reason}", "") for reason in judgement.reasons)
        yield from ((f"  {line}", "") for line in judgement.explanation)
    yield from ((line, "") for line in [*refresh_lines(changes), *said])
    for title, kind in (("tolerance", False), ("interval", True)):
        of = [(_case(each), _about_tolerance(each)) for each in judgements if bool(each.comparison) is kind]
        yield from ((f"{title}: {line}", "") for line in _of_those(of))
    data = [(_case(each), [described(each.data, each.trained_on)] if each.data else []) for each in judgements]
    yield from ((f"trained on: {line}", "") for line in _of_those(data))
    left_out = [
        (_case(each), [source.left_out for source in each.trained_on if source.left_out]) for each in judgements
    ]
    yield from ((f"data: {line}", "") for line in _grouped(left_out))
    versions = [(_case(each), each.version_differences) for each in judgements]
    yield from ((f"version, baseline -> now: {line}", "") for line in _grouped(versions))
    yield from ((f"note: {line}", "") for line in _grouped([(_case(each), each.notes) for each in judgements]))
    started = [f"{_case(each)} {_startup(each)}" for each in judgements if each.startup_seconds is not None]
    if started:
        yield f"start-up to the first step: {', '.join(started)}", ""
    # The floor is all executed FLOPs at the device's peak.
    reached = [f"{_case(each)} {each.hfu:.0%}" for each in judgements if each.hfu is not None]
    if reached:
        yield f"of the floor, all FLOPs at the device's peak (docs/cost.md): {', '.join(reached)}", ""
    loading = [f"{_case(each)} {each.data_share:.0%}" for each in judgements if (each.data_share or 0) > LOADING_SHARE]
    if loading:
        yield f"loading took of the steps: {', '.join(loading)}", ""


def _startup(judgement: Judgement) -> str:
    compiled = f" (compiling {judgement.compile_seconds:.1f} s)" if judgement.compile_seconds else ""
    return f"{judgement.startup_seconds:.1f} s{compiled}"


def _of_those(sentences: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """As `_grouped`, among the cases of which anything is said: the others have no tolerance, or trained on nothing."""
    return _grouped([(case, texts) for case, texts in sentences if texts])


def _grouped(sentences: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Each sentence once, with its cases; without them where it is of all."""
    every = len(sentences)
    return [text if len(of) == every else f"{text} ({', '.join(of)})" for text, of in grouped(sentences).items()]


def _outcomes(judgements: Sequence[Judgement], changes: Sequence[Change]) -> list[str]:
    """The outcome of each case: its verdict, or in a refresh whether it was recorded."""
    recorded = {change.key: "recorded" if change.new else "refused" for change in changes}
    return [recorded.get(each.workload.key if each.workload else "", each.verdict) for each in judgements]


def _named(judgement: Judgement, outcome: str, refusals: Mapping[str, str]) -> str:
    case = _case(judgement)
    if outcome == "refused" and judgement.workload:
        return f"{case}: {textwrap.shorten(refusals[judgement.workload.key], 100, placeholder=' ..')}"
    if judgement.ratio and judgement.tolerance:
        # A regression may be one of memory alone, which its reason tells better.
        slower = outcome == Verdict.REGRESSION and judgement.ratio < 1 - judgement.tolerance
        if slower or outcome == Verdict.IMPROVEMENT:
            of = "the base" if judgement.comparison else "baseline"
            asked = "minimum effect" if judgement.comparison else "tolerance"
            return f"{case} {judgement.ratio:.2f} of {of}, {asked} {fixed_percent(judgement.tolerance)}"
    # A case that was not measured has none: its reason says why.
    if judgement.what_decides and outcome == Verdict.INCONCLUSIVE:
        return f"{case}, {judgement.what_decides}"
    if outcome == Verdict.NO_BASELINE:
        return case
    return f"{case}: {textwrap.shorten(next(iter(judgement.reasons), ''), 100, placeholder=' ..')}"


def _summary_style(outcomes: Sequence[str]) -> str:
    worst = (Verdict.REGRESSION, "refused", Verdict.INVALID, Verdict.NO_BASELINE, Verdict.INCONCLUSIVE)
    return next((STYLES[outcome] for outcome in worst if outcome in outcomes), "green")


# Progress
