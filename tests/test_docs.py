"""The README and the documents: each command that they show is typed, and each Python block is run.

A command of pytest is typed in a scratch repository as far as its options and what it selects; it is run where it asks
for no more than the toy can train. `python -m ...` is run. A Python block is written as the file that its first line
names (`# perf/test_ours.py`).
"""

import importlib
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401 - pytester forgets what a test imports, and numpy cannot be imported twice

from factories import make_runs
from repository import BARE, Repository
from trainpace.store.runs import write_run

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# Shown to who changes the suite: their links, options and environments are checked, their commands are not typed.
READ = PAGES | {name: ROOT / name for name in ("CONTRIBUTING.md", "tests/README.md")}
INLINE = re.compile(r"`((?:pytest\s+perf|python\s+-m\s)[^`]*)`")
NOT_TYPED = {
    "python -m trainpace bisect v1.4 main -k bigram-32k": "measures five commits; tests/app/test_bisect.py does too",
    "python -m trainpace comment DIR --pull-request N": "writes to GitHub; tests/report/test_github.py does too",
    "python -m trainpace count llm-foundry": "traces 175 steps",
    "python -m trainpace count mine.csv": "traces steps of a table that the page does not show",
    "python -m trainpace init": "wants a repository of git; tests/test_tutorial.py has one",
    "python -m trainpace predict h100-sxm --model config.json --micro-batch 4": "traces a step of the reader's model",
    "python -m trainpace published llm-foundry --report out": "draws 30 charts; test_table_report.py draws fewer",
    "python -m trainpace.simulate --out docs": "takes a quarter of an hour",
    "python -m trainpace.simulate --part pairs --out docs": "takes ten minutes",
    "python -m trainpace.simulate --quick": "takes a minute; tests/simulate/test_simulate.py runs the same",
    "python -m trainpace.simulate.stored --out docs": "takes ten minutes; tests/simulate draws less",
}
MEASURED = {"pytest", "perf", "--perf-refresh", "--perf-runs", "--perf-resume", "runs"}
"""Commands of these words alone are run: they measure whatever cases there are, and those of the toy take no time."""
OF_A_CHECKOUT = {"docs/kubernetes.md"}
"""What these pages start works in an image that has a checkout."""
ADAPTERS = "docs/adapters.md"
"""Its trainers are of several libraries: tests/adapters/test_page.py trains each."""
TUTORIAL = "docs/tutorial.md"
"""tests/test_tutorial.py runs it as a whole."""
# What a page leaves open.
FILLED = {"NAME": "hf"}


def blocks(page, *languages):
    """The fenced blocks of a page in these languages (`""`: in none), without what they are indented by."""
    return [
        textwrap.dedent(text) for _, language, text in FENCED.findall(PAGES[page].read_text()) if language in languages
    ]


def commands_in(text):
    """The commands of ours in shell text, as words: pytest's, and those of the package."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if "pytest" not in line and "python -m" not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if " " in word and "pytest " in word:  # a command for another shell, as ssh takes it
                found += commands_in(word)
            if set(word) <= set(";&|()"):
                found += command_of(words)
                words = []
            else:
                words.append(word)
    return found


def command_of(words):
    """One in a list, or none: from `pytest` on, whatever starts it, or `python -m` and our package."""
    for place, word in enumerate(words):
        if word.rpartition("/")[2] == "pytest":
            return [("pytest", *words[place + 1 :])]
        if words[place : place + 2] == ["python", "-m"] and words[place + 2].partition(".")[0] == "trainpace":
            return [tuple(words[place:])]
    return []


def commands(page):
    """All that a page shows, each once: in its shell blocks, and within its sentences."""
    sentences = INLINE.findall(FENCED.sub("", PAGES[page].read_text()))
    texts = blocks(page, "", "sh") + [" ".join(text.split()) for text in sentences]
    return list(dict.fromkeys(command for text in texts for command in commands_in(text)))


def files(page):
    """The Python blocks by the file that their first line names; one that names none goes on with the former."""
    found, name = {}, None
    for block in blocks(page, "python"):
        named = re.match(r"# (\S+\.py)\n", block)
        name = named[1] if named else name
        assert name, f"{page}: expected a first line `# FILE.py`, got {block.splitlines()[0]!r}"
        found[name] = found.get(name, "") + block
    return found


# A command that several pages show is typed once.
SHOWN = {command: page for page in PAGES for command in commands(page)}


def typed(kind):
    """The commands of a kind, as parameters with readable ids."""
    return [
        pytest.param(command[len(kind) :], id=f"{page}: {shlex.join(command)}")
        for command, page in SHOWN.items()
        if command[: len(kind)] == kind and shlex.join(command) not in NOT_TYPED
    ]


def measured(page):
    """What the commands of a page that are run give to `pytest perf`."""
    return [command[2:] for command in commands(page) if set(command) <= MEASURED]


@pytest.fixture
def scratch(pytester, monkeypatch):
    """A user's repository with all that the pages take for granted: cases, trainers, records, another checkout."""
    here = pytester.path / "here"
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    monkeypatch.setenv("TRAINPACE_CACHE", str(pytester.path / "cache"))
    shutil.copytree(ROOT / "examples", here / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (here / "perf").mkdir()
    (pytester.path / "head").mkdir()
    shutil.copy(here / "examples" / "own-trainer" / "perf" / "test_bigram.py", here / "perf")
    for name in ("alpaca.json", "alpaca_zh.json"):
        (here / name).write_text("[]")
    (here / "ours.csv").write_text(next(text for text in blocks("docs/tables.md", "") if text.startswith("model,")))
    for name in ("chats.parquet", "alpaca_52k.json"):
        (here / name).touch()
    python = here / ".tox" / "peer-llamafactory" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (here / "pytest.ini").write_text(f"[pytest]\naddopts = {' '.join(BARE)}\n")
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("page", list(dict.fromkeys(SHOWN.values())))
def test_sessions(scratch, pytester, monkeypatch, page):
    """Each session of pytest's that a page shows takes its options, and selects something, in a user's repository.

    Those of the installed cases do so without a perf/ too.
    """
    if page in OF_A_CHECKOUT:
        for file in (ROOT / "perf").glob("test_*.py"):
            shutil.copy(file, scratch / "perf")
    shown = [command for command, first in SHOWN.items() if first == page and command[0] == "pytest"]
    for name, text in files(page).items():
        if any(name in command for command in shown):
            (scratch / name).write_text(text)
    installed = [command for command in shown if "--pyargs" in command]
    wrong = []
    for number, command in enumerate([*shown, *installed]):
        if shlex.join(command) in NOT_TYPED:
            continue
        if number == len(shown):
            shutil.rmtree(scratch / "perf")
        monkeypatch.delitem(sys.modules, "test_cost", raising=False)  # the tests have one of that name too
        try:
            config = pytester.parseconfigure(*(FILLED.get(word, word) for word in command[1:]))
        except pytest.UsageError as error:
            wrong.append((shlex.join(command), str(error)))
            continue
        session = pytest.Session.from_config(config)
        config.hook.pytest_sessionstart(session=session)
        if not session.perform_collect():
            wrong.append((shlex.join(command), "selects nothing"))
        session.exitstatus = pytest.ExitCode.OK
        config.hook.pytest_sessionfinish(session=session, exitstatus=session.exitstatus)

    assert wrong == []


# What is recorded and judged in one session of tests asks for a quiet machine.
RECORDS = [page for page in PAGES if any("--perf-refresh" in arguments for arguments in measured(page))]


# Pages that show what an earlier one showed are not measured again.
FIRST_MEASURED = {arguments: page for page in reversed(PAGES) for arguments in measured(page)}
MEASURING = [page for page in PAGES if page in FIRST_MEASURED.values()]


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] if p in RECORDS else []) for p in MEASURING])
def test_measured(page, repository):
    """The commands of a page that measure end with 0, one after the other in one repository."""
    codes = {}
    for arguments in measured(page):
        if "--perf-refresh" in arguments:
            # A baseline that is 1 % slower than one recorded a moment ago is refused, as it should be.
            shutil.rmtree(repository.path / "baselines", ignore_errors=True)
        # Steps that mostly sleep: what a busy machine does to them is small beside the noise that a refresh allows.
        codes[arguments] = repository.suite(*arguments, "-k", "8k", seconds=0.02).code

    assert set(codes.values()) == {0}, codes


@pytest.mark.parametrize("arguments", typed(("python", "-m")))
def test_command(scratch, arguments):
    """A command of the package ends with 0, with a history of unchanged runs in the folders that pages name."""
    for folder in ("runs", "history"):
        for run in make_runs(*(1000.0 + number % 3 for number in range(10))):
            write_run(run, scratch / folder)
    module, *rest = arguments

    assert importlib.import_module(f"{module}.__main__").main(rest) == 0


# What the Python of a page is run with, and what its last line then is; of others a case without a baseline.
TWO = ("--perf-trainer=training:Toy", "--perf-trainer=training:toy", "--perf-runs-per-case=2")
ENDS = {
    "docs/compare.md": (TWO, "1 case side by side: 2 measured"),
    "docs/cost.md": ((), "1 cost: 1 no baseline (ours_3b-8k-sp1)"),
}
LOADS = {"docs/cost.md"}
"""Pages whose code loads torch and traces."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.slow] if p in LOADS else [])
        for p in PAGES
        if blocks(p, "python") and p not in {ADAPTERS, TUTORIAL}
    ],
)
def test_python(page, tmp_path, started):
    """The Python of a page, written where its first lines say, is a repository whose cases are measured.

    What the page does not show is the toy's.
    """
    ours = Repository.create(tmp_path / "ours")
    for name, text in files(page).items():
        (ours.path / name).parent.mkdir(exist_ok=True)
        (ours.path / name).write_text(text)
    for ini in blocks(page, "ini"):
        (ours.path / "pytest.ini").write_text(ini)
    arguments, last_line = ENDS.get(page, ((), "1 case: 1 no baseline"))
    done = ours.suite(*BARE, "-k", "llama2_7b-8k or ours_3b-8k", "--perf-scale=mini", "--perf-steps=4", *arguments)

    assert done.code == 0
    assert f"\n{last_line}" in done.text


def test_exceptions_are_shown():
    """What is not typed is still there to be typed."""
    assert NOT_TYPED.keys() <= set(map(shlex.join, SHOWN))


def test_pages_show_commands():
    """They are found: the README alone shows more than ten."""
    assert len(commands("README.md")) > 10


@pytest.mark.parametrize("page", READ)
def test_options(pytester, page):
    """Every option of ours that a page names is one that pytest knows."""
    named = set(re.findall(r"--perf-[a-z]+(?:-[a-z]+)*", READ[page].read_text()))
    known = vars(pytester.parseconfig().option)

    assert [name for name in named if name.removeprefix("--").replace("-", "_") not in known] == []


INSTALLS = [*READ.values(), *sorted(ROOT.glob("examples/**/*.md")), *sorted(ROOT.glob("examples/**/*.yml"))]


@pytest.mark.parametrize("path", INSTALLS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_installed_exists(path):
    """There is no release: whoever has no trainpace yet is told a URL. Extras of one that is installed need none."""
    named = re.findall(r"(?:pip install |TRAINPACE: )\"?(trainpace\b[^\n`#]*)", path.read_text())

    assert [text for text in named if " @ git+URL" not in text and not re.match(r"trainpace\[charts\]", text)] == []


@pytest.mark.parametrize("page", READ)
def test_environments(page):
    """Every environment of tox that a page names is in tox.ini."""
    named = set(re.findall(r"tox run (?:--notest )?-e ([a-z-]+)(?=[\s`])", READ[page].read_text()))

    assert named <= set(re.findall(r"^\[testenv:([a-z-]+)\]$", (ROOT / "tox.ini").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", READ)
def test_links(page):
    """Every file that a page links is there, and a test that it names is in the file."""
    links = re.findall(r"\[(`?)([^\]`]*)`?\]\(([^)#\s]+)[^)]*\)", READ[page].read_text())
    linked = [(name, READ[page].parent / file) for _, name, file in links if "://" not in file]

    assert [file for _, file in linked if not file.exists()] == []
    assert [name for name, file in linked if name.startswith("test_") and f"def {name}(" not in file.read_text()] == []


ARCHITECTURE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "perf" / "trainpace"


def test_architecture_lists_every_file():
    """One line a file, below the name of its room."""
    rooms = re.split(r"^\*\*(\w+)/\*\*$", ARCHITECTURE.read_text(), flags=re.MULTILINE)
    listed = {
        f"{room}/{name}"
        for room, files in zip(rooms[1::2], rooms[2::2], strict=True)
        for name in re.findall(r"^- `([\w/]+\.py)`: \S", files, re.MULTILINE)
    }
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/**/*.py")}

    assert {name for name in there if not name.endswith("__.py")} == {n for n in listed if not n.endswith("__.py")}
    assert listed <= there


@pytest.mark.parametrize(("file", "name"), re.findall(r"`([\w/]+\.py): (\w+)`", ARCHITECTURE.read_text()))
def test_architecture_names_what_is_there(file, name):
    """A function, a class or a constant of the file."""
    assert re.search(rf"^(?:def |class )?{name}\b", (PACKAGE / file).read_text(), re.MULTILINE)
