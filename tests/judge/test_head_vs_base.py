"""Head against base: what makes a case other than the statistics of its pairs say."""

import pytest

from factories import CPU, make_run, make_workload
from trainpace.judge.comparison import Comparison
from trainpace.judge.head_vs_base import judge_pairs
from trainpace.runs.verdict import Verdict

WORKLOAD = make_workload(steps=6)


def uneven(seed):
    """A run whose every third step takes three times as long: its median step is that of the others."""
    run = make_run(workload=WORKLOAD, seed=seed)
    seconds = [value * (3 if step % 3 == 2 else 1) for step, value in enumerate(run.ranks[0].seconds)]
    return run.model_copy(
        update={"ranks": tuple(each.model_copy(update={"seconds": seconds}) for each in run.ranks)},
    )


def passed(pairs):
    """A comparison whose medians agree."""
    ratios = {"ratio": 1.0, "low": 0.98, "high": 1.02, "detect": 0.05}
    return Comparison(base="b", head="h", base_tgs=1000.0, log_ratios=(0.0,) * pairs, **ratios)


@pytest.mark.parametrize(("pairs", "verdict"), [(2, Verdict.INCONCLUSIVE), (4, Verdict.REGRESSION)])
def test_steps_that_the_median_does_not_see_are_no_pass(pairs, verdict):
    """Head's every third step takes three times as long: a regression, and with few pairs inconclusive."""
    base = [make_run(workload=WORKLOAD, seed=seed) for seed in range(pairs)]
    head = [uneven(seed) for seed in range(pairs)]
    found = judge_pairs(base, head, passed(pairs), Verdict.PASS, peak_tflops=None)

    assert found.verdict is verdict
    assert "its mean step is 66.7 % longer than its median one, and at most 0 % in the base" in found.reasons[0]


def test_steps_that_both_sides_have_are_no_difference():
    """Where the base's steps are as uneven, and where one run of head's is even, the verdict stands."""
    base, head = [uneven(seed) for seed in range(4)], [uneven(seed) for seed in range(4, 8)]
    even = [make_run(workload=WORKLOAD, seed=seed) for seed in range(4)]

    assert judge_pairs(base, head, passed(4), Verdict.PASS, peak_tflops=None).verdict is Verdict.PASS
    assert judge_pairs(even, [*head[:3], even[0]], passed(4), Verdict.PASS, peak_tflops=None).verdict is Verdict.PASS


def test_a_head_that_takes_more_cores_is_invalid():
    """A rank that frees itself from its core is not compared with one that kept to its own."""
    base = [make_run(workload=WORKLOAD, seed=seed) for seed in range(2)]
    wide = tuple(each.model_copy(update={"place": "host/cpu 0,1,2"}) for each in base[0].ranks)
    head = [run.model_copy(update={"ranks": wide}) for run in base]
    found = judge_pairs(base, head, passed(2), Verdict.IMPROVEMENT, peak_tflops=None)

    assert found.verdict is Verdict.INVALID
    assert "on as many cores on both sides, got 1 of the base and 3 of head" in found.reasons[0]


def with_memory(*peaks, allocated):
    """Runs with these peaks, in MiB, on a GPU or a CPU."""
    device = CPU.model_copy(update={"kind": "cuda"}) if allocated else CPU
    return [
        make_run(workload=WORKLOAD, seed=seed, peak_memory_bytes=int(peak * (1 << 20)), device=device)
        for seed, peak in enumerate(peaks)
    ]


@pytest.mark.parametrize(
    ("base", "head", "allocated", "red"),
    [
        ((1000,) * 3, (1009,) * 3, True, False),
        ((1000,) * 3, (1011,) * 3, True, True),
        ((1000, 1001, 999), (1020, 1021, 1019), False, False),
        ((1000, 1001, 999), (1040, 1041, 1039), False, True),
        ((1000, 1030, 990), (1040, 1000, 1020), False, False),
        ((1000, 1001, 999), (1000, 1190, 1001), False, False),
    ],
    ids=["allocated 0.9 %", "allocated 1.1 %", "resident 2 %", "resident 4 %", "that spreads", "once a fifth more"],
)
def test_memory_is_judged_by_its_own_noise(base, head, allocated, red):
    """Not by the minimum effect, 5 % here: 1 % on a GPU, what the runs spread on a CPU."""
    sides = [with_memory(*peaks, allocated=allocated) for peaks in (base, head)]
    found = judge_pairs(*sides, passed(3), Verdict.PASS, peak_tflops=None)

    assert found.verdict is (Verdict.REGRESSION if red else Verdict.PASS)
    assert not red or "above the base's" in found.reasons[0]


def test_undecided_case_names_what_would_decide():
    """The pairs, in a command; and the minimum effect that its pairs would have excluded."""
    figures = {"ratio": 1.0, "low": 0.905, "high": 1.1, "detect": 0.05, "spread": 0.05, "pairs_needed": 31}
    comparison = Comparison(base="b", head="h", base_tgs=1000.0, log_ratios=(0.0,) * 8, **figures)
    runs = [make_run(workload=WORKLOAD, seed=seed) for seed in range(8)]
    reasons = judge_pairs(runs, runs, comparison, Verdict.INCONCLUSIVE, peak_tflops=None).reasons

    assert reasons[0].endswith("too close to tell a loss of 5 %, its runs spread 5 %: 31 pairs would decide")
    assert "--perf-max-pairs 31" in reasons[1]
    assert f"--perf-detect {WORKLOAD.case}=0.1`" in reasons[2]
