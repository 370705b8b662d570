"""The folder of counted costs: what is found there, what is not, and that it stays small."""

import json
import os
import warnings

import pytest

from factories import make_workload
from trainpace.cost import cache as module
from trainpace.cost.cache import CostCache
from trainpace.runs.cost import Cost
from trainpace.store.files import write_whole

NOTHING = json.dumps({"own": {}, "library": {}, "names": [], "search": []})
"""What a process imported that imported nothing: it never changes."""


@pytest.fixture
def opened(tmp_path):
    """The cache as a session meets it that begins now."""

    def opened(package=tmp_path, added=(), **environment):
        return CostCache(tmp_path / "cache", package=package, environment=environment, added=added)

    return opened


def make_cost(case="llama2_7b-8k-sp1"):
    return Cost(
        workload=make_workload(case=case),
        traced_layers=2,
        counters={"step.calls": 1},
        operators={"step aten.mm": (1, 2, 3)},
        unknown={},
        software={"torch": "2.13.0"},
    )


def files(tmp_path, pattern="*"):
    return sorted((tmp_path / "cache" / "costs").glob(pattern))


def test_what_was_kept_is_found_by_its_workload(opened, tmp_path):
    """The next session finds it, and nothing for another workload, package or environment."""
    cost = make_cost()
    opened().keep(cost, NOTHING)

    assert opened().find(cost.workload) == cost
    assert opened(HOME="/root").find(cost.workload) == cost
    assert opened().find(cost.workload.model_copy(update={"sequence": 1024})) is None
    assert opened(package=tmp_path / "other").find(cost.workload) is None
    assert opened(TORCH_LOGS="all").find(cost.workload) is None
    assert opened(OURS="1", added=("OURS",)).find(cost.workload) is None


def test_versions_are_asked_for_without_importing(opened, tmp_path, monkeypatch):
    """Another version of torch, and a package that was installed, are another request."""
    cost = make_cost()
    opened().keep(cost, NOTHING)
    (tmp_path / "torch-0.1.dist-info").mkdir()
    (tmp_path / "torch-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.1\n")

    installed = opened(PYTHONPATH=str(tmp_path)).find(cost.workload)
    monkeypatch.syspath_prepend(tmp_path)
    upgraded = opened().find(cost.workload)

    assert (installed, upgraded) == (None, None)


@pytest.mark.parametrize("pattern", ["*-*", "inputs-*"])
@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace("1", "2"), lambda _: ""])
def test_a_broken_file_is_as_good_as_none(opened, tmp_path, pattern, damage):
    """Cut off, edited or empty: it is not found, and replaced by the next count."""
    cost = make_cost()
    opened().keep(cost, NOTHING)
    path = files(tmp_path, pattern)[-1 if pattern == "inputs-*" else 0]
    path.write_text(damage(path.read_text()))

    lost = opened().find(cost.workload)
    opened().keep(cost, NOTHING)

    assert lost is None
    assert opened().find(cost.workload) == cost


def test_what_was_used_last_is_kept(opened, tmp_path, monkeypatch):
    """The folder is held to its size; a file that a killed process left is taken away."""
    costs = [make_cost(case) for case in ("first", "second", "third")]
    for age, cost in enumerate(costs):
        opened().keep(cost, NOTHING)
        newest = max(files(tmp_path, "[0-9a-f]*-*"), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (age, age))
    write_whole(files(tmp_path)[0].with_name(".left.json.1.tmp"), "")
    os.utime(files(tmp_path, ".*.tmp")[0], (0, 0))

    opened().find(costs[0].workload)
    size = sum(path.stat().st_size for path in files(tmp_path, "*.json"))
    monkeypatch.setattr(module, "MAX_BYTES", size - 1)
    opened().clean()

    assert [cost.workload.case for cost in costs if opened().find(cost.workload)] == ["first", "third"]
    assert files(tmp_path, ".*") == []


def test_a_cache_that_cannot_be_written_is_said_once(opened, tmp_path):
    """Counting goes on."""
    (tmp_path / "cache").write_text("")
    cache = opened()

    with pytest.warns(UserWarning, match="counts are not kept for the next session"):
        cache.keep(make_cost(), NOTHING)
    with warnings.catch_warnings(action="error"):
        cache.keep(make_cost(), NOTHING)
        cache.clean()

    assert cache.find(make_cost().workload) is None
