"""Text that means something to Markdown, HTML or GitHub, and what a reader sees of a page that quotes it."""

import html
import re

from markdown_it import MarkdownIt

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<!-- hidden -->",
    "</details></td>",
    "[click](https://evil.example)",
    "![](https://evil.example/pixel.png)",
    "a | b",
    "# heading",
    "- item",
    "1. item",
    "| --- |",
    "```\nfence",
    "`code",
    "~~~",
    "*bold* _it_ ~~gone~~",
    "&lt;b&gt;",
    "\\",
    "@everyone @org/team",
    "fixes #1, org/repo#2, GH-3",
    "https://evil.example www.evil.example mailto:a@b.example",
    "$x$ :tada:",
    "one\n\ntwo\r\n# three",
    "::error::red",
    "\x1b[31mred\x1b[0m \x00 \u202etxet",
    "=====",
]
GITHUB_LINKS = re.compile(
    r"@\w|#\d|://\S|(?i:www\.|mailto:\w|\bgh-\d)|:\w+:|\$",
)
"""What GitHub makes something of in text that is no markup: tested on the source, as it is not CommonMark."""


def drawn(markdown):
    """The HTML that a reader's browser gets."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


def text_of(markup):
    """The text of HTML, as a reader sees it."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup)).replace("\u200b", "")


def seen(value):
    """What of a quoted text is to be seen: one line, without colours, what cannot be seen made visible."""
    value = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", value).replace("\r", "\n")
    value = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]", "\ufffd", value)
    return " ".join(value.split())
