"""What starts run hosts: on this machine, on the nodes of a Slurm allocation, or where torchrun started the suite."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from trainpace.cases import Case
from trainpace.cases.machine import Machine
from trainpace.cases.scaling import NODE_GPUS, mini_ranks
from trainpace.launch.cluster import Node
from trainpace.launch.host_client import HostCommand, Pipe, Transport
from trainpace.launch.slurm import Slurm
from trainpace.launch.torchrun import Torchrun
from trainpace.probe.device import present


class Launcher(Protocol):
    """Starts the hosts of one session."""

    lasting: bool
    """Whether a host serves runs one after the other, or each run is given fresh ones."""
    parent: Path | None
    """A folder that every node sees, for what runs write; None: this machine's temporary files."""

    @property
    def nodes(self) -> Sequence[Node]:
        """What they are, in the order in which ranks are placed; none for this machine by itself."""

    def machine(self) -> Machine:
        """All nodes as one machine.

        Raises:
            RunFailed: where they cannot be asked, or are not equal.
        """

    def connect(self, host: HostCommand, nodes: int, log: Path) -> Transport:
        """Start a host on each of the first `nodes` nodes.

        Raises:
            RunFailed: where there are not so many.
        """

    def exclude_node(self, node: str) -> None:
        """Use this node no more: it was lost."""

    def close(self) -> None:
        """Give back what was taken."""


class Local:
    """On this machine."""

    lasting = True
    parent: Path | None = None
    nodes: Sequence[Node] = ()

    def machine(self) -> Machine:
        """See Launcher."""
        return present()

    def connect(self, host: HostCommand, nodes: int, log: Path) -> Transport:
        """See Launcher."""
        assert nodes == 1
        return Pipe(host.words, host.variables(os.environ), log)

    def exclude_node(self, node: str) -> None:
        """See Launcher: there is no other."""

    def close(self) -> None:
        """Nothing was taken."""


def many_nodes(
    launcher: str, *, shared: Path, slurm: Sequence[str], scale: str, cases: Sequence[Case], added: Sequence[str] = ()
) -> Torchrun | Slurm:
    """The launcher of several nodes.

    Args:
        launcher: `slurm` or `torchrun`.
        shared: a folder that all nodes see.
        slurm: options of `salloc`; none: the allocation at hand.
        scale: that was asked for; with `cases` it says how many nodes an allocation must have.
        cases: selected.
        added: names of environment variables that agents are given besides those of environment.py.

    Raises:
        RunFailed: where they cannot be had.
    """
    if launcher == "torchrun":
        return Torchrun(shared=shared, added=added)
    if scale == "mini":  # one rank a node
        wanted = max(map(mini_ranks, cases), default=1)
    else:
        wanted = max((-(-case.gpus // NODE_GPUS) for case in cases), default=1)
    return Slurm(shared=shared, options=slurm, nodes=wanted)
