"""What starts run hosts: on this machine, on the nodes of a Slurm allocation, or where torchrun started the suite."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trainpace.cases import Case
from trainpace.cases.machine import Machine
from trainpace.cases.scaling import NODE_GPUS, mini_ranks
from trainpace.errors import RunFailed
from trainpace.launch.agent import START
from trainpace.launch.cluster import Node
from trainpace.launch.host_client import POLL_SECONDS, HostCommand, Hosts, Pipe, Transport
from trainpace.probe.device import present

if TYPE_CHECKING:
    from trainpace.app.options import Options

_LOOK_SECONDS = 120.0


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

    def lose(self, node: str) -> None:
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

    def lose(self, node: str) -> None:
        """It would be this one."""

    def close(self) -> None:
        """Nothing was taken."""


def look(transport: Transport) -> list[Node]:
    """What the nodes behind `transport` are; ends it.

    Raises:
        RunFailed: where one says nothing.
    """
    hosts = Hosts(transport)
    try:
        deadline = time.monotonic() + _LOOK_SECONDS
        while len(hosts.facts) < len(transport.nodes):
            hosts.listen(POLL_SECONDS)
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{len(transport.nodes) - len(hosts.facts)} of the nodes {', '.join(transport.nodes)} said nothing "
                    f"within {_LOOK_SECONDS:.0f} s"
                )
    finally:
        transport.kill()
    return [Node(**hosts.facts[number]) for number in sorted(hosts.facts)]


def many_nodes(options: "Options", cases: Sequence[Case]) -> Launcher:
    """The launcher of several nodes that was asked for; `cases` say how many an allocation must have.

    Raises:
        RunFailed: where they cannot be had.
    """
    shared = options.shared
    assert shared is not None
    if options.launcher == "torchrun":
        from trainpace.launch.torchrun import Torchrun

        return Torchrun(shared=shared)
    from trainpace.launch.slurm import Slurm

    if options.scale == "mini":  # one rank a node
        wanted = max(map(mini_ranks, cases), default=1)
    else:
        wanted = max((-(-case.gpus // NODE_GPUS) for case in cases), default=1)
    return Slurm(shared=shared, options=options.slurm, nodes=wanted)


def start_line(host: HostCommand) -> bytes:
    """What tells an agent which host to start."""
    fields = {"python": host.python, "settings": dict(host.settings), "environment": dict(host.environment)}
    return json.dumps({"op": "start", "host": fields}).encode() + b"\n"


def agent_command(
    *, shared: Path, node: int | None = None, name: str | None = None, suite: str | None = None
) -> list[str]:
    """The command of an agent (launch/agent.py); what is None it finds in Slurm's environment."""
    root = Path(__file__).resolve().parents[2]
    settings = {"node": node, "name": name, "shared": str(shared), "suite": suite}
    return [sys.executable, "-c", START, str(root), json.dumps(settings)]
