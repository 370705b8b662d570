"""The value of a run, from its samples."""

import pytest

from factories import make_run, make_workload
from trainpace.runs import flops, metrics
from trainpace.runs.run import RunNode


@pytest.mark.parametrize("case", ["llama2_7b-8k-sp1", "llama2_7b-128k-sp8", "llama2_70b-1m-sp64"])
def test_tgs_is_tokens_per_rank_and_second(case):
    """(S / sp) / (median step + median optimizer / accumulation), whatever sp is."""
    assert pytest.approx(1234.5) == metrics.tgs(make_run(case, tgs=1234.5))


def test_slowest_rank_decides():
    """A run is as fast as its slowest rank."""
    fast, slow = make_run(tgs=1000.0), make_run(tgs=800.0)
    run = fast.model_copy(update={"ranks": (fast.ranks[0], slow.ranks[1])})

    assert pytest.approx(800.0) == metrics.tgs(run)
    assert pytest.approx(800.0) == metrics.whole_window_tgs(run)


def test_one_slow_step_does_not_move_the_value():
    """The median leaves out what hit one step of forty."""
    run = make_run(tgs=1000.0)
    steps = run.ranks[0].seconds
    hit = run.ranks[0].model_copy(update={"seconds": [*steps[:-1], 50 * steps[-1]]})

    assert pytest.approx(1000.0) == metrics.tgs(run.model_copy(update={"ranks": (hit, run.ranks[1])}))


@pytest.mark.parametrize("case", ["llama2_7b-8k-sp1", "yi_34b_200k-32k-sp2", "llama2_7b-128k-sp8"])
def test_value_agrees_with_whole_window_timing(case):
    """On short rows with steady steps (3 % noise) the value is what a stopwatch over the whole window gives."""
    run = make_run(case, tgs=1000.0, noise=0.03)

    assert pytest.approx(metrics.whole_window_tgs(run), rel=0.01) == metrics.tgs(run)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_gradients_that_are_summed_once_a_group_count(accumulation):
    """Of a user's trainer the last micro-step of each group may take longer (DDP's no_sync): none of it is lost."""
    workload = make_workload(trainer="ours:trainer", accumulation=accumulation, steps=12)
    run = make_run(tgs=1000.0, workload=workload)
    seconds = [2 * each if (at + 1) % accumulation == 0 else each for at, each in enumerate(run.ranks[0].seconds)]
    run = run.model_copy(update={"ranks": tuple(rank.model_copy(update={"seconds": seconds}) for rank in run.ranks)})

    assert pytest.approx(metrics.whole_window_tgs(run)) == metrics.tgs(run)
    assert metrics.micro_step_seconds(seconds, workload) == pytest.approx(sum(seconds) / 12)
    assert metrics.tail(run) == pytest.approx(0.0)


def test_tflops_are_counted_in_the_named_convention():
    """TGS times the FLOPs of a token."""
    run = make_run(tgs=1000.0)
    per_token = flops.flops_per_token(run.workload.shape, run.workload.sequence, "megatron")

    assert pytest.approx(1000.0 * per_token / 1e12) == metrics.tflops(run, "megatron")


def test_tflops_of_document_masks_use_the_documents_of_the_run():
    """A varlen run reports what its documents made it compute."""
    workload = make_workload(attention="varlen")
    run = make_run(tgs=1000.0, workload=workload, mean_attended=20.0)

    assert pytest.approx(flops.tflops(1000.0, workload, mean_attended=20.0)) == metrics.tflops(run)


def test_peak_memory_is_the_largest_rank():
    """The rank that runs out first is the one that counts."""
    low, high = make_run(peak_memory_bytes=10), make_run(peak_memory_bytes=20)

    assert metrics.peak_memory(low.model_copy(update={"ranks": (low.ranks[0], high.ranks[1])})) == 20


def test_data_share_is_loading_within_the_steps():
    """A hundredth of every step was loading."""
    assert pytest.approx(0.01) == metrics.data_share(make_run())


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.18])
def test_steady_steps_were_warm(noise):
    """Steps that only scatter, as on a CPU, give no note."""
    assert metrics.warmup_note([make_run(noise=noise)]) is None


def test_too_short_warmup_is_said_with_its_cure():
    """First measured steps slower than the rest are named, with the number of warm-up steps to ask for."""
    run = make_run(noise=0.02)
    steps = run.ranks[0].seconds
    cold = run.ranks[0].model_copy(update={"seconds": [*(1.5 * step for step in steps[:6]), *steps[6:]]})
    note = metrics.warmup_note([run.model_copy(update={"ranks": (cold, run.ranks[1])}), run])

    assert note is not None
    assert "the first 5 measured steps took" in note
    assert "--perf-warmup 11" in note


def test_one_step_says_nothing_of_the_warmup():
    """A single measured step has nothing to be compared with."""
    assert metrics.warmup_note([make_run(workload=make_workload(steps=1))]) is None


def fallen(by, noise, *, over=100, steps=100, seed=0):
    """A run whose steps take longer and longer, `by` (a share) after `over` of them."""
    run = make_run(noise=noise, seed=seed, workload=make_workload(ranks=1, steps=steps))
    seconds = [(1 + by * step / over) * each for step, each in enumerate(run.ranks[0].seconds)]
    return run.model_copy(update={"ranks": (run.ranks[0].model_copy(update={"seconds": seconds}),)})


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.03])
def test_throughput_that_falls_is_said_with_what_to_do(noise):
    """A GPU that loses 15 % within a hundred steps, as one that gets hot does, is named as such."""
    note = metrics.falling_note(fallen(0.15, noise))

    assert note is not None
    assert note.startswith("throughput fell while it was measured: the last 25 steps took ")
    assert "--perf-warmup 78" in note


@pytest.mark.parametrize(("by", "noise"), [(0.0, 0.0), (0.0, 0.2), (0.02, 0.01), (-0.15, 0.02)])
def test_steady_throughput_did_not_fall(by, noise):
    """Nor did what scatters, drifts by a little, or gets faster."""
    assert not any(metrics.falling_note(fallen(by, noise, seed=seed)) for seed in range(50))


def test_few_steps_say_nothing_of_a_fall():
    """Quarters of three steps have no median to speak of."""
    assert metrics.falling_note(fallen(0.5, 0.0, steps=15, over=15)) is None


def test_a_slow_rank_is_named_with_its_place():
    """The rank whose steps take longer than the median rank's by more than 5 %, and where it ran."""
    run = make_run(ranks=4, case="llama2_7b-128k-sp8")
    slow = run.ranks[2].model_copy(update={"seconds": [1.2 * each for each in run.ranks[2].seconds]})
    ranks = (*run.ranks[:2], slow, run.ranks[3])

    note = metrics.slow_rank_note(run.model_copy(update={"ranks": ranks}))

    assert note is not None
    assert note.startswith(f"rank 2 on {slow.place} took 1")
    assert metrics.slow_rank_note(run) is None


def test_data_share_of_a_program_that_does_not_say_is_unknown():
    """And no zero."""
    run = make_run(source="reported", ranks=1)
    silent = run.model_copy(update={"ranks": (run.ranks[0].model_copy(update={"data_seconds": None}),)})

    assert metrics.data_share(silent) is None


def spread(*factors, ranks_of_node=2):
    """A run over several nodes, one factor each: how much longer all of its ranks take."""
    run = make_run(workload=make_workload(ranks=ranks_of_node * len(factors), nodes=len(factors)))
    ranks = [
        samples.model_copy(update={"seconds": [factors[rank // ranks_of_node] * each for each in samples.seconds]})
        for rank, samples in enumerate(run.ranks)
    ]
    nodes = tuple(RunNode(name=f"n{number}", ranks=ranks_of_node) for number in range(1, len(factors) + 1))
    return run.model_copy(update={"ranks": tuple(ranks), "nodes": nodes})


def test_a_slow_node_is_named():
    """A node all of whose ranks are slower than the others' is named, with its share."""
    found = metrics.slow_node(spread(1.0, 1.0, 1.5, 1.0))

    assert found is not None
    assert found.startswith("node n3 is slow: all its ranks took 4")


def test_equal_nodes_are_not_slow():
    """Nodes that differ by less than it takes are not; one slow rank makes no slow node; a run may have no nodes."""
    one = spread(1.0, 1.0)
    slow = one.ranks[3].model_copy(update={"seconds": [2 * each for each in one.ranks[3].seconds]})

    assert metrics.slow_node(spread(1.0, 1.02, 1.0)) is None
    assert metrics.slow_node(one.model_copy(update={"ranks": (*one.ranks[:3], slow)})) is None
    assert metrics.slow_node(make_run()) is None


def test_steps_that_take_far_longer_are_the_tail():
    """Every third step taking three times as long makes the mean step two thirds longer than the median one."""
    run = make_run(workload=make_workload(steps=6))
    step = run.ranks[0].seconds[0]
    uneven = run.ranks[1].model_copy(update={"seconds": [step, step, 3 * step] * 2})
    run = run.model_copy(update={"ranks": (run.ranks[0], uneven)})

    assert metrics.tail(run) == pytest.approx(2 / 3)
    assert metrics.tail(make_run()) == pytest.approx(0)
    assert "the mean step took 67% longer than the median one" in (metrics.tail_note(run) or "")
    assert metrics.tail_note(make_run(noise=0.05)) is None
