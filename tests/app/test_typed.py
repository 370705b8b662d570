"""Every command that a report prints: it is typed as it stands, and runs the one test that it is of."""

import re
import shlex

import pytest
from test_gate import git

from factories import make_run, make_workload
from judgements import CASE, of_paired_gate, of_stored_gate
from repository import Repository
from trainpace.app.option_values import INVOCATION
from trainpace.app.typed import AGAINST, of_test, typed
from trainpace.judge.cost import judge_cost
from trainpace.report.terminal import last_line, render
from trainpace.runs.cost import Cost
from trainpace.store.runs import write_run

SPEED = f"perf/test_ours.py::test_ours[{CASE}]"
COST = f"perf/test_cost_of_ours.py::test_cost[{CASE}]"
OF_COST = """
import pytest
from test_ours import CASES

@pytest.mark.parametrize("case", CASES, ids=str)
def test_cost(case, judge_cost):
    judge_cost(case)
"""
OTHER_TRAINER = """

@pytest.mark.perf_trainer("training:Other")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_another(case, judge_speed):
    judge_speed(case)
"""
SIDE_BY_SIDE = """
import pytest
from test_ours import CASES

@pytest.mark.parametrize("case", CASES, ids=str)
def test_side_by_side(case, compare_trainers):
    compare_trainers(case)
"""
RECORDS = '[{"instruction": "a", "input": "", "output": "b"}]'
GATES = ("a gate", "a self-test")
SESSIONS = {
    "all that decides speed": [
        *("--perf-data=my records.json", "--perf-data", "more.json", "--perf-tokenizer", "bytes"),
        *("--perf-baselines", "my baselines", "--perf-trainer=training:Toy", "--perf-dtype", "fp32", "--perf-varlen"),
        *("--perf-compile", "--perf-scale=mini", "--perf-warmup", "2", "--perf-steps=9", "--perf-tolerance", "0.02"),
        *("--perf-runs-per-case=2", "--perf-runs=runs", "--perf-report", "report", "--perf-require-verdict"),
        *("--perf-max-minutes", "5", "--perf-step-timeout=60", "--perf-accepted", "a fix costs it", "-k", "8k"),
        *("--perf-against-runs", "kept runs", "--perf-max-hours=9"),
        *("-o", "perf_trainer=training:Toy", "-p", "no:randomly", "--junitxml", "j.xml"),
    ],
    "a replay": ["--perf-replay", "kept runs"],
    "a refresh": ["--perf-refresh", "--perf-accept-slower", "a fix costs it", "--perf-max-spread=0.5"],
    "a gate": [
        *("--perf-head", "../head repository", "--perf-max-pairs", "3", "--perf-data=more.json", "--perf-explain"),
        *("--perf-new-numerics", "it's meant"),
    ],
    "a self-test": ["--perf-self-test"],
}


class Seen:
    """Keeps the commands that a session would print."""

    def __init__(self):
        self.commands = {}

    def pytest_collection_finish(self, session):
        """After the plugin has taken out what it does not run."""
        whole = typed(session.config)
        self.commands = {item.nodeid: of_test(whole, item) for item in session.items}


@pytest.fixture
def ours(tmp_path, monkeypatch, pytester):  # pytester takes the working folder to its own
    """A repository whose cases are measured twice, and counted; one commit."""
    made = Repository.create(tmp_path / "ours")
    test = made.path / "perf" / "test_ours.py"
    test.write_text(test.read_text() + OTHER_TRAINER)
    (made.path / "perf" / "test_cost_of_ours.py").write_text(OF_COST)
    (made.path / "perf" / "test_beside.py").write_text(SIDE_BY_SIDE)
    (made.path / "my records.json").write_text(RECORDS)
    (made.path / "more.json").write_text(RECORDS)
    write_run(make_run(workload=make_workload(CASE)), made.path / "kept runs")
    (made.path / "deeper").mkdir()
    (made.path / "deeper" / "file").touch()
    (tmp_path / "head repository").mkdir()
    git(made.path, "init", "-q", "-b", "main")
    git(made.path, "add", ".")
    git(made.path, "commit", "-qm", "base")
    monkeypatch.chdir(made.path)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return made


@pytest.fixture
def collect(pytester, capfd):
    """Collects as a command says: the ids of what it selects, in whatever process, and the commands of the tests."""

    def run(words):
        seen = Seen()
        capfd.readouterr()
        done = pytester.inline_run(*words, "--collect-only", "-q", plugins=[seen])
        said = capfd.readouterr()
        assert done.ret == pytest.ExitCode.OK, f"{shlex.join(words)}\n{said.out}{said.err}"
        return [line for line in said.out.splitlines() if "::" in line], seen.commands

    return run


def counted(command):
    """Judgements of counts, each with a command."""
    workload = make_workload(CASE)
    for stored in ({}, {"step.calls": 9}, {"step.calls": 11}, {"step.flops": 1}):
        now, then = (
            Cost(workload=workload, traced_layers=2, counters=counters, operators={}, unknown={}, software={})
            for counters in ({"step.calls": 10}, stored)
        )
        yield judge_cost(now, then if stored else None, command)


def printed(*texts):
    """The commands in texts, each once, as a shell takes them apart; without `pytest` itself."""
    found = re.findall(r"^ *pytest (.*)$|`pytest ([^`]*)`", "\n".join(texts), re.MULTILINE)
    commands = dict.fromkeys("".join(of_either) for of_either in found)
    return [shlex.split(command) for command in commands]


@pytest.mark.parametrize("session", SESSIONS)
def test_commands_of_every_verdict(ours, collect, session):
    """Each command collects its own test alone, or for what all cases share all of them, and every option is taken."""
    gate = session in GATES
    _, commands = collect(["perf", *SESSIONS[session]])
    own = {"trainer": "training:Toy", "engine": "own", "dtype": "fp32" if "fp32" in SESSIONS[session] else "bf16"}
    judgements = [*(of_paired_gate if gate else of_stored_gate)(commands[SPEED], **own).values()]
    of_speed = printed(render(judgements), last_line(judgements))
    of_cost = (
        []
        if COST not in commands
        else printed(*(reason for each in counted(commands[COST]) for reason in each.reasons))
    )
    of_all = [words for words in of_speed if "--perf-against" in words]

    assert len(of_speed) == (2 if gate else 7)
    assert len(of_all) == (0 if gate else 1)
    for words in of_speed:
        assert words in of_all or collect(words)[0] == [SPEED]
    for words in of_cost:
        assert collect(words)[0] == [COST]
    assert all(SPEED in collect(words)[0] for words in of_all)


def test_command_of_systems_side_by_side(ours, collect):
    """What a bar was measured by is the comparison, with all its trainers."""
    own = f"perf/test_beside.py::test_side_by_side[{CASE}]"
    _, commands = collect(["perf", "-k", "8k", "--perf-trainer=training:Toy", "--perf-trainer", "training:Other"])
    words = shlex.split(commands[own].typed())[1:]

    assert words == [own, "--perf-trainer", "training:Toy", "--perf-trainer", "training:Other"]
    assert collect(words)[0] == [own]


def test_commands_of_a_comparison_that_was_started_from_its_base(ours, collect, tmp_path, monkeypatch):
    """They are typed where the user stood, with --perf-against as it was typed."""
    git(ours.path, "worktree", "add", "-q", "--detach", tmp_path / "base")
    monkeypatch.chdir(tmp_path / "base" / "deeper")
    monkeypatch.setenv(AGAINST, "main")
    monkeypatch.setenv(INVOCATION, str(ours.path / "deeper"))
    _, commands = collect(["../perf", "--perf-detect=0.2", f"--perf-head={ours.path}"])
    (again, more) = printed(render([*of_paired_gate(commands[SPEED], trainer="training:Toy", engine="own").values()]))
    monkeypatch.delenv(AGAINST)
    monkeypatch.delenv(INVOCATION)
    monkeypatch.chdir(ours.path / "deeper")

    options = "--perf-scale mini --perf-trainer training:Toy --perf-detect 0.2 --perf-against main"
    assert [f"../{SPEED}", *options.split()] == again
    assert [*again, "--perf-max-pairs", "12"] == more
    assert collect(again)[0] == [SPEED]


@pytest.mark.slow
def test_commands_that_are_run(ours, started):
    """What a broken run prints measures again; what that prints records, in the folder that was named."""
    options = ("--perf-baselines", "my baselines", "--perf-steps=20", "--perf-max-spread=0.9")
    (measure,) = printed(ours.suite(*options, paths=[SPEED], do="raise").text)
    (record,) = printed(measured := ours.suite(*measure, paths=()).text)
    recorded = ours.suite(*record, paths=())

    assert "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))" in measured
    assert recorded.last_line == "1 case: 1 recorded"
    assert [path.suffix for path in (ours.path / "my baselines").glob("*.json")] == [".json"]


@pytest.mark.slow
def test_a_command_of_a_comparison_that_is_run(ours, started):
    """What a broken pair prints compares the same head with the same base."""
    options = ("--perf-against", "main", "--perf-steps=20", "--perf-max-pairs=2")
    broken = ours.suite(*options, paths=[SPEED], do="raise").text
    (again,) = printed(broken)
    compared = ours.suite(*again, paths=())

    assert 'File "base/training.py", line' in broken
    assert again[-6:] == ["--perf-steps", "20", "--perf-max-pairs", "2", "--perf-against", "main"]
    assert compared.last_line.startswith("1 case: 1 ")
    assert " pairs" in compared.text
