"""The stored gate on drawn sessions: its worlds draw what they say, and its claims hold in a few of them."""

import math
from pathlib import Path

import numpy as np
import pytest

from trainpace.plan.paired import OPEN, PASSED, SLOWER
from trainpace.simulate import stored
from trainpace.simulate.stored import CASES, LOOKS, STORED_RUNS, WORLDS, World, judged, recorded, refused


@pytest.mark.parametrize("world", WORLDS, ids=[f"{each.name}, {each.noise:.0%}, {each.stored}" for each in WORLDS])
def test_worlds_draw_their_sessions(world):
    """The judged session, and as many stored ones as the world has; no row describes another one."""
    now, then = world.draw(np.random.default_rng(1), 3)

    assert now.shape == (3, CASES, LOOKS)
    assert then.shape == (3, CASES, world.stored, STORED_RUNS)
    assert WORLDS.count(world) == 1


def test_effects_are_as_large_as_said():
    """Within a session, of a session on a case, and on all cases."""
    world = World(name="", noise=0.02, between=0.01, shared=0.03)
    _, then = world.draw(np.random.default_rng(1), 400)
    means = then.mean(-1)
    apart = means - means.mean(1, keepdims=True)

    assert pytest.approx(0.02, rel=0.05) == math.sqrt(then.var(-1, ddof=1).mean())
    assert pytest.approx(math.sqrt(0.01**2 + 0.02**2 / 5), rel=0.05) == apart.std() / math.sqrt(1 - 1 / CASES)
    assert pytest.approx(0.03, rel=0.1) == means.mean(1).std()


def drawn(sessions=40, **world):
    """Sessions of a world, and their baselines."""
    now, then = World(name="", **world).draw(np.random.default_rng(2), sessions)
    return now, recorded(then)


def test_sessions_of_unchanged_code_are_green():
    """Though each session moves each case by as much as the noise of a run: five stored sessions tell of it."""
    now, baselines = drawn(between=0.01)

    assert np.mean((judged(now, baselines)[0] == SLOWER).any(1)) < 0.1


def test_what_a_faster_machine_hides_is_never_pass():
    """One case lost 8 % on a machine 8 % faster."""
    now, baselines = drawn(judged=math.log(1.08))
    now[:, 3] += math.log(0.92)
    verdict, runs = judged(now, baselines, [3] * len(now))

    assert not np.any(verdict == PASSED)
    assert np.mean(verdict == OPEN) > 0.9
    assert np.all(runs == 5)


def test_nine_of_fourteen_are_red():
    """What five cases did not lose, no machine took from the nine others."""
    now, baselines = drawn(sessions=10)
    now[:, :9] += math.log(0.91)

    assert np.all((judged(now, baselines)[0] == SLOWER).any(1))


def test_unchanged_refreshes_are_recorded():
    """Of 40 refreshes of 14 cases none is refused."""
    assert refused(World(name="", stored=1), 40, 1).startswith("0.0 ")


def test_page_is_written(tmp_path, capsys, monkeypatch):
    """What is printed is what is written: a row a world, the refreshes, what the worlds do."""
    monkeypatch.setattr(stored, "WORLDS", (WORLDS[0], World(name="cold", shape=stored.warming, losses=(0.05,))))
    stored.main(["--sessions", "3", "--out", str(tmp_path)])
    text = (tmp_path / stored.PAGE).read_text()

    assert capsys.readouterr().out == text
    assert "| cold | 1% | 5 | " in text
    assert "- *cold*: The first runs of the first four cases" in text


def test_share_has_its_interval():
    """Wilson's interval of 5 in 100."""
    assert stored.wilson(5, 100) == "5.0 [2.2, 11.2]"


COMMITTED = (Path(__file__).parents[2] / "docs" / stored.PAGE).read_text()


def test_committed_page_is_of_these_worlds():
    """docs/ has a row of each world, in this order."""
    rows = [line for line in COMMITTED.splitlines() if line.startswith("| ") and ": " in line][1:]

    assert [each.name for each in WORLDS] == [row.split(" | ")[0].removeprefix("| ") for row in rows]


@pytest.mark.slow
def test_committed_row_is_reproduced():
    """The same seed gives the same row: the gate has not changed since the page was written."""
    sessions = int(COMMITTED.split("--out docs`: ")[1].split()[0])

    assert stored.line(WORLDS[1], sessions, stored.SEED) in COMMITTED
