"""The simulation: its machines draw what they say, its quick form holds the bounds, the committed result is its own."""

from pathlib import Path

import numpy as np
import pytest

from trainpace.plan.paired import OPEN, PASSED, SLOWER
from trainpace.simulate import __main__ as simulate_main
from trainpace.simulate import gates, noise, pairs
from trainpace.simulate.__main__ import HEADING, NAME, SEED, TABLES, main
from trainpace.simulate.gates import OURS, OURS_KNOWN
from trainpace.simulate.results import PARTS, Plan, bounds, part_of, simulate, tables
from trainpace.simulate.rows import interval, pick, read_csv, rows
from trainpace.stats.sequential import PRIOR_DOF, plan_pairs

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def committed():
    """The rows of docs/."""
    return read_csv(DOCS / f"{NAME}.csv")


FEWEST = Plan(
    pairs=pairs.Sizes(goals=20, machines=10),
    stored=10,
    others=10,
    machines=("independent",),
    pair_machines=("independent",),
)
"""Too few sessions for any bound, and every kind of row."""


@pytest.mark.slow
def test_simulation_writes_its_results(tmp_path, capsys, monkeypatch):
    """What is printed are the tables of the rows that are written; the picture is drawn of them."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(simulate_main, "QUICK", FEWEST)
    monkeypatch.setattr(pairs, "NOISY", pairs.NOISY[:1])  # more noise has boundaries of many numbers of pairs

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
    of_pairs = 2 * (2 * 4 + 3 + 2 + 2 * (len(noise.PAIR_MACHINES) - 1))
    assert len(bounds(committed)) == of_pairs + 2 * len(noise.MACHINES)


def test_committed_result_is_in_the_documentation(committed):
    """The tables of the page are those of the file."""
    assert HEADING + tables(committed) == (DOCS / TABLES).read_text()


@pytest.mark.parametrize(
    ("gate", "cases", "noise_of_a_run", "detect"), [(OURS, 1, 0.02, 0.05), (OURS_KNOWN, 4, 0.01, 0.03)]
)
def test_committed_result_is_reproduced(committed, gate, cases, noise_of_a_run, detect):
    """The same seed gives the same figures, row by row: the judge has not changed since they were made."""
    expected = next(pick(committed, gate=gate, cases=cases, noise=noise_of_a_run, loss=detect))
    (row,) = rows(
        gate, "independent", cases=cases, noise=noise_of_a_run, detect=detect, sessions=expected.sessions, seed=SEED
    )

    for name in ("red", "inconclusive", "runs", "found", "passed"):
        assert pytest.approx(getattr(expected, name), rel=1e-3, abs=3e-4) == getattr(row, name)


def test_ours_errs_less_than_the_others_at_equal_cost(committed):
    """False alarms and losses not found together, under independent noise; where the noise is known, at fewer runs."""
    for of_noise, detect in ((0.01, 0.03), (0.02, 0.05)):
        found = list(pick(committed, machine="independent", cases=14, noise=of_noise, loss=detect))
        ours, known = (next(pick(found, gate=gate)) for gate in (OURS, OURS_KNOWN))
        others = [row for row in found if row.gate.startswith(gates.AT_EQUAL_COST)]

        assert all(known.runs < row.runs for row in others)
        for row in others:
            assert max(each.red + 1 - each.found for each in (ours, known)) < (row.red + 1 - row.found) / 2


@pytest.mark.parametrize("machine", noise.PAIR_MACHINES)
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
    """Each case in turn loses the share, on the head's side only; where one case is noisy, that one."""
    slowed = noise.slow_down(np.zeros((3, 2, 4, 2)), 0.1, noise.slowed_case("independent", 3, 2))

    assert pytest.approx(np.log(0.9)) == slowed[0, 0, :, 1]
    assert pytest.approx(np.log(0.9)) == slowed[1, 1, :, 1]
    assert np.count_nonzero(slowed) == 3 * 4
    assert noise.slowed_case("one case 5x", 3, 2).tolist() == [0, 0, 0]


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
    log_ratios = np.random.default_rng(1).normal(0, 0.001, (1, 14, 40))
    log_ratios[..., 4:] = -0.5
    shape = np.zeros((1, 14))
    outcome = gates.pairwise(log_ratios, plan_pairs(shape + 0.05, shape, shape.astype(int)))

    assert np.all(outcome.verdict == PASSED)
    assert np.all(outcome.runs < 8)


def test_others_judge_as_their_names_say():
    """20 % slower than the stored session is red for each of them; the same session twice is not."""
    rng = np.random.default_rng(1)
    log_tgs = np.zeros((2, 14, 8, 2))
    slower = log_tgs + np.array([0.0, np.log(0.8)])
    for name, gate in gates.gates(0.05).items():
        if "Mann" not in name and part_of(name) != "pairs":
            assert np.all(gate(rng, slower, log_tgs, 0.001).verdict == SLOWER), name
            assert not np.any(gate(rng, log_tgs, log_tgs, 0.001).verdict == SLOWER), name


@pytest.mark.parametrize("gate", [OURS, OURS_KNOWN])
def test_ours_goes_on_where_a_case_is_noisy(gate):
    """The case that is five times as noisy as the others gets more than eight pairs, and they get no more for it."""
    quiet, noisy = (
        rows(gate, machine, cases=14, noise=0.01, detect=0.05, sessions=100, seed=1)[0]
        for machine in ("independent", "one case 5x")
    )

    assert quiet.runs + 2 * 8 / 14 < noisy.runs < quiet.runs + 2 * 40 / 14
    assert noisy.not_zero <= 0.1
    assert noisy.passed <= 0.15


def test_noise_is_known_from_earlier_pairs():
    """As the program keeps it: the pairs' own spread in each of several sessions, whatever a session's level was."""
    earlier = np.random.default_rng(1).normal(0, 0.01, (200, gates.EARLIER, 3, gates.EARLIER_PAIRS, 2))
    earlier[..., 1] += np.array([0.0, 0.1, -0.2, 0.05])[:, None, None]
    spread = gates._spread_of(earlier)

    assert spread.shape == (200, 3)
    assert gates.EARLIER * (gates.EARLIER_PAIRS - 1) == PRIOR_DOF
    assert pytest.approx(0.01 * np.sqrt(2), rel=0.02) == np.sqrt((spread**2).mean())


@pytest.mark.slow
def test_parts_make_the_whole(committed):
    """What is simulated by itself is what all together give, and each row is of one part."""
    both = list(simulate(FEWEST, SEED, ["stored", "others"]))
    stored = list(simulate(FEWEST, SEED, ["stored"]))

    assert [row for row in both if part_of(row.gate) == "stored"] == stored
    assert {part_of(row.gate) for row in (*both, *committed)} == set(PARTS)


def test_interval_is_wilsons():
    """3 of 100: 1.0 to 8.5 %; none of 100: 0 to 3.7 %."""
    assert pytest.approx((0.0103, 0.0845), abs=1e-4) == interval(0.03, 100)
    assert pytest.approx((0.0, 0.0370), abs=1e-4) == interval(0.0, 100)


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
    one = gates.stored_gate(rng, noise.slow_down(log_tgs, 0.1, np.zeros(1, int)), stored, 0.001)
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
