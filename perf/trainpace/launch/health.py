"""Whether what was measured can be trusted: what the GPUs' drivers say, or on CPUs who else kept them busy."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from trainpace.cases.machine import Machine
from trainpace.launch.cluster import Node
from trainpace.launch.host_client import Hosts
from trainpace.probe.device import cpu_faults
from trainpace.runs.run import Health

Samples = Mapping[str, Any]
"""What a rank wrote of its window."""


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


def health_of(machine: Machine, device: str, samples: Samples, gpus: Health) -> Health:
    """Of a run on this machine: `samples` are a rank's, `gpus` what the driver said."""
    if device == "cuda":
        return gpus
    # Where /proc/stat speaks of more cores than we may use, others' work on those would be called foreign.
    foreign = foreign_cores(samples) if machine.cpu.count == os.cpu_count() else None
    faults, notes = cpu_faults(foreign)
    return Health(foreign_cores=foreign, faults=faults, notes=notes)


def nodes_health(nodes: Sequence[Node], device: str, samples: Sequence[Samples], gpus: Health) -> Health:
    """Of a run on several nodes; `samples` are those of each node's first rank."""
    if device == "cuda":
        return gpus
    if len({node.machine for node in nodes}) < len(nodes):
        note = "nodes share a machine: whether other processes disturbed the run cannot be told"
        return Health(notes=(note,))
    worst, faults, notes = None, [], []
    for node, first in zip(nodes, samples, strict=True):
        foreign = foreign_cores(first) if node.cpu.count == node.cores_present else None
        found, said = cpu_faults(foreign)
        faults += [f"{node.name}: {text}" for text in found]
        notes += [f"{node.name}: {text}" for text in said]
        worst = foreign if worst is None or (foreign is not None and foreign > worst) else worst
    return Health(foreign_cores=worst, faults=tuple(faults), notes=tuple(notes))


def foreign_cores(samples: Samples) -> float | None:
    """Cores that others kept busy over the window that a rank saw; None for a window of no length."""
    seconds = samples["window_seconds"]
    return (samples["busy_cpu_seconds"] - samples["own_cpu_seconds"]) / seconds if seconds else None
