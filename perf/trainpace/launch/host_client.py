"""The judging side's handle on the run hosts of one launch: one on this machine, or one on each of several nodes.

A host answers in JSON lines (rank/host.py). Where there are several, an agent beside each (launch/agent.py)
adds the number of its node, says at short intervals that it lives, and tells what its node is.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainpace.errors import RunFailed, what_to_install
from trainpace.launch import orphans, quiet
from trainpace.launch.environment import given
from trainpace.launch.folders import tail
from trainpace.rank.imports import Own
from trainpace.rank.protocol import PROTOCOL
from trainpace.runs.run import SOFTWARE
from trainpace.text import differences, harmless_values

POLL_SECONDS = 0.05
SILENT_SECONDS = 15.0
"""A node that gives no sign of life for this long is lost. Agents give one a second."""
_HOST = Path(__file__).resolve().parents[1] / "rank" / "__main__.py"
_PRELOAD_SECONDS = 300.0
_KILL_SECONDS = 10.0
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Where torch reads how its allocator works; the first stands above the others."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Whose trainer is measured: an interpreter, and the checkout that its imports come from first."""

    python: str = sys.executable
    checkout: Path | None = None
    apart: tuple[Path, ...] = ()
    """The other side's folders, which nothing is imported from; none where nothing is compared."""
    folder: Path | None = None
    """Where it works, so that files opened by relative paths are its own; None: where the suite does."""
    injected: float = 0.0
    """A slowdown of every step that the step loop adds, a share: what a self-test must find."""


@dataclass(frozen=True, kw_only=True)
class HostCommand:
    """How a run host is started, wherever."""

    python: str
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    """Variables that are chosen for it, whatever those are of the process that starts it."""
    added: Sequence[str] = ()
    """Names of variables that it is given besides those of environment.py."""

    @property
    def words(self) -> list[str]:
        """The command; the host's parent is this process."""
        return [self.python, str(_HOST), json.dumps({**self.settings, "parent": os.getpid()})]

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The host's environment, made of that of the process that starts it."""
        own = Own(self.settings["checkout"], self.settings["apart"])
        return {**own.environment(given(inherited, self.added)), **self.environment}


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a rank ended."""

    rank: int
    code: int
    """Negative: a signal."""
    killed: bool
    """Whether it was ended by us."""


class NodeLost(RunFailed):
    """A node that gives no sign of life any more."""

    def __init__(self, node: str, why: str, *, detail: str = "") -> None:
        self.node = node
        super().__init__(f"node {node} is lost: {why}", detail=detail)


class Transport(Protocol):
    """Requests to the hosts of one launch, and what they answer."""

    nodes: tuple[str, ...]
    """Names; a single empty one for a host on this machine."""
    pid: int | None
    """Process id of what speaks for the hosts here; None where connections do."""

    def send(self, line: bytes) -> None:
        """Give every host a line. BrokenPipeError where there is nobody any more."""

    def receive(self, wait: float) -> list[bytes] | None:
        """Lines that came within `wait` seconds; as soon as there is one, no more is waited for. None: the end."""

    def kill(self) -> None:
        """End every host and every rank, whatever state they are in."""

    def ended(self) -> RunFailed:
        """Why there is nobody any more."""

    def stderr_tail(self) -> str:
        """The end of what hosts wrote to standard error; empty where that goes elsewhere."""

    def track_group(self, pid: int) -> None:
        """Remember the process group of a run's ranks, to end it where its host was killed and cannot."""

    def pause(self) -> list[str]:
        """Stop hosts that have said `paused`, and all that they have started; that is described where it is here."""

    def resume(self) -> None:
        """Let them go on.

        Raises:
            RunFailed: where somebody has changed what decides their speed.
        """


def host_command(
    side: Side,
    preload: Sequence[str],
    device: str,
    loop: str = "loop",
    *,
    many: bool = False,
    added: Sequence[str] = (),
) -> HostCommand:
    """What runs a side's trainer on a device. `loop` is the module of rank/ that a rank runs."""
    return HostCommand(
        python=side.python,
        settings={
            "loop": loop,
            "checkout": str(side.checkout) if side.checkout else None,
            "apart": [str(folder) for folder in side.apart],
            "folder": str(side.folder) if side.folder else None,
            "preload": list(preload),
            "software": list(SOFTWARE),
            "device": device,
        },
        environment=_environment(device, many=many),
        added=tuple(added),
    )


class Pipe:
    """A process whose standard input and output speak for hosts: a host itself, or what starts them on nodes."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, nodes: tuple[str, ...] = ("",)
    ) -> None:
        self.nodes = nodes
        self._group: int | None = None
        self._scheduling: quiet.Scheduling | None = None
        self._tag = orphans.tag(uuid.uuid4().hex[:8])
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
                env={**environment, orphans.VARIABLE: self._tag},
            )
        self.pid: int | None = self.process.pid
        assert self.process.stdout
        self._output = self.process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._pending = b""

    def send(self, line: bytes) -> None:
        """See Transport."""
        assert self.process.stdin
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def receive(self, wait: float) -> list[bytes] | None:
        """See Transport."""
        if not self._selector.select(wait):
            return []
        chunk = os.read(self._output, 1 << 16)
        if not chunk:
            return None
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        return lines

    def kill(self) -> None:
        """See Transport."""
        below = quiet.end(self.process.pid) if self.process.poll() is None else set()
        for group in (self.process.pid, self._group):
            if group is None:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait()
        quiet.reap(below)
        orphans.end_tagged(self._tag)
        self.close()

    def close(self) -> None:
        """Close the pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._selector.close()

    def ended(self) -> RunFailed:
        """See Transport."""
        code = self.process.wait()
        return RunFailed(f"the run host ended ({describe_exit(code)})", detail=tail(self._log))

    def stderr_tail(self) -> str:
        """See Transport."""
        return tail(self._log)

    def track_group(self, pid: int) -> None:
        """See Transport."""
        self._group = pid

    def pause(self) -> list[str]:
        """See Transport."""
        quiet.stop(self.process.pid)
        self._scheduling = quiet.Scheduling.of(self.process.pid)
        return quiet.left(self.process.pid)

    def resume(self) -> None:
        """See Transport."""
        if self._scheduling is not None and self.process.poll() is None:
            self._scheduling.check(self.process.pid, "the run host")
        quiet.go_on(self.process.pid)


class Hosts:
    """Run hosts that work as one: a request goes to all of them, a run has ended when it has on all."""

    def __init__(self, transport: Transport) -> None:
        self.software: dict[str, str] = {}
        self.facts: dict[int, dict[str, Any]] = {}
        """What each node said of itself, by number; none of a host on this machine."""
        self.health: dict[int, dict[str, Any]] = {}
        """What each node said of its devices over the run that ended last."""
        self.is_clean = True
        """Whether nothing was found, when they were stopped or went on, that disturbs what is measured."""
        self._transport = transport
        self._nodes = range(len(transport.nodes))
        self._heard: dict[int, float] = {}
        self._running: set[int] = set()
        self._exits: list[Exit] = []
        self._failing = False
        self._paused = False

    @property
    def pid(self) -> int | None:
        """Process id of what speaks for the hosts here: on this machine the host, None for connections."""
        return self._transport.pid

    @property
    def transport(self) -> Transport:
        """What carries requests and answers."""
        return self._transport

    def wait_ready(self) -> None:
        """Wait until every host has preloaded.

        Raises:
            RunFailed: with the host's own words where it could not, does not speak this protocol, or has other versions
                than the others.
        """
        ready: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + _PRELOAD_SECONDS
        while len(ready) < len(self._nodes):
            if time.monotonic() > deadline:
                late = ", ".join(self._called(node) for node in self._nodes if node not in ready)
                raise RunFailed(
                    f"{late or 'the run host'} did not get ready within {_PRELOAD_SECONDS:.0f} s",
                    detail=self._transport.stderr_tail(),
                )
            for node, answer in self._receive():
                if answer["event"] == "refused":
                    where = f" on {self._called(node)}" if self._called(node) else ""
                    missing = what_to_install(answer["cause"])
                    raise RunFailed(
                        f"the trainer could not be imported{where}: {missing or answer['cause']}",
                        detail="" if missing else answer["detail"],
                    )
                if answer["event"] == "ready":
                    if answer["protocol"] != PROTOCOL:
                        raise RunFailed(f"the run host speaks protocol {answer['protocol']}, expected {PROTOCOL}")
                    ready[node] = answer["software"]
        self.software = ready[0]
        for node, software in ready.items():
            if software != self.software:
                said = ", ".join(f"{name} {a} and {b}" for name, a, b in differences(self.software, software))
                raise RunFailed(
                    f"expected the same versions on all nodes, {self._called(0)} and {self._called(node)} have {said}: "
                    "start all of them from one environment"
                )

    def start_run(self, **request: Any) -> None:
        """Ask for a fresh process group."""
        self._running, self._exits, self._failing, self.health = set(self._nodes), [], False, {}
        self._heard = dict.fromkeys(self._nodes, time.monotonic())
        self.send(op="run", **request)

    def exits(self, wait: float) -> list[Exit] | None:
        """The exits of all ranks once every node's have ended, in the order in which they did; until then None.

        Raises:
            RunFailed: where a host or a node is lost.
        """
        for node, answer in self._receive(wait):
            if answer["event"] == "started":
                self._transport.track_group(answer["pids"][0])
            elif answer["event"] == "ended":
                self._running.discard(node)
                self._exits += [Exit(**each) for each in answer["exits"]]
                self.health[node] = answer.get("health", {})
                if any(each["code"] for each in answer["exits"]) and self._running and not self._failing:
                    # The first that fails ends the others: a collective would wait for it for ever.
                    self._failing = True
                    self.send(op="kill")
        return None if self._running else self._exits

    def listen(self, wait: float) -> None:
        """Take what nodes say of themselves."""
        self._receive(wait)

    def end_run(self) -> bool:
        """End the run under way, if there is one; False where a host does not say that it ended."""
        if not self._running:
            return True
        try:
            self.send(op="kill")
            deadline = time.monotonic() + _KILL_SECONDS
            while self._running and time.monotonic() < deadline:
                self.exits(POLL_SECONDS)
        except RunFailed:
            return False
        return not self._running

    def pause(self) -> list[str]:
        """Stop the hosts, which have no run, and all that they have started; what that is, described.

        Raises:
            RunFailed: where one cannot be stopped, or is lost.
        """
        if self._paused:
            return []
        self._heard = dict.fromkeys(self._nodes, time.monotonic())
        self.send(op="pause")
        paused: set[int] = set()
        found: list[str] = []
        deadline = time.monotonic() + _KILL_SECONDS
        while len(paused) < len(self._nodes):
            if time.monotonic() > deadline:
                raise RunFailed(f"the run host does not answer within {_KILL_SECONDS:.0f} s of its run's end")
            for node, answer in self._receive():
                if answer["event"] == "paused":
                    paused.add(node)
                    found += answer.get("left", [])
        self._paused = True
        found += self._transport.pause()
        self.is_clean = not found
        return found

    def resume(self) -> None:
        """Let paused hosts go on.

        Raises:
            RunFailed: where somebody has changed what decides their speed meanwhile.
        """
        if self._paused:
            self.is_clean = False
            try:
                self._transport.resume()
            except OSError:
                raise self._transport.ended() from None
            self._paused, self.is_clean = False, True

    def kill(self) -> None:
        """End the hosts and every rank, whatever state they are in."""
        self._transport.kill()

    def send(self, **request: Any) -> None:
        """Give every host a request.

        Raises:
            RunFailed: where there is nobody any more.
        """
        try:
            self._transport.send(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._transport.ended() from None

    def _receive(self, wait: float = POLL_SECONDS) -> list[tuple[int, dict[str, Any]]]:
        """Answers with the number of their node; signs of life and what nodes say of themselves are kept here."""
        lines = self._transport.receive(wait)
        if lines is None:
            raise self._transport.ended()
        now, found = time.monotonic(), []
        for line in lines:
            answer = harmless_values(json.loads(line))  # a host has the code of its side in it
            node = answer.get("node", 0)
            self._heard[node] = now
            if answer["event"] == "hello":
                self.facts[node] = {**answer["facts"], "clock_ahead": answer["clock"] - time.time()}
            elif answer["event"] == "gone":
                raise RunFailed(f"{answer['cause']} on {self._called(node)}", detail=self._transport.stderr_tail())
            elif answer["event"] != "beat":
                found.append((node, answer))
        self._check_alive(now)
        return found

    def _check_alive(self, now: float) -> None:
        for node in self._nodes:
            if self._called(node) and now - self._heard.get(node, now) > SILENT_SECONDS:
                why = f"no sign of life for {SILENT_SECONDS:.0f} s"
                raise NodeLost(self._called(node), why, detail=self._transport.stderr_tail())

    def _called(self, node: int) -> str:
        return str(self.facts[node]["name"]) if node in self.facts else self._transport.nodes[node]


def describe_exit(code: int) -> str:
    """A process's exit code in words."""
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (the kernel's out-of-memory killer, or somebody)"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _environment(device: str, *, many: bool) -> dict[str, str]:
    """What a host's environment has besides that of the suite; fixed when it starts, before anything is imported."""
    chosen = {
        # On a CPU each rank is bound to one core.
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DS_ACCELERATOR": device,
        "DEEPSPEED_LOG_LEVEL": "error",
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML numbers them
        # A trainer's module may ask torch.cuda.is_available(): by NVML, which spoils no rank that is forked afterwards.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    if device == "cpu":
        chosen["CUDA_VISIBLE_DEVICES"] = ""
        if not many:  # between nodes the agent of each names the interface
            chosen["GLOO_SOCKET_IFNAME"] = "lo"
    elif not any(name in os.environ for name in _ALLOCATOR):
        # A long sequence's blocks fragment the heap; a user's own setting wins, by whichever of its names.
        chosen["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    return chosen
