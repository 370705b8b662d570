"""The gate on counted costs, as a user meets it: a change to the trainer turns it red with the counter named."""

import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from repository import BARE
from trainpace.app.costs import Costs
from trainpace.cases import LLAMA2_7B, PUBLISHED, Case, Model
from trainpace.cases.scaling import full_workload
from trainpace.cost.worker import counted
from trainpace.errors import TRAIN
from trainpace.judge.command import Command
from trainpace.judge.cost import judge_cost
from trainpace.runs.verdict import Verdict
from trainpace.store.costs import load_costs

CHECKPOINTING = re.compile(r"^ +body\.activation_checkpointing_enable\(.*$", re.MULTILINE)

# name -> (file of the native trainer, what is changed, a row that it concerns, counters that must be named)
CHANGES = {
    "without checkpointing": (
        "model.py",
        lambda text: CHECKPOINTING.sub("", text),
        "llama2_7b-8k-sp1",
        ["fsdp2.memory.peak", "deepspeed.memory.peak", "activations"],
    ),
    "key/value heads repeated before they are sent": (
        "attention.py",
        lambda text: text.replace(
            "        if heads % self.size:\n",
            "        part, heads = part.repeat_interleave(64 // heads, dim=1), 64\n        if heads % self.size:\n",
        ),
        "llama2_70b-32k-sp4",
        ["step.all_to_all.bytes", "_c10d_functional.all_to_all_single"],
    ),
    "one more all-gather a layer": (
        "engines.py",
        lambda text: text.replace(
            "            shard(layer)\n",
            "            shard(layer.mlp)\n            shard(layer)\n",
        ),
        "llama2_7b-8k-sp1",
        ["fsdp2.step.all_gather.calls", "c10d._allgather_base_"],
    ),
}


@pytest.fixture
def copy(checkout, tmp_path):
    """A checkout of its own, whose trainer may be changed."""
    for name in ("perf", "baselines"):
        shutil.copytree(checkout / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(checkout / name, tmp_path / name)
    return tmp_path


def gate(folder, row, *options, python=()):
    """`pytest perf/test_cost.py` for one row in `folder`: its exit status and what it printed."""
    command = [sys.executable, *python, "-m", "pytest", "perf/test_cost.py", "-k", row, *BARE, *options]
    own = {"PYTHONPATH": str(folder / "perf"), "COLUMNS": "300", "TRAINPACE_CACHE": str(folder / ".cache")}
    environment = os.environ | own
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def change(folder, name):
    """Plant a change in the trainer of a checkout; the row that it concerns, and the counters that must be named."""
    file, changed, row, counters = CHANGES[name]
    path = folder / "perf" / "trainpace" / "trainers" / "native" / file
    text = path.read_text()
    assert changed(text) != text
    path.write_text(changed(text))
    return row, counters


@pytest.mark.slow
def test_a_step_that_costs_more_is_red(copy):
    """The change ends in exit status 1; the message names the counters that rose, and the operators. The next session
    says the same from the cache, and imports neither torch nor what trains."""
    row, counters = change(copy, "without checkpointing")

    status, said = gate(copy, row)
    again, repeated = gate(copy, row, python=["-X", "importtime"])

    assert (status, again) == (1, 1)
    assert f"regression: {row}" in said
    assert [counter for counter in counters if counter not in said] == []
    assert [counter for counter in counters if counter not in repeated] == []
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", repeated, re.MULTILINE))
    assert "trainpace.app.costs" in imported
    assert [name for name in TRAIN if name in imported] == []


@pytest.mark.slow
def test_each_counter_that_rose_is_named(copy, checkout):
    """Two changes that concern different rows: each row names its own counters and operators."""
    concerned = dict(change(copy, name) for name in list(CHANGES)[1:])
    stored = load_costs(checkout / "baselines")
    workloads = [full_workload(case) for case in PUBLISHED if case.id in concerned]

    judged = {case: judge_cost(cost, stored[cost.key]) for case, cost in counted(workloads, checkout=copy / "perf")}

    assert {each.verdict for each in judged.values()} == {Verdict.REGRESSION}
    for row, counters in concerned.items():
        assert [counter for counter in counters if counter not in "\n".join(judged[row].reasons)] == []


@pytest.mark.slow
def test_the_gate_as_a_user_meets_it(copy):
    """Green as committed, with its numbers in the JUnit file; skipped without a row; recorded by a refresh."""
    stored = copy / "baselines" / "cost.json"

    green, said = gate(copy, "llama2_7b-8k-sp1", "--junitxml", "junit.xml")
    junit = ElementTree.parse(copy / "junit.xml")  # noqa: S314 - written by the line above
    properties = {each.get("name"): each.get("value") for each in junit.iter("property")}
    stored.unlink()
    (copy / "perf" / "trainpace" / "baselines").mkdir()  # as installed, without the published rows
    unjudged, missing = gate(copy, "llama2_7b-8k-sp1", "--perf-require-verdict")
    recorded, refreshed = gate(copy, "llama2_7b-8k-sp1", "--perf-refresh")

    assert green == 0, said
    assert "1 cost: 1 pass" in said
    assert properties["perf.cost.verdict"] == "pass"
    assert int(properties["perf.cost.step.flops.matmul"]) > 0
    assert unjudged == 6
    assert "record it with:\npytest 'perf/test_cost.py::test_cost[llama2_7b-8k-sp1]' " in missing
    assert recorded == 0
    assert "none -> 4.86379e+14 FLOPs a step" in refreshed
    assert stored.exists()


def test_a_model_that_cannot_be_trained_is_not_counted(tmp_path):
    """It is said before a process starts, and takes no other case along."""
    shape = LLAMA2_7B.shape.model_copy(update={"architecture": "cohere2"})
    case = Case(model=Model(name="m", title="M", shape=shape), length="8k", sp=1, gpus=8)
    costs = Costs(folder=tmp_path, dtype="bf16", refresh=False, show=lambda *_: pytest.fail("counting"), cache=None)

    found = costs.find(case, Command())

    assert found.verdict is Verdict.INVALID
    assert "the native trainer cannot train cohere2: it lacks layers without positions" in found.reasons[0]
