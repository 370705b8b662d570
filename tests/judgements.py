"""One judgement of each kind, of both gates: what reports must agree on, and what prints commands."""

from factories import make_run, make_runs, make_workload
from trainpace.errors import RunFailed
from trainpace.judge.command import Command
from trainpace.judge.comparison import Comparison
from trainpace.judge.head_vs_base import judge_pairs
from trainpace.judge.refresh import baseline_of
from trainpace.judge.verdict import judge, judge_failure, unjudged
from trainpace.plan.paired import self_tested
from trainpace.runs.run import Health
from trainpace.runs.verdict import Verdict
from trainpace.stats.retest import OtherCase
from trainpace.stats.tolerance import CaseNoise, NoiseModel, Spread

CASE = "ours-8k-sp1"
QUIET, NOISY, HOPELESS = (NoiseModel(CaseNoise(within=Spread(sd, 40))) for sd in (0.01, 0.06, 0.2))


def beside(log_ratio):
    """Four other cases of the session, all so far from their baselines."""
    return [OtherCase(log_ratio=log_ratio, noise=CaseNoise(within=Spread(0.01, 40)))] * 4


def of_stored_gate(command=Command(), **workload):  # noqa: B008 - it is immutable
    """Of runs against a stored baseline, by what they show; `workload` are fields of what was trained."""
    trained = make_workload(CASE, **workload)
    baseline = baseline_of(make_runs(*[1000.0] * 5, workload=trained, revision="main"))
    uneven = baseline_of(make_runs(1000.0, 1300.0, 800.0, 1200.0, 900.0, workload=trained))
    disturbed = make_run(workload=trained, health=Health(faults=("thermal slowdown for 3.1 s",)))
    shown = {
        "pass": ([1000.0], baseline, QUIET, ()),
        "slower": ([700.0], baseline, QUIET, ()),
        "faster": ([1300.0] * 3, baseline, QUIET, ()),
        "alone": ([1000.0], None, QUIET, ()),
        "close": ([950.0], baseline, NOISY, ()),
        "hopeless": ([950.0], baseline, HOPELESS, ()),
        "shared": ([900.0], baseline, QUIET, beside(-0.1)),
        "gained": ([1080.0] * 3, baseline, QUIET, beside(0.08)),
        "hidden": ([1000.0] * 5, baseline, QUIET, beside(0.08)),
        "uneven": ([900.0], uneven, QUIET, ()),
    }
    found = {
        name: judge(make_runs(*tgs, workload=trained), against, noise=noise, others=others, command=command)
        for name, (tgs, against, noise, others) in shown.items()
    }
    found["disturbed"] = judge([disturbed], baseline, noise=QUIET, command=command)
    found["failed"] = judge_failure(CASE, trained, RunFailed("killed by SIGKILL"), command)
    found["no time"] = unjudged(CASE, "did not fit --perf-max-minutes 1")
    return found


def of_paired_gate(command=Command(), **workload):  # noqa: B008 - it is immutable
    """Of head against base, by what the pairs show."""
    trained = make_workload(CASE, **workload)
    base, head = (make_runs(tgs, tgs, workload=trained) for tgs in (1000.0, 900.0))
    compared = Comparison(
        base="main",
        head="0123456",
        base_tgs=1000.0,
        log_ratios=(-0.1, -0.1),
        ratio=0.9,
        low=0.85,
        high=0.95,
        detect=0.05,
    )
    shown = {
        "pass": (Verdict.PASS, None),
        "slower": (Verdict.REGRESSION, None),
        "faster": (Verdict.IMPROVEMENT, None),
        "close": (Verdict.INCONCLUSIVE, 12),
        "hopeless": (Verdict.INCONCLUSIVE, None),
    }
    found = {}
    for name, (verdict, needed) in shown.items():
        comparison = compared.model_copy(update={"pairs_needed": needed})
        found[name] = judge_pairs(base, head, comparison, verdict, peak_tflops=None, command=command)
    found["failed"] = judge_failure(CASE, trained, RunFailed("base: killed by SIGKILL"), command)
    found["blind"] = self_tested(found["close"], found["pass"], "30 %")
    return found
