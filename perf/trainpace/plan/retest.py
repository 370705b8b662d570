"""Which case of a session is to be run once more, by the speeds of the runs so far: numbers in, cases out.

The stored gate (plan/stored.py) makes tasks of these decisions for real runs; the simulation drives the same object
with drawn speeds.
"""

from collections.abc import Sequence
from typing import Protocol

from trainpace.stats.retest import Assessment, OtherCase, assess
from trainpace.stats.tolerance import CaseNoise, NoiseModel


class RetestCase(Protocol):
    """What is known of a case's speed."""

    @property
    def first_runs(self) -> int:
        """Runs to begin with."""

    @property
    def stored(self) -> Sequence[Sequence[float]]:
        """TGS of each of the baseline's runs that count, by session; empty: there is no baseline."""

    @property
    def noise(self) -> CaseNoise | None:
        """Between runs and sessions; None where it is unknown."""

    @property
    def peers(self) -> object:
        """Cases with equal `peers` are comparable: the same device, the same scale."""

    @property
    def tgs(self) -> Sequence[float]:
        """Of each run so far, oldest first."""

    @property
    def open(self) -> bool:
        """Whether further runs can be made of it."""

    @property
    def first_log_ratio(self) -> float | None:
        """log(TGS / TGS of the baseline) of the runs to begin with, as far as they were made; None where none can be
        trusted."""


class RetestPlan:
    """Decides which case of a session is to be run once more.

    Every case makes its first runs before one is judged: what the machine did to all of them shows in no case alone,
    and what it gained for all hides what one of them lost.
    """

    def __init__(self, cases: Sequence[RetestCase], noise: NoiseModel) -> None:
        """Plan runs of `cases`; of `noise` what the session has in common, each case has its own."""
        self.cases = list(cases)
        self.noise = noise

    def next(self, wanted: RetestCase) -> RetestCase | None:
        """The case whose next run decides most about `wanted`: itself, or one of the others; None: it is decided."""
        if len(wanted.tgs) < wanted.first_runs:
            return wanted if wanted.open else None
        if not wanted.open or not wanted.stored:
            return None
        for other in self.others(wanted):
            if other.open and len(other.tgs) < other.first_runs:
                return other
        return wanted if self.assess(wanted).needs_another_run(wanted.first_runs) else None

    def assess(self, case: RetestCase) -> Assessment:
        """What a case's speeds say against its baseline, beside those of the other cases."""
        others, noise = self.compared_with(case), self.noise.of(case.noise)
        return assess(case.tgs, case.stored, noise, others=others, first=case.first_runs)

    def add(self, task: RetestCase, result: float) -> None:
        """Take the TGS of a run, where a case's speeds are a list of plain numbers."""
        assert isinstance(task.tgs, list)
        task.tgs.append(result)

    def begin_no_more(self) -> None:
        """Nothing is begun here: who takes the time is `StoredPlan`."""

    def compared_with(self, case: RetestCase) -> list[OtherCase]:
        """What the other cases tell; of those that have a run to be trusted."""
        return [
            OtherCase(log_ratio=each.first_log_ratio, noise=each.noise, now=max(1, min(len(each.tgs), each.first_runs)))
            for each in self.others(case)
            if each.noise is not None and each.first_log_ratio is not None
        ]

    def others(self, case: RetestCase) -> list[RetestCase]:
        """The other cases that tell what the machine did to this session; none where they would say nothing."""
        if case.noise is None or self.noise.tolerance is not None:
            return []
        return [
            each
            for each in self.cases
            if each is not case and each.stored and each.noise is not None and each.peers == case.peers
        ]
