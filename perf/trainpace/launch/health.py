"""Whether what was measured can be trusted: what the GPUs' drivers say, or on CPUs who else kept them busy."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from trainpace.cases.machine import Machine
from trainpace.launch.cluster import Node
from trainpace.launch.host_client import Hosts
from trainpace.probe.device import FOREIGN_CORES_LIMIT, cpu_faults
from trainpace.runs.run import Health, OtherProcess

Samples = Mapping[str, Any]
"""What a rank wrote of its window."""
NAMED = 3
"""Other processes that are named, at most."""


class NodesWindow:
    """Has every node's agent watch its own GPUs over the measured window."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def open(self) -> None:
        """See trainpace.launch.follow.Window."""
        self._hosts.send(op="window")

    def close(self) -> Health:
        """What all nodes found, each named; once the run has ended."""
        said: dict[str, list[str]] = {"faults": [], "notes": []}
        for node, found in sorted(self._hosts.health.items()):
            for kind, texts in said.items():
                texts += [f"{self._hosts.facts[node]['name']}: {text}" for text in found.get(kind, ())]
        return Health(faults=tuple(said["faults"]), notes=tuple(said["notes"]))


def health_of(machine: Machine, device: str, samples: Sequence[Samples], gpus: Health) -> Health:
    """Of a run on this machine: `samples` are its ranks', or of a program; `gpus` is what the driver said."""
    if device == "cuda":
        return gpus
    return _cpu_health(samples, told=machine.cpu.count == os.cpu_count())


def nodes_health(nodes: Sequence[Node], device: str, samples: Sequence[Sequence[Samples]], gpus: Health) -> Health:
    """Of a run on several nodes; `samples` are those of each node's ranks."""
    if device == "cuda":
        return gpus
    if len({node.machine for node in nodes}) < len(nodes):
        note = "nodes share a machine: whether other processes disturbed the run cannot be told"
        return Health(notes=(note,))
    found = [
        _cpu_health(ranks, told=node.cpu.count == node.cores_present)
        for node, ranks in zip(nodes, samples, strict=True)
    ]
    known = [each.foreign_cores for each in found if each.foreign_cores is not None]
    named = list(zip(nodes, found, strict=True))
    return Health(
        foreign_cores=max(known, default=None),
        others=tuple(other for each in found for other in each.others),
        faults=tuple(f"{node.name}: {text}" for node, each in named for text in each.faults),
        notes=tuple(f"{node.name}: {text}" for node, each in named for text in each.notes),
    )


def _cpu_health(samples: Sequence[Samples], *, told: bool) -> Health:
    """Of the ranks of one machine: the one whose cores others kept busiest decides.

    Args:
        samples: of each rank.
        told: False where the machine has more cores than may be used: what others do within our share is not known.
    """
    loads = [foreign_cores(rank) for rank in samples] if told else [None]
    foreign = None if None in loads else max(load for load in loads if load is not None)
    others: dict[int, OtherProcess] = {}
    if foreign is not None and foreign > FOREIGN_CORES_LIMIT:
        found = [OtherProcess(**each) for rank in samples for each in rank.get("others", ())]
        others = {each.pid: each for each in sorted(found, key=lambda each: each.cores)}
    named = tuple(sorted(others.values(), key=lambda each: -each.cores)[:NAMED])
    faults, notes = cpu_faults(foreign, named)
    return Health(foreign_cores=foreign, others=named, faults=faults, notes=notes)


def foreign_cores(samples: Samples) -> float | None:
    """Cores that others kept busy, of those a rank ran on; None for a window of no length or where it is not told."""
    seconds, busy = samples["window_seconds"], samples["busy_cpu_seconds"]
    return (busy - samples["own_cpu_seconds"]) / seconds if seconds and busy is not None else None
