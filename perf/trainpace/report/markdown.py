"""summary.md: one session for people, as GitHub and GitLab draw it. Verdict first, then the table, then the words.

Everything quoted (ids, revisions, error text, what a run printed) may have been chosen by whoever opened the pull
request. It passes through `plain`, `sentence` or `fenced`, after which it is text and nothing else: no markup, no HTML,
no link, no @mention, no reference to an issue.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from trainpace.judge.systems import SideBySide
from trainpace.report.record import CaseResult, CostResult, Results, Told
from trainpace.runs.cost import PRODUCTS
from trainpace.runs.verdict import Verdict

FILE = "summary.md"
SUMMARY_LENGTH = 1_000_000
"""Characters; GitHub refuses a step's summary above 1 MiB."""
GIB = 1 << 30
UNJUDGED = {Verdict.NO_BASELINE, Verdict.INCONCLUSIVE}
STEP_FLOPS = tuple(f"step.flops.{group}" for group in PRODUCTS)

_INVISIBLE = "&#8203;"
"""A space of no width: drawn, it is nothing, and it breaks what GitHub makes a link of."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Also what turns the direction of text, or hides in it."""
_MEANING = re.compile(
    r"""(?ix)
    (?P<opens> ^ (?: [-+=] | \d+ (?=[.)]) ) )  # at the beginning of a line: a list, a heading, a rule
    | (?P<marks> [\\`*_{}\[\]()<>&|~$] )
    | (?P<links> [@#] | : (?=\S) | www (?=\.) | \b gh (?=-\d) )  # a mention, an issue, an address, an emoji
    """
)


def render(results: Results, limit: int = SUMMARY_LENGTH) -> str:
    """The whole summary. Sections that would take it over `limit` characters are left out, and that is said."""
    text, left_out = "", 0
    for block in _blocks(results):
        if len(text) + len(block) > limit - 100:
            left_out += 1
        else:
            text += block + "\n"
    if left_out:
        text += f"Too long to be shown here: {left_out} of the sections. results.json has everything.\n"
    return text


def headline(results: Results) -> str:
    """The verdict of the session in one line. What was not judged is never called good."""
    told = results.told
    of = f"of {len(told)} case{'' if len(told) == 1 else 's'}"
    if any(each.refresh for each in told):
        missing = sum(each.refresh != "recorded" for each in told)
        return f"❌ Not recorded: {missing} {of}" if missing else f"✅ Recorded: {len(told)} {of}"
    red = [
        ("slower", _regressions(results.cases, "failed")),
        ("more to do", _regressions(results.costs, "failed")),
        ("no valid measurement", sum(each.verdict is Verdict.INVALID for each in told)),
        ("not judged", sum(each.outcome == "failed" and each.verdict in UNJUDGED for each in told)),
    ]
    if any(number for _, number in red):
        return f"❌ {', '.join(f'{words}: {number}' for words, number in red if number).capitalize()} {of}"
    if results.exit_status:
        return f"❌ The session ended with status {results.exit_status}"
    if found := _regressions(told, "excused"):
        return f"⚠️ Slower, but excused: {found} {of}"
    good = sum(each.outcome == "passed" for each in told)
    words = "No slowdown" if results.cases else "No more to do" if results.costs else "Measured side by side"
    if good == len(told) > 0:
        return f"✅ {words}: {good} {of}"
    return f"⚠️ {words}: {good} {of}; nothing is said of the others" if good else "⚠️ Not judged"


def plain(value: str) -> str:
    """`value` on one line, as Markdown text that means nothing but itself, also in a table."""
    text = " ".join(_CONTROL.sub("\ufffd", _COLOUR.sub("", value)).split())
    return _MEANING.sub(_meaningless, text)


def sentence(value: str) -> str:
    """`plain`, with what stands between two backticks as code: our own sentences name commands like that."""
    parts = value.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner was no command of ours
        return plain(value)
    return "".join(_code(part) if number % 2 else _between(part) for number, part in enumerate(parts))


def fenced(value: str) -> str:
    """`value` as a block of code, whatever fences it holds; no line of it is a command to a workflow's log."""
    text = _CONTROL.sub("\ufffd", _COLOUR.sub("", value.replace("\r\n", "\n"))).strip("\n")
    text = re.sub(r"(?m)^(\s*)::", "\\1\u200b::", text).replace("##[", "##\u200b[")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n"


def _code(value: str) -> str:
    text = " ".join(_CONTROL.sub("\ufffd", value).split())
    return f"`{text}`" if text else ""


def _meaningless(found: re.Match[str]) -> str:
    if found["opens"]:
        return _INVISIBLE + found["opens"]
    if found["links"]:
        return found["links"] + _INVISIBLE
    # A dollar opens a formula on GitHub, which knows no backslash before it.
    return "&#36;" if found["marks"] == "$" else "\\" + found["marks"]


def _between(value: str) -> str:
    # `plain` takes the blanks at both ends away, which here separate words from code.
    text = plain(value)
    before, after = " " * value[:1].isspace(), " " * value[-1:].isspace()
    return f"{before}{text}{after}" if text else before


def _blocks(results: Results) -> Iterable[str]:
    """The sections, most important first."""
    told = results.told
    yield "".join(f"> **{sentence(warning)}**\n\n" for warning in results.warnings) + f"## {headline(results)}\n"
    yield f"{plain(results.summary)}\n"
    if results.cases:
        yield _table(results.cases, COLUMNS)
    if results.costs:
        yield _table(results.costs, COST_COLUMNS)
    yield from _side_by_side([each.side_by_side for each in results.comparisons if each.side_by_side])
    unjudged = [each for each in told if not (each.verdict.judged or each.refresh)]
    judged = [each for each in told if each not in unjudged]
    yield from _section("Excused", [f"{plain(each.title)}: {sentence(each.excused)}" for each in told if each.excused])
    yield from _section("Not judged", map(_reasons, unjudged))
    yield from _section("Why", [_reasons(each) for each in judged if each.reasons and not each.refresh])
    yield from _section("Baselines", [plain(each.change) for each in judged if each.change])
    yield from _section("Versions, baseline to now", _grouped([(each, each.version_differences) for each in told]))
    yield from _section("Notes", [*map(sentence, results.said), *_grouped([(each, each.notes) for each in told])])
    for case in results.cases:
        yield from _folded(case, "What slowed", "\n".join(case.explanation))
    for each in told:
        yield from _folded(each, "What the run printed", each.detail)


def _side_by_side(comparisons: Sequence[SideBySide]) -> Iterable[str]:
    if comparisons:
        from trainpace.report.compare import below_table, markdown_table

        yield "".join(f"{line}\n" for line in markdown_table(comparisons))
        yield from _section("Side by side", map(sentence, below_table(comparisons)))


def _section(title: str, lines: Iterable[str]) -> Iterable[str]:
    if found := list(lines):
        yield f"### {title}\n\n" + "".join(f"- {line}\n" for line in found)


def _folded(told: Told, title: str, text: str) -> Iterable[str]:
    if text:
        yield f"{plain(told.title)}:\n\n<details><summary>{title}</summary>\n\n{fenced(text)}\n</details>\n"


def _reasons(told: Told) -> str:
    said = f"**{plain(told.title)}: {told.said}**"
    if len(told.reasons) == 1:
        return f"{said} {sentence(told.reasons[0])}"
    return said + "".join(f"\n  - {sentence(reason)}" for reason in told.reasons)


def _grouped(sentences: Sequence[tuple[Told, Sequence[str]]]) -> list[str]:
    """Each sentence once, with the cases that it is said of; without them where it is said of all."""
    cases: dict[str, list[str]] = {}
    for told, texts in sentences:
        for text in texts:
            cases.setdefault(text, []).append(plain(told.title))
    return [
        sentence(text) if len(of) == len(sentences) > 1 else f"{sentence(text)} ({', '.join(of)})"
        for text, of in cases.items()
    ]


def _regressions(told: Iterable[Told], outcome: str) -> int:
    return sum(each.outcome == outcome and each.verdict is Verdict.REGRESSION for each in told)


# Tables

T = TypeVar("T", bound=Told)
Columns = Sequence[tuple[str, str, Callable[[T], str]]]
"""Title, alignment, text of a cell."""


def _table(rows: Iterable[T], columns: Columns[T]) -> str:
    lines = [[title for title, _, _ in columns], [alignment for _, alignment, _ in columns]]
    lines += [[cell(row) for _, _, cell in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _gpus(case: CaseResult) -> str:
    return f"{case.ranks} cpu" if case.scale == "mini" else _known(case.ranks, "d")


def _against(case: CaseResult) -> str:
    return f"{case.versus.tgs:.1f} {plain(case.versus.name)}" if case.versus else "-"


def _memory(case: CaseResult) -> str:
    return f"{case.peak_memory_bytes / GIB:.2f} GiB" if case.peak_memory_bytes else "-"


def _verdict(told: Told) -> str:
    said = told.said if told.outcome == "passed" else f"**{told.said}**"
    return f"{said} (excused)" if told.outcome == "excused" else said


def _counted(cost: CostResult, *names: str) -> float | None:
    return sum(cost.counters.get(name, 0) for name in names) if cost.counters else None


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


COLUMNS: Columns[CaseResult] = (
    ("case", "---", lambda case: plain(case.title)),
    ("scale", "---", lambda case: case.scale or "-"),
    ("GPUs", "--:", _gpus),
    ("TGS", "--:", lambda case: _known(case.tgs, ".1f")),
    ("TFLOPs", "--:", lambda case: _known(case.tflops, ".4g")),
    ("memory", "--:", _memory),
    ("against", "--:", _against),
    ("ratio", "--:", lambda case: _known(case.ratio, ".3f")),
    ("tolerance", "---", lambda case: plain(case.tolerance_source) or "-"),
    ("verdict", "---", _verdict),
)
COST_COLUMNS: Columns[CostResult] = (
    ("cost, counted", "---", lambda cost: plain(cost.case)),
    ("FLOPs of a step", "--:", lambda cost: _known(_counted(cost, *STEP_FLOPS), ".5g")),
    ("operators called", "--:", lambda cost: _known(_counted(cost, "step.calls"), ",d")),
    ("verdict", "---", _verdict),
)
