"""What `init` sees of a user's repository, and how this trainpace was installed."""

import ast
import configparser
import importlib.metadata
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trainpace.app import revisions
from trainpace.app.revisions import RevisionError
from trainpace.app.stubs import TRAINERS
from trainpace.errors import UsageError

MAX_BYTES = 1 << 20
"""A larger file of Python was written by a program: it is not looked at."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a repository says of itself."""

    root: Path
    adapter: str
    """A key of `TRAINERS`."""
    why: str
    """What of the repository says so, for people."""
    package: str = "pytorch_lightning"
    """Under which Lightning is imported."""
    modules: frozenset[str] = frozenset()
    """What its files import, by the first part of the name."""
    gitlab: bool = False
    """Whether it is GitLab that runs its workflows."""
    branch: str = "main"
    """What pull requests are merged into."""


def look(here: Path, adapter: str | None) -> Seen:
    """What the repository around `here` uses.

    Raises:
        UsageError: outside a repository, and in trainpace's own.
    """
    try:
        root = revisions.root_of(here)
    except RevisionError as error:
        if not here.is_dir() or "not a git repository" not in str(error):
            raise
        raise UsageError(f"init: {here} is in no git repository: run `git init` first, or go to one") from None
    if (root / "perf" / "trainpace" / "__init__.py").is_file():
        raise UsageError(f"init: {root} is trainpace's own repository, whose cases are there: run it in yours")
    remote = revisions.remote_of(root) or ""
    gitlab = not (root / ".github").exists() and ("gitlab" in remote or (root / ".gitlab-ci.yml").exists())
    branch = revisions.main_branch(root)
    modules, found, package = _imports(root)
    if adapter is not None:
        why = f"trainer by --adapter {adapter}"
    elif found:
        adapter = next(each for each in TRAINERS if each in found)
        others = [f"--adapter {each}" for each in TRAINERS if each in found and each not in (adapter, "plain")]
        why = f"{found[adapter]} says --adapter {adapter}{''.join(f', {each} is there too' for each in others)}"
    else:
        adapter, why = "none", "nothing here imports torch, so the trainer is one of four methods (or say --adapter)"
    return Seen(root=root, adapter=adapter, why=why, package=package, modules=modules, gitlab=gitlab, branch=branch)


def configuration(root: Path) -> tuple[str, Mapping[str, object]] | None:
    """The file that pytest is configured by, and its settings; None: there is none."""
    for name, tables in (
        ("pytest.toml", (("pytest",),)),
        (".pytest.toml", (("pytest",),)),
        ("pytest.ini", ("pytest",)),
        (".pytest.ini", ("pytest",)),
        ("pyproject.toml", (("tool", "pytest", "ini_options"), ("tool", "pytest"))),
        ("tox.ini", ("pytest",)),
        ("setup.cfg", ("tool:pytest",)),
    ):
        if not (root / name).is_file():
            continue
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        try:
            settings = _toml(text, tables) if name.endswith(".toml") else _ini(text, str(tables[0]))
        except (tomllib.TOMLDecodeError, configparser.Error) as error:
            raise UsageError(f"init: {root / name} cannot be read: {error}") from None
        if settings is not None or name.startswith(("pytest", ".pytest")):
            return name, settings or {}
    return None


def _toml(text: str, tables: Iterable[Iterable[str]]) -> Mapping[str, object] | None:
    content = tomllib.loads(text)
    for table in tables:
        found: object = content
        for key in table:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return None


def _ini(text: str, section: str) -> Mapping[str, object] | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    parser.read_string(text)
    return dict(parser[section]) if parser.has_section(section) else None


def requirement() -> str:
    """What pip installs this very trainpace by: a version, or an address and a commit.

    `URL` stands in it where nothing here tells an address that another machine could reach.
    """
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").is_file():
        return _of_checkout(checkout)
    installed = importlib.metadata.distribution("trainpace")
    return address(json.loads(installed.read_text("direct_url.json") or "null"), installed.version)


def address(told: Mapping[str, Any] | None, version: str) -> str:
    """The same of an installed trainpace.

    Args:
        told: what pip wrote about where it came from (direct_url.json, PEP 610); None: from an index.
        version: its version.
    """
    if told is None:
        return f"trainpace=={version}"
    url, commit = told["url"], told.get("vcs_info", {}).get("commit_id")
    if url.startswith("file:"):
        return _of_checkout(Path(unquote(urlsplit(url).path)), commit)
    return f"trainpace @ git+{url}@{commit}" if commit else f"trainpace @ {url}"


def _of_checkout(folder: Path, commit: str | None = None) -> str:
    """An address by the checkout's own `origin`, and its commit."""
    remote = None
    with suppress(RevisionError):
        if folder.is_dir() and revisions.root_of(folder) == folder:
            remote, commit = revisions.remote_of(folder), commit or revisions.commit_of(folder, "HEAD")
    if remote and (short := re.fullmatch(r"([\w.-]+@[\w.-]+):(?!//)(.+)", remote)):
        remote = f"ssh://{short[1]}/{short[2]}"
    elif remote:  # without the name and the word of who cloned it
        remote = re.sub(r"^(https?://)[^/@]*@", r"\1", remote)
    reachable = remote and re.match(r"(https?|ssh|git)://", remote)
    return f"trainpace @ git+{remote if reachable else 'URL'}@{commit or 'REVISION'}"


def _imports(root: Path) -> tuple[frozenset[str], dict[str, str], str]:
    """What is imported; by adapter the file that imports what it is for; and the name of Lightning's package."""
    modules: set[str] = set()
    found: dict[str, str] = {}
    package = "pytorch_lightning"
    for name in revisions.source_files(root):
        path = root / name
        if (
            not name.endswith(".py")
            or name.startswith("perf/")
            or not path.is_file()
            or path.stat().st_size > MAX_BYTES
        ):
            continue
        with suppress(SyntaxError, ValueError):
            for module, members in _imported(ast.parse(path.read_bytes())):
                top = module.partition(".")[0]
                modules.add(top)
                if top in ("lightning", "pytorch_lightning"):
                    found.setdefault("lightning", name)
                    package = "pytorch_lightning" if top == "pytorch_lightning" else "lightning.pytorch"
                if top in ("transformers", "trl") and any(each.endswith("Trainer") for each in members):
                    found.setdefault("transformers", name)
                if top == "accelerate":
                    found.setdefault("accelerate", name)
                if top == "torch":
                    found.setdefault("plain", name)
    return frozenset(modules), found, package


def _imported(tree: ast.AST) -> Iterable[tuple[str, list[str]]]:
    """Each module that is imported, with the names that are taken from it (`transformers.Trainer` is one, too)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, []) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, [each.name for each in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, [node.attr]
