"""The rows of the shipped tables are trained: one case of each set of features, at mini, by its table's engine."""

import math
from statistics import fmean

import pytest

from trainpace.cases.scaling import resolve
from trainpace.cases.tables import features
from trainpace.launch.distributed import Distributed
from trainpace.probe.device import present
from trainpace.store.tables import load_table, table_names

TABLES = {name: load_table(name) for name in reversed(table_names())}
SETS = {
    (name, features(row.case)): (row.case, table.engine)
    for name, table in TABLES.items()
    for row in reversed(table.rows)
    if row.executable
}
"""The first case of each set of features, and the engine of its table, by table and set."""
QUICK = "mpt_3b-8k-sp1-g8-mb3-ga6-norc"
"""The others are left to the environment gate."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Trains a workload in fresh processes."""
    cache = tmp_path_factory.mktemp("cache")
    with Distributed(machine=present(), cache=cache, step_timeout=120) as distributed:
        yield distributed


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        pytest.param(case, engine, id=case.id, marks=() if case.id == QUICK else pytest.mark.slow)
        for case, engine in SETS.values()
    ],
)
def test_a_row_of_each_set_of_features_is_trained(ranks, case, engine):
    """Every rank makes every step; the loss is that of weights which know nothing yet."""
    workload = resolve(case, ranks.machine, scale="mini", engine=engine, warmup=1, steps=4, vocabulary=512).workload

    run = ranks.run(workload)

    known_nothing = math.log(workload.shape.vocabulary)
    assert [len(rank.seconds) for rank in run.ranks] == [4] * workload.ranks
    # Ranks that share a sequence have more of its labels or fewer: together they are the sequence's.
    losses = [fmean(step) for step in zip(*(rank.losses for rank in run.ranks), strict=True)]
    assert losses == pytest.approx([known_nothing] * 5, rel=0.1)
