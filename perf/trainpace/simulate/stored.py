"""The stored gate on drawn sessions: its own plan, and the worlds that their runs are drawn from.

A world says what sessions of unchanged code do: those of the baseline, and then the one that is judged.
`python -m trainpace.simulate.stored [--sessions N] [--out DIR]` writes docs/statistics-stored.md, in about ten minutes.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np

from trainpace.plan.paired import FASTER, OPEN, PASSED, SLOWER
from trainpace.plan.retest import RetestCase, RetestPlan
from trainpace.plan.task import drive
from trainpace.simulate.noise import Floats, Integers, in_rounds, looked_at, runs
from trainpace.stats.retest import MIN_OTHER_CASES, outliers
from trainpace.stats.tolerance import CaseNoise, NoiseModel, allowed_loss, first_runs
from trainpace.stats.variance import case_noises

CASES = 14
STORED_RUNS = 5
"""Runs of a case in a session of a baseline."""
PAGE = "statistics-stored.md"
SEED = 20261126
LOOKS = 10
"""Runs of a case that the stored gate makes at most: five to begin with, and as many again."""


@dataclass(frozen=True)
class StoredRuns:
    """The runs of one case in one stored session."""

    recorded: str
    level: int
    tgs: list[float]


@dataclass(kw_only=True)
class DrawnCase:
    """A case of a drawn session, as the stored gate's plan wants it: TGS now and in the baseline."""

    drawn: list[float]
    """Of every run that there could be; those that are not asked for are not seen."""
    stored: list[list[float]]
    noise: CaseNoise | None
    first_runs: int
    peers: object = None
    open: bool = True
    tgs: list[float] = field(default_factory=list)

    @cached_property
    def first_log_ratio(self) -> float:
        """log(TGS / TGS of the baseline) of its first runs. A session makes them before it judges any case."""
        before = fmean(fmean(map(math.log, runs)) for runs in self.stored)
        return fmean(map(math.log, self.drawn[: self.first_runs])) - before


@dataclass(frozen=True)
class Recorded:
    """The baselines of the cases of one session."""

    stored: list[list[list[float]]]
    """TGS of the runs that count, by case and stored session."""
    noise: list[CaseNoise | None]


def recorded(stored: Floats) -> list[Recorded]:
    """The baselines of drawn sessions: log TGS of shape (sessions, cases, stored sessions, runs)."""
    return [_recorded(of_session) for of_session in np.exp(stored).tolist()]


def _recorded(cases: list[list[list[float]]], *, shared: bool | None = None) -> Recorded:
    marks = iter(outliers([runs for of_case in cases for runs in of_case]))
    stored = [
        [[tgs for tgs, outlier in zip(runs, next(marks), strict=True) if not outlier] for runs in of_case]
        for of_case in cases
    ]
    sessions = [[StoredRuns(str(number), 1, runs) for number, runs in enumerate(of_case)] for of_case in stored]
    return Recorded(stored, case_noises(sessions, shared=len(cases) > MIN_OTHER_CASES if shared is None else shared))


def judged(now: Floats, baselines: Sequence[Recorded], only: Sequence[int] | None = None) -> tuple[Integers, Integers]:
    """What the gate says of drawn sessions, and the runs that it made.

    Args:
        now: log TGS of every run that it may ask for, of shape (sessions, cases, runs).
        baselines: of each session.
        only: the case of each session that is asked for; None: all.

    Returns:
        OPEN (inconclusive), PASSED, SLOWER or FASTER, and numbers of runs; both of shape (sessions, cases), or
        (sessions, 1) where `only` one is asked for.
    """
    found = []
    for number, (drawn, baseline) in enumerate(zip(np.exp(now).tolist(), baselines, strict=True)):
        cases = range(len(drawn)) if only is None else [only[number]]
        found.append(_one_session(drawn, baseline, cases))
    return np.array([verdicts for verdicts, _ in found]), np.array([spent for _, spent in found])


def _one_session(now: list[list[float]], baseline: Recorded, wanted: Iterable[int]) -> tuple[list[int], list[int]]:
    model = NoiseModel(num_cases=len(now))
    cases = [
        DrawnCase(drawn=drawn, stored=stored, noise=noise, first_runs=first_runs(model.of(noise)))
        for drawn, stored, noise in zip(now, baseline.stored, baseline.noise, strict=True)
    ]
    plan = RetestPlan(cases, model)
    verdicts, spent = [], []
    for number in wanted:
        case = cases[number]
        drive(plan, _next_drawn, wanted=case)
        seen = plan.assess(case)
        if seen.regression:
            verdicts.append(SLOWER)
        elif seen.unclear or not seen.tolerance.decides:
            verdicts.append(OPEN)
        else:
            verdicts.append(FASTER if seen.improvement else PASSED)
        spent.append(len(case.tgs))
    return verdicts, spent


def _next_drawn(task: RetestCase) -> float:
    assert isinstance(task, DrawnCase)
    return task.drawn[len(task.tgs)]


@dataclass(frozen=True, kw_only=True)
class World:
    """What sessions of unchanged code do to the log TGS of their runs."""

    name: str
    stored: int = 5
    """Sessions that the baseline holds."""
    noise: float = 0.01
    """Of a run, within its session."""
    between: float = 0.0
    """What a session does to each case by itself, a standard deviation."""
    shared: float = 0.0
    """What a session does to all of them, a standard deviation."""
    judged: float = 0.0
    """By how much all cases of the judged session are faster, a log ratio."""
    machine: str = "independent"
    spreads: tuple[float, ...] = ()
    """Noise of a run of each case; empty: `noise`."""
    shape: Callable[[np.random.Generator, Floats, int], Floats] | None = None
    """What else happens: log TGS of a session (sessions, cases, runs) and its number, 0 the first, in; the same out."""
    losses: tuple[float, ...] = ()
    """Shares that one case a session has lost, each case in turn; or the first case, where it is the odd one."""
    odd: bool = False
    """Whether the first case is unlike the others, and the one that is changed."""

    def draw(self, rng: np.random.Generator, sessions: int) -> tuple[Floats, Floats]:
        """Judged sessions, (sessions, cases, runs), and those of their baselines, (sessions, cases, stored, runs)."""
        stored = [self._session(rng, sessions, in_rounds, STORED_RUNS, number) for number in range(self.stored)]
        now = self._session(rng, sessions, looked_at, LOOKS, self.stored)
        return now + self.judged, np.stack(stored, axis=2)

    def _session(
        self, rng: np.random.Generator, sessions: int, order: Callable[[int, int], Integers], rounds: int, number: int
    ) -> Floats:
        drawn = runs(rng, self.machine, (sessions, CASES, rounds), self.noise, order)[..., 0]
        if self.spreads:
            drawn = drawn * (np.array(self.spreads) / self.noise)[:, None]
        drawn = drawn + self.between * rng.standard_normal((sessions, CASES, 1))
        drawn = drawn + self.shared * rng.standard_normal((sessions, 1, 1))
        return self.shape(rng, drawn, number) if self.shape else drawn


def two_modes(rng: np.random.Generator, log_tgs: Floats, _: int) -> Floats:
    """The first case is in a mode 8 % slower in every other session."""
    changed = log_tgs.copy()
    changed[:, 0] -= 0.08 * (rng.random((len(log_tgs), 1)) < 0.5)
    return changed


def two_modes_a_run(rng: np.random.Generator, log_tgs: Floats, _: int) -> Floats:
    """The first case is in a mode 8 % slower in every other run."""
    changed = log_tgs.copy()
    changed[:, 0] -= 0.08 * (rng.random(log_tgs[:, 0].shape) < 0.5)
    return changed


def heavy_tails(rng: np.random.Generator, log_tgs: Floats, _: int) -> Floats:
    """Student's t with three degrees of freedom, of 1 % standard deviation, instead of the normal distribution."""
    return np.asarray(0.01 * rng.standard_t(3, log_tgs.shape) / np.sqrt(3))


def two_machines(rng: np.random.Generator, log_tgs: Floats, _: int) -> Floats:
    """A fleet of two machines, of which each session gets one: the second is faster for half of the cases by 2 %."""
    second = rng.random((len(log_tgs), 1, 1)) < 0.5
    return log_tgs + 0.02 * second * (np.arange(log_tgs.shape[1]) % 2)[:, None]


def creeping(_: np.random.Generator, log_tgs: Floats, number: int) -> Floats:
    """The machine gets slower from session to session, by 0.3 %, for every other case by 0.6 %."""
    return log_tgs - 0.003 * number * (1 + np.arange(log_tgs.shape[1]) % 2)[:, None]


def warming(_: np.random.Generator, log_tgs: Floats, __: int) -> Floats:
    """The first runs of the first four cases of a session are 4, 3, 2 and 1 % slower: the machine is cold."""
    changed = log_tgs.copy()
    changed[:, :4, 0] -= np.array([0.04, 0.03, 0.02, 0.01])
    return changed


def moved(_: np.random.Generator, log_tgs: Floats, number: int) -> Floats:
    """A driver made every other case 2 % faster in the middle of the stored sessions, within a refresh's tolerance."""
    return log_tgs + 0.02 * (number > 2) * (np.arange(log_tgs.shape[1]) % 2)[:, None]


def lost_session(_: np.random.Generator, log_tgs: Floats, number: int) -> Floats:
    """The second stored session was 4 % slower as a whole."""
    return log_tgs - (0.04 if number == 1 else 0.0)


ONE_NOISY = (0.05, *[0.01] * (CASES - 1))
WIDE = tuple(np.geomspace(0.0025, 0.04, CASES).tolist())
WORLDS = (
    World(name="independent", losses=(0.03, 0.05)),
    World(name="independent", stored=1, losses=(0.03, 0.05)),
    World(name="independent", noise=0.02, losses=(0.05, 0.08)),
    World(name="independent", noise=0.02, stored=1, losses=(0.05, 0.08)),
    World(name="independent", noise=0.04, losses=(0.05, 0.08, 0.15)),
    World(name="independent", noise=0.04, stored=1, losses=(0.05, 0.08, 0.15)),
    World(name="case x session 0.5 %", between=0.005, losses=(0.05, 0.08)),
    World(name="case x session 0.5 %", between=0.005, stored=1, losses=(0.05, 0.08)),
    World(name="case x session 1 %", between=0.01, losses=(0.05, 0.08)),
    World(name="case x session 1 %", between=0.01, stored=1, losses=(0.05, 0.08)),
    World(name="case x session 2 %", between=0.02, losses=(0.08, 0.15)),
    World(name="sessions differ by 1 %, all cases alike", shared=0.01, losses=(0.05,)),
    World(name="sessions differ by 3 %, all cases alike", shared=0.03, losses=(0.05,)),
    World(name="judged on a machine 8 % slower", judged=float(np.log(0.92)), losses=(0.05,)),
    World(name="judged on a machine 8 % slower", judged=float(np.log(0.92)), stored=1, losses=(0.05,)),
    World(name="judged on a machine 8 % faster", judged=float(np.log(1.08)), losses=(0.05, 0.08)),
    World(name="judged on a machine 8 % faster", judged=float(np.log(1.08)), stored=1, losses=(0.05, 0.08)),
    World(name="one case 3 % noise", spreads=(0.03, *ONE_NOISY[1:]), odd=True, losses=(0.08,)),
    World(name="one case 5 % noise", spreads=ONE_NOISY, odd=True, losses=(0.15,)),
    World(name="one case 5 % noise", spreads=ONE_NOISY, odd=True, stored=1, losses=(0.15,)),
    World(name="0.25 to 4 % noise", spreads=WIDE, losses=(0.08,)),
    World(name="0.25 to 4 % noise", spreads=WIDE, stored=1, losses=(0.08,)),
    World(name="t with 3 dof", shape=heavy_tails, losses=(0.03,)),
    World(name="t with 3 dof", shape=heavy_tails, stored=1, losses=(0.03,)),
    World(name="one case in two modes a session", shape=two_modes, odd=True, losses=(0.15,)),
    World(name="one case in two modes a session", shape=two_modes, odd=True, stored=1, losses=(0.15,)),
    World(name="one case in two modes a run", shape=two_modes_a_run, odd=True, losses=(0.15,)),
    World(name="one case in two modes a run", shape=two_modes_a_run, odd=True, stored=1, losses=(0.15,)),
    World(name="autocorrelated", machine="autocorrelated", losses=(0.05,)),
    World(name="lasting modes", machine="lasting modes", losses=(0.05,)),
    World(name="placed anew", machine="placed anew", losses=(0.05,)),
    World(name="outliers", machine="outliers", losses=(0.05,)),
    World(name="two machines of a fleet", shape=two_machines, losses=(0.05,)),
    World(name="the machine creeps", shape=creeping, losses=(0.05,)),
    World(name="cold at first", shape=warming, losses=(0.05,)),
    World(name="moved in the middle", shape=moved, losses=(0.05,)),
    World(name="one stored session was slow", shape=lost_session, losses=(0.05,)),
    World(name="autocorrelated", machine="autocorrelated", stored=1, losses=(0.05,)),
    World(name="lasting modes", machine="lasting modes", stored=1, losses=(0.05,)),
    World(name="placed anew", machine="placed anew", stored=1, losses=(0.05,)),
)


def wilson(found: int, of: int) -> str:
    """A share in per cent, with its 95 % interval.

    Source: Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    z, share = 1.96, found / of
    middle = (share + z * z / 2 / of) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / 4 / of / of) / (1 + z * z / of)
    return f"{100 * share:.1f} [{100 * max(0.0, middle - half):.1f}, {100 * min(1.0, middle + half):.1f}]"


def line(world: World, sessions: int, seed: int) -> str:
    """A row of the table: what becomes of sessions in which nothing changed, and of a case that lost a share."""
    rng = np.random.default_rng([seed, WORLDS.index(world)])
    now, stored = world.draw(rng, sessions)
    baselines = recorded(stored)
    verdict, spent = judged(now, baselines)
    shares = [wilson(int((verdict == each).any(1).sum()), sessions) for each in (SLOWER, OPEN, FASTER)]
    found = []
    for loss in world.losses:
        changed, which = now.copy(), np.zeros(sessions, int) if world.odd else np.arange(sessions) % CASES
        changed[np.arange(sessions), which] += np.log1p(-loss)
        of_case = judged(changed, baselines, which.tolist())[0][:, 0]
        passed = int(((of_case == PASSED) | (of_case == FASTER)).sum())
        found.append(f"-{loss:.0%}: {wilson(int((of_case == SLOWER).sum()), sessions)}, {wilson(passed, sessions)}")
    noise = "as said" if world.spreads or world.shape is heavy_tails else f"{world.noise:.0%}"
    cells = (world.name, noise, str(world.stored), *shares, f"{spent.mean():.2f}", "<br>".join(found))
    return f"| {' | '.join(cells)} |"


def nine_of_fourteen(sessions: int, seed: int) -> str:
    """Nine cases lost 9 %, five nothing: how often a session is red."""
    now, stored = World(name="").draw(np.random.default_rng([seed, 1000]), sessions)
    now[:, :9] += np.log(0.91)
    verdict, _ = judged(now, recorded(stored))
    return wilson(int((verdict == SLOWER).any(1).sum()), sessions)


def refused(world: World, sessions: int, seed: int) -> str:
    """How often a refresh of unchanged code refuses a case, by the rule of judge/refresh.py."""
    now, stored = world.draw(np.random.default_rng([seed, 2000 + world.stored]), sessions)
    red = 0
    for drawn, then in zip(now[..., :STORED_RUNS].mean(-1), stored, strict=True):
        noises = _recorded(np.exp(then).tolist(), shared=False).noise
        allowed = [allowed_loss(NoiseModel(noise, CASES), now=STORED_RUNS).value for noise in noises]
        # The reference is of the session that began the level.
        red += bool((drawn - then[:, 0].mean(-1) < np.log1p(-np.array(allowed))).any())
    return wilson(red, sessions)


HEADING = """# Error rates of the stored gate, simulated

Written by `python -m trainpace.simulate.stored --out docs`: {sessions} sessions of 14 cases a row, in per cent, with
Wilson's 95 % intervals. The baseline holds *stored* sessions of five runs. *Red*, *inconclusive* and *improvement* are
sessions with such a case, in which nothing changed; *runs* are those of a case in them. Of one case that lost a share:
how often it is called regression, and how often pass. What follows: [statistics.md](statistics.md#the-stored-gate).

"""
COLUMNS = ("world", "noise", "stored", "red", "inconclusive", "improvement", "runs", "lost: found, called pass")


def page(sessions: int, seed: int) -> Iterator[str]:
    """The lines of docs/statistics-stored.md, as they come."""
    yield HEADING.format(sessions=sessions)
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---|---|" + "---:|" * (len(COLUMNS) - 2)
    for world in WORLDS:
        yield line(world, sessions, seed)
    yield "\n| refresh of unchanged code, 1 % noise | refuses a case |\n|---|---:|"
    for world in (
        World(name="one session stored", stored=1),
        World(name="five sessions stored"),
        World(name="five sessions stored, case x session 0.5 %", between=0.005),
    ):
        yield f"| {world.name} | {refused(world, sessions, seed)} |"
    yield f"\nNine of 14 cases lost 9 %, five nothing: {nine_of_fourteen(sessions, seed)} of the sessions are red.\n"
    for world in WORLDS:
        if world.shape and world.stored == 5:
            yield f"- *{world.name}*: {world.shape.__doc__}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print the page, write it where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m trainpace.simulate.stored", description=__doc__)
    parser.add_argument("--sessions", type=int, default=700, help="of each row (default: the committed page's)")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"write {PAGE} there (default: print only)")
    parser.add_argument("--seed", type=int, default=SEED, help="of every draw (default: the committed page's)")
    options = parser.parse_args(arguments)
    text = ""
    for each in page(options.sessions, options.seed):
        text += f"{each}\n"
        sys.stdout.write(f"{each}\n")
        sys.stdout.flush()
    if options.out:
        (options.out / PAGE).write_text(text)


if __name__ == "__main__":
    main()
