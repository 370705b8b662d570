"""Holds a built site to its promise: it asks nobody for anything. python .ci/docs/check.py SITE

Looks at what its pages and styles load by address, and, where Chromium is installed, at what a browser asks for.
"""

import re
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
import browser

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
"""Attributes of elements whose address a browser asks for by itself."""


class Loaded(HTMLParser):
    """Addresses of others that a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102 - the parser names it
        address = dict(attrs).get(LOADS.get(tag, "")) or ""
        if re.match(r"(https?:)?//", address) and dict(attrs).get("rel") != "canonical":
            self.found.append(address)


def asked(site: Path) -> list[str]:
    """What its pages and styles, or a browser, would ask others for."""
    found = [f"{page.name}: {each}" for page in site.glob("*.html") for each in Loaded(page.read_text()).found]
    for style in site.rglob("*.css"):
        loads = re.findall(r"@import[^;]*//[^;]*|url\(['\"]?(?:https?:)?//[^)]*", style.read_text())
        found += [f"{style.name}: {each}" for each in loads]
    if browser.CHROMIUM:
        with tempfile.TemporaryDirectory() as profile:
            browser.run(site / "index.html", Path(profile), "--dump-dom")
            seen = browser.requested(Path(profile))
        found += [f"index.html asked for {each}" for each in seen if each.startswith("http")]
    return found


if __name__ == "__main__":
    site = Path(sys.argv[1])
    pages = list(site.glob("*.html"))
    if not (site / "index.html").is_file():
        sys.exit(f"{site}: expected a built site with an index.html")
    if found := asked(site):
        sys.exit("\n".join(["the site asks others for:", *found]))
    print(f"{len(pages)} pages ask nobody for anything")
