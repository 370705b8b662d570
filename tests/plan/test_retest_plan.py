"""Which case of a session is run once more, by speeds alone."""

from dataclasses import dataclass, field

import pytest

from trainpace.plan.retest import RetestPlan
from trainpace.plan.task import drive
from trainpace.stats.tolerance import CaseNoise, NoiseModel, Spread

STORED = ((990.0, 1005.0, 995.0, 1012.0, 998.0),)
QUIET = CaseNoise(within=Spread(0.01, 40))


@dataclass
class Numbers:
    """A case whose next run has the next of `speeds`; the last one stays. Its first run is as its baseline was."""

    speeds: list[float]
    peers: str = "this device"
    stored: tuple[tuple[float, ...], ...] = STORED
    noise: CaseNoise = QUIET
    first_runs: int = 1
    open: bool = True
    first_log_ratio: float | None = 0.0
    tgs: list[float] = field(default_factory=list)


def runs(*speeds, others=5, peers="this device"):
    """Runs of the first case, beside cases that have the speed of their baseline, and runs of all these."""
    first = Numbers(list(speeds))
    cases = [first, *(Numbers([1000.0], peers=peers) for _ in range(others))]
    plan = RetestPlan(cases, NoiseModel(num_cases=len(cases)))
    drive(plan, lambda case: case.speeds[min(len(case.tgs), len(case.speeds) - 1)], wanted=first)
    return len(first.tgs), sum(len(case.tgs) for case in cases[1:])


@pytest.mark.parametrize(
    ("speeds", "given", "expected"),
    [
        ([1000.0], {}, (1, 5)),
        ([950.0], {}, (5, 5)),
        ([1080.0], {}, (3, 5)),
        ([1080.0, 980.0], {}, (2, 5)),
        ([800.0, 1001.0, 1002.0], {}, (3, 5)),
        ([950.0], {"others": 2}, (5, 2)),
        ([950.0], {"others": 0}, (5, 0)),
        ([950.0], {"peers": "another device"}, (5, 0)),
    ],
    ids=["usual", "slow", "faster", "a lucky run", "an outlier", "few others", "alone", "others elsewhere"],
)
def test_a_slow_case_is_run_again_beside_the_others(speeds, given, expected):
    """As often as it decides something; the others once, before any case is judged."""
    assert runs(*speeds, **given) == expected
