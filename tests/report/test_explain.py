"""Where the time went, as a difference between two profiles."""

from factories import make_run
from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.report.explain import beside, count_differences, explain
from trainpace.runs.cost import Cost

BASE = {
    "parts": {"forward": 0.010, "backward": 0.020},
    "operators": {"aten::mm": 0.015, "aten::exp": 0.002},
    "calls": {"aten::mm": 30.0, "aten::exp": 4.0},
}


def test_the_largest_difference_comes_first():
    """Parts and operators by what they gained, with times and the share of the step; small differences are left out."""
    head = BASE | {
        "parts": {"forward": 0.0101, "backward": 0.026},
        "operators": {"aten::mm": 0.021, "aten::exp": 0.002},
    }

    lines = explain(BASE, head)

    assert lines[1:3] == [
        "  backward: 20.00 ms -> 26.00 ms (+20.0 % of the step)",
        "by operator, without what it calls:",
    ]
    assert lines[3] == "  aten::mm: 15.00 ms -> 21.00 ms (+20.0 % of the step)"


def test_names_are_for_people():
    """A profiler's own prefixes are left out, and a part's own time is what lies between its operators."""
    own = {"autograd::engine::evaluate_function: MulBackward0": 0.003, "part: forward": 0.002}
    head = BASE | {"operators": {**BASE["operators"], **own}}

    assert explain(BASE, head)[2:4] == [
        "  autograd: MulBackward0: 0.00 ms -> 3.00 ms (+10.0 % of the step)",
        "  forward, between operators: 0.00 ms -> 2.00 ms (+6.7 % of the step)",
    ]


def test_as_many_calls_are_the_same_work_slower():
    """An operator that takes longer and is called as often does the same work, slower."""
    head = BASE | {"operators": {"aten::mm": 0.021, "aten::exp": 0.002}}

    assert explain(BASE, head)[-1] == "what slowed is called no more often than before: the same work, slower"


def test_more_calls_are_more_work():
    """An operator that takes longer because it is called more often is named, with both counts."""
    head = BASE | {
        "operators": {"aten::mm": 0.021, "aten::exp": 0.002},
        "calls": {"aten::mm": 42.0, "aten::exp": 8.0},
    }

    assert explain(BASE, head)[-1] == "head does more work, calls a step: aten::mm 30 -> 42"


def test_an_empty_profile_explains_nothing():
    """Without a profile of the base nothing is claimed."""
    empty = {"parts": {}, "operators": {}, "calls": {}}

    assert explain(empty, BASE) == ["nothing to explain: the base's profile is empty"]


def test_start_up_and_memory_stand_beside():
    """Medians of start-up, largest memory; compiling only where something was compiled."""
    base = [make_run(startup_seconds=2.0)]
    head = [make_run(startup_seconds=3.0, peak_memory_bytes=2 << 30)]

    assert beside(base, head) == ["start-up: 2.00 -> 3.00 s", "peak memory: 1.00 -> 2.00 GiB"]


def test_counted_differences_say_whether_head_does_more():
    """Counters that differ, with both counts; equal ones are the same work."""
    base = make_cost()

    assert count_differences(base, base) == ["counted at full size: both sides do the same work"]
    assert count_differences(base, make_cost({"step.calls": 2401})) == [
        "counted at full size, base -> head:",
        "  step.calls 2,400 -> 2,401 (+0.0417 %)",
    ]


def make_cost(counters=()):
    """A small cost of a published row; `counters` replace some."""
    return Cost(
        workload=full_workload(PUBLISHED[0]),
        traced_layers=4,
        counters={"step.calls": 2400, "step.flops.matmul": 900} | dict(counters),
        operators={},
        unknown={},
        software={"torch": "2.13.0"},
    )
