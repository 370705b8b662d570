"""A page that is one file: its style, its script and its data inside, so that it opens from a disk or an artifact.

A page is fragments in a row: text, tables that sort, charts that answer to a pointer and to the keyboard. Everything
quoted is escaped by the functions that make fragments; the policy in the page's head lets nothing else run, by hash,
and no request leave it.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

Fragment = NewType("Fragment", str)
"""HTML with everything quoted in it escaped."""


@dataclass(frozen=True)
class Assets:
    """Files that every page holds; store/reports.py reads them."""

    style: str
    """Text of page.css."""
    script: str
    """Text of page.js."""
    documents: str | None = None
    """Address of the folder that holds docs/; None where it is not known."""


def paragraph(text: str) -> Fragment:
    """A paragraph."""
    return Fragment(f"<p>{html.escape(text)}</p>")


def heading(text: str) -> Fragment:
    """The heading of a section."""
    return Fragment(f"<h2>{html.escape(text)}</h2>")


@dataclass(frozen=True)
class Linked:
    """A text with links: in it where it holds their words, else behind it."""

    text: str
    links: Mapping[str, str]
    """Addresses, which begin with https://, by the words to click on."""


def linked(text: str, assets: Assets) -> Linked:
    """Our own text, with what it names as links: addresses, and documents where it is known where they are read."""
    links = {address: address for address in re.findall(r"https://[^\s;,()]+", text)}
    if assets.documents:
        links |= {name: f"{assets.documents}/{name}" for name in re.findall(r"\bdocs/[a-z-]+\.md\b", text)}
    return Linked(text, links)


def items(texts: "Iterable[str | Linked]") -> Fragment:
    """A list; empty without `texts`."""
    lines = "".join(f"<li>{_item(text)}</li>" for text in texts)
    return Fragment(f"<ul>{lines}</ul>" if lines else "")


def _with_code(text: str) -> str:
    """`text` escaped; what stands between two backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one without its partner
        return html.escape(text)
    return "".join(
        f"<code>{html.escape(part)}</code>" if at % 2 else html.escape(part) for at, part in enumerate(parts)
    )


def _item(item: str | Linked) -> str:
    if isinstance(item, str):
        return _with_code(item)
    # The page's policy lets nothing be asked for; a link is followed by whoever clicks, and tells nobody whence.
    links = {
        words: f'<a href="{html.escape(address)}" rel="noreferrer">{html.escape(words)}</a>'
        for words, address in item.links.items()
        if address.startswith("https://")
    }
    inside = [words for words in links if words in item.text]
    parts = re.split(f"({'|'.join(map(re.escape, inside))})", item.text) if inside else [item.text]
    text = "".join(links.get(part) or _with_code(part) for part in parts)
    return ", ".join((text, *(link for words, link in links.items() if words not in inside)))


def chart(
    name: str,
    how: str,
    data: Mapping[str, Any],
    *,
    title: str,
    words: str | None = None,
    notes: Iterable[str | Linked] = (),
) -> Fragment:
    """A chart with its caption.

    Args:
        name: of the figure, unique on the page; a column's link leads to it.
        how: the function of page.js that draws it: `trend`, `bars`, `scatter`.
        data: what that function takes, plain JSON without NaN.
        title: above the chart.
        words: the chart as text, for those who do not see it; None: the title.
        notes: below it.
    """
    # In a script element only a closing tag could end the data; JSON writes the sign as well in another way.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    name, how, label = html.escape(name), html.escape(how), html.escape(title if words is None else words)
    return Fragment(
        f'<figure id="{name}" data-draw="{how}">\n<figcaption>{html.escape(title)}</figcaption>\n'
        f'<svg role="img" aria-label="{label}" tabindex="0"></svg>\n{items(notes)}\n'
        f'<script type="application/json">{text}</script>\n</figure>'
    )


def listing(name: str, title: str, text: str) -> Fragment:
    """A command or another text of a machine below `title`; a column's link leads to `name`."""
    return Fragment(f'<h3 id="{html.escape(name)}">{html.escape(title)}</h3>\n<pre>{html.escape(text)}</pre>')


def folded(title: str, text: str) -> Fragment:
    """A text of a machine that is shown when its title is clicked."""
    return Fragment(f"<details><summary>{html.escape(title)}</summary>\n<pre>{html.escape(text)}</pre></details>")


def page(title: str, *fragments: Fragment, assets: Assets) -> str:
    """The text of the whole page."""
    style, script = assets.style, assets.script
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(fragments)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<noscript><p>The page's own script, which this browser does not run, sorts tables and draws what moves.</p></noscript>
{body}
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
