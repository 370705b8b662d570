"""Before an expensive run: what joins the nodes, and whether one of them is slow, in a few seconds."""

from collections.abc import Callable, Sequence
from statistics import median

from trainpace.cases.machine import Machine
from trainpace.cases.workload import Shape, Workload
from trainpace.errors import RunFailed
from trainpace.launch.cluster import Node, shortages
from trainpace.runs.run import Preflight, Run

TRAINER = "trainpace_rank.bandwidth:Bandwidth"
SLOW_NODE = 0.05
"""Share above the median node's time for one product from which a node is slow."""
_KINDS = 3
_ROUNDS = 6
_WARMUP = 2 * _KINDS
PREFLIGHT_STEPS = _WARMUP + _ROUNDS * _KINDS


def workload(machine: Machine) -> Workload:
    """What is run: every GPU of every node (on CPUs one rank a node), each kind of step a few times."""
    cuda = machine.gpus is not None
    ranks = machine.gpus.count if machine.gpus else machine.nodes
    # 256 MiB on a GPU, as gradients of a layer are; on a CPU what gloo moves in a moment. Divisible among ranks.
    elements = (64 << 20 if cuda else 1 << 20) // ranks * ranks
    hidden = 8192 if cuda else 512
    return Workload(
        case="preflight",
        model="none",
        scale="full" if cuda else "mini",
        shape=Shape(hidden=hidden, layers=1, intermediate=1, heads=1, kv_heads=1, vocabulary=1),
        sequence=elements,
        ranks=ranks,
        nodes=machine.nodes,
        network=machine.network,
        sp=1,
        accumulation=1 << 30,
        warmup=_WARMUP,
        steps=_KINDS * _ROUNDS,
        trainer=TRAINER,
        engine="own",
    )


def preflight(run: Run) -> Preflight:
    """What a run of `workload` says: bus bandwidths, and how long one product took on each node.

    A ring moves 2 (n - 1) / n of the bytes of an all-reduce through every link, and (n - 1) / n of those of an
    all-to-all (nccl-tests, doc/PERFORMANCE.md: busbw). A rank's time begins where it arrives: of each round the
    shortest counts, that of the last rank to arrive, which waits for nobody; of the rounds it is the median. Of the
    products each node's slowest rank counts.
    """
    ranks, size = run.workload.ranks, 4 * run.workload.sequence

    def collective(kind: int) -> float:
        rounds = zip(*(samples.seconds[kind::_KINDS] for samples in run.ranks), strict=True)
        return float(median(map(min, rounds)))

    share = (ranks - 1) / ranks
    product, first = [median(samples.seconds[::_KINDS]) for samples in run.ranks], 0
    nodes = []
    for node in run.nodes:
        nodes.append(max(product[first : first + node.ranks]))
        first += node.ranks
    return Preflight(
        nodes=tuple(node.name for node in run.nodes),
        all_reduce_bytes_per_second=2 * share * size / collective(1),
        all_to_all_bytes_per_second=share * size / collective(2),
        product_seconds=tuple(nodes),
    )


def slow_nodes(found: Preflight, nodes: Sequence[Node]) -> list[str]:
    """Nodes whose fixed product took SLOW_NODE longer than the median node's, each in words.

    Nodes that are one machine share its cores, and say nothing about each other.
    """
    if len({node.machine for node in nodes}) < len(nodes) or len(nodes) < 3:
        return []
    typical = median(found.product_seconds)
    return [
        f"{name} is slow: a fixed product took {seconds / typical - 1:.0%} longer there than on the median node; take "
        f"it out (Slurm's --exclude={name})"
        for name, seconds in zip(found.nodes, found.product_seconds, strict=True)
        if seconds > (1 + SLOW_NODE) * typical
    ]


def look_over(nodes: Sequence[Node], machine: Machine, train: Callable[[Workload], Run]) -> tuple[Preflight, list[str]]:
    """Look at nodes before anything expensive runs on them: what they gave, and what should be known of them.

    Raises:
        RunFailed: where they lack what every run needs.
    """
    forbid, know = shortages(nodes)
    if forbid:
        raise RunFailed("; ".join(forbid))
    found = preflight(train(workload(machine)))
    return found, [*know, words(found), *slow_nodes(found, nodes)]


def words(found: Preflight) -> str:
    """One sentence on what the preflight measured: GB/s of both collectives, milliseconds of the product."""
    reduce, exchange = found.all_reduce_bytes_per_second / 1e9, found.all_to_all_bytes_per_second / 1e9
    return (
        f"preflight over {len(found.nodes)} nodes: all-reduce {reduce:.2f} GB/s, all-to-all {exchange:.2f} GB/s a "
        f"rank, a fixed product {1e3 * min(found.product_seconds):.2f} to {1e3 * max(found.product_seconds):.2f} ms"
    )
