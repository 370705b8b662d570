"""The command: what it says of recorded runs, when it is red, what its page shows."""

import io
import random
import re
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta

import pytest

from browser import CHROMIUM, Elements, requested, run
from factories import make_run, make_workload
from trainpace.__main__ import main
from trainpace.report.history import PAGE, Web
from trainpace.runs.run import Health
from trainpace.store.runs import write_run

STABLE = [1000.0] * 20
CREEP = [1000 * 0.99**number for number in range(1, 11)]


def record(folder, levels, case="llama2_7b-8k-sp1", *, noise=0.005, first=0, revision="{number:07x}", **overrides):
    """A run a day of each level, and a revision a run."""
    chance = random.Random(case)  # noqa: S311 - noise, no secret
    for number, level in enumerate(levels, first):
        write_run(
            make_run(
                case,
                tgs=level * chance.lognormvariate(0, noise),
                id=f"{case}-{number:04d}",
                started=(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)).isoformat(),
                revision=revision.format(number=number) if revision else None,
                **overrides,
            ),
            folder,
        )


def history(*arguments):
    """The command: exit status, output lines, errors."""
    said, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(errors):
        try:
            status = main(["history", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
    return status, said.getvalue().splitlines(), errors.getvalue()


def test_lines_are_wrapped_on_a_terminal(tmp_path, monkeypatch):
    """Between words; where the output is no terminal a case stays one line."""
    record(tmp_path, [*STABLE, *[850.0] * 6])
    _, plain, _ = history(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    _, narrow, _ = history(tmp_path)

    assert max(map(len, narrow)) <= 80 < len(plain[0])
    assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(plain).split())


def test_unchanged_history_passes(tmp_path):
    """A line a case, the count, and 0."""
    record(tmp_path, STABLE)
    status, (line, count), _ = history(tmp_path, "--check")

    assert status == 0
    assert line.startswith("pass: llama2_7b-8k-sp1 mini on cpu-test-2c: ")
    assert "in the last 20 runs, its best level; finds a loss of " in line
    assert count == "1 case: 1 pass"


def test_slow_creep_is_red(tmp_path):
    """Ten commits of 1 % each, of one case among two: red, with loss, reference and what moved it."""
    record(tmp_path, STABLE + CREEP)
    record(tmp_path, STABLE, "llama2_7b-32k-sp1")
    status, lines, _ = history(tmp_path, "--check")
    (line,) = (line for line in lines if line.startswith("regression"))

    assert status == 1
    assert "% below " in line
    assert "; moved -" in line
    assert lines[-1] == "2 cases: 1 pass, 1 regression (llama2_7b-8k-sp1)"


def test_without_check_a_loss_is_only_said(tmp_path):
    """Looking is no judging: exit status 0."""
    record(tmp_path, STABLE + CREEP)
    status, lines, _ = history(tmp_path)

    assert status == 0
    assert lines[0].startswith("regression")


def test_commit_that_moved_it_is_named(tmp_path):
    """15 % at run 20: its revision and day."""
    record(tmp_path, [*STABLE, *[850.0] * 6])
    _, lines, _ = history(tmp_path)

    assert lines[1] == "  its commits: git log --oneline 0000013..0000014"
    assert "% at 0000014 (2026-01-21)" in lines[0]
    assert "up to 0000013 (2026-01-20)" in lines[0]


def test_a_move_without_a_new_commit_is_the_machines(tmp_path):
    """One revision on both sides, and torch changed: not the code's fault."""
    record(tmp_path, STABLE, revision="abc")
    record(tmp_path, [850.0] * 6, first=20, revision="abc", software={"python": "3.11.7", "torch": "2.14.0"})
    _, lines, _ = history(tmp_path)

    assert len(lines) == 2
    assert (
        "abc (2026-01-21), the same revision as before: the machine or its software; torch 2.13.0 -> 2.14.0"
        in (lines[0])
    )


def test_runs_without_a_revision_have_a_place(tmp_path):
    """The run and its day, where no commit is known."""
    record(tmp_path, [*STABLE, *[850.0] * 6], revision=None)
    _, lines, _ = history(tmp_path)

    assert "at run 21 (2026-01-21), of no recorded revision" in lines[0]


def test_few_runs_are_inconclusive(tmp_path):
    """Not called pass, and not red."""
    record(tmp_path, STABLE[:5])
    status, lines, _ = history(tmp_path, "--check")

    assert status == 0
    assert lines == [
        "inconclusive: llama2_7b-8k-sp1 mini on cpu-test-2c: 5 of the 8 runs that a trend needs",
        "1 case: 1 inconclusive",
    ]


def test_invalid_runs_are_left_out_and_counted(tmp_path):
    """A disturbed stretch is no loss."""
    record(tmp_path, STABLE)
    record(tmp_path, [500.0] * 6, first=20, health=Health(faults=("disturbed",)))
    status, lines, _ = history(tmp_path, "--check")

    assert status == 0
    assert lines[0].endswith("; 6 invalid left out")


def test_a_case_of_invalid_runs_alone(tmp_path):
    """Nothing to draw and nothing to judge, and no crash."""
    record(tmp_path, STABLE[:3], health=Health(faults=("disturbed",)))
    status, lines, _ = history(tmp_path, "--check", "--report", tmp_path / "out")

    assert status == 0
    assert "0 of the 8 runs that a trend needs; 3 invalid left out" in lines[0]
    assert "inconclusive" in (tmp_path / "out" / PAGE).read_text()


def test_an_earlier_workload_is_ended(tmp_path):
    """A case whose steps were changed since is shown, and only its present workload is checked."""
    record(tmp_path, [*STABLE, *[850.0] * 6], workload=make_workload(steps=20))
    record(tmp_path, STABLE, first=30)
    status, lines, _ = history(tmp_path, "--check")

    assert status == 0
    assert lines[-1] == "2 cases: 1 ended, 1 pass"


@pytest.mark.parametrize("since", ["2026-01-21", "0000014", "llama2_7b-8k-sp1=0000014"])
def test_a_loss_before_since_is_accepted(tmp_path, since):
    """By day, by revision, and of one case alone."""
    record(tmp_path, [*STABLE, *[850.0] * 12])

    assert history(tmp_path, "--check")[0] == 1
    assert history(tmp_path, "--check", "--since", since)[0] == 0


def test_since_of_one_case_leaves_the_others(tmp_path):
    """What is accepted of one is not accepted of all."""
    record(tmp_path, [*STABLE, *[850.0] * 12])
    record(tmp_path, [*STABLE, *[850.0] * 12], "llama2_7b-32k-sp1")
    status, lines, _ = history(tmp_path, "--check", "--since", "llama2_7b-8k-sp1=0000014")

    assert status == 1
    assert lines[-1] == "2 cases: 1 pass, 1 regression (llama2_7b-32k-sp1)"


@pytest.mark.parametrize("since", ["fffffff", "2027-01-01", "unknown=2026-01-01"])
def test_since_of_nothing_is_refused(tmp_path, since):
    """A misspelt revision would judge the wrong runs."""
    record(tmp_path, STABLE)
    status, lines, said = history(tmp_path, "--since", since)

    assert (status, lines) == (4, [])
    assert f"--since {since}: no run" in said


def test_broken_file_is_named(tmp_path):
    """A usage error with the file's name, and nothing judged."""
    record(tmp_path, STABLE)
    (tmp_path / "cut.json").write_text('{"schema_version": 1,')
    status, lines, said = history(tmp_path, "--check", "--report", tmp_path / "out")

    assert (status, lines) == (4, [])
    assert "cut.json, line 1: not JSON, or cut off" in said
    assert not (tmp_path / "out").exists()


def test_page_has_every_case(tmp_path):
    """What is lost stands first; every case has a row that leads to its chart."""
    record(tmp_path, STABLE)
    record(tmp_path, [*STABLE, *[850.0] * 6], "llama2_7b-32k-sp1")
    history(tmp_path, "--report", tmp_path / "out")
    elements = Elements((tmp_path / "out" / PAGE).read_text())
    links = [attributes["href"] for name, attributes in elements.found if name == "a"]
    figures = [attributes["id"] for name, attributes in elements.found if name == "figure"]

    assert links == [f"#{name}" for name in figures] == ["#case-0", "#case-1"]
    assert elements.texts.index("llama2_7b-32k-sp1") < elements.texts.index("llama2_7b-8k-sp1")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_page_opens_in_a_browser(tmp_path):
    """From a file: every chart drawn, the loss marked, quoted text is text, and no request."""
    record(tmp_path, [*STABLE, *[850.0] * 6], revision="<img src=x>{number}")
    record(tmp_path, STABLE, "llama2_7b-32k-sp1")
    history(tmp_path, "--report", tmp_path / "out")
    elements = Elements(run(tmp_path / "out" / PAGE, tmp_path / "profile", "--dump-dom"))
    root = next(attributes for name, attributes in elements.found if name == "html")

    assert root["data-drawn"] == "2"
    assert [text for text in elements.texts if text in {"TGS", "peak memory, MiB", "start-up, s"}][:3] == [
        "TGS",
        "peak memory, MiB",
        "start-up, s",
    ]
    assert sorted(each["d"].count("h0") for each in elements.of_class("runs")) == [20, 26]
    assert len(elements.of_class("slower")) == 1
    assert "img" not in {name for name, _ in elements.found}
    assert requested(tmp_path / "profile") == set()


# Links to commits


@pytest.mark.parametrize(
    ("remote", "commit"),
    [
        ("https://github.com/ours/training.git", "https://github.com/ours/training/commit/1a2b"),
        ("https://x-access-token:secret@github.com/ours/training", "https://github.com/ours/training/commit/1a2b"),
        ("git@github.com:ours/training.git", "https://github.com/ours/training/commit/1a2b"),
        (
            "ssh://git@gitlab.ours.example:2222/a/b/training.git/",
            "https://gitlab.ours.example/a/b/training/-/commit/1a2b",
        ),
        ("git@bitbucket.org:ours/training.git", None),
        ("/srv/git/training.git", None),
        ("javascript:alert(1)//github.com/x", None),
    ],
)
def test_where_commits_are_shown(remote, commit):
    """Told by the remote, without the user or the token in it; nothing where it is neither GitHub nor GitLab."""
    web = Web.of_remote(remote)

    assert (web and web.commit("1a2b")) == commit


def test_page_links_commits(tmp_path, monkeypatch):
    """What moved a case is linked: the commit, and all changes within the band; without a remote it is named alone."""
    record(tmp_path / "runs", [1000.0] * 20 + [900.0] * 20)
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    history(tmp_path / "runs", "--report", tmp_path / "alone")
    subprocess.run(["git", "init", "-q"], check=True)  # noqa: S607 - the git at hand
    subprocess.run(["git", "remote", "add", "origin", "git@github.com:ours/training.git"], check=True)  # noqa: S607
    _, lines, _ = history(tmp_path / "runs", "--report", tmp_path / "linked")
    page = (tmp_path / "linked" / PAGE).read_text()

    assert re.fullmatch(r"  their changes: https://github.com/ours/training/compare/0{5}..\.\.\.0{5}..", lines[2])
    assert 'href="https://github.com/ours/training/commit/0000014"' in page
    assert re.search(r'href="https://github.com/ours/training/compare/[0-9a-f]{7}\.\.\.[0-9a-f]{7}"', page)
    assert "github.com" not in (tmp_path / "alone" / PAGE).read_text()
