"""Recording: what is refused, what is kept, and what survives two writers and a kill."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factories import CPU, DATA, LOSSES, make_run, make_runs, make_workload
from trainpace.errors import FileError
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import Health
from trainpace.store.baselines import load_baselines, load_file, published_folder, refresh
from trainpace.store.files import write_whole

KEY = make_workload().key
OTHER = make_workload("llama2_70b-8k-sp1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty baselines folder, with locks of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "baselines"


def read(folder):
    return load_file(folder / "cpu-test-2c.json").baselines


def test_first_refresh_records(folder):
    """A device without a file gets one, and the change says from nothing to what."""
    (change,) = refresh(folder, make_runs(990.0, 1000.0, 1010.0))

    assert f"{KEY}: none -> 1000.0 TGS" == str(change)
    assert {KEY: change.new} == read(folder)


def test_a_workload_without_a_shape_is_kept(folder):
    """It is read back as it was recorded, with no TFLOPs, or with those that its trainer says."""
    own = make_workload(trainer="ours:fast", shape=None)
    refresh(folder, make_runs(990.0, 1000.0, 1010.0, workload=own))
    first = read(folder)[own.key]
    refresh(folder, make_runs(990.0, 1000.0, 1010.0, workload=own, flops_per_step=1e9, id="again"))
    second = read(folder)[own.key]

    assert (first.workload, first.tflops, first.convention) == (own, None, "counted")
    assert (second.convention, second.tflops) == ("stated", pytest.approx(1 / own.rank_tokens, rel=1e-3))


def test_other_data_are_told(folder):
    """Data are no part of the key: what is replaced by runs on others is said."""
    refresh(folder, make_runs(990.0, 1010.0), recorded="2026-11-25T00:00:00+00:00")
    (change,) = refresh(folder, make_runs(990.0, 1010.0, data=DATA.model_copy(update={"fingerprint": "4567cdef"})))

    assert str(change).endswith(", trained on other data: before on generated, tokenizer bytes")


def test_folder_holds_the_device_file_only(folder):
    """Locks and temporary files never lie where a commit would take them."""
    refresh(folder, make_runs(1000.0))

    assert [path.name for path in folder.iterdir()] == ["cpu-test-2c.json"]


def test_other_cases_are_kept(folder):
    """A refresh of one case changes its block alone."""
    refresh(folder, make_runs(1000.0) + make_runs(500.0, workload=OTHER))
    before = read(folder)
    (change,) = refresh(folder, make_runs(1100.0))

    assert f"{KEY}: 1000.0 -> 1100.0 TGS (+10.0 %)" == str(change)
    assert {**before, KEY: change.new} == read(folder)


def test_what_is_there_is_not_missing(folder):
    """Of two sessions that record the same missing baseline the second changes nothing, and gets the first's."""
    refresh(folder, make_runs(1000.0), missing_only=True)
    before = read(folder)
    change, other = refresh(folder, make_runs(1100.0) + make_runs(500.0, workload=OTHER), missing_only=True)

    assert (before[KEY], None) == (change.old, change.new)
    assert "another session has recorded it meanwhile" in str(change)
    assert {**before, OTHER.key: other.new} == read(folder)


def test_published_rows_are_kept(folder):
    """A refresh on the published device writes beside the rows, never over them."""
    folder.mkdir()
    published = published_folder() / "a100-sxm4-80gb.json"
    (folder / published.name).write_text(published.read_text())
    device = CPU.model_copy(update={"slug": "a100-sxm4-80gb"})
    (change,) = refresh(folder, make_runs(3000.0, device=device))

    assert {**load_file(published).baselines, KEY: change.new} == load_file(folder / published.name).baselines


def test_a_labelled_device_has_its_own_file(folder):
    """What is measured under a label is that label's alone; published rows are of the kind, and so of all of them."""
    kind = CPU.model_copy(update={"slug": "a100-sxm4-80gb"})
    rows = load_baselines([folder], kind.slug)
    refresh(folder, make_runs(3000.0, device=kind))
    refresh(folder, make_runs(2000.0, device=kind.labelled("rack-b")))
    labelled = load_baselines([folder], "a100-sxm4-80gb.rack-b")

    assert [path.name for path in sorted(folder.iterdir())] == ["a100-sxm4-80gb.json", "a100-sxm4-80gb.rack-b.json"]
    assert [each.tgs for each in labelled if each.origin == "measured"] == [2000.0]
    assert [each for each in labelled if each.origin == "published"] == rows
    assert load_baselines([folder], "a100-sxm4-80gb.rack-c") == rows
    assert peak_tflops(kind.labelled("rack-b"), "bf16") == peak_tflops(kind, "bf16") == 312.0


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (make_runs(1000.0, 1300.0), "expected a spread between runs of at most 10 %, got 18.45 % over 2 runs"),
        (make_runs(1000.0, health=Health(faults=("thermal slowdown",))), "run run0 is invalid: thermal slowdown"),
        ([make_run(), make_run(seed=1, losses=(1.0,))], "run run1 is invalid: expected a loss of 6.2400"),
        ([make_run(), make_run(seed=1, data=DATA.model_copy(update={"seed": 9}))], "trained on different data"),
    ],
    ids=["spread", "health", "losses", "data"],
)
def test_unfit_runs_are_not_recorded(folder, runs, said):
    """What cannot be trusted becomes no reference, and the other cases are recorded all the same."""
    refused, recorded = refresh(folder, [*runs, *make_runs(500.0, workload=OTHER)])

    assert said in refused.refused
    assert refused.new is None
    assert {OTHER.key: recorded.new} == read(folder)


def test_more_than_the_device_can_do_is_not_recorded(folder):
    """A number above the device's peak is refused here too."""
    (change,) = refresh(folder, make_runs(1000.0), peak_tflops=1e-6)

    assert "expected at most the device's peak" in str(change)
    assert not list(folder.iterdir())


def test_allowed_spread_is_recorded(folder):
    """--perf-max-spread decides how much scatter a reference may have."""
    (change,) = refresh(folder, make_runs(1000.0, 1300.0), max_spread=0.2)

    assert change.new is not None


def test_slower_is_refused_without_a_reason(folder):
    """A regression does not become the next reference by itself."""
    refresh(folder, make_runs(1000.0, 1001.0))
    before = read(folder)
    (change,) = refresh(folder, make_runs(850.0, 851.0))

    assert "of the stored 1000.5 TGS" in change.refused
    assert '--perf-accept-slower "reason"' in change.refused
    assert before == read(folder)


def test_slower_is_recorded_with_its_reason(folder):
    """The reason stands in the file."""
    refresh(folder, make_runs(1000.0, 1001.0))
    refresh(folder, make_runs(850.0, 851.0), accept_slower="checkpointing is on by default now")

    assert read(folder)[KEY].accepted_slower == "checkpointing is on by default now"
    assert pytest.approx(850.5, abs=0.1) == read(folder)[KEY].reference_tgs


def test_slower_within_the_noise_is_recorded(folder):
    """Runs of 3 % spread that come out 2 % lower are the same speed."""
    refresh(folder, make_runs(970.0, 1000.0, 1030.0))
    (change,) = refresh(folder, make_runs(950.0, 980.0, 1010.0))

    assert change.new == read(folder)[KEY]
    assert pytest.approx(999.7, abs=0.1) == change.new.reference_tgs


def test_small_losses_do_not_add_up(folder):
    """Each refresh within the tolerance of the last one still stands before the first one's value."""
    refresh(folder, make_runs(1000.0))
    refresh(folder, make_runs(960.0))
    (change,) = refresh(folder, make_runs(930.0))

    assert "expected at least 95 % of the stored 1000.0 TGS (no spread: 5 %)" in change.refused
    assert read(folder)[KEY].counted_tgs == [[1000.0], [960.0]]


def test_faster_raises_the_reference(folder):
    """An improvement is what the next refresh must hold."""
    refresh(folder, make_runs(1000.0))
    refresh(folder, make_runs(1200.0))

    assert read(folder)[KEY].reference_tgs == 1200.0


def test_refresh_of_unchanged_code_adds_a_session(folder):
    """The reference is the mean of the sessions, whose runs stay apart, each dated by its session."""
    refresh(folder, make_runs(990.0, 1000.0, 1010.0, revision="a" * 40), recorded="2026-11-25T00:00:00+00:00")
    (change,) = refresh(folder, make_runs(995.0, 1005.0, revision="b" * 40), recorded="2026-11-26T00:00:00+00:00")
    found = read(folder)[KEY]

    assert f"{KEY}: 1000.0 -> 1000.0 TGS (+0.0 %), the mean of 2 sessions" == str(change)
    assert [(each.level, each.tgs, (each.revision or "")[:1]) for each in found.sessions] == [
        (1, [990.0, 1000.0, 1010.0], "a"),
        (1, [995.0, 1005.0], "b"),
    ]
    assert (found.recorded, found.revision) == ("2026-11-26T00:00:00+00:00", "b" * 40)
    assert found.num_runs == 5


def test_change_of_level_keeps_the_sessions_for_their_noise(folder):
    """Faster, or slower with a reason, is a new level: the reference is its sessions alone."""
    refresh(folder, make_runs(990.0, 1000.0, 1010.0))
    refresh(folder, make_runs(1190.0, 1210.0))
    refresh(folder, make_runs(1100.0, 1100.0), accept_slower="safer")
    found = read(folder)[KEY]

    assert [each.level for each in found.sessions] == [1, 2, 3]
    assert found.counted_tgs == [[1100.0, 1100.0]]
    assert found.tgs == found.reference_tgs == 1100.0


def drawn(chance, level, noise, number):
    """The runs of one refresh: log TGS around `level`, of `noise`, with ids of their own."""
    runs = make_runs(*(1000 * math.exp(level + chance.gauss(0, noise)) for _ in range(5)))
    return [run.model_copy(update={"id": f"{number}-{run.id}"}) for run in runs]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_small_losses_of_ten_refreshes_are_refused(folder, noise):
    """Half a per cent lost at each of ten refreshes adds up: one of them is refused, and the reference stays."""
    chance = random.Random(1)  # noqa: S311 - noise, no secret
    (first,) = refresh(folder, drawn(chance, 0, noise, 0))
    refused = [
        number for number in range(1, 11) if refresh(folder, drawn(chance, -0.005 * number, noise, number))[0].refused
    ]

    assert refused
    assert read(folder)[KEY].reference_tgs == first.new.tgs


def test_cases_of_a_refresh_share_its_error(folder):
    """What one case alone is refused for is within what one of 14 may show by chance."""
    refresh(folder, make_runs(990.0, 1000.0, 1010.0, 995.0, 1005.0))
    lower = make_runs(967.0, 977.0, 987.0, 972.0, 982.0, losses=LOSSES)
    (alone,) = refresh(folder, lower)
    (one_of_many,) = refresh(folder, lower, num_cases=14)

    assert "expected at least" in alone.refused
    assert one_of_many.refused is None


def test_the_newest_ten_sessions_are_kept(folder):
    """A baseline that is refreshed every week does not grow for ever."""
    for number in range(12):
        runs = make_runs(990.0 + number, 1000.0, 1010.0 + number)
        refresh(folder, runs[::2], recorded=f"2026-11-{number + 1:02d}T00:00:00+00:00")
    found = read(folder)[KEY].sessions

    assert [each.recorded[8:10] for each in found] == [f"{day:02d}" for day in range(3, 13)]


def test_the_same_runs_are_one_session(folder):
    """A refresh that was resumed, or typed twice, records the runs that are there once."""
    for _ in range(2):
        refresh(folder, make_runs(990.0, 1000.0, 1010.0))
    refresh(folder, make_runs(990.0, 1000.0, 1010.0, 1005.0))

    assert read(folder)[KEY].counted_tgs == [[990.0, 1000.0, 1010.0, 1005.0]]


def test_other_documents_are_a_new_level(folder):
    """Documents in which a token attends to more keys are other work at the same speed."""
    workload = make_workload(attention="varlen")
    refresh(folder, make_runs(990.0, 1000.0, 1010.0, workload=workload, mean_attended=20.0))
    (change,) = refresh(folder, make_runs(991.0, 1001.0, 1009.0, workload=workload, mean_attended=21.0))

    assert [each.level for each in change.new.sessions] == [1, 2]


def test_runs_of_two_devices_are_refused(folder):
    """One refresh writes one device's file."""
    other = make_run(device=CPU.model_copy(update={"slug": "cpu-other"}))

    with pytest.raises(ValueError, match="runs of one device, got cpu-other, cpu-test-2c"):
        refresh(folder, [make_run(), other])


def test_no_run_is_refused(folder):
    """A refresh of nothing is an error."""
    with pytest.raises(ValueError, match="got no run"):
        refresh(folder, [])


def test_broken_file_is_left_as_it_is(folder):
    """A file that cannot be read is not written over."""
    folder.mkdir()
    path = folder / "cpu-test-2c.json"
    path.write_text("{")

    with pytest.raises(FileError, match="cut off"):
        refresh(folder, make_runs(1000.0))
    assert path.read_text() == "{"


WRITER = """
import sys
from pathlib import Path
from factories import make_run, make_workload
from trainpace.store.baselines import refresh

folder, name, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(first, last):
    refresh(folder, [make_run(workload=make_workload(f"{name}-{number}-sp1"))])
"""


def start_writer(folder, name, first, last):
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    command = [sys.executable, "-c", WRITER, str(folder), name, str(first), str(last)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


def test_two_refreshes_at_once_lose_nothing(folder):
    """Two processes that write the same device's file in turns leave the cases of both."""
    writers = [start_writer(folder, name, 0, 15) for name in ("a", "b")]
    codes = [writer.wait(timeout=60) for writer in writers]

    assert codes == [0, 0]
    assert {f"{name}-{number}-sp1" for name in "ab" for number in range(15)} == {
        baseline.case for baseline in read(folder).values()
    }


def wait_for_cases(folder, number):
    deadline = time.monotonic() + 60
    while not (folder / "cpu-test-2c.json").exists() or len(read(folder)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("after", [0.0, 0.002, 0.005, 0.011])
def test_killed_refresh_loses_nothing(folder, after):
    """Killed at any moment, a refresh leaves a whole file with every earlier case, and no lock behind."""
    refresh(folder, make_runs(500.0, workload=OTHER))
    writer = start_writer(folder, "a", 0, 10_000)
    wait_for_cases(folder, 3)
    time.sleep(after)
    writer.send_signal(signal.SIGKILL)

    assert writer.wait(timeout=60) == -signal.SIGKILL
    (change,) = refresh(folder, make_runs(1000.0))
    assert {OTHER.key, KEY} < read(folder).keys()
    assert change.new == read(folder)[KEY]
    assert [path.name for path in folder.iterdir()] == ["cpu-test-2c.json"]


def test_leftover_of_a_killed_writer_is_cleared(folder):
    """Half a temporary file is neither read nor kept."""
    folder.mkdir()
    write_whole(folder / ".cpu-test-2c.json.99999.tmp", '{"schema')
    refresh(folder, make_runs(1000.0))

    assert [path.name for path in folder.iterdir()] == ["cpu-test-2c.json"]
