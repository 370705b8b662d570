"""The simulation: its machines draw what they say, its quick form holds the bounds, the committed result is its own."""

from pathlib import Path

import numpy as np
import pytest

from trainpace.plan.paired import OPEN, PASSED, SLOWER
from trainpace.simulate import __main__ as simulate_main
from trainpace.simulate import gates, noise
from trainpace.simulate.__main__ import HEADING, NAME, SEED, TABLES, main
from trainpace.simulate.gates import OURS
from trainpace.simulate.results import Plan, bounds, pick, read_csv, rows, tables

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def committed():
    """The rows of docs/."""
    return read_csv(DOCS / f"{NAME}.csv")


FEWEST = Plan(main=100, ours=50, stored=20, others=20, machines=("independent",))
"""Too few sessions for any bound, and every kind of row."""


def test_simulation_writes_its_results(tmp_path, capsys, monkeypatch):
    """What is printed are the tables of the rows that are written; the picture is drawn of them."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(simulate_main, "QUICK", FEWEST)

    status = main(["--quick", "--out", str(tmp_path)])
    found = read_csv(tmp_path / f"{NAME}.csv")

    assert status == int(not all(bound.held for bound in bounds(found)))
    assert capsys.readouterr().out == tables(found)
    assert (tmp_path / TABLES).read_text() == HEADING + tables(found)
    assert (tmp_path / f"{NAME}.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_quick_simulation_holds_the_bounds():
    """A few hundred sessions: the exit status says that every bound holds."""
    assert main(["--quick"]) == 0


def test_committed_result_holds_every_bound(committed):
    """What docs/ says of both gates."""
    assert [bound for bound in bounds(committed) if not bound.held] == []
    assert len(bounds(committed)) == 2 * (4 + len(noise.MACHINES) - 1) + 2 * len(noise.MACHINES)


def test_committed_result_is_in_the_documentation(committed):
    """The tables of the page are those of the file."""
    assert HEADING + tables(committed) == (DOCS / TABLES).read_text()


@pytest.mark.parametrize(("gate", "cases", "noise_of_a_run", "detect"), [(OURS, 1, 0.02, 0.05), (OURS, 4, 0.01, 0.03)])
def test_committed_result_is_reproduced(committed, gate, cases, noise_of_a_run, detect):
    """The same seed gives the same figures, row by row: the judge has not changed since they were made."""
    expected = next(pick(committed, gate=gate, cases=cases, noise=noise_of_a_run, loss=detect))
    (row,) = rows(
        gate, "independent", cases=cases, noise=noise_of_a_run, detect=detect, sessions=expected.sessions, seed=SEED
    )

    for name in ("red", "inconclusive", "runs", "found", "passed"):
        assert pytest.approx(getattr(expected, name), rel=1e-3, abs=3e-4) == getattr(row, name)


def test_ours_errs_less_than_the_others_at_equal_cost(committed):
    """False alarms and losses not found together, at fewer runs, under independent noise."""
    for of_noise, detect in ((0.01, 0.03), (0.02, 0.05)):
        found = list(pick(committed, machine="independent", cases=14, noise=of_noise, loss=detect))
        ours = next(pick(found, gate=OURS))
        others = [row for row in found if row.gate.startswith(gates.AT_EQUAL_COST)]

        assert all(ours.runs < row.runs for row in others)
        assert all(ours.red + 1 - ours.found < (row.red + 1 - row.found) / 2 for row in others)


@pytest.mark.parametrize("machine", noise.MACHINES)
def test_machines_have_two_sides_alike(machine):
    """Unchanged code: no machine prefers a side, and its noise is at least the stated one where runs are compared."""
    log_tgs = noise.runs(np.random.default_rng(1), machine, (2000, 14, 8), 0.01)
    differences = log_tgs[..., 1] - log_tgs[..., 0]

    assert log_tgs.shape == (2000, 14, 8, 2)
    assert abs(differences[:, :, :2].mean()) < 1e-3
    assert 0.005 < log_tgs.std() < 0.15


def test_pairs_alternate():
    """On a machine that only gets slower, the second of a pair is slower: head in even rounds, base in odd ones."""
    log_tgs = noise.runs(np.random.default_rng(1), "drift", (1, 3, 4), 0.0)

    assert np.all(log_tgs[0, :, ::2, 1] < log_tgs[0, :, ::2, 0])
    assert np.all(log_tgs[0, :, 1::2, 1] > log_tgs[0, :, 1::2, 0])


def test_slowed_case_is_the_sessions_own():
    """Each case in turn loses the share, on the head's side only."""
    slowed = noise.slow_down(np.zeros((3, 2, 4, 2)), 0.1)

    assert pytest.approx(np.log(0.9)) == slowed[0, 0, :, 1]
    assert pytest.approx(np.log(0.9)) == slowed[1, 1, :, 1]
    assert np.count_nonzero(slowed) == 3 * 4


def test_steps_have_the_runs_median_and_memory():
    """Their median is the run; they spread by twice its noise and remember the step before."""
    log_tgs = np.array([[0.1, -0.2]])
    seconds = noise.steps(np.random.default_rng(1), np.repeat(log_tgs, 5000, axis=0), 0.01)
    around = seconds - seconds.mean(axis=-1, keepdims=True)

    assert pytest.approx(-log_tgs) == np.median(seconds[:1], axis=-1)
    assert pytest.approx(0.02, rel=0.05) == around.std()
    assert 0.1 < (around[..., 1:] * around[..., :-1]).mean() / around.var() < 0.2


def test_decided_cases_get_no_further_pair():
    """A clear case costs as few pairs as can be, and what follows is not looked at."""
    log_ratios = np.zeros((1, 14, 8)) + np.random.default_rng(1).normal(0, 0.001, (1, 14, 8))
    log_ratios[..., 4:] = -0.5
    outcome = gates.pairwise(log_ratios, gates.SequentialDesign())

    assert np.all(outcome.verdict == PASSED)
    assert np.all(outcome.runs < 8)


def test_others_judge_as_their_names_say():
    """20 % slower than the stored session is red for each of them; the same session twice is not."""
    rng = np.random.default_rng(1)
    log_tgs = np.zeros((2, 14, 8, 2))
    slower = log_tgs + np.array([0.0, np.log(0.8)])
    for name, gate in gates.gates(0.05).items():
        if "Mann" not in name:
            assert np.all(gate(rng, slower, log_tgs, 0.001).verdict == SLOWER), name
            assert not np.any(gate(rng, log_tgs, log_tgs, 0.001).verdict == SLOWER), name


def test_orders_are_those_of_a_session():
    """Every run has a place of its own: a refresh goes in rounds, what is looked at again follows all first runs."""
    refresh, again = noise.in_rounds(3, 5)[..., 0], noise.looked_at(3, 4)[..., 0]

    assert refresh[:, 0].tolist() == [0, 1, 2]
    assert refresh[1].tolist() == [1, 4, 7, 10, 13]
    assert again.tolist() == [[0, 3, 4, 5], [1, 6, 7, 8], [2, 9, 10, 11]]
    assert sorted(noise.in_pairs(2, 3).ravel().tolist()) == list(range(12))


def test_stored_gate_looks_again():
    """One case that lost 10 % costs five runs and is red, the others cost one; where all lost as much, none is red."""
    rng = np.random.default_rng(1)
    log_tgs = rng.normal(0, 0.001, (1, 14, 10, 1))
    stored = rng.normal(0, 0.001, (1, 14, 10, 1))
    one = gates.stored_gate(rng, noise.slow_down(log_tgs, 0.1), stored, 0.001)
    every = gates.stored_gate(rng, log_tgs + np.log(0.9), stored, 0.001)

    assert one.verdict.tolist() == [[SLOWER] + [PASSED] * 13]
    assert one.runs.tolist() == [[5.0] + [1.0] * 13]
    assert every.verdict.tolist() == [[OPEN] * 14]


def test_stored_gate_is_the_judges_own():
    """Above the cap it decides nothing but regressions beyond its bound, and makes one run to say so."""
    rng = np.random.default_rng(1)
    wild = rng.normal(0, 0.2, (5, 14, 8, 2))
    outcome = gates.stored_gate(rng, np.zeros((5, 14, 8, 2)), wild, 0.2)

    assert {OPEN} == set(outcome.verdict.ravel().tolist())
    assert np.all(outcome.runs == 1)
