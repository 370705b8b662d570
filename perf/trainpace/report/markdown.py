"""summary.md: one session for people, as GitHub and GitLab draw it. Verdict first, then the table, then the words.

Everything quoted (ids, revisions, error text, what a run printed) passes through report/escape.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from trainpace.judge.systems import SideBySide
from trainpace.report import compare
from trainpace.report.columns import HFU, MEMORY, MFU, RATIO, TGS
from trainpace.report.escape import fenced, plain, sentence
from trainpace.report.record import CaseResult, CostResult, Entry, Results
from trainpace.report.table import Column, Table, to_markdown
from trainpace.runs.cost import PRODUCTS
from trainpace.runs.verdict import Verdict
from trainpace.text import UNKNOWN, count, grouped, known, percent

FILE = "summary.md"
SUMMARY_LENGTH = 1_000_000
"""Characters; GitHub refuses a step's summary above 1 MiB."""
UNJUDGED = {Verdict.NO_BASELINE, Verdict.INCONCLUSIVE}
STEP_FLOPS = tuple(f"step.flops.{group}" for group in PRODUCTS)


def render(results: Results, limit: int = SUMMARY_LENGTH) -> str:
    """The whole summary. Sections that would take it over `limit` characters are left out, and that is said; the
    headline never is, and each warning is a section of its own."""
    head = f"## {headline(results)}\n"
    warnings = [f"> **{sentence(warning)}**\n" for warning in results.warnings]
    above: list[str] = []
    below: list[str] = []
    left_out, room = 0, limit - 100 - len(head)
    for part, blocks in ((above, warnings), (below, _blocks(results))):
        for block in blocks:
            if len(block) < room:
                part.append(block)
                room -= len(block) + 1
            else:
                left_out += 1
    text = "".join(f"{block}\n" for block in (*above, head, *below))
    if left_out:
        text += f"Too long to be shown here: {left_out} of the sections. results.json has everything.\n"
    return text


def headline(results: Results) -> str:
    """The verdict of the session in one line. A case that was not judged is never called good."""
    entries = results.entries
    of = f"of {count(len(entries), 'case')}"
    if any(each.refresh for each in entries):
        missing = sum(each.refresh != "recorded" for each in entries)
        return f"❌ Not recorded: {missing} {of}" if missing else f"✅ Recorded: {len(entries)} {of}"
    red = [
        ("slower", _regressions(results.cases, "failed")),
        ("more to do", _regressions(results.costs, "failed")),
        ("no valid measurement", sum(each.verdict is Verdict.INVALID for each in entries)),
        ("not judged", sum(each.outcome == "failed" and each.verdict in UNJUDGED for each in entries)),
    ]
    if any(number for _, number in red):
        return f"❌ {', '.join(f'{words}: {number}' for words, number in red if number).capitalize()} {of}"
    if results.exit_status:
        return f"❌ The session ended with status {results.exit_status}"
    if found := _regressions(entries, "excused"):
        return f"⚠️ Slower, but excused: {found} {of}"
    good = sum(each.outcome == "passed" for each in entries)
    words = "No slowdown" if results.cases else "No more to do" if results.costs else "Measured side by side"
    if good == len(entries) > 0:
        return f"✅ {words}: {good} {of}"
    return f"⚠️ {words}: {good} {of}; nothing is said of the others" if good else "⚠️ Not judged"


def _blocks(results: Results) -> Iterable[str]:
    """The sections below the headline, most important first."""
    entries = results.entries
    yield f"{plain(results.summary)}\n"
    if results.cases:
        pairs = any(each.versus and each.versus.kind == "base" for each in results.cases)
        titles = {"tolerance": "interval"} if pairs else {}
        columns = [replace(each, title=titles.get(each.title, each.title)) for each in COLUMNS]
        yield to_markdown(Table(columns, results.cases))
    if results.costs:
        yield to_markdown(Table(COST_COLUMNS, results.costs))
    yield from _side_by_side([each.side_by_side for each in results.comparisons if each.side_by_side])
    unjudged = [each for each in entries if not (each.verdict.judged or each.refresh)]
    judged = [each for each in entries if each not in unjudged]
    yield from _section(
        "Excused", [f"{plain(each.title)}: {sentence(each.excused)}" for each in entries if each.excused]
    )
    yield from _section("Not judged", map(_reasons, unjudged))
    yield from _section("Why", [_reasons(each) for each in judged if each.reasons and not each.refresh])
    yield from _section("Baselines", [plain(each.change) for each in judged if each.change])
    yield from _section("Versions, baseline to now", _grouped([(each, each.version_differences) for each in entries]))
    data = [(each, [f"trained on {each.data}"] if each.data else []) for each in results.cases]
    left_out = [(each, [found.left_out for found in each.trained_on if found.left_out]) for each in results.cases]
    sources = [(each, [_source(each)] if each.tolerance_source else []) for each in results.cases]
    noted = [(each, each.notes) for each in entries]
    notes = [text for found in (sources, data, left_out, noted) for text in _grouped(found)]
    yield from _section("Notes", [*map(sentence, results.said), *notes])
    for case in results.cases:
        yield from _folded(case, "What slowed", "\n".join(case.explanation))
    for each in entries:
        yield from _folded(each, "What the run printed", each.detail)


def _side_by_side(comparisons: Sequence[SideBySide]) -> Iterable[str]:
    if comparisons:
        yield to_markdown(compare.table(comparisons))
        yield from _section("Side by side", map(sentence, compare.below_table(comparisons)))


def _section(title: str, lines: Iterable[str]) -> Iterable[str]:
    if found := list(lines):
        yield f"### {title}\n\n" + "".join(f"- {line}\n" for line in found)


def _folded(entry: Entry, title: str, text: str) -> Iterable[str]:
    if text:
        yield f"{plain(entry.title)}:\n\n<details><summary>{title}</summary>\n\n{fenced(text)}\n</details>\n"


def _reasons(entry: Entry) -> str:
    label = f"**{plain(entry.title)}: {entry.label}**"
    if len(entry.reasons) == 1:
        return f"{label} {sentence(entry.reasons[0])}"
    return label + "".join(f"\n  - {sentence(reason)}" for reason in entry.reasons)


def _source(case: CaseResult) -> str:
    """Where a tolerance or an interval comes from."""
    return f"{'interval' if case.versus and case.versus.kind == 'base' else 'tolerance'}: {case.tolerance_source}"


def _grouped(sentences: Sequence[tuple[Entry, Sequence[str]]]) -> list[str]:
    """Each sentence once, with its cases; without them where it is of all cases of several."""
    of_all = len(sentences) if len(sentences) > 1 else None
    cases = grouped((plain(entry.title), texts) for entry, texts in sentences)
    return [
        sentence(text) if len(of) == of_all else f"{sentence(text)} ({', '.join(of)})" for text, of in cases.items()
    ]


def _regressions(entries: Iterable[Entry], outcome: str) -> int:
    return sum(each.outcome == outcome and each.verdict is Verdict.REGRESSION for each in entries)


# The columns: what is not `quoted` is Markdown already


def _gpus(case: CaseResult) -> str:
    # A case that failed names no device, and was on a CPU unless that was asked otherwise.
    on_cpu = case.scale == "mini" and (case.device or "cpu-").startswith("cpu-")
    return f"{case.ranks} cpu" if on_cpu else known(case.ranks, "d")


def _against(case: CaseResult) -> str:
    return f"{case.versus.tgs:.1f} {plain(case.versus.name)}" if case.versus else UNKNOWN


def _tolerance(case: CaseResult) -> str:
    """The number, or the interval of the ratio; where it comes from stands in the notes."""
    if case.versus and case.versus.low and case.versus.high:
        return f"{case.versus.low:.3f} .. {case.versus.high:.3f}"
    return percent(case.tolerance) if case.tolerance and case.tolerance_source else UNKNOWN


def _verdict(entry: Entry) -> str:
    label = entry.label if entry.outcome == "passed" else f"**{entry.label}**"
    return f"{label} (excused)" if entry.outcome == "excused" else label


def _counted(cost: CostResult, *names: str) -> float | None:
    return sum(cost.counters.get(name, 0) for name in names) if cost.counters else None


VERDICT = Column("verdict", _verdict)
COLUMNS: tuple[Column[CaseResult], ...] = (
    Column("case", lambda case: case.title, quoted=True),
    Column("scale", lambda case: case.scale or UNKNOWN),
    Column("GPUs", _gpus, align="right"),
    TGS,
    Column("TFLOPs", lambda case: known(case.tflops, ".4g"), align="right"),
    MFU,
    HFU,
    MEMORY,
    Column("against", _against, align="right"),
    RATIO,
    Column("tolerance", _tolerance, align="right"),
    VERDICT,
)
COST_COLUMNS: tuple[Column[CostResult], ...] = (
    Column("cost, counted", lambda cost: cost.case, quoted=True),
    Column("FLOPs of a step", lambda cost: known(_counted(cost, *STEP_FLOPS), ".5g"), align="right"),
    Column("operators called", lambda cost: known(_counted(cost, "step.calls"), ",d"), align="right"),
    VERDICT,
)
