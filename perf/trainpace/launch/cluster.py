"""What the nodes of a session are, as one machine: which cases they can run, how ranks are placed, what differs."""

import time
from collections.abc import Sequence

from pydantic import NonNegativeInt, PositiveInt

from trainpace.cases.machine import Device, Machine
from trainpace.errors import RunFailed
from trainpace.launch.host_client import POLL_SECONDS, Hosts, Transport
from trainpace.records import Record

_ASK_SECONDS = 120.0
CLOCK_SECONDS = 2.0
"""Nodes' calendars this far apart are worth a word: files that one writes are old or from the future for another."""
LEAST_SHARED_MEMORY = 1 << 30
"""Bytes of /dev/shm below which loaders and NCCL's rings inside a node may find no room."""
LEAST_FOLDER = 1 << 30
"""Bytes of the shared folder: a million packed tokens, the lines of a thousand ranks."""


class Node(Record):
    """One node, as it tells of itself."""

    name: str
    machine: str
    """This start of this machine: nodes that are one machine share it."""
    gpus: Device | None
    gpu_uuids: tuple[str, ...]
    cpu: Device
    cores_present: PositiveInt
    gpu_free_bytes: int | None
    free_bytes: int
    notes: tuple[str, ...]
    links: str
    """What joins the GPUs of the node: `nvlink`, `pcie`, or nothing where there are not two."""
    network: str
    """`infiniband`, `roce` or `ethernet`."""
    shared_memory_bytes: NonNegativeInt
    shared_folder_bytes: NonNegativeInt | None
    """Free; None where the node does not see the folder."""
    clock_ahead: float
    """Seconds by which its calendar is before the suite's, as far as that can be told when it says so."""
    gpu_capability: tuple[int, int] | None = None
    """See trainpace.cases.machine.Machine."""


def machine_of(nodes: Sequence[Node]) -> Machine:
    """Equal nodes as one machine: GPUs add up, a CPU is that of one node.

    Raises:
        RunFailed: where the nodes are not equal.
    """
    first = nodes[0]
    for node in nodes[1:]:
        for what, expected, got in (
            ("GPUs", _slug(first.gpus), _slug(node.gpus)),
            ("links between GPUs", first.links, node.links),
            ("network", first.network, node.network),
            ("CPU", first.cpu.slug, node.cpu.slug),
        ):
            if expected != got:
                raise RunFailed(
                    f"expected equal nodes, {first.name} has {what} {expected} and {node.name} {got}: ask for nodes of "
                    "one kind (a partition, a constraint)"
                )
    gpus = None
    if first.gpus is not None:
        least = min(node.gpus.count for node in nodes if node.gpus)
        memory = min(node.gpus.memory_bytes for node in nodes if node.gpus)
        gpus = first.gpus.model_copy(update={"count": least * len(nodes), "memory_bytes": memory})
    free = [node.gpu_free_bytes for node in nodes if node.gpu_free_bytes is not None]
    return Machine(
        gpus=gpus,
        cpu=first.cpu,
        gpu_free_bytes=min(free) if free else None,
        gpu_capability=first.gpu_capability,
        free_bytes=min(node.free_bytes for node in nodes),
        nodes=len(nodes),
        network=first.network if len(nodes) > 1 else "",
        notes=tuple(dict.fromkeys(note for node in nodes for note in node.notes)),
    )


def ask_nodes(transport: Transport) -> list[Node]:
    """Ask the nodes behind `transport` what they are, and end it.

    Raises:
        RunFailed: where one says nothing.
    """
    hosts = Hosts(transport)
    try:
        deadline = time.monotonic() + _ASK_SECONDS
        while len(hosts.facts) < len(transport.nodes):
            hosts.listen(POLL_SECONDS)
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{len(transport.nodes) - len(hosts.facts)} of the nodes {', '.join(transport.nodes)} said nothing "
                    f"within {_ASK_SECONDS:.0f} s"
                )
    finally:
        transport.kill()
    return [Node(**hosts.facts[number]) for number in sorted(hosts.facts)]


def counts(ranks: int, nodes: int) -> list[int]:
    """Ranks of each node, in blocks of equal size: those of a sequence stand next to each other."""
    assert ranks % nodes == 0
    return [ranks // nodes] * nodes


def shortages(nodes: Sequence[Node]) -> tuple[list[str], list[str]]:
    """What is wrong with nodes before anything runs: (what forbids it, what should be known)."""
    forbid, know = [], []
    for node in nodes:
        if node.shared_folder_bytes is None:
            forbid.append(f"{node.name} does not see the shared folder: name one that all nodes see with --perf-shared")
        elif node.shared_folder_bytes < LEAST_FOLDER:
            forbid.append(
                f"{node.name}: the shared folder has {node.shared_folder_bytes >> 20} MiB free, expected "
                f"{LEAST_FOLDER >> 20}: make room, or name another with --perf-shared"
            )
        if node.shared_memory_bytes < LEAST_SHARED_MEMORY:
            know.append(
                f"{node.name}: /dev/shm has {node.shared_memory_bytes >> 20} MiB free, expected "
                f"{LEAST_SHARED_MEMORY >> 20}: NCCL and data loaders may fail"
            )
        if abs(node.clock_ahead) > CLOCK_SECONDS:
            know.append(f"{node.name}: its clock differs from this one's by {node.clock_ahead:+.1f} s")
    return forbid, know


def _slug(device: Device | None) -> str:
    return "none" if device is None else device.slug
