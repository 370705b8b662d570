"""The launcher `torchrun`: the suite's command runs under torchrun on every node, one process a node.

    torchrun --nnodes 4 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint HOST:PORT \\
        -m pytest perf --perf-launcher torchrun

The process of rank 0 is the suite; the others serve it: they start agents (launch/agent.py) when it asks for them,
until it is done or gone. torchrun's own store tells them the suite's port and the word that it takes them by.
"""

import json
import os
import secrets
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from trainpace.cases.machine import Machine
from trainpace.errors import RunFailed
from trainpace.launch.agent import agent_command, start_line
from trainpace.launch.cluster import Node, ask_nodes, machine_of
from trainpace.launch.environment import given
from trainpace.launch.host_client import HostCommand, NodeLost, Transport
from trainpace.store.files import writing

_KEY = "trainpace"
_GATHER_SECONDS = 300.0
_CONNECT_SECONDS = 30.0
_END_SECONDS = 10.0
_HELLO_SECONDS = 5.0
_HELLO_BYTES = 256
"""What whoever connects may take to say the word, and how long that line may be."""


def place(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's rank, and how many there are: one a node.

    Raises:
        ValueError: where torchrun did not start it, or started several on a node.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        raise ValueError("start this command under torchrun, on every node (docs/nodes.md has the line)")
    if (local := environment.get("LOCAL_WORLD_SIZE", "1")) != "1":
        raise ValueError(f"expected torchrun --nproc-per-node 1, got {local}: the suite starts a node's ranks itself")
    return int(environment["RANK"]), int(environment["WORLD_SIZE"])


class Torchrun:
    """The suite's end, in the process of rank 0."""

    lasting = True

    def __init__(self, *, shared: Path, added: Sequence[str] = ()) -> None:
        """Wait for the processes of all other nodes. `added` as HostCommand has it.

        Raises:
            RunFailed: where some do not come.
            ValueError: as `place`.
        """
        with writing(shared):
            shared.mkdir(parents=True, exist_ok=True)
        self.parent: Path | None = shared
        self._shared, self._added = shared, added
        _, world = place()
        self._names = {0: socket.gethostname()}
        self._excluded: set[str] = set()
        self._word = secrets.token_hex(16)
        self._listener = socket.create_server(("", 0), backlog=4 * world)
        _store(rank=0).set(_KEY, f"{self._listener.getsockname()[1]} {self._word}")
        self._controls: dict[int, socket.socket] = {}
        deadline = time.monotonic() + _GATHER_SECONDS
        while len(self._controls) < world - 1:
            connection, rank, purpose, name = self._accept(deadline, f"{len(self._controls) + 1} of {world} nodes came")
            if purpose == "control":
                self._controls[rank] = connection
                self._names[rank] = name if name not in self._names.values() else f"{name}#{rank}"

    @cached_property
    def nodes(self) -> Sequence[Node]:
        """See Launcher."""
        return ask_nodes(self._connect(range(len(self._names))))

    def machine(self) -> Machine:
        """See Launcher."""
        return machine_of(self.nodes)

    def connect(self, host: HostCommand, nodes: int, log: Path) -> Transport:
        """See Launcher. What agents print goes where torchrun sends it."""
        del log
        there = [rank for rank in range(len(self._names)) if self._names[rank] not in self._excluded]
        if len(there) < nodes:
            lost = f"; lost: {', '.join(sorted(self._excluded))}" if self._excluded else ""
            raise RunFailed(f"expected {nodes} nodes, {len(there)} are there{lost}")
        transport = self._connect(there[:nodes])
        transport.send(start_line(host))
        return transport

    def exclude_node(self, node: str) -> None:
        """See Launcher."""
        self._excluded.add(node)

    def close(self) -> None:
        """Let the other nodes' processes end, and wait for it: with this one goes the store of torchrun's agents."""
        deadline = time.monotonic() + _END_SECONDS
        for control in self._controls.values():
            with suppress(OSError):
                control.shutdown(socket.SHUT_WR)
        for control in self._controls.values():
            with suppress(OSError):
                control.settimeout(max(0.01, deadline - time.monotonic()))
                control.recv(1)  # nothing, at its end
            control.close()
        self._listener.close()

    def _connect(self, ranks: Sequence[int]) -> "Sockets":
        """An agent on each of these nodes, numbered from 0 on."""
        purpose = secrets.token_hex(4)
        peer = next((each.getpeername()[0] for each in self._controls.values()), "127.0.0.1")
        connections: dict[int, socket.socket] = {}
        own: subprocess.Popen[bytes] | None = None
        for number, rank in enumerate(ranks):
            # The suite's own node is known to others by its way to them: its name may be a loopback address here.
            suite = peer if rank == 0 else os.environ["MASTER_ADDR"]
            arguments = agent_command(shared=self._shared, node=number, name=self._names[rank], suite=suite)[1:]
            if rank == 0:
                ours, theirs = socket.socketpair()
                own = _agent(arguments, theirs, self._added)
                connections[number] = ours
            else:
                request = {"arguments": arguments, "purpose": purpose}
                with suppress(OSError):  # whoever does not come is missed below
                    self._controls[rank].sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + _CONNECT_SECONDS
        while len(connections) < len(ranks):
            connection, rank, said, _ = self._accept(deadline, f"{len(connections)} of {len(ranks)} agents came")
            if said == purpose:
                connections[ranks.index(rank)] = connection
        names = tuple(self._names[rank] for rank in ranks)
        return Sockets([connections[number] for number in range(len(ranks))], names, own)

    def _accept(self, deadline: float, so_far: str) -> tuple[socket.socket, int, str, str]:
        """The next connection that knows the word; its rank, what it is for, and its machine's name."""
        while (left := deadline - time.monotonic()) > 0:
            self._listener.settimeout(left)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                break
            with suppress(OSError, ValueError):
                until = time.monotonic() + min(left, _HELLO_SECONDS)
                word, rank, purpose, name = _line(connection, until=until, limit=_HELLO_BYTES).split()
                if secrets.compare_digest(word.encode(), self._word.encode()):  # of text it takes ASCII alone
                    connection.settimeout(None)
                    return connection, int(rank), purpose, name
            connection.close()
        raise RunFailed(f"{so_far} within the time they have: did the command start on all of them?")


class Sockets:
    """A connection to each node's agent."""

    def __init__(
        self, connections: Sequence[socket.socket], nodes: tuple[str, ...], own: "subprocess.Popen[bytes] | None"
    ) -> None:
        self.nodes = nodes
        self.pid: int | None = None
        self._connections, self._own = list(connections), own
        self._pending = [b""] * len(connections)
        self._selector = selectors.DefaultSelector()
        for number, connection in enumerate(connections):
            self._selector.register(connection, selectors.EVENT_READ, number)

    def send(self, line: bytes) -> None:
        """See Transport."""
        for connection in self._connections:
            connection.sendall(line)

    def receive(self, wait: float) -> list[bytes] | None:
        """See Transport."""
        found: list[bytes] = []
        for key, _ in self._selector.select(wait):
            try:
                chunk = self._connections[key.data].recv(1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                raise NodeLost(self.nodes[key.data], "its connection was closed")
            *lines, self._pending[key.data] = (self._pending[key.data] + chunk).split(b"\n")
            found += lines
        return found

    def kill(self) -> None:
        """See Transport: an agent ends, with all that is below it, when its requests do; its own end is waited for."""
        deadline = time.monotonic() + _END_SECONDS
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        for connection in self._connections:
            with suppress(OSError):
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                while connection.recv(1 << 16):
                    pass
            connection.close()
        self._selector.close()
        if self._own is not None:
            try:
                self._own.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._own.kill()
                self._own.wait()

    def ended(self) -> RunFailed:
        """See Transport."""
        return RunFailed("an agent of a node is gone")

    def stderr_tail(self) -> str:
        """See Transport: it goes where torchrun sends it."""
        return ""

    def track_group(self, pid: int) -> None:
        """See Transport: agents end their hosts, with all below them."""

    def pause(self) -> list[str]:
        """See Transport: agents did so before they passed `paused` on, and said what is left."""
        return []

    def resume(self) -> None:
        """See Transport."""
        self.send(b'{"op": "resume"}\n')


def serve(added: Sequence[str] = ()) -> int:
    """In the process of every other rank: start agents as the suite asks, until it is done. Returns the exit status.

    `added` as HostCommand has it.
    """
    rank, _ = place()
    port, word = _store(rank=rank).get(_KEY).decode().split()  # waits for it
    suite = os.environ["MASTER_ADDR"], int(port)
    agents: list[subprocess.Popen[bytes]] = []

    def join(purpose: str) -> socket.socket:
        connection = socket.create_connection(suite, timeout=_CONNECT_SECONDS)
        connection.settimeout(None)
        connection.sendall(f"{word} {rank} {purpose} {socket.gethostname()}\n".encode())
        return connection

    with join("control") as control:
        while line := _line(control):
            request: dict[str, Any] = json.loads(line)
            agents = [agent for agent in agents if agent.poll() is None]
            agents.append(_agent(request["arguments"], join(request["purpose"]), added))
    for agent in agents:  # the suite closed their connections before this one, or is gone
        agent.wait()
    return 0


def _agent(arguments: Sequence[str], connection: socket.socket, added: Sequence[str]) -> "subprocess.Popen[bytes]":
    """An agent that speaks through `connection`, by this process's interpreter."""
    with connection:
        command = [sys.executable, *arguments]
        descriptor = connection.fileno()
        return subprocess.Popen(
            command, stdin=descriptor, stdout=descriptor, start_new_session=True, env=given(os.environ, added)
        )


def _line(connection: socket.socket, *, until: float | None = None, limit: int = 1 << 20) -> str:
    """One line, and not a byte more: what follows is for somebody else. Empty at the end.

    Args:
        connection: whom to read from.
        until: monotonic seconds for all of it; None: as long as it takes.
        limit: bytes.

    Raises:
        ValueError: where it is longer, or no UTF-8.
        TimeoutError: where it does not come in time.
    """
    found = bytearray()
    while True:
        if until is not None:
            connection.settimeout(max(until - time.monotonic(), 1e-3))
            if time.monotonic() > until:
                raise TimeoutError
        if (byte := connection.recv(1)) in {b"", b"\n"}:
            return found.decode()
        found += byte
        if len(found) > limit:
            raise ValueError(f"expected a line of at most {limit} bytes")


def _store(*, rank: int) -> Any:
    """torchrun's own store; where it has none, rank 0 opens one."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not in its __all__

    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=rank == 0 and not agents, wait_for_workers=False)
    _stores.append(store)
    return store


_stores: list[Any] = []  # a store lives as long as its process
