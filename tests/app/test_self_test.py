"""The gate proves itself on the machine at hand, and a bounded session names what it did not measure."""

import pytest
from test_gate import Repository

from trainpace.errors import FileError
from trainpace.plan.priority import rank
from trainpace.store.priorities import load_priorities

BLIND = """
import trainpace.plan.paired as rounds
from trainpace.runs.verdict import Verdict
from dataclasses import replace
real = rounds.decision_of
rounds.decision_of = lambda *a: replace(real(*a), verdict=Verdict.PASS)
"""


@pytest.fixture
def repository(tmp_path, started):
    """The example, unchanged."""
    return Repository(tmp_path / "example")


@pytest.mark.slow
def test_self_test_passes_here(repository):
    """Quiet where nothing changed, red where a slowdown was injected."""
    done = repository.suite("--perf-self-test")

    assert done.code == 0
    assert "self-test: an injected slowdown of 30 % was found" in done.text


@pytest.mark.slow
def test_self_test_fails_a_blind_judge(repository, monkeypatch):
    """A judge that passes everything is found out: exit 7."""
    (repository.folder / "blind.py").write_text(BLIND)
    monkeypatch.setenv("PYTHONPATH", str(repository.folder))

    done = repository.suite("--perf-self-test", "-p", "blind")

    assert done.code == 7
    assert "expected an injected slowdown of 30 % to be a regression, got pass" in done.text


def test_what_does_not_fit_the_time_is_named(repository):
    """Nothing is begun after the time is up: inconclusive, never pass."""
    done = repository.suite("--perf-max-minutes", "0.0001", "--perf-require-verdict")

    assert done.code == 6
    assert "did not fit --perf-max-minutes 0.0001" in done.text


@pytest.mark.slow
def test_a_comparison_without_time_is_named(repository):
    """The same for head against base."""
    repository.change("bigram/training.py", '"""Plain gradient descent."""', '"""Gradient descent."""')

    done = repository.suite("--perf-against", "main", "--perf-max-minutes", "0.0001")

    assert done.code == 0
    assert "1 inconclusive" in done.last_line


def test_changed_files_bring_their_cases_forward(tmp_path):
    """The first priority that a changed file and the case both match decides; all others stand behind."""
    (tmp_path / "perf-priorities.toml").write_text(
        '[[priority]]\npaths = ["ours/attention/*"]\ncases = ["*-128k-*"]\n'
        '[[priority]]\npaths = ["ours/*"]\ncases = ["*"]\n'
    )
    priorities = load_priorities(tmp_path)

    places = [rank(case, ["ours/attention/flash.py"], priorities) for case in ("m-128k-sp8", "m-8k-sp1")]

    assert places == [0, 1]
    assert rank("m-8k-sp1", ["docs/x.md"], priorities) == 2


def test_a_priorities_file_is_read_strictly(tmp_path):
    """An unknown field is refused with file and field."""
    (tmp_path / "perf-priorities.toml").write_text("[[priority]]\npaths = []\ncases = []\nweight = 1\n")

    with pytest.raises(FileError, match=r"perf-priorities.toml: priority.0.weight"):
        load_priorities(tmp_path)
