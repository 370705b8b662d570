"""summary.md: one session for people, as GitHub and GitLab draw it. Verdict first, then the table, then the words.

Everything quoted (ids, revisions, error text, what a run printed) may have been chosen by whoever opened the pull
request. It passes through `plain`, `sentence` or `fenced`, after which it is text and nothing else: no markup, no HTML,
no link, no @mention, no reference to an issue.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from perf.files import write_whole
from perf.judge.verdict import Verdict
from perf.report.results import CaseResult, Results

FILE = "summary.md"
SUMMARY_LENGTH = 1_000_000
"""Characters; GitHub refuses a step's summary above 1 MiB."""
GIB = 1 << 30

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


def write(results: Results, folder: Path | None) -> None:
    """Write summary.md into `folder`, and append it to the page of the workflow's run, where there is one."""
    text = render(results)
    if folder:
        write_whole(folder / FILE, text)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def render(results: Results, limit: int = SUMMARY_LENGTH) -> str:
    """The whole summary. Sections that would take it over `limit` characters are left out, and that is said."""
    text, left_out = "", 0
    for block in _blocks(results):
        if len(text) + len(block) > limit - 100:
            left_out += 1
        else:
            text += block + "\n"
    if left_out:
        text += f"{left_out} sections too long to be shown here are in results.json.\n"
    return text


def headline(results: Results) -> str:
    """The verdict of the session in one line. What was not judged is never called good."""
    cases = results.cases
    if any(case.refresh for case in cases):
        refused = sum(case.refresh == "refused" for case in cases)
        return f"❌ {refused} of {_cases(len(cases))} not recorded" if refused else f"✅ {_cases(len(cases))} recorded"
    failed = [case for case in cases if case.outcome == "failed"]
    for verdict, words in ((Verdict.REGRESSION, "Slower"), (Verdict.INVALID, "No valid measurement")):
        if found := sum(case.verdict is verdict for case in failed):
            return f"❌ {words}: {found} of {_cases(len(cases))}"
    if failed:
        return f"❌ Not judged: {len(failed)} of {_cases(len(cases))}"
    if results.exit_status:
        return f"❌ The session ended with status {results.exit_status}"
    good = sum(case.outcome == "passed" for case in cases)
    if good == len(cases) > 0:
        return f"✅ No slowdown in {_cases(good)}"
    return f"⚠️ No slowdown in {good} of {_cases(len(cases))}; nothing is said of the others" if good else "⚠️ Not judged"


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
    yield "".join(f"> **{sentence(warning)}**\n\n" for warning in results.warnings) + f"## {headline(results)}\n"
    yield f"{plain(results.summary)}\n"
    if results.cases:
        yield _table(results.cases)
    unjudged = [case for case in results.cases if not (case.verdict.judged or case.refresh)]
    judged = [case for case in results.cases if case not in unjudged]
    yield from _section(
        "Excused", [f"{plain(case.case)}: {sentence(case.excused)}" for case in judged + unjudged if case.excused]
    )
    yield from _section("Not judged", map(_reasons, unjudged))
    yield from _section("Why", [_reasons(case) for case in judged if case.reasons and not case.refresh])
    yield from _section("Baselines", [plain(case.change) for case in judged if case.change])
    yield from _section(
        "Versions, baseline -> now", _grouped((case.case, case.version_differences) for case in results.cases)
    )
    yield from _section(
        "Notes", [*map(sentence, results.said), *_grouped((case.case, case.notes) for case in results.cases)]
    )
    for case in results.cases:
        yield from _folded(case, "What slowed", "\n".join(case.explanation))
        yield from _folded(case, "What the run printed", case.detail)


def _section(title: str, lines: Iterable[str]) -> Iterable[str]:
    if found := list(lines):
        yield f"### {title.replace('>', '&gt;')}\n\n" + "".join(f"- {line}\n" for line in found)


def _folded(case: CaseResult, title: str, text: str) -> Iterable[str]:
    if text:
        yield f"{plain(case.case)}:\n\n<details><summary>{title}</summary>\n\n{fenced(text)}\n</details>\n"


def _reasons(case: CaseResult) -> str:
    if len(case.reasons) == 1:
        return f"**{plain(case.case)}: {case.said}.** {sentence(case.reasons[0])}"
    return f"**{plain(case.case)}: {case.said}**" + "".join(f"\n  - {sentence(reason)}" for reason in case.reasons)


def _grouped(sentences: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Each sentence once, with the cases that it is said of."""
    cases: dict[str, list[str]] = {}
    for case, texts in sentences:
        for text in texts:
            cases.setdefault(text, []).append(plain(case))
    return [f"{sentence(text)} ({', '.join(of)})" for text, of in cases.items()]


def _table(cases: Iterable[CaseResult]) -> str:
    rows = [
        "| " + " | ".join(column[0] for column in COLUMNS) + " |",
        "|" + "|".join(column[1] for column in COLUMNS) + "|",
    ]
    rows += ["| " + " | ".join(cell(case) for *_, cell in COLUMNS) + " |" for case in cases]
    return "".join(f"{row}\n" for row in rows)


def _name(case: CaseResult) -> str:
    return plain(case.case if case.trainer in {None, "native"} else f"{case.case} ({case.trainer})")


def _gpus(case: CaseResult) -> str:
    return f"{case.ranks} cpu" if case.scale == "mini" else _known(case.ranks, "d")


def _against(case: CaseResult) -> str:
    return f"{case.versus.tgs:.1f} {plain(case.versus.name)}" if case.versus else "-"


def _memory(case: CaseResult) -> str:
    return f"{case.peak_memory_bytes / GIB:.2f} GiB" if case.peak_memory_bytes else "-"


def _verdict(case: CaseResult) -> str:
    said = case.said if case.outcome == "passed" else f"**{case.said}**"
    return f"{said} (excused)" if case.outcome == "excused" else said


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


COLUMNS: tuple[tuple[str, str, Callable[[CaseResult], str]], ...] = (
    ("case", "---", _name),
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
