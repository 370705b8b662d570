"""`python -m trainpace init`: a first case, its trainer and its gate, written into a user's repository.

Asks nothing that it can see, and changes no file that is there: what lacks in one is appended (.gitignore) or shown.
"""

import importlib.metadata
import json
import keyword
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from trainpace.app.stubs import CASE, LIBRARIES, TRAINERS
from trainpace.app.user_repository import Seen, configuration, look, requirement
from trainpace.errors import UsageError
from trainpace.store.files import write_whole, writing

IGNORED = ("/report/", "/runs/", "/traces/", "__pycache__/")
"""What the documents' commands write into a repository, beside baselines, which are committed."""
_PACKAGE = Path(__file__).resolve().parents[1]
_WORKFLOW = Path(".github/workflows/perf.yml")
_INSTALL = '          environment/bin/pip install --quiet "$TRAINPACE"'


def init(
    here: Path,
    *,
    name: str | None = None,
    adapter: str | None = None,
    trainer: str | None = None,
    dry_run: bool = False,
    run: bool = True,
    say: Callable[[str], None],
) -> int:
    """Write what lacks, and measure the first case once; the exit status of that.

    Args:
        here: a folder of the repository.
        name: of the case; None: as the repository's folder is called.
        adapter: a key of `TRAINERS`; None: what the repository imports says it.
        trainer: `package.module:object` that is there; None: one is written.
        dry_run: print what would be written, and write and run nothing.
        run: whether the case is measured.
        say: takes a line for the user.

    Raises:
        UsageError: where nothing can be written here, with the reason and what to do. Nothing is written then.
    """
    seen = look(here, adapter)
    name = name_of(seen.root, name)
    files = wanted(seen, name, trainer)
    _refuse(seen.root, files, trainer)
    say(f"in {seen.root}: {seen.why}")
    for path, text in files.items():
        _put(seen.root / path, text, path, dry_run=dry_run, say=say)
    for note in _notes(seen):
        say(note)
    _ignore(seen.root / ".gitignore", dry_run=dry_run, say=say)
    test, own = f"perf/test_{name}.py", None if trainer else f"perf/{name}_trainer.py"
    status = 0
    if run and not dry_run:
        # A placeholder's speed is nobody's baseline.
        command = ["pytest", test, *(["--perf-missing", "skip"] if own else []), *_alone(configuration(seen.root))]
        say(f"\n$ {' '.join(command)}")
        status = subprocess.run([sys.executable, "-P", "-m", *command], cwd=seen.root, check=False).returncode
    if dry_run:
        return 0
    say("\nnext:" if status == 0 else f"\nthe first case ended with {status}, see above; then:")
    for line in _next(seen, own):
        say(f"  {line}")
    return status


def name_of(root: Path, name: str | None) -> str:
    """The case's name: the one that was given, or the folder's made an identifier.

    Raises:
        UsageError: for a given one that is none.
    """
    if name is None:
        name = re.sub(r"[^a-z0-9]+", "_", root.name.lower()).strip("_")
        # A trainer's file that begins so would be taken for tests.
        return name if _is_name(name) and not name.startswith("test") else f"case_{name}".strip("_")
    if not _is_name(name):
        raise UsageError(f"init: --name: expected letters, digits and _, as for a function in Python, got {name!r}")
    return name


def wanted(seen: Seen, name: str, trainer: str | None) -> dict[Path, str]:
    """The files that a repository should have, with their text; .gitignore aside."""
    found = {Path(f"perf/test_{name}.py"): CASE.format(name=name, trainer=trainer or f"perf.{name}_trainer:trainer")}
    if trainer is None:
        found[Path(f"perf/{name}_trainer.py")] = TRAINERS[seen.adapter].replace("{package}", seen.package)
    if configuration(seen.root) is None:
        # By this file pytest knows the root, which baselines lie in and trainers are imported from.
        own = next((each for each in ("tests", "test") if (seen.root / each).is_dir()), "perf")
        found[Path("pytest.ini")] = f"[pytest]\ntestpaths = {own}\n"
    if not seen.gitlab:
        found[_WORKFLOW] = workflow(name, branch=seen.branch, needs=_needs(seen))
    return found


def workflow(name: str, *, branch: str, needs: str) -> str:
    """The workflow of the example, which travels with the package, made this repository's.

    Args:
        name: of the case.
        branch: what pull requests are merged into.
        needs: what pip installs besides, `-r base/requirements.txt`; empty: nobody knows.
    """
    inside = _PACKAGE / "examples" / "perf.yml"
    own = _PACKAGE.parents[1] / "examples" / "own-trainer" / _WORKFLOW
    text = (inside if inside.is_file() else own).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for begin, line in (
        ("  TRAINPACE: ", f'  TRAINPACE: "{requirement()}"\n'),
        ("  CASES: ", f"  CASES: {name}\n"),
        ("    branches: [main]", f"    branches: [{json.dumps(branch)}]\n"),
        (_INSTALL, f"{_INSTALL} {needs}\n" if needs else None),
    ):
        (place,) = [place for place, each in enumerate(lines) if each.startswith(begin)]
        lines[place] = line or lines[place]
    return "".join(lines)


def _notes(seen: Seen) -> Iterable[str]:
    """What must be said of files that are left as they are."""
    found = configuration(seen.root)
    if found and "testpaths" not in found[1]:
        line = 'testpaths = ["tests"]' if found[0].endswith(".toml") else "testpaths = tests"
        yield f"{found[0]}: is left as it is: a plain `pytest` trains too now; for your tests alone add `{line}` there"
    if found and found[1].get("pythonpath"):
        yield (
            f"{found[0]}: its pythonpath is for pytest alone: what a trainer imports from there has to be installed "
            "(pip install -e .), or named in PYTHONPATH"
        )
    if found and _alone(found):
        yield (
            f"{found[0]}: its addopts run tests side by side (-n), where cases would measure each other: add -n 0 to "
            "each command, and to the workflow `PYTEST_ADDOPTS: -n 0` beside CASES and pytest-xdist to what it installs"
        )
    if seen.gitlab:
        yield "no workflow file: this is a repository of GitLab, for which docs/gate.md of trainpace has one"
    elif (place := seen.root / _WORKFLOW).is_file() and "git+URL" in place.read_text(encoding="utf-8"):
        yield f"{_WORKFLOW}: write the address of trainpace's repository in place of URL, which nothing here tells"


def _needs(seen: Seen) -> str:
    """What pip installs for the trainer in the workflow; empty: nobody knows.

    The repository itself in place (`-e`): of what is so installed each side of a gate takes its own files.
    """
    root = seen.root
    found = []
    if (root / "requirements.txt").is_file():
        found.append("-r base/requirements.txt")
    pyproject = root / "pyproject.toml"
    with suppress(tomllib.TOMLDecodeError):
        if (root / "setup.py").is_file() or (
            pyproject.is_file() and "project" in tomllib.loads(pyproject.read_text(encoding="utf-8"))
        ):
            found.append("-e base")
    if found:
        return " ".join(found)
    # What its files import, as far as that is installed here, and what the adapter needs.
    names = _distributions(
        each for each in seen.modules if not any((root / f"{each}{end}").exists() for end in ("", ".py"))
    )
    lightning = "lightning" if seen.package.startswith("lightning.") else "pytorch-lightning"
    names |= {lightning if each == "pytorch-lightning" else each for each in LIBRARIES[seen.adapter]}
    return " ".join(f"{each}=={_version(each)}" if _version(each) else each for each in sorted(names))


def _distributions(modules: Iterable[str]) -> set[str]:
    """What pip installs these modules by, of those that are installed here."""
    others = set(modules) - sys.stdlib_module_names - {"pytest", "trainpace"}
    named = {each for each in others if _version(each)}
    # Of what is called otherwise (yaml is PyYAML's) all that is installed must be asked, which takes its time.
    installed = importlib.metadata.packages_distributions() if others - named else {}
    return {each.replace("_", "-") for each in named} | {
        installed[each][0] for each in others - named if each in installed
    }


def _version(library: str) -> str | None:
    """`2.13.0` of 2.13.0+cpu; None: it is not installed here."""
    try:
        return importlib.metadata.version(library).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _refuse(root: Path, files: Iterable[Path], trainer: str | None) -> None:
    """Find out before anything is written what would stand in the way.

    Raises:
        UsageError: naming the file, and what to do.
    """
    if trainer is None and (other := _other_perf(root)) is not None:
        raise UsageError(
            f"init: {other} is in the way: `perf` is that module, and no trainer could be imported from the "
            "folder perf/. Rename it, or name a trainer that lies elsewhere: --trainer package.module:object"
        )
    if trainer is not None and not re.fullmatch(r"[\w.]+:\w+", trainer):
        raise UsageError(f"init: --trainer: expected package.module:object, got {trainer!r}")
    for path in (*files, Path(".gitignore")):
        place = root / path
        if place.is_dir():
            raise UsageError(f"init: {place} is in the way: expected a file or nothing there, got a folder")
        there = next(each for each in place.parents if each.exists())
        if not there.is_dir():
            raise UsageError(f"init: {there} is in the way: expected a folder or nothing there, got a file")
        if not place.exists() and not os.access(there, os.W_OK):
            raise UsageError(f"init: {there} cannot be written to: run it as who may, or change its permissions")


def _other_perf(root: Path) -> Path | None:
    """What Python takes for `perf` in place of a plain folder of that name; None: nothing."""
    if (root / "perf" / "__init__.py").is_file():
        return None
    found = [each / name for each in (root, root / "src") for name in ("perf.py", "perf/__init__.py")]
    for entry in filter(None, sys.path):
        found += [Path(entry, "perf.py"), Path(entry, "perf", "__init__.py")]
    own = _PACKAGE.parent / "__init__.py"  # in its own checkout, which is on no user's path
    return next((each for each in found if each.is_file() and each.resolve() != own), None)


def _put(place: Path, text: str, path: Path, *, dry_run: bool, say: Callable[[str], None]) -> None:
    if place.exists():
        same = place.read_text(encoding="utf-8", errors="replace") == text
        say(f"{path}: is there" if same else f"{path}: is there, and left as it is")
    elif dry_run:
        say(f"would write {path}:")
        say("".join(f"    {line}".rstrip() + "\n" for line in text.splitlines()))
    else:
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, text)
        say(f"wrote {path}")


def _ignore(place: Path, *, dry_run: bool, say: Callable[[str], None]) -> None:
    """Append the lines that .gitignore lacks."""
    content = place.read_bytes() if place.exists() else b""  # in whatever encoding: it stays as it is
    there = {line.strip().strip("/") for line in content.decode(errors="replace").splitlines()}
    lacks = [line for line in IGNORED if line.strip("/") not in there]
    if not lacks:
        say(".gitignore: is there")
    elif dry_run:
        say(f"would add to .gitignore: {' '.join(lacks)}")
    else:
        end = b"" if not content or content.endswith(b"\n") else b"\n"
        write_whole(place, content + end + "".join(line + "\n" for line in lacks).encode())
        say(f"added to .gitignore: {' '.join(lacks)}")


def _next(seen: Seen, own: str | None) -> Iterable[str]:
    """Commands that can be typed, in their order."""
    configured = configuration(seen.root)
    pytest = " ".join(["pytest perf", *_alone(configured)])
    names = ["perf", configured[0] if configured else "pytest.ini", ".gitignore", *([] if seen.gitlab else [".github"])]
    yield f"{pytest}  # {f'with your model in {own}: ' if own else ''}records a baseline, and judges a run by it"
    yield f'git add {" ".join(names)} baselines && git commit -m "Measure the speed of training"'
    yield f"{pytest} --perf-against {seen.branch}  # on a branch: red where training became slower"


def _alone(configured: tuple[str, Mapping[str, object]] | None) -> list[str]:
    """What takes pytest-xdist's workers back, where the settings ask for them."""
    asked = configured[1].get("addopts", "") if configured else ""
    words = " ".join(map(str, asked)) if isinstance(asked, list) else str(asked)
    return ["-n", "0"] if re.search(r"(^|\s)(-n|--numprocesses|--dist)", words) else []


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text)) and not keyword.iskeyword(text)
