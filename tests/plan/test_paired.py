"""Pairs: what is measured again, and what is believed."""

import pytest

from factories import make_run, make_workload
from trainpace.plan.paired import PairedCase, PairedPlan
from trainpace.plan.task import drive
from trainpace.runs.run import Health, OtherProcess
from trainpace.stats.sequential import SequentialDesign

WORKLOAD = make_workload("llama2_7b-8k-sp1")


def run(yardstick, *, told=True):
    """A run beside which the suite's fixed piece of work took `yardstick` seconds."""
    found = make_run(workload=WORKLOAD, health=Health(foreign_cores=0.0 if told else None))
    ranks = tuple(rank.model_copy(update={"yardstick_seconds": yardstick}) for rank in found.ranks)
    return found.model_copy(update={"ranks": ranks})


@pytest.mark.parametrize(
    ("runs", "repeated", "failed"),
    [
        ([run(5e-4), run(5.2e-4)], 0, False),
        ([run(5e-4), run(7e-4), run(7e-4), run(7.1e-4)], 1, False),
        ([run(5e-4), run(7e-4)] * 3, 3, True),
        ([run(5e-4, told=False), run(7e-4, told=False)], 0, False),
        ([run(None), run(None)], 0, False),
    ],
    ids=["equal", "once unequal", "always unequal", "cannot be told", "on a GPU"],
)
def test_a_pair_on_unequal_machines_is_measured_again(runs, repeated, failed):
    """Both sides of a pair must have had the same machine; how fast that is does not matter."""
    given = iter(runs)
    case = PairedCase(test="test", workload=WORKLOAD)

    drive(PairedPlan([case], SequentialDesign()), lambda _: next(given), out_of_time=lambda: bool(case.base))

    assert case.repeated == repeated
    assert (case.failure is not None) == failed
    assert next(given, None) is None


def test_a_burnt_core_ends_a_case_at_once():
    """A process that keeps a core busy from end to end disturbs every attempt at a pair: only one is made."""
    burnt = Health(foreign_cores=0.9, others=(OtherProcess(pid=42, name="firefox", cores=0.9),), faults=("firefox",))
    case = PairedCase(test="test", workload=WORKLOAD)
    given = iter([run(5e-4), run(5e-4).model_copy(update={"health": burnt})])

    drive(PairedPlan([case], SequentialDesign()), lambda _: next(given))

    assert case.failure is not None
    assert "pair 1 was disturbed: head: firefox" in case.failure.reasons[0]
