"""Files from outside that are too large, or wrong in one place of many."""

import json
import os
import resource

import pytest

from trainpace.errors import FileError
from trainpace.store.baselines import load_file


def test_baselines_with_a_million_cases(tmp_path):
    """A file as large as a million cases make it is refused by its size, unread."""
    path = tmp_path / "cpu-test-2c.json"
    path.write_text("{")
    os.truncate(path, 1_000_000 * 1400)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(FileError, match=r"cpu-test-2c.json: expected at most 64 MiB, got 1335"):
        load_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (100 << 10)


@pytest.mark.slow
def test_one_bad_record_in_100_000(repository, started):
    """The case is invalid, with file, record, line and key; no part of the data is kept as if it were whole."""
    record = {"instruction": "Add one and two.", "input": "", "output": "Three."}
    lines = [json.dumps(record)] * 100_000
    lines[77_776] = json.dumps(record | {"output": None})
    data = repository.path / "alpaca.jsonl"
    data.write_text("\n".join(lines))
    options = ("--perf-trainer=native", "--perf-engine=fsdp2", f"--perf-data={data}")
    done = repository.suite("-k", "8k", *options)

    assert done.code == 7
    assert f"{data}, record 77777 (line 77777): key 'output': expected text, got NoneType None" in done.text
    assert not list((repository.path / ".cache").glob("*packed*/ids.npy"))
    assert started.left() == []
