"""The judgement: every verdict with its reasons, and what no noise may change."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import CPU, DATA, LOSSES, make_full_workload, make_run, make_runs, make_workload
from trainpace.errors import RunFailed
from trainpace.judge import baseline as stored
from trainpace.judge.verdict import judge, judge_failure, runs_to_measure
from trainpace.runs import flops
from trainpace.runs.flops import StepFlops
from trainpace.runs.run import DataIdentity, Health, RunNode
from trainpace.runs.verdict import Verdict
from trainpace.stats.retest import OtherCase
from trainpace.stats.tolerance import CaseNoise, NoiseModel, Spread, geometric_mean
from trainpace.store.baselines import load_baselines


def noise_of(sd, dof=40):
    """Of a case whose runs spread by so much, and whose sessions do not."""
    return NoiseModel(CaseNoise(within=Spread(sd, dof), assumed=0.0))


GPU = CPU.model_copy(update={"kind": "cuda"})
QUIET = noise_of(0.01)
"""1 % between runs, as a GPU or a still CPU shows."""
NOISY = noise_of(0.06)
OTHER = DataIdentity(sources=("mine.json@89ab",), tokenizer="bytes", fingerprint="4567cdef", seed=0)
COMMAND = "pytest perf -k llama2_7b-8k-sp1 --perf-scale mini"


def make_baseline(*tgs, workload=None, **overrides):
    """A measured baseline of runs at `tgs` (five at 1000 unless given), with the memory and losses of make_run."""
    workload = workload or make_workload()
    tgs = list(tgs or [1000.0] * 5)
    mean = geometric_mean(tgs)
    attended = overrides.get("mean_attended")
    fields = {
        "origin": "measured",
        "workload": workload,
        "tgs": mean,
        "sessions": [
            {
                "recorded": datetime(2026, 11, 25, tzinfo=UTC).isoformat(),
                "revision": overrides.pop("revision", None),
                "level": 1,
                "tgs": tgs,
                "ids": [],
                "peak_memory_bytes": [],
            }
        ],
        "reference_tgs": mean,
        "tflops": flops.tflops(mean, workload, mean_attended=attended),
        "convention": "xtuner",
        "convention_version": 1,
        "mean_attended": None,
        "peak_memory_bytes": 1 << 30,
        "yardstick_seconds": None,
        "first_losses": list(LOSSES),
        "data": DATA,
        "startup_seconds": 2.0,
        "device": CPU,
        "software": {"python": "3.11.7", "torch": "2.13.0"},
        "accepted_slower": None,
    }
    return stored.Measured(**{**fields, **overrides})


def published_row():
    """The published row of Llama2-7B 8k: 3028.3 TGS on 8 A100s."""
    return stored.find(load_baselines([], "a100-sxm4-80gb"), make_full_workload())


def test_same_speed_passes():
    """The recorded speed, measured again: pass, with nothing to explain."""
    judgement = judge(make_runs(1000.0), make_baseline(), noise=QUIET)

    assert judgement.verdict is Verdict.PASS
    assert judgement.reasons == ()
    assert pytest.approx(1.0) == judgement.ratio
    assert judgement.tolerance_source == "5 runs, 1 now: 2.6 %"


def test_judgement_holds_what_a_table_prints():
    """Value, memory, start-up, shares of the peak and versions come with the verdict."""
    judgement = judge(
        make_runs(1000.0, 1010.0, software={"python": "3.11.7", "torch": "2.14.0", "numpy": "2.4"}),
        make_baseline(),
        noise=QUIET,
        peak_tflops=0.01,
    )

    assert pytest.approx(math.sqrt(1000 * 1010)) == judgement.tgs
    assert pytest.approx(flops.tflops(judgement.tgs, make_workload())) == judgement.tflops
    assert pytest.approx(judgement.tgs * flops.model_flops(make_workload()) / 0.01e12) == judgement.mfu
    assert pytest.approx(judgement.tgs * flops.hardware_flops(make_workload()) / 0.01e12) == judgement.hfu
    assert (judgement.peak_memory_bytes, judgement.startup_seconds) == (1 << 30, 2.0)
    assert judgement.version_differences == ("numpy absent -> 2.4", "torch 2.13.0 -> 2.14.0")


@pytest.mark.parametrize(
    ("slowdown", "verdict"), [(0.10, Verdict.REGRESSION), (0.01, Verdict.PASS), (0.0, Verdict.PASS)]
)
@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), noise=st.floats(0.0, 0.01))
def test_replayed_slowdown(slowdown, verdict, seed, noise):
    """At 1 % noise a run replayed 10 % slower is red and one 1 % slower is green."""
    run = make_run(tgs=1000.0 * (1 - slowdown), noise=noise, seed=seed)

    assert judge([run], make_baseline(), noise=QUIET).verdict is verdict


def test_regression_says_what_came_and_what_to_run():
    """What was expected, what came, the tolerance with its origin and the next command."""
    judgement = judge(make_runs(900.0), make_baseline(), noise=QUIET)

    assert judgement.verdict is Verdict.REGRESSION
    assert (
        "TGS 900.0 is 10 % below the measured baseline's 1000.0 (tolerance 5 runs, 1 now: 2.6 %)",
        "with fewer than 5 cases a slow machine looks the same as slower code",
        f"look closer with `{COMMAND} --perf-runs-per-case 3`",
    ) == judgement.reasons


def test_improvement_asks_for_a_refresh():
    """Faster beyond the bound passes the test, and says that the baseline is stale."""
    judgement = judge(make_runs(1100.0, 1105.0, 1095.0), make_baseline(), noise=QUIET)

    assert judgement.verdict is Verdict.IMPROVEMENT
    assert "TGS 1100.0 is 10 % above the measured baseline's 1000.0" in judgement.reasons[0]
    assert f"`{COMMAND} --perf-refresh`" in judgement.reasons[0]


@pytest.mark.parametrize("tgs", [[1100.0], [1300.0, 930.0, 1110.0]], ids=["one run", "uneven"])
def test_a_lucky_run_is_no_improvement(tgs):
    """What few or uneven runs gained passes, and is said; nobody is told to record it."""
    judgement = judge(make_runs(*tgs), make_baseline(), noise=QUIET)

    assert judgement.verdict is Verdict.PASS
    assert "in too few runs, or too uneven ones, to call it an improvement" in judgement.notes[-1]


def beside(*ratios):
    """Other cases of the session, at these ratios to their baselines."""
    return [OtherCase(log_ratio=math.log(ratio), noise=QUIET.case) for ratio in ratios]


def test_what_all_gained_passes_with_a_note():
    """The machine may have done it: a faster one is not recorded by advice."""
    runs, baseline = make_runs(1080.0, 1082.0, 1078.0), make_baseline(revision="0123456789abcdef")
    judgement = judge(runs, baseline, noise=QUIET, others=beside(*[1.08] * 5))

    assert judgement.verdict is Verdict.PASS
    assert "all cases gained about 8 %: the machine did, or a change that meets every case" in judgement.notes[-1]
    assert "--perf-against 0123456789`" in judgement.notes[-1]


def test_what_a_faster_machine_hides_is_inconclusive():
    """A case that stayed where the others gained 8 % may have lost as much: it is not called pass."""
    judgement = judge(make_runs(*[1000.0] * 5), make_baseline(), noise=QUIET, others=beside(*[1.08] * 13))
    few = judge(make_runs(*[1000.0] * 5), make_baseline(), noise=QUIET, others=beside(1.08))

    assert {judgement.verdict, few.verdict} == {Verdict.INCONCLUSIVE}
    assert "but the other cases gained about 8 %: it may have lost what the machine gained" in judgement.reasons[0]
    assert judgement.what_decides == "a comparison with another revision would decide"


@pytest.mark.parametrize("stayed", [1, 5])
def test_loss_that_not_all_share_is_red(stayed):
    """Nine of 14 cases lost 9 % and five nothing; four of five lost it and the fifth nothing: no machine does that."""
    slower = 8 if stayed == 5 else 3
    judgement = judge(
        make_runs(*[910.0] * 5), make_baseline(), noise=QUIET, others=beside(*[0.91] * slower, *[1.0] * stayed)
    )

    assert judgement.verdict is Verdict.REGRESSION


def test_no_baseline_asks_for_one():
    """Without a baseline the numbers stand alone, with the command that records them."""
    judgement = judge(make_runs(1000.0), None)

    assert judgement.verdict is Verdict.NO_BASELINE
    assert judgement.ratio is None
    assert f"on cpu-test-2c: record it with `{COMMAND} --perf-refresh`" in judgement.reasons[0]


def test_noise_above_the_cap_is_inconclusive():
    """Where one run cannot tell 10 %, it is said, with the runs that can."""
    judgement = judge(make_runs(950.0), make_baseline(), noise=NOISY)

    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.what_decides == "4 runs would decide"
    assert "TGS 950.0 is 95 % of the measured baseline's 1000.0, too close to tell" in judgement.reasons[0]
    assert f"4 runs would decide, `{COMMAND} --perf-runs-per-case 4`" in judgement.reasons[0]


def test_hopeless_noise_asks_for_more_stored_runs():
    """Where no number of runs decides, more have to be recorded."""
    judgement = judge(make_runs(1000.0), make_baseline(), noise=noise_of(0.2))

    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.what_decides == "no number of runs would decide"
    assert f"`{COMMAND} --perf-refresh --perf-runs-per-case 10`" in judgement.reasons[0]


def test_regression_beyond_the_bound_is_red_above_the_cap():
    """Noise excuses what lies within its bound, not what lies beyond."""
    assert judge(make_runs(700.0), make_baseline(), noise=NOISY).verdict is Verdict.REGRESSION


def test_improvement_above_the_cap_is_inconclusive():
    """Above the cap nothing but a regression is said."""
    assert judge(make_runs(1500.0), make_baseline(), noise=NOISY).verdict is Verdict.INCONCLUSIVE


def test_own_spread_serves_without_a_pool():
    """A device with one case is judged by that case's runs."""
    judgement = judge(make_runs(1000.0), make_baseline(990.0, 1000.0, 1010.0))

    assert judgement.tolerance_source.startswith("3 runs, 1 now: 7.")


def test_more_cases_widen_the_tolerance():
    """Cases share the session's chance of a false alarm."""
    one = judge(make_runs(1000.0), make_baseline(), noise=QUIET)
    fourteen = judge(make_runs(1000.0), make_baseline(), noise=replace(QUIET, num_cases=14))

    assert one.tolerance < fourteen.tolerance


def test_users_tolerance_stands_above_statistics():
    """--perf-tolerance decides also where the noise would not."""
    judgement = judge(make_runs(950.0), make_baseline(), noise=replace(NOISY, tolerance=0.04))

    assert judgement.verdict is Verdict.REGRESSION
    assert judgement.tolerance_source == "--perf-tolerance: 4 %"


@given(
    first=st.floats(500, 2000),
    second=st.floats(500, 2000),
    spread=st.builds(Spread, sd=st.floats(0.001, 0.2), dof=st.integers(1, 50)),
    now=st.integers(1, 5),
)
@settings(max_examples=50, deadline=None)
def test_faster_is_never_judged_worse(first, second, spread, now):
    """Of two speeds against one baseline, the higher is not red where the lower is not."""
    order = [Verdict.REGRESSION, Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.IMPROVEMENT]
    slow, fast = (
        judge(make_runs(*[tgs] * now), make_baseline(), noise=NoiseModel(CaseNoise(within=spread, assumed=0.0))).verdict
        for tgs in sorted((first, second))
    )

    assert order.index(slow) <= order.index(fast)


@pytest.mark.parametrize(
    ("tgs", "verdict"),
    [(3028.3, Verdict.PASS), (2900.0, Verdict.PASS), (2800.0, Verdict.REGRESSION), (3300.0, Verdict.IMPROVEMENT)],
)
def test_published_row_is_judged_with_five_percent(tgs, verdict):
    """A row has no spread, no memory and no losses; our own spread says nothing about it."""
    runs = make_runs(*[tgs] * 3, workload=make_full_workload())
    judgement = judge(runs, published_row(), noise=NOISY, peak_tflops=312.0)

    assert judgement.verdict is verdict
    assert judgement.tolerance_source == "no spread: 5 %"
    assert "published row" in judgement.notes[0]
    assert judgement.version_differences == ("python 3.10 -> 3.11.7", "torch 1.13 -> 2.13.0")


def test_more_memory_is_a_regression():
    """Peak memory above the baseline's by more than its tolerance is red at the same speed."""
    judgement = judge(make_runs(1000.0, peak_memory_bytes=(1 << 30) * 11 // 10), make_baseline(), noise=QUIET)

    assert judgement.verdict is Verdict.REGRESSION
    assert judgement.reasons[0] == (
        "peak memory 1.10 GiB is 10 % above the baseline's 1.00 GiB (tolerance of memory: 5 %)"
    )


@pytest.mark.parametrize(
    ("device", "factor", "verdict"),
    [
        (GPU, 1.009, Verdict.INCONCLUSIVE),
        (GPU, 1.012, Verdict.REGRESSION),
        (CPU, 1.02, Verdict.INCONCLUSIVE),
        (CPU, 1.04, Verdict.REGRESSION),
        (CPU, 0.5, Verdict.INCONCLUSIVE),
    ],
)
def test_noise_of_speed_excuses_no_memory(device, factor, verdict):
    """Memory has its own tolerance, whatever the noise of speed: 1 % of what a GPU allocates; on a CPU what its runs
    spread, 3 % at least."""
    peaks = [int(each * (1 << 30)) for each in (1.0, 1.001, 0.999, 1.0, 1.0)]
    baseline = make_baseline(device=device)
    stored_peaks = [baseline.sessions[0].model_copy(update={"peak_memory_bytes": peaks})]
    runs = make_runs(1000.0, peak_memory_bytes=int(factor * (1 << 30)), device=device)

    assert judge(runs, baseline.model_copy(update={"sessions": stored_peaks}), noise=NOISY).verdict is verdict


@pytest.mark.parametrize("baseline", [make_baseline(), None], ids=["baseline", "none"])
def test_invalid_wins_over_everything(baseline):
    """An untrusted run is neither slow nor without a baseline."""
    judgement = judge(make_runs(500.0, health=Health(faults=("thermal slowdown for 3.1 s",))), baseline, noise=QUIET)

    assert judgement.verdict is Verdict.INVALID
    assert ("thermal slowdown for 3.1 s", f"measure again with `{COMMAND}`") == judgement.reasons


def test_one_invalid_run_of_many_is_named():
    """Of several runs the one that cannot be trusted is named."""
    runs = [*make_runs(1000.0, 1001.0), make_run(seed=2, losses=(1.0,))]
    judgement = judge(runs, make_baseline(), noise=QUIET)

    assert judgement.verdict is Verdict.INVALID
    assert judgement.reasons[0].startswith("run run2: expected a loss of 6.2400")


def test_more_than_the_device_can_do_is_invalid():
    """A number above the datasheet's peak is wrong, not fast."""
    judgement = judge(make_runs(6000.0, workload=make_full_workload()), published_row(), peak_tflops=312.0)

    assert judgement.verdict is Verdict.INVALID
    assert "at most the device's peak of 312 TFLOPs" in judgement.reasons[0]


def test_tflops_that_disagree_with_tgs_are_invalid():
    """One of the two formulas changed without its version."""
    judgement = judge(make_runs(1000.0), make_baseline(tflops=0.5), noise=QUIET)

    assert judgement.verdict is Verdict.INVALID
    assert "expected one ratio to the baseline for TGS and TFLOPs" in judgement.reasons[0]


def test_other_version_of_the_formula_is_recomputed():
    """TFLOPs stored by another version of the convention are counted anew from the stored TGS."""
    judgement = judge(make_runs(1000.0), make_baseline(tflops=0.5, convention_version=9), noise=QUIET)

    assert judgement.verdict is Verdict.PASS


def test_other_documents_are_other_work():
    """Masked documents of other lengths cannot be judged against the baseline's."""
    workload = make_workload(attention="varlen")
    baseline = make_baseline(workload=workload, mean_attended=20.0)
    same = judge(make_runs(1000.0, workload=workload, mean_attended=20.0), baseline, noise=QUIET)
    other = judge(make_runs(1000.0, workload=workload, mean_attended=40.0), baseline, noise=QUIET)

    assert same.verdict is Verdict.PASS
    assert other.verdict is Verdict.INVALID
    assert "attends to 20 keys as in the baseline, got 40" in other.reasons[0]


def test_notes_are_passed_on_once():
    """Notes of the machine, of the warm-up and of the baseline stand in the judgement, none twice."""
    runs = make_runs(1000.0, 1000.0, health=Health(notes=("software power cap",)))
    judgement = judge(runs, make_baseline(accepted_slower="checkpointing"), noise=QUIET)

    assert judgement.notes == (
        "software power cap",
        "the baseline was recorded slower than before on purpose: checkpointing",
    )


def test_runs_of_two_workloads_are_refused():
    """Only runs of one workload have one value."""
    with pytest.raises(ValueError, match="expected runs of one workload"):
        judge([make_run(), make_run("llama2_70b-8k-sp1")], None)


def test_baseline_of_another_workload_is_refused():
    """A run is never compared with another workload's speed."""
    with pytest.raises(ValueError, match="expected runs of one workload and its baseline"):
        judge(make_runs(1000.0), make_baseline(workload=make_workload(engine="fsdp2")))


@pytest.mark.parametrize("workload", [make_workload(), None])
def test_failed_run_is_invalid_with_its_cause(workload):
    """A run that ended without its steps has no number, and says which rank ended it and why."""
    judgement = judge_failure("llama2_7b-8k-sp1", workload, RunFailed("out of memory", rank=3))

    assert judgement.verdict is Verdict.INVALID
    assert judgement.reasons[0] == "expected a run of all its steps, got none: rank 3: out of memory"
    assert judgement.tgs is None


@pytest.mark.parametrize(
    ("baseline", "pool", "runs"),
    [(None, NOISY, 2), (make_baseline(), NOISY, 4), (make_baseline(), QUIET, 2), (published_row(), NOISY, 2)],
    ids=["none", "noisy", "quiet", "published"],
)
def test_runs_to_measure_follow_the_noise(baseline, pool, runs):
    """More runs only where they tighten the bound: not for a row without spread."""
    assert runs == runs_to_measure(baseline, pool, at_least=2)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (DATA, DATA, None),
        (None, None, None),
        (DATA, OTHER, "the baseline was recorded on generated, tokenizer bytes: speeds are compared, losses are not"),
        (
            DATA,
            DATA.model_copy(update={"fingerprint": "4567cdef"}),
            "the baseline was recorded on other tokens of generated, tokenizer bytes: speeds are compared, "
            "losses are not",
        ),
        (
            None,
            OTHER,
            "the baseline was recorded on data that the suite does not know: speeds are compared, losses are not",
        ),
    ],
)
def test_other_data_than_the_baselines_are_said(then, now, said):
    """Packed to the same shape they cost the same, so the speed is judged: nobody compares them unknowingly."""
    runs = make_runs(700.0, data=now, losses=(9.0,))
    judgement = judge(runs, make_baseline(data=then), noise=QUIET)

    assert judgement.verdict is (Verdict.INVALID if said is None and then else Verdict.REGRESSION)
    assert [note for note in judgement.notes if "recorded on" in note] == ([said] if said else [])


def test_verdicts_that_judge():
    """Pass, regression and improvement say something of the speed; the others do not."""
    assert [each for each in Verdict if each.judged] == [Verdict.PASS, Verdict.REGRESSION, Verdict.IMPROVEMENT]


@pytest.mark.parametrize(
    ("then", "now", "python", "told", "verdict"),
    [
        (5e-4, 5.2e-4, "3.11.7", True, Verdict.PASS),
        (5e-4, 7e-4, "3.11.7", True, Verdict.INVALID),
        (7e-4, 5e-4, "3.11.7", True, Verdict.PASS),
        (5e-4, 7e-4, "3.12.1", True, Verdict.PASS),
        (5e-4, 7e-4, "3.11.7", False, Verdict.PASS),
        (None, 7e-4, "3.11.7", True, Verdict.PASS),
    ],
    ids=["same", "slower", "faster", "another Python", "cannot be told", "never measured"],
)
def test_another_machine_is_invalid(then, now, python, told, verdict):
    """Cores that give less than when the baseline was recorded make a run invalid, and not slow; more are noted."""
    run = make_run(health=Health(foreign_cores=0.0 if told else None), software={"python": python})
    ranks = tuple(rank.model_copy(update={"yardstick_seconds": now}) for rank in run.ranks)

    judged = judge([run.model_copy(update={"ranks": ranks})], make_baseline(yardstick_seconds=then))

    assert judged.verdict is verdict
    if verdict is Verdict.INVALID:
        assert "somebody else's work shares or shared them" in judged.reasons[0]
    assert any("faster than when the baseline was recorded" in note for note in judged.notes) == bool(
        then and now < then
    )


def test_a_slow_node_is_no_regression():
    """Where a case is slower and one node is slow, the node is the finding; where it is not slower, a note."""
    workload = make_workload("llama2_7b-1m-sp16", nodes=4, network="ethernet")
    baseline = make_baseline(1000.0, 1001.0, 999.0, workload=workload)
    run = make_run(tgs=1000.0, workload=workload)
    slow = run.ranks[2].model_copy(update={"seconds": [1.5 * each for each in run.ranks[2].seconds]})
    nodes = tuple(RunNode(name=f"n{number}", ranks=1) for number in range(1, 5))
    slower = run.model_copy(update={"ranks": (*run.ranks[:2], slow, run.ranks[3]), "nodes": nodes})
    judged = judge([slower], baseline)
    passed = judge([slower], make_baseline(690.0, 691.0, 689.0, workload=workload))

    assert judged.verdict is Verdict.INVALID
    assert judged.reasons[0].startswith("node n3 is slow: all its ranks took 45% longer")
    assert passed.verdict is not Verdict.INVALID
    assert any(note.startswith("node n3 is slow") for note in passed.notes)


NEOX = make_workload().shape.model_copy(update={"architecture": "gpt_neox"})
COUNTS = StepFlops(model_products=3 << 20, model_attention=3 << 10, products=1 << 22, attention=1 << 12)


def test_a_model_without_a_formula_has_the_counted_flops():
    """TFLOPs, MFU and HFU are those of the traced step, in a convention of their own."""
    workload = make_workload(shape=NEOX)
    judged = judge(make_runs(1000.0, workload=workload, step_flops=COUNTS), None, peak_tflops=1e-3)

    assert (judged.convention, judged.convention_version) == ("counted", 1)
    assert judged.tflops == pytest.approx(1000 * ((1 << 22) + (1 << 12)) / workload.rank_tokens / 1e12)
    assert judged.hfu == pytest.approx(judged.tflops / 1e-3)
    assert judged.mfu == pytest.approx(judged.hfu * ((3 << 20) + (3 << 10)) / ((1 << 22) + (1 << 12)))


def test_flops_that_are_not_known_are_absent_with_the_reason():
    """Nothing is shown that is wrong, and the case is judged by its TGS all the same."""
    workload = make_workload(shape=NEOX, trainer="ours:fast")
    baseline = make_baseline(workload=workload, convention="counted", tflops=None)
    judged = judge(make_runs(1000.0, workload=workload), baseline, peak_tflops=1e-3, noise=QUIET)

    assert (judged.tflops, judged.mfu, judged.hfu, judged.tflops_ratio) == (None, None, None, None)
    assert judged.verdict is Verdict.PASS
    assert [note for note in judged.notes if "TFLOPs are not known: gpt_neox is none of llama" in note]


def test_counted_flops_that_changed_are_a_note():
    """A step that multiplies less is no wrong formula: its speed is judged, and what it computes is said."""
    workload = make_workload(shape=NEOX)
    then = flops.tflops(1000.0, workload, "counted", counted=COUNTS)
    baseline = make_baseline(workload=workload, convention="counted", tflops=then / 0.8)
    judged = judge(make_runs(1000.0, workload=workload, step_flops=COUNTS), baseline, noise=QUIET)

    assert judged.verdict is Verdict.PASS
    assert "a token takes -20.0 % FLOPs, counted, against the baseline's" in judged.notes


def test_a_baseline_of_a_formula_that_does_not_hold_is_compared_by_counts():
    """It was recorded when the formula was taken for every model: its TGS stands, its TFLOPs do not."""
    workload = make_workload(shape=NEOX)
    judged = judge(
        make_runs(1000.0, workload=workload, step_flops=COUNTS),
        make_baseline(workload=workload, tflops=9.9),
        noise=QUIET,
    )

    assert judged.verdict is Verdict.PASS
    assert judged.convention == "counted"
    assert judged.tflops_ratio == pytest.approx(judged.ratio)


OWN = make_workload(trainer="ours:fast", shape=None)


@pytest.mark.parametrize(
    ("stored", "ratio"),
    [
        ({"convention": "xtuner", "tflops": 9.9}, 1.0),
        ({"convention": "stated", "tflops": 2e9 * 1000 / OWN.rank_tokens / 1e12}, 0.5),
        ({"convention": "counted", "tflops": None}, 1.0),
    ],
)
def test_flops_that_a_trainer_says(stored, ratio):
    """TFLOPs and MFU are by what it says of its steps, against a baseline of any convention; a change is a note."""
    runs = make_runs(1000.0, workload=OWN, flops_per_step=1e9)
    judged = judge(runs, make_baseline(workload=OWN, **stored), peak_tflops=1.0, noise=QUIET)

    assert (judged.verdict, judged.convention) == (Verdict.PASS, "stated")
    assert judged.tflops == judged.mfu == pytest.approx(1e9 * 1000 / OWN.rank_tokens / 1e12)
    assert (judged.hfu, judged.tflops_ratio) == (None, pytest.approx(ratio * judged.ratio))
    assert any("FLOPs, as its trainer says, against the baseline's" in note for note in judged.notes) == (ratio < 1)


def test_more_flops_than_the_device_can_do_are_invalid():
    """Whoever says them."""
    judged = judge(make_runs(1000.0, workload=OWN, flops_per_step=1e18), None, peak_tflops=312.0)

    assert judged.verdict is Verdict.INVALID
    assert "expected at most the device's peak of 312 TFLOPs" in judged.reasons[0]
