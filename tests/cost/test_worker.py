"""The tracing process: what comes back of it, what is kept of it, and that it is gone afterwards."""

import os
import shutil
import signal
import sys
import time

import pytest

from trainpace.cases import LLAMA2_7B, Workload
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS
from trainpace.cost import worker
from trainpace.cost.cache import CostCache
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


@pytest.fixture
def package(checkout, tmp_path, monkeypatch):
    """A package of its own to count with, whose files may be changed."""
    folder = tmp_path / "checkout" / "perf" / "trainpace"
    shutil.copytree(checkout / "perf" / "trainpace", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(worker, "PACKAGE", folder)
    time.sleep(0.1)  # what is written as the process begins is not trusted
    return folder


def cached(cache, workload):
    """The cost that a session which begins now finds."""
    environment = worker._environment(os.environ, checkout=worker.PACKAGE.parent, apart=(), added=())
    return CostCache(cache, package=worker.PACKAGE, environment=environment, added=()).find(workload)


EDITED = {
    "the trainer": "trainers/native/__init__.py",
    "a module that it imports": "trainers/native/loss.py",
    "the tracer": "cost/trace.py",
    "what it counts with": "runs/cost.py",
}


@pytest.mark.slow
def test_every_workload_comes_back_and_none_is_counted_twice(started, package, tmp_path, monkeypatch):
    """Each case comes back once, with its counts or why there are none. Who is cut off goes on where he was; an edit of
    any file that was imported, another shape and another torch are counted anew."""
    cache = tmp_path / "cache"
    workloads = [small("bad", architecture="nosuch"), small("one"), small("two", layers=3)]
    said = []

    first = counted([small("one")], cache=cache)
    name, one = next(first)
    first.close()
    left = [pid for pid in started.left() if pid != os.getpid()]
    found = dict(counted(workloads, cache=cache, progress=lambda done, text: said.append((done, text))))

    assert (name, left) == ("one", [])
    assert sorted(found) == ["bad", "one", "two"]
    assert next(iter(found)) == "one"
    assert found["one"] == one
    assert one.flops < found["two"].flops
    assert isinstance(found["bad"], CountFailed)
    assert "nosuch" in str(found["bad"])
    assert "Traceback" in found["bad"].detail
    assert said[0] == (1, "1 from the cache")
    assert [done for done, _ in said[1:]] == [2, 3]
    assert said[-1][1].endswith(", 0 s left")
    assert [pid for pid in started.left() if pid != os.getpid()] == []

    assert cached(cache, small("two", layers=3)) == found["two"]
    stale = {name: file for name, file in EDITED.items() if _is_found_though_edited(cache, package / file)}
    assert stale == {}
    assert cached(cache, small("one", config={"rope_theta": 5.0})) is None
    (tmp_path / "torch-99.0.dist-info").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert cached(cache, small("one")) is None


def _is_found_though_edited(cache, path):
    text = path.read_text()
    path.write_text(f"{text}\n")
    found = cached(cache, small("one"))
    path.write_text(text)
    assert cached(cache, small("one")) is not None
    return found is not None


def test_a_process_that_dies_costs_its_own_case(monkeypatch):
    """The system may end it, for memory say: its case fails with how it ended, and the others are counted."""

    def count(line):
        case = Workload.model_validate_json(line).case
        if case == "large":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"case": case, "cost": {}}

    monkeypatch.setattr(worker, "_count", count)
    lines = [small(case).model_dump_json() for case in ("one", "large", "two", "three")]

    found = {result["case"]: result.get("error") for result, _ in worker._shared_out(lines, 2, None)}

    dead = "the tracing process was ended by signal 9 (SIGKILL): the system ends what takes more memory than it has"
    assert found == {"one": None, "large": dead, "two": None, "three": None}


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


def test_pytest_stays_without_torch():
    """The handle on the process imports no torch: the gate's judging and reporting need none."""
    import subprocess

    code = (
        "import sys, trainpace.plugin, trainpace.report.cost, trainpace.judge.cost; assert 'torch' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
