"""docs/adapters.md: each of its trainers is measured by a session in a repository that holds what the page shows."""

import importlib.util

import pytest

from repository import BARE, Repository
from test_docs import ADAPTERS, files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "needed"),
    [("plain", "torch"), ("hf", "accelerate"), ("accelerated", "accelerate"), ("light", "pytorch_lightning")],
)
def test_trainers_of_the_page(tmp_path, started, trainer, needed):
    """Two ranks make its steps, and nothing is said but that there is no baseline."""
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}: tox run -e adapters")
    ours = Repository.create(tmp_path / "ours")
    for name, text in (files("docs/own-trainer.md") | files(ADAPTERS)).items():
        (ours.path / name).parent.mkdir(exist_ok=True)
        (ours.path / name).write_text(text)
    options = ["-k", "llama2_7b-8k", "--perf-scale=mini", "--perf-steps=4", f"--perf-trainer=ours.{trainer}:trainer"]
    done = ours.suite(*BARE, *options)

    assert done.code == 0, done.text
    assert done.last_line.startswith("1 case: 1 no baseline")
    assert ("Lightning keeps its own loop" in done.text) == (trainer == "light")
