"""Fresh process groups: what a run gives, and how each way to fail ends, with a message and without a process left."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from factories import make_workload
from repository import TOY, wait_for
from trainpace.errors import RunFailed
from trainpace.launch import follow
from trainpace.launch.distributed import Distributed, trainer_object
from trainpace.launch.environment import withheld
from trainpace.launch.host_client import Side
from trainpace.probe.device import present
from trainpace.rank import by_hand


@pytest.fixture
def fleet(tmp_path, monkeypatch, started):
    """Process groups of toys."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(follow, "LATE_SECONDS", 0.5)
    sides = {"here": Side(checkout=TOY)}
    with Distributed(machine=present(), cache=tmp_path / "cache", step_timeout=60.0, sides=sides) as started_here:
        yield started_here


@pytest.fixture
def impatient(fleet):
    """The same, where a run without a step for two seconds has hung."""
    fleet.step_timeout = 2.0
    return fleet


def toy(trainer="toy_trainer:Toy", *, ranks=2, steps=4, **wishes):
    """A short workload of the toy; `wishes` as in tests/toy/toy_trainer.py."""
    shape = make_workload().shape.model_copy(update={"config": wishes})
    return make_workload(shape=shape, trainer=trainer, engine="own", ranks=ranks, warmup=2, steps=steps)


def failure(fleet, workload):
    """How a run of `workload` fails."""
    with pytest.raises(RunFailed) as raised:
        fleet.run(workload)
    return raised.value


def host_pids(fleet):
    return fleet.pool.pids


def folders(fleet):
    """Of runs: each is taken away when its run ends."""
    return [path for path in fleet.pool.folder.iterdir() if path.is_dir()]


def test_code_of_the_other_side_fails_the_run(fleet, tmp_path):
    """A trainer that comes from the other side's checkout is named, with that and its own."""
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
    shutil.copy(TOY / "toy_trainer.py", other)
    (own / "by_itself.py").write_text(f"import sys\nsys.path.append({str(other)!r})\nfrom toy_trainer import Toy\n")
    fleet.sides["here"] = Side(checkout=own, apart=(other,), folder=own)

    cause = failure(fleet, toy("by_itself:Toy")).cause

    assert (
        f"from its own checkout {own}, got {other / 'toy_trainer.py'}, which lies in the other side's {other}" in cause
    )


def test_the_judging_code_is_not_the_other_sides(fleet, tmp_path, checkout):
    """Where the base judges, its host, launcher and step loop run head's ranks, and head is measured all the same."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "ours.py").write_text("import multiprocessing\n" + (TOY / "toy_trainer.py").read_text())
    fleet.sides["here"] = Side(checkout=own, apart=(checkout,), folder=own)

    assert fleet.run(toy("ours:Toy")).steps == 4


def test_an_installed_trainer_beside_one_of_a_checkout(fleet, tmp_path, monkeypatch):
    """Each trainer is compared with itself on the other side: what is installed for both sides is measured on both."""
    base, head, installed = (tmp_path / name for name in ("base", "head", "site-packages"))
    for folder, module in ((base, "ours"), (head, "ours"), (installed, "theirs")):
        folder.mkdir()
        (folder / f"{module}.py").write_text((TOY / "toy_trainer.py").read_text())
    for name, folder, other in (("base", base, head), ("head", head, base)):
        fleet.sides[name] = Side(checkout=folder, apart=(other,), folder=folder)
    monkeypatch.setenv("PYTHONPATH", str(installed))

    pairs = [fleet.run(toy(each), side=name) for each in ("ours:Toy", "theirs:Toy") for name in ("base", "head")]

    assert [run.steps for run in pairs] == [4] * 4


def test_run_has_every_step(fleet):
    """A run holds the samples of every rank and step, and what was measured on."""
    run = fleet.run(toy(ranks=3))

    assert [samples.rank for samples in run.ranks] == [0, 1, 2]
    assert [len(samples.seconds) for samples in run.ranks] == [4, 4, 4]
    assert run.ranks[2].losses == [1.0] * 6
    assert present().cpu == run.device
    assert {"python", "torch", "deepspeed"} <= run.software.keys()


def test_run_ends_when_its_verdict_is_certain(fleet):
    """Ranks agree to end after the step from which on no further one could bring the median over a border."""
    workload = toy("meeting_toy:MeetingToy", steps=9, seconds=0.02)
    run = fleet.run(workload, borders=[10.0])
    whole = fleet.run(workload)

    assert run.stopped_after == 5
    assert [len(samples.seconds) for samples in run.ranks] == [5, 5]
    assert all(samples.optimizer_seconds for samples in run.ranks)
    assert whole.stopped_after is None


def test_progress_is_told(fleet):
    """The steps of the slowest rank are told while the run goes on, up to the last."""
    told = []
    fleet.run(toy(seconds=0.1, rank=0), progress=lambda step, text: told.append((step, text)))
    steps = [step for step, _ in told]

    assert sorted(steps) == steps
    assert told[-1] == (6, "training")
    assert len(set(steps)) > 2


def test_an_object_is_a_trainer_too(fleet):
    """`module:object` may name an instance as well as a class."""
    assert len(fleet.run(toy("toy_trainer:toy")).ranks) == 2


@pytest.mark.parametrize(
    ("do", "step", "cause"),
    [
        ("kill", 3, "killed by SIGKILL (the kernel's out-of-memory killer, or somebody) at step 3"),
        ("kill", -1, "killed by SIGKILL (the kernel's out-of-memory killer, or somebody) at set-up"),
        ("segfault", 3, "killed by SIGSEGV at step 3"),
        ("exit", 3, "ended without its samples at step 3"),
        ("raise", 3, "ValueError: the toy broke (at step 3)"),
        ("raise", 0, "ValueError: the toy broke (at step 0)"),
        ("raise", -1, "ValueError: the toy broke (at set-up)"),
        ("leave", 3, "SystemExit: the toy left (at step 3)"),
        ("no memory", 3, "out of memory: no more (at step 3)"),
        ("no GPU memory", 3, "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB (at step 3)"),
        ("NaN", 3, "FloatingPointError: the loss is nan at step 3 (0 is the first of the warm-up) (at step 6)"),
        (
            "text",
            3,
            "TypeError: forward_backward must return the loss, one number, got 'no number' at step 3 (at step 6)",
        ),
    ],
)
def test_failure_names_rank_and_cause(fleet, started, do, step, cause):
    """A rank that fails ends its run: cause and rank are named, only the host is left, and the next run works in it."""
    failed = failure(fleet, toy(do=do, step=step))
    alive, hosts = started.pids(), host_pids(fleet)

    assert cause == failed.cause
    assert failed.rank == 1
    assert hosts == alive
    assert folders(fleet) == []
    assert len(fleet.run(toy()).ranks) == 2
    assert hosts == host_pids(fleet)


@pytest.mark.parametrize(("step", "place"), [(3, "step 3"), (-1, "set-up")])
def test_hang_names_rank_and_place(impatient, started, step, place):
    """A rank that hangs is named, with how far it came and the option; its run is gone, and the next one works."""
    failed = failure(impatient, toy(do="hang", step=step))
    alive, hosts = started.pids(), host_pids(impatient)

    assert failed.rank == 1
    assert failed.cause == (
        f"hung: no step from any rank for 2 s; the run stands at {place} of 6 steps "
        "(--perf-step-timeout sets the limit)"
    )
    assert hosts == alive
    assert folders(impatient) == []
    assert len(impatient.run(toy()).ranks) == 2
    assert hosts == host_pids(impatient)


def test_failure_of_the_first_rank(fleet, started):
    """Rank 0, whose process group all others are in, may fail like any other."""
    failed = failure(fleet, toy(do="kill", rank=0, step=3, ranks=4))

    assert failed.rank == 0
    assert host_pids(fleet) == started.pids()


def test_traceback_is_in_the_detail(fleet):
    """An exception's whole traceback stands in the detail, its first line in the cause."""
    failed = failure(fleet, toy(do="raise", step=3))

    assert str(failed) == "rank 1: ValueError: the toy broke (at step 3)"
    assert "\nValueError: the toy broke\nin two lines\n" in failed.detail
    assert 'toy_trainer.py", line ' in failed.detail


def test_log_is_in_the_detail(impatient, monkeypatch):
    """Of a rank that could say nothing more the detail is what it had printed, and the variables that it had not."""
    for name in withheld(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OURS", "a value")
    failed = failure(impatient, toy(do="hang", step=3, say="the toy is here"))

    assert failed.detail == (
        "--- rank-0.log\nthe toy is here\n--- rank-1.log\nthe toy is here\n"
        "variables that it was not given (--perf-env NAME, added to the command, gives one): OURS\n"
        "--perf-keep-logs DIR, added to the command, keeps every rank's log"
    )


@pytest.fixture
def keeping(tmp_path, started):
    """Process groups of toys whose logs are kept in `kept`."""
    settings = {"step_timeout": 60.0, "sides": {"here": Side(checkout=TOY)}, "keep_logs": tmp_path / "kept"}
    with Distributed(machine=present(), cache=tmp_path, **settings) as started_here:
        yield started_here


def kept_logs(fleet):
    """The folder of every run of the case, the oldest first."""
    return sorted((fleet.keep_logs / toy().case).iterdir(), key=lambda folder: folder.stat().st_mtime)


WRITTEN = {"host.log", "request.json", "rank-0.log", "rank-0.jsonl", "rank-1.log", "rank-1.jsonl", "rendezvous"}


def test_logs_of_runs_are_kept(keeping):
    """Whole, by case and run: of a run that ended well, and of one whose rank failed, which says where they lie."""
    run = keeping.run(toy(say="the toy is here\n" * 100))
    failed = failure(keeping, toy(do="raise", step=3))
    first, second = kept_logs(keeping)

    assert first.name == run.id
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()} == WRITTEN
    assert (first / "rank-1.log").read_text().count("the toy is here") == 100
    assert "the toy broke" in (second / "rank-1.jsonl").read_text()
    assert failed.detail.endswith(f"\nevery rank's log: {second}")
    assert folders(keeping) == []


def test_logs_of_a_killed_host_are_kept(keeping):
    """What its ranks wrote until then."""
    failed = failure(keeping, toy(do="kill host", step=3))
    (kept,) = kept_logs(keeping)

    assert failed.detail.endswith(f"every rank's log: {kept}")
    assert {path.name for path in kept.iterdir()} == WRITTEN
    assert '"step": 2' in (kept / "rank-1.jsonl").read_text()


def test_log_of_a_host_that_did_not_start_is_kept(keeping):
    """It is all that there is."""
    failed = failure(keeping, toy("broken_toy:Toy"))
    (kept,) = kept_logs(keeping)

    assert failed.detail.endswith(f"the host's log: {kept}")
    assert [path.name for path in kept.iterdir()] == ["host.log"]


def test_a_rank_of_a_kept_run_by_hand(keeping):
    """It runs without a host, in the process that was typed, and writes beside the request that was kept."""
    keeping.run(toy(ranks=1, say="the toy is here"))
    (kept,) = kept_logs(keeping)
    command = [sys.executable, by_hand.__file__.replace("by_hand", "__main__"), "by-hand", kept / "request.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "the toy is here" in done.stdout
    assert '"event": "samples"' in (kept / "by-hand" / "rank-0.jsonl").read_text()


def test_logs_that_cannot_be_kept(keeping, tmp_path):
    """A folder that cannot be made fails no run."""
    (tmp_path / "kept").touch()

    assert len(keeping.run(toy()).ranks) == 2


def test_hang_of_all_ranks_blames_none(impatient, started):
    """Ranks that stand at the same step wait for each other: none is named."""
    failed = failure(impatient, toy(do="hang", rank=None, step=3))

    assert failed.rank is None
    assert "the run stands at step 3 of 6 steps" in failed.cause
    assert host_pids(impatient) == started.pids()


def test_rank_that_never_comes(impatient, started):
    """A rank that hangs before its first line is the one that is named, and it is gone."""
    failed = failure(impatient, toy("late_toy:Toy"))

    assert failed.rank == 1
    assert "the run stands at start of 6 steps" in failed.cause
    assert host_pids(impatient) == started.pids()


def test_rank_that_misses_the_rendezvous(impatient, started):
    """Neither is the rank at fault that waits for another one to join the process group."""
    failed = failure(impatient, toy("torn_toy:TornToy"))

    assert failed.rank == 1
    assert "hung" in failed.cause
    assert host_pids(impatient) == started.pids()


def test_garbage_on_standard_output(fleet):
    """What a trainer prints reaches neither the answers nor the samples."""
    assert len(fleet.run(toy(do="print", rank=None, step=3)).ranks[0].losses) == 6


@pytest.mark.parametrize("child", ["plain", "detached"])
def test_children_end_with_a_finished_run(fleet, started, child):
    """Processes that a trainer started and forgot are gone with its run, also those in a session of their own."""
    fleet.run(toy(child=child))

    assert host_pids(fleet) == started.pids()


@pytest.mark.parametrize("child", ["plain", "detached"])
def test_children_end_with_a_failed_run(fleet, started, child):
    """So are those of a rank that was killed."""
    failure(fleet, toy(child=child, do="kill", step=3))

    assert host_pids(fleet) == started.pids()


def test_host_killed(fleet, started):
    """A host that dies in mid-run takes its ranks along; the next run has a new one."""
    failed = failure(fleet, toy(do="kill host", step=3))

    assert failed.cause.startswith("the run host ended (killed by SIGKILL")
    assert started.left() == []
    assert folders(fleet) == []
    assert len(fleet.run(toy()).ranks) == 2


@pytest.mark.parametrize(
    ("trainer", "cause"),
    [
        (
            "no_such_module:Toy",
            "the trainer could not be imported: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("broken_toy:Toy", "the trainer could not be imported: ZeroDivisionError: division by zero"),
        ("toy_trainer:Missing", "AttributeError: module 'toy_trainer' has no attribute 'Missing' (at set-up)"),
    ],
)
def test_trainer_that_cannot_be_imported(fleet, trainer, cause):
    """It is said with the interpreter's own words, and another trainer still runs."""
    failed = failure(fleet, toy(trainer))

    assert cause == failed.cause
    assert "Traceback" in failed.detail
    assert len(fleet.run(toy()).ranks) == 2


def test_everything_ends_with_the_fleet(tmp_path, monkeypatch, started):
    """Leaving the context leaves no process and no folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    sides = {"here": Side(checkout=TOY)}
    with Distributed(machine=present(), cache=tmp_path, step_timeout=2.0, sides=sides) as fleet:
        fleet.run(toy())

    assert started.pids() == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_interrupted_run(fleet, started, tmp_path):
    """Ctrl-C in mid-run ends its ranks before it goes on."""
    mark = tmp_path / "mark"
    interrupt = threading.Thread(target=lambda: (wait_for(mark), os.kill(os.getpid(), signal.SIGINT)))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        fleet.run(toy(do="hang", step=3, mark=str(mark)))

    assert host_pids(fleet) == started.pids()
    assert folders(fleet) == []


def test_samples_that_cannot_be_used(fleet):
    """A trainer that says of its data what no record holds fails its run in one line, with the field."""
    failed = failure(fleet, toy(identity={"seed": 1}))

    assert failed.cause == "the samples cannot be used: data.sources: Field required, got {'seed': 1}"


@pytest.mark.parametrize("trainer", ["nonsense", "module:", ":name"])
def test_trainer_must_be_named_whole(trainer):
    """A trainer's name is `native` or a module and an object in it."""
    with pytest.raises(ValueError, match=re.escape(f"'native' or 'package.module:object', got '{trainer}'")):
        trainer_object(trainer)
