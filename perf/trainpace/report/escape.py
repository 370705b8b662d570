"""Text that others chose as Markdown that means nothing but itself, as GitHub and GitLab draw it.

Ids, revisions, error text and what a run printed may come from whoever opened the pull request. What passes through
`plain`, `sentence` or `fenced` is text and nothing else: no markup, no HTML, no link, no @mention, no reference to an
issue.
"""

import re

from trainpace.text import harmless

_INVISIBLE = "&#8203;"
"""A space of no width: a reader does not see it, and GitHub makes no link across it."""
_MEANING = re.compile(
    r"""(?ix)
    (?P<opens> ^ (?: [-+=] | \d+ (?=[.)]) ) )  # at the beginning of a line: a list, a heading, a rule
    | (?P<marks> [\\`*_{}\[\]()<>&|~$] )
    | (?P<links> [@#] | : (?=\S) | www (?=\.) | \b gh (?=-\d) )  # a mention, an issue, an address, an emoji
    """
)


def plain(value: str) -> str:
    """`value` on one line, as Markdown text that means nothing but itself, also in a table."""
    text = " ".join(harmless(value).split())
    return _MEANING.sub(_meaningless, text)


def sentence(value: str) -> str:
    """`plain`, with what stands between two backticks as code: our own sentences name commands like that."""
    parts = value.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner was no command of ours
        return plain(value)
    last = len(parts) - 1
    # Two pieces of code that touch would be one, with their backticks inside.
    between = [part or " " if 0 < number < last else part for number, part in enumerate(parts)]
    return "".join(_code(part) if number % 2 else _between(part) for number, part in enumerate(between))


def fenced(value: str) -> str:
    """`value` as a block of code, whatever fences it holds; no line of it is a command to a workflow's log."""
    text = harmless(value).strip("\n")
    text = re.sub(r"(?m)^(\s*)::", "\\1\u200b::", text).replace("##[", "##\u200b[")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n"


def _code(value: str) -> str:
    text = " ".join(harmless(value).split())
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
