"""A thousand ranks with a thousand steps each are read and judged; how fast, tests/bench.py prints."""

import pytest

from factories import make_run, make_workload
from trainpace.judge.refresh import baseline_of
from trainpace.judge.verdict import judge
from trainpace.runs.verdict import Verdict
from trainpace.store.runs import read_runs, write_run


@pytest.mark.slow
def test_a_thousand_ranks(tmp_path):
    """One slow rank of a thousand is found, and named with its place, in a run that was read from its file."""
    workload = make_workload(ranks=1000, steps=1000)
    run = make_run(workload=workload, noise=0.01)
    baseline = baseline_of([run])
    slow = run.ranks[617].model_copy(update={"seconds": [1.2 * value for value in run.ranks[617].seconds]})
    ranks = (*run.ranks[:617], slow, *run.ranks[618:])
    (read,) = read_runs(write_run(run.model_copy(update={"ranks": ranks}), tmp_path))
    judged = judge([read], baseline, peak_tflops=None)

    assert judged.verdict is Verdict.REGRESSION
    assert "rank 617 on host/cpu 617" in str(judged.notes)
