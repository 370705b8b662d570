"""Which case of a session is to be run once more, by the speeds of the runs so far: numbers in, cases out.

The stored gate (plan/stored.py) makes tasks of these decisions for real runs; the simulation drives the same object
with drawn speeds.
"""

from collections.abc import Sequence
from typing import Protocol

from trainpace.stats.retest import MIN_OTHER_CASES, Assessment, assess
from trainpace.stats.tolerance import NoiseModel, Spread


class RetestCase(Protocol):
    """What is known of a case's speed."""

    @property
    def first_runs(self) -> int:
        """Runs to begin with."""

    @property
    def stored(self) -> Sequence[Sequence[float]]:
        """TGS of each of the baseline's runs that count, by session; empty: there is no baseline."""

    @property
    def spread(self) -> Spread | None:
        """Between runs; None where it is unknown."""

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
        """log(TGS of the first run / TGS of the baseline); None where no run can be trusted."""


class RetestPlan:
    """Decides which case of a session is to be run once more."""

    def __init__(self, cases: Sequence[RetestCase], noise: NoiseModel) -> None:
        """Plan runs of `cases`; of `noise` what the session has in common, each case has its own spread."""
        self.cases = list(cases)
        self.noise = noise
        self._remembered: dict[tuple[int, tuple[float, ...]], Assessment] = {}

    def next(self, wanted: RetestCase) -> RetestCase | None:
        """The case whose next run decides most about `wanted`: itself, or one of the others; None: it is decided."""
        if len(wanted.tgs) < wanted.first_runs:
            return wanted if wanted.open else None
        if not wanted.open or not wanted.stored or not self.assess(wanted, alone=True).slow:
            return None
        # The others are asked only where they can make a difference.
        for other in self.others(wanted):
            if other.open and len(other.tgs) < other.first_runs:
                return other
        return wanted if self.assess(wanted).needs_another_run(wanted.first_runs) else None

    def assess(self, case: RetestCase, *, alone: bool = False) -> Assessment:
        """What a case's speeds say against its baseline; `alone`: without a look at the other cases."""
        if not alone:
            ratios = [each.first_log_ratio for each in self.others(case)]
            return self._assess(case, [ratio for ratio in ratios if ratio is not None])
        key = id(case), tuple(case.tgs)
        if key not in self._remembered:
            self._remembered[key] = self._assess(case, [])
        return self._remembered[key]

    def add(self, task: RetestCase, result: float) -> None:
        """Take the TGS of a run, where a case's speeds are a list of plain numbers."""
        assert isinstance(task.tgs, list)
        task.tgs.append(result)

    def begin_no_more(self) -> None:
        """Nothing is begun here: who takes the time is `StoredPlan`."""

    def _assess(self, case: RetestCase, others: Sequence[float]) -> Assessment:
        return assess(case.tgs, case.stored, self.noise.with_spread(case.spread), others=others)

    def others(self, case: RetestCase) -> list[RetestCase]:
        """The other cases that tell what the machine did to this session; none where they would say nothing."""
        if not self.asks_others(case):
            return []
        return [each for each in self.cases if each is not case and each.stored and each.peers == case.peers]

    def asks_others(self, case: RetestCase) -> bool:
        """Whether other cases can say anything: there are enough, and the noise is known that a shift must exceed."""
        return self.noise.num_cases > MIN_OTHER_CASES and case.spread is not None and self.noise.tolerance is None
