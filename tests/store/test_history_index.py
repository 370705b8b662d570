"""Recorded runs by the thousand: what is read of each, what is refused, what is read again."""

import json
import os

import pytest

from factories import CPU, make_run, make_runs
from trainpace.errors import FileError
from trainpace.runs import metrics
from trainpace.runs.run import Health
from trainpace.runs.summary import sessions
from trainpace.store import history_index as points
from trainpace.store.history_index import read_summaries
from trainpace.store.runs import write_run


def record(folder, *runs):
    """Files of the runs."""
    return [write_run(run, folder) for run in runs]


def test_a_run_becomes_a_point(tmp_path):
    """Value, memory, time, revision and versions, under what makes a series."""
    run = make_run(tgs=900.0, noise=0.05, revision="abc", started="2026-11-25T01:00:00+01:00")
    record(tmp_path, run)
    ((kind, (point,)),) = read_summaries(tmp_path).items()

    assert ("llama2_7b-8k-sp1", "mini", "native", run.workload.hash, "cpu-test-2c") == kind
    assert metrics.tgs(run) == point.tgs
    assert point.peak_memory_bytes == 1 << 30
    assert point.started == 1795564800
    assert (point.revision, point.software) == ("abc", (("python", "3.11.7"), ("torch", "2.13.0")))
    assert point.fault is None


def test_value_is_the_runs(tmp_path):
    """The quick way gives what throughput gives, to the last digit, accumulation included."""
    run = make_run("llama2_7b-1m-sp16", noise=0.1)
    record(tmp_path, run)
    ((point,),) = read_summaries(tmp_path).values()

    assert metrics.tgs(run) == point.tgs


def test_a_run_without_all_its_ranks_is_refused(tmp_path):
    """Its value would be that of some of them."""
    (path,) = record(tmp_path, make_run())
    content = json.loads(path.read_text())
    content["ranks"].pop()
    path.write_text(json.dumps(content))

    with pytest.raises(FileError, match=r"ranks must be 0\.\.1 in order, got \[0\]"):
        read_summaries(tmp_path)


def test_series_are_of_one_workload_on_one_device(tmp_path):
    """Another case, another hash or another device is another series; each oldest first."""
    other = CPU.model_copy(update={"slug": "cpu-other-2c"})
    record(tmp_path, *make_runs(900.0, 1000.0), make_run("llama2_7b-32k-sp1", seed=5), make_run(device=other, seed=6))
    found = read_summaries(tmp_path)

    assert sorted((kind.case, len(each)) for kind, each in found.items()) == [
        ("llama2_7b-32k-sp1", 1),
        ("llama2_7b-8k-sp1", 1),
        ("llama2_7b-8k-sp1", 2),
    ]
    assert all(each == sorted(each, key=lambda point: point.started) for each in found.values())


def test_an_invalid_run_keeps_its_fault(tmp_path):
    """So that it can be left out and counted."""
    record(tmp_path, make_run(health=Health(faults=("throttled", "late"))))
    ((point,),) = read_summaries(tmp_path).values()

    assert point.fault == "throttled"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("{}", "Field required"),
        ('{"schema_version": NaN}', "expected finite numbers"),
        ("[]", "got []"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, said):
    """The file, and what is wrong with it, among thousands that are whole."""
    record(tmp_path, *make_runs(1000.0, 1001.0))
    (tmp_path / "broken.json").write_text(text)

    with pytest.raises(FileError, match=r"broken\.json") as raised:
        read_summaries(tmp_path)
    assert said in str(raised.value)


def test_a_broken_file_is_named_by_a_process(tmp_path, monkeypatch):
    """Also where several processes read."""
    monkeypatch.setattr(points, "CHUNK", 2)
    record(tmp_path, *make_runs(*range(900, 906)))
    (tmp_path / "zz.json").write_text("{")

    with pytest.raises(FileError, match=r"zz\.json, line 1"):
        read_summaries(tmp_path)


def test_several_processes_read_the_same(tmp_path, monkeypatch):
    """Chunks change nothing."""
    record(tmp_path, *make_runs(*range(900, 907)))
    expected = read_summaries(tmp_path)
    (tmp_path / points.INDEX).unlink()
    monkeypatch.setattr(points, "CHUNK", 2)

    assert expected == read_summaries(tmp_path)


def test_a_time_that_is_none_is_refused(tmp_path):
    """A trend is in the order of time."""
    record(tmp_path, make_run(started="yesterday"))

    with pytest.raises(FileError, match="started: expected an ISO 8601 time, got 'yesterday'"):
        read_summaries(tmp_path)


def test_a_run_twice_is_refused(tmp_path):
    """A copied file would count double."""
    (path,) = record(tmp_path, make_run())
    path.with_name("copy.json").write_text(path.read_text())

    with pytest.raises(FileError, match="run0 of llama2_7b-8k-sp1 mini on cpu-test-2c is there twice"):
        read_summaries(tmp_path)


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_runs_is_refused(tmp_path, folder):
    """An empty history is a wrong path."""
    with pytest.raises(FileError, match=str(tmp_path)):
        read_summaries(tmp_path / folder)


def test_the_index_gives_what_was_read(tmp_path):
    """Read a second time, from the index, everything is equal."""
    record(tmp_path, *make_runs(900.0, 1000.0, revision="abc"), make_run("llama2_7b-32k-sp1", seed=5))
    expected = read_summaries(tmp_path)

    assert (tmp_path / points.INDEX).exists()
    assert expected == read_summaries(tmp_path)


def test_the_index_spares_reading(tmp_path, monkeypatch):
    """Only files that are new or changed are parsed again."""
    _first, second = record(tmp_path, *make_runs(900.0, 1000.0))
    read_summaries(tmp_path)
    record(tmp_path, make_run(seed=7))
    os.utime(second, ns=(0, 0))
    parsed = []
    monkeypatch.setattr(points, "_read", lambda folder, names: parsed.extend(names) or [])

    with pytest.raises(ValueError, match="shorter"):
        read_summaries(tmp_path)
    assert [second.name, "llama2_7b-8k-sp1-run7.json"] == parsed


def test_a_run_that_is_gone_is_forgotten(tmp_path):
    """Deleted files leave the series and the index."""
    first, _ = record(tmp_path, *make_runs(900.0, 1000.0))
    read_summaries(tmp_path)
    first.unlink()
    ((point,),) = read_summaries(tmp_path).values()

    assert point.id == "run1"
    assert "run0" not in (tmp_path / points.INDEX).read_text()


@pytest.mark.parametrize("text", ["", "[]", '{"version": 0}', '{"version": 1, "kinds": []}', "\x00", "[" * 100_000])
def test_an_odd_index_is_made_again(tmp_path, text):
    """A cache is never an error."""
    record(tmp_path, *make_runs(900.0, 1000.0))
    (tmp_path / points.INDEX).write_text(text)
    ((first, second),) = read_summaries(tmp_path).values()

    assert (first.id, second.id) == ("run0", "run1")
    assert "run1" in (tmp_path / points.INDEX).read_text()


def test_sessions_are_runs_of_one_revision_close_in_time(tmp_path):
    """Another revision, or an hour's pause, begins another session."""
    when = [("a", "00:00"), ("a", "00:10"), ("b", "00:20"), ("b", "00:30"), ("b", "05:00")]
    record(
        tmp_path,
        *(
            make_run(seed=number, revision=revision, started=f"2026-11-25T{time}:00+00:00")
            for number, (revision, time) in enumerate(when)
        ),
    )
    (found,) = read_summaries(tmp_path).values()

    assert sessions(found) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(("old", "new"), [("run0", "run9"), ('"runs":[[', '"runs":[1,['), ("mini", "full")])
def test_an_edited_index_is_made_again(tmp_path, old, new):
    """What somebody wrote into the index is not believed, though it reads as one."""
    record(tmp_path, *make_runs(900.0, 1000.0))
    before = read_summaries(tmp_path)
    index = tmp_path / points.INDEX
    index.write_text(index.read_text().replace(old, new))

    assert before == read_summaries(tmp_path)
