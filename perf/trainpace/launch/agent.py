"""The agent of the suite on one of several nodes: starts the run host there, and looks after the node for it.

    python -c '<START>' ROOT '{"node": 0, "name": ..., "shared": ..., "suite": ...}'     (slurm.py, torchrun.py)

ROOT is the folder of the judging side's package; what is null Slurm's environment says.

Requests come as JSON lines on standard input and are passed on to the host; its answers leave on standard output, with
the number of the node. Besides, the agent says what the node is (`hello`), says every second that it lives while
something is under way (`beat`), and watches the node's GPUs over the measured window. It is the judging side's own
code, run by the judging side's interpreter; it ends, and takes the host with it, when its standard input closes.
"""

import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainpace.errors import RunFailed
from trainpace.launch import orphans, quiet
from trainpace.launch.host_client import HostCommand, describe_exit
from trainpace.probe.device import GpuWindow, gpu_cores, gpu_links, gpu_uuids, present
from trainpace.rank.proc import die_with_parent

START = "import sys; sys.path.insert(0, sys.argv[1]); from trainpace.launch.agent import main; main()"
"""Runs this module from the judging side's checkout, whatever is installed on the node."""
BEAT_SECONDS = 1.0
_SIOCGIFADDR = 0x8915


def main() -> None:
    """Serve one launch: the first line says what host to start, or to tell about the node and end."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the suite, which closes the pipe
    settings = json.loads(sys.argv[2])
    agent = Agent(
        node=int(settings["node"] if settings["node"] is not None else os.environ["SLURM_NODEID"]),
        name=settings["name"] or os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        shared=Path(settings["shared"]),
        suite=settings["suite"] or os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"),
        requests=0,
        answers=1,
    )
    agent.serve()


def start_line(host: HostCommand) -> bytes:
    """What tells an agent which host to start."""
    return json.dumps({"op": "start", "host": asdict(host)}).encode() + b"\n"


def agent_command(
    *, shared: Path, node: int | None = None, name: str | None = None, suite: str | None = None
) -> list[str]:
    """The command of an agent; what is None it finds in Slurm's environment."""
    root = Path(__file__).resolve().parents[2]
    settings = {"node": node, "name": name, "shared": str(shared), "suite": suite}
    return [sys.executable, "-c", START, str(root), json.dumps(settings)]


class Agent:
    """One node's end of a launch, between two descriptors and the host that it starts."""

    def __init__(self, *, node: int, name: str, shared: Path, suite: str, requests: int, answers: int) -> None:
        self._node, self._name, self._shared, self._suite = node, name, shared, suite
        self._requests, self._answers = requests, answers
        self._host: subprocess.Popen[bytes] | None = None
        self._scheduling: quiet.Scheduling | None = None
        self._busy = True
        self._window: Any = None

    def serve(self) -> None:
        """Until the requests end, or the host does."""
        self._say(event="hello", facts=facts(self._name, self._shared), clock=time.time())
        selector = selectors.DefaultSelector()
        selector.register(self._requests, selectors.EVENT_READ)
        pending = {self._requests: b""}
        try:
            while True:
                events = selector.select(BEAT_SECONDS)
                if self._busy and not events:
                    self._say(event="beat")
                for key, _ in events:
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        if key.fd != self._requests:
                            self._say(event="gone", cause=self._end())
                        return
                    *lines, pending[key.fd] = (pending[key.fd] + chunk).split(b"\n")
                    for line in lines:
                        message = json.loads(line)
                        if key.fd != self._requests:
                            self._answered(message)
                        elif message["op"] == "start":
                            self._start(message)
                            assert self._host
                            assert self._host.stdout
                            pending[self._host.stdout.fileno()] = b""
                            selector.register(self._host.stdout, selectors.EVENT_READ)
                        else:
                            self._requested(message)
        finally:
            selector.close()
            self._end()

    def _start(self, message: dict[str, Any]) -> None:
        host = HostCommand(**message["host"])
        address = own_address(self._suite)
        environment = {**host.variables(os.environ), "TRAINPACE_NODE": self._name, "MASTER_ADDR": address}
        if "GLOO_SOCKET_IFNAME" not in environment and (interface := interface_of(address)):
            # Its own choice is the address of the host's name, which often is a loopback address.
            environment["GLOO_SOCKET_IFNAME"] = interface
        self._host = subprocess.Popen(
            host.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )

    def _requested(self, message: dict[str, Any]) -> None:
        if message["op"] == "window":
            if self._window is not None:
                self._window.open()
            return
        if message["op"] == "resume":
            self._resume()
            return
        if message["op"] == "run":
            counts = message["counts"]
            placed = {"node": self._node, "first": sum(counts[: self._node]), "count": counts[self._node]}
            message |= {"placed": placed, "watch": [os.getpid()]}
            if message["device"] == "cuda":
                message["gpu_cores"] = gpu_cores(placed["count"])
            self._window = GpuWindow(placed["count"]) if message["device"] == "cuda" else None
            self._busy = True
        if self._host is not None:
            assert self._host.stdin
            with suppress(BrokenPipeError):  # that it ended is told by its output
                self._host.stdin.write(json.dumps(message).encode() + b"\n")

    def _answered(self, message: dict[str, Any]) -> None:
        if message["event"] == "ended":
            health = None if self._window is None else self._window.close()
            message["health"] = health.model_dump(include={"faults", "notes"}) if health else {}
        if message["event"] == "paused":
            message |= self._pause()
        if message["event"] in {"ready", "ended", "refused"}:
            self._busy = False
        self._say(**message)

    def _pause(self) -> dict[str, Any]:
        """Stop the host, which has said that it may be; what is said of it besides."""
        assert self._host
        try:
            quiet.stop(self._host.pid)
        except RunFailed as failure:
            return {"event": "gone", "cause": failure.cause}
        self._scheduling = quiet.Scheduling.of(self._host.pid)
        return {"left": quiet.left(self._host.pid)}

    def _resume(self) -> None:
        assert self._host
        assert self._scheduling
        try:
            self._scheduling.check(self._host.pid, "the run host")
        except RunFailed as failure:
            self._say(event="gone", cause=failure.cause)
        else:
            quiet.go_on(self._host.pid)

    def _say(self, **message: Any) -> None:
        line = json.dumps({"node": self._node, **message}).encode() + b"\n"
        while line:  # a socket may take less than the whole
            line = line[os.write(self._answers, line) :]

    def _end(self) -> str:
        """The host ends its ranks, and itself, when its requests end. Returns how it ended, in words."""
        if self._host is None:
            return "there is no run host"
        assert self._host.stdin
        self._host.stdin.close()
        quiet.go_on(self._host.pid)  # where it was stopped it would not see that
        try:
            self._host.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._host.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._host.wait(timeout=5.0)
            self._host.kill()
            self._host.wait()
        return f"the run host ended ({describe_exit(self._host.returncode)})"


def facts(name: str, shared: Path) -> dict[str, Any]:
    """What a node is: fields of trainpace.launch.cluster.Node."""
    machine = present()
    try:
        disk = shutil.disk_usage(shared).free
    except OSError:
        disk = None
    return {
        "name": name,
        "machine": orphans.this_machine(),
        "gpus": machine.gpus.model_dump() if machine.gpus else None,
        "gpu_uuids": gpu_uuids(),
        "cpu": machine.cpu.model_dump(),
        "cores_present": os.cpu_count(),
        "gpu_free_bytes": machine.gpu_free_bytes,
        "gpu_capability": machine.gpu_capability,
        "free_bytes": machine.free_bytes,
        "notes": machine.notes,
        "links": gpu_links(),
        "network": network(),
        "shared_memory_bytes": shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,  # noqa: S108
        "shared_folder_bytes": disk,
    }


def network(root: Path = Path("/sys/class")) -> str:
    """What joins this node to others: `infiniband` where a port of it is up (RoCE: `roce`), else `ethernet`."""
    layers = set()
    for port in sorted(root.glob("infiniband/*/ports/*")):
        with suppress(OSError):
            if "ACTIVE" in (port / "state").read_text():
                layers.add((port / "link_layer").read_text().strip().lower())
    if "infiniband" in layers:
        return "infiniband"
    return "roce" if layers else "ethernet"


def own_address(to: str) -> str:
    """This machine's address on its way to another: what the others reach it by. Sends nothing."""
    family, kind, _, _, address = socket.getaddrinfo(to, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address; None where none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                wanted = struct.pack("256s", name.encode()[:15])
                found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, wanted)[20:24]
                if socket.inet_ntoa(found) == address:
                    return name
    return None
