"""The stored gate on drawn sessions: its own plan and its own refresh, and the worlds that their runs are drawn from.

A world says what a session of unchanged code does: the sessions of the baseline, and then the one that is judged.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

import numpy as np

from trainpace.plan.paired import FASTER, OPEN, PASSED, SLOWER
from trainpace.plan.retest import RetestCase, RetestPlan
from trainpace.plan.task import drive
from trainpace.simulate.noise import Floats, Integers
from trainpace.stats.retest import MIN_OTHER_CASES, outliers
from trainpace.stats.tolerance import CaseNoise, NoiseModel, first_runs
from trainpace.stats.variance import case_noises

STORED_RUNS = 5
"""Runs of a case in a session of a baseline."""
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


def _recorded(cases: list[list[list[float]]]) -> Recorded:
    marks = iter(outliers([runs for of_case in cases for runs in of_case]))
    stored = [
        [[tgs for tgs, outlier in zip(runs, next(marks), strict=True) if not outlier] for runs in of_case]
        for of_case in cases
    ]
    sessions = [[StoredRuns(str(number), 1, runs) for number, runs in enumerate(of_case)] for of_case in stored]
    return Recorded(stored, case_noises(sessions, shared=len(cases) > MIN_OTHER_CASES))


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
