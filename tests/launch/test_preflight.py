"""What is measured of nodes before anything is trained, and what is said of it."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from test_cluster import GPU, node

from factories import CPU, make_run
from trainpace.cases.machine import Machine
from trainpace.launch.preflight import preflight, slow_nodes, words, workload
from trainpace.runs.run import Preflight, RunNode

NAMES = ("n1", "n2", "n3", "n4")
FOUND = Preflight(
    nodes=NAMES,
    all_reduce_bytes_per_second=1e10,
    all_to_all_bytes_per_second=5e9,
    product_seconds=(0.1, 0.1, 0.12, 0.1),
)


def machine(**overrides):
    fields = {"gpus": None, "cpu": CPU, "free_bytes": 1 << 30, "nodes": 4, "network": "ethernet"}
    return Machine(**{**fields, **overrides})


def test_every_gpu_of_every_node_takes_part():
    """On GPUs one rank each; on CPUs one a node."""
    gpus = workload(machine(gpus=GPU.model_copy(update={"count": 32})))
    cpus = workload(machine())

    assert (gpus.ranks, gpus.nodes, gpus.scale) == (32, 4, "full")
    assert (cpus.ranks, cpus.nodes, cpus.scale) == (4, 4, "mini")


def test_bandwidths_are_those_of_a_ring():
    """2 (n - 1) / n of the bytes of an all-reduce, (n - 1) / n of an all-to-all, over the median of the rounds."""
    what = workload(machine())
    run = make_run(workload=what)
    seconds = [0.1, 0.2, 0.4] * (what.steps // 3)
    ranks = tuple(samples.model_copy(update={"seconds": seconds}) for samples in run.ranks)
    nodes = tuple(RunNode(name=name, ranks=1) for name in NAMES)
    found = preflight(run.model_copy(update={"ranks": ranks, "nodes": nodes}))
    size = 4 * what.sequence

    assert found.all_reduce_bytes_per_second == pytest.approx(2 * 3 / 4 * size / 0.2)
    assert found.all_to_all_bytes_per_second == pytest.approx(3 / 4 * size / 0.4)
    assert found.product_seconds == (0.1, 0.1, 0.1, 0.1)


def test_waiting_is_no_bandwidth():
    """Ranks that arrive early wait for the last one: their time says when they came. In each round the last one's
    counts, whichever rank that is."""
    what = workload(machine())
    run = make_run(workload=what)
    rounds = what.steps // 3
    ranks = []
    for samples in run.ranks:
        late = [round_ % len(run.ranks) == samples.rank for round_ in range(rounds)]
        seconds = [part for last in late for part in (0.1, 0.2 if last else 0.9, 0.4 if last else 0.8)]
        ranks.append(samples.model_copy(update={"seconds": seconds}))
    nodes = tuple(RunNode(name=name, ranks=1) for name in NAMES)
    found = preflight(run.model_copy(update={"ranks": tuple(ranks), "nodes": nodes}))

    assert found.all_reduce_bytes_per_second == pytest.approx(2 * 3 / 4 * 4 * what.sequence / 0.2)
    assert found.all_to_all_bytes_per_second == pytest.approx(3 / 4 * 4 * what.sequence / 0.4)


def test_what_is_multiplied_is_random(monkeypatch):
    """A GPU that multiplies constants draws less power than in training, and would hide that it is throttled then."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda _: None)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
    trainer = import_module("trainpace.rank.bandwidth").Bandwidth()
    trainer.setup(SimpleNamespace(device="cpu", workload=workload(machine())))
    trainer.forward_backward("compute")

    assert trainer._product.unique().numel() > 1000


def test_a_slow_node_is_named():
    """A node whose product takes longer is named, with what to do; nodes of one machine say nothing of each other."""
    apart, together = [node(name) for name in NAMES], [node(name, machine="one") for name in NAMES]
    (said,) = slow_nodes(FOUND, apart)

    assert said.startswith("n3 is slow: a fixed product took 20% longer there than on the median node; take it out")
    assert slow_nodes(FOUND, together) == []


def test_words():
    """Bandwidths in GB/s, times in ms."""
    assert words(FOUND) == (
        "preflight over 4 nodes: all-reduce 10.00 GB/s, all-to-all 5.00 GB/s a rank, "
        "a fixed product 100.00 to 120.00 ms"
    )
