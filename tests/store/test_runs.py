"""The files of runs."""

import pytest
from pydantic import ValidationError

from factories import make_run
from trainpace.errors import FileError
from trainpace.store.runs import read_runs, runs_in, write_run


def test_run_survives_its_file(tmp_path):
    """What is read is what was written."""
    run = make_run(noise=0.05)
    path = write_run(run, tmp_path / "runs")

    assert f"{run.workload.case}-run0.json" == path.name
    assert [run] == read_runs(path)


def test_folder_gives_its_runs_oldest_first(tmp_path):
    """A folder of runs is read whole, in the order in which they ran."""
    newer, older = make_run(seed=2), make_run("llama2_70b-8k-sp1", seed=1)
    write_run(newer, tmp_path)
    write_run(older, tmp_path)

    assert [older, newer] == read_runs(tmp_path)


def test_a_run_that_is_named_twice_counts_once(tmp_path):
    """A copy of a run is no second run: two of them would halve its noise."""
    path = write_run(make_run(), tmp_path / "runs")
    write_run(make_run(), tmp_path / "copy")
    (tmp_path / "runs" / "copied.json").write_text(path.read_text())

    assert [make_run()] == runs_in([tmp_path / "runs", path, tmp_path / "copy"])


def test_two_runs_of_one_id_are_refused(tmp_path):
    """Which of them counts is not for us to say."""
    paths = [write_run(make_run(tgs=tgs), tmp_path / str(tgs)) for tgs in (1000.0, 900.0)]

    with pytest.raises(FileError, match="expected one run of llama2_7b-8k-sp1 with the id run0, got two that differ"):
        runs_in(paths)


def test_folder_without_runs_is_refused(tmp_path):
    """Nothing to replay is an error, no empty success."""
    with pytest.raises(FileError, match="no run file"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"startup_seconds": 2.0', '"startup_seconds": NaN', "expected finite numbers, got NaN"),
        (
            '"startup_seconds": 2.0',
            '"startup_seconds": -2.0',
            "startup_seconds: .*greater than or equal to 0, got -2.0",
        ),
        ('"startup_seconds": 2.0', '"startup_seconds": 1e999', "startup_seconds: .*finite number, got inf"),
        ('"schema_version": 1', '"schema_version": 2', "schema_version must be 1, got 2"),
        ('"id": "run0"', '"id": "run0", "speed": 3', "speed: .*not permitted, got 3"),
        ('"id": "run0"', '"id": "run0", "id": "run1"', "key 'id' stands there twice"),
        ('"rank": 1', '"rank": 3', r"ranks must be 0..1 in order, got \[0, 3\]"),
        ('"steps": 40', '"steps": 41', "rank 0: seconds must have 41 entries, got 40"),
        ('"attention": "causal"', '"attention": "varlen"', "mean_attended must be given"),
    ],
)
def test_file_that_is_no_run_is_refused(tmp_path, old, new, said):
    """The message names file, field, what was expected and what came."""
    path = write_run(make_run(), tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))

    with pytest.raises(FileError, match=f"{path.name}.*{said}"):
        read_runs(path)


def test_cut_off_file_is_refused(tmp_path):
    """Half a file is no shorter run."""
    path = write_run(make_run(), tmp_path)
    path.write_text(path.read_text()[:1000])

    with pytest.raises(FileError, match="not JSON, or cut off"):
        read_runs(path)


@pytest.mark.parametrize("field", ["losses", "data_seconds"])
def test_what_was_not_logged_is_absent_of_a_reported_run_alone(field, tmp_path):
    """A program that reports itself need not say everything; what we measure is whole."""
    run = make_run(ranks=1)
    fields = {**run.model_dump(), "ranks": (run.ranks[0].model_copy(update={field: None}),)}
    reported = type(run).model_validate({**fields, "source": "reported"})
    write_run(reported, tmp_path)

    assert read_runs(tmp_path) == [reported]
    with pytest.raises(ValidationError, match=f"rank 0: {field} must be given where source is measured, got None"):
        type(run).model_validate(fields)
