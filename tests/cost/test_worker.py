"""The tracing process: what comes back of it, and that it is gone afterwards."""

import os
import sys

import pytest

from trainpace.cases import LLAMA2_7B, Workload
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS
from trainpace.cost.worker import CountFailed, counted


def small(case="small", **shape):
    return Workload(
        case=case,
        model="llama2_7b",
        scale="mini",
        shape=LLAMA2_7B.mini.model_copy(update=shape),
        sequence=128,
        ranks=2,
        sp=1,
        accumulation=1,
        warmup=1,
        steps=1,
        thresholds=DEEPSPEED_THRESHOLDS,
    )


def test_every_workload_comes_back(started):
    """Each case comes back once, with its counts or with why there are none; no process is left."""
    found = dict(counted([small("one"), small("two", layers=3), small("bad", architecture="nosuch")]))

    assert sorted(found) == ["bad", "one", "two"]
    assert found["one"].flops < found["two"].flops
    assert isinstance(found["bad"], CountFailed)
    assert "nosuch" in str(found["bad"])
    assert "Traceback" in found["bad"].detail
    assert started.left() == [os.getpid()] or started.left() == []


def test_a_process_that_cannot_start_says_why(started, monkeypatch, tmp_path):
    """Where the tracing process ends before its work, its own words come back."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(CountFailed, match="ended with status") as failure:
        list(counted([small()]))

    assert "no torch here" in failure.value.detail


def test_counting_is_given_what_a_rank_is(started, monkeypatch, tmp_path):
    """It runs the trainer's code: without the session's secrets, and with what --perf-env adds."""
    (tmp_path / "torch.py").write_text(
        "import os\nraise ImportError(os.environ.get('A_TOKEN'), os.environ.get('OURS'))"
    )
    for name, value in (("PYTHONPATH", str(tmp_path)), ("A_TOKEN", "word"), ("OURS", "1")):
        monkeypatch.setenv(name, value)

    with pytest.raises(CountFailed) as failure:
        list(counted([small()], added=["OURS"]))

    assert "ImportError: (None, '1')" in failure.value.detail


def test_what_is_not_waited_for_is_ended(started):
    """Whoever stops listening leaves no process behind."""
    results = counted([small("one"), small("two")])
    next(results)
    results.close()

    assert [pid for pid in started.left() if pid != os.getpid()] == []


def test_pytest_stays_without_torch():
    """The handle on the process imports no torch: the gate's judging and reporting need none."""
    import subprocess

    code = (
        "import sys, trainpace.plugin, trainpace.report.cost, trainpace.judge.cost; assert 'torch' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
