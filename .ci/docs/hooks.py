"""What makes the site of the documents that are written for a repository's page (mkdocs.yml names this file).

README and three more files from outside docs/ become pages. A link to a file that is no page leads to it in the
repository, where its address is known (`DOCS_REPOSITORY`, or what a GitHub workflow says); else its words stand alone.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "tests/README.md": "tests.md",
}
"""Pages by their files in the repository."""
LEFT_OUT = "Further"
"""Title of the section of pages that the navigation does not name."""
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(``.+?``|`[^`\n]*`)", re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?P<words>(?:[^\[\]]|\[[^\]]*\])+)\]\((?P<to>[^()\s]+)\)")
_PICTURE = re.compile(r"(?P<before>!\[[^\]]*\]\(|<img src=\")(?P<to>[^()\s\"]+)")


def repository() -> str | None:
    """Address of the repository; None where nobody says it."""
    if given := os.environ.get("DOCS_REPOSITORY"):
        return given.rstrip("/")
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    return None


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that the navigation does not name, so that a new document needs no entry."""
    named = set(re.findall(r"[\w-]+\.md", str(config.nav)))
    left = sorted({path.name for path in Path(config.docs_dir).glob("*.md")} - named)
    if left:
        config.nav = [*(config.nav or []), {LEFT_OUT: left}]
    # No `repo_url`: the theme would ask GitHub for its stars.
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:  # noqa: ARG001 - mkdocs names it
    """The page's text with links that work on the site."""
    pages = {page: source for source, page in OUTSIDE.items()}
    source = pages.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _FENCED.split(markdown)
    return "".join(part if at % 2 else _outside_code(part, source) for at, part in enumerate(parts))


def _outside_code(text: str, source: str) -> str:
    # A link's words may be code, and code may look like a link: what is code is put back at the end.
    codes: list[str] = []

    def kept(found: re.Match[str]) -> str:
        codes.append(found[0])
        return f"\x00{len(codes) - 1}\x00"

    text = _CODE.sub(kept, text)
    text = _LINK.sub(lambda found: _link(found["words"], found["to"], source), text)
    text = _PICTURE.sub(lambda found: found["before"] + (_on_site(found["to"], source) or found["to"]), text)
    return re.sub("\x00(\\d+)\x00", lambda found: codes[int(found[1])], text)


def _link(words: str, to: str, source: str) -> str:
    """A link of the file `source` as one of its page; words alone where there is nothing to lead to."""
    if re.match(r"[a-z]+:|#", to):
        return f"[{words}]({to})"
    if found := _on_site(to, source):
        return f"[{words}]({found})"
    path = _in_repository(to, source)
    if not (ROOT / path.partition("#")[0]).exists():
        return f"[{words}]({to})"  # broken in the repository too: the build says so
    address = repository()
    return f"[{words}]({address}/blob/HEAD/{path})" if address else words


def _on_site(to: str, source: str) -> str | None:
    """Where a file lies on the site, whose pages are all in one folder; None where it is no part of it."""
    path, mark, anchor = _in_repository(to, source).partition("#")
    found = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if found is None or "/" in found or not (ROOT / path).is_file():
        return None
    return found + mark + anchor


def _in_repository(to: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), to))
