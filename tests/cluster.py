"""A real Slurm on this machine: one controller and several node daemons, started and stopped by the tests.

The nodes are processes of this machine and share its cores. Slurm starts, places, ends and accounts for the steps as it
does on a cluster; what differs is that a node is lost by killing its processes.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_UP_SECONDS = 60.0
CONFIGURATION = """\
ClusterName=trainpace-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=300
KillWait=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=4 RealMemory=8000
PartitionName=all Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    needed = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "salloc", "squeue")
    absent = [name for name in needed if _found(name) is None]
    if absent:
        return f"no {', '.join(absent)}: install Debian's slurm-wlm and munge"
    return "" if os.getuid() == 0 else "a node daemon of Slurm needs root"


@dataclass
class Cluster:
    """A running one."""

    folder: Path
    nodes: int

    @property
    def environment(self) -> dict[str, str]:
        """What makes Slurm's commands speak to this cluster."""
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def command(self, *arguments: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(arguments, env=os.environ | self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def steps(self) -> list[str]:
        """Job steps that are there, without the one that an allocation's own shell is."""
        found = self.command("squeue", "--steps", "--noheader", "--format=%i").split()
        return [step for step in found if not step.endswith((".extern", ".batch"))]

    def jobs(self) -> list[str]:
        """Allocations that are there."""
        return self.command("squeue", "--noheader", "--format=%i").split()

    def state(self, job: str) -> str:
        """Of an allocation or step; empty where it is not there."""
        return self.command("squeue", "--noheader", f"--jobs={job.partition('.')[0]}", "--format=%T").strip()

    def lose(self, node: int) -> list[int]:
        """Kill everything of a node, as when its power goes: its daemon and all below it. Returns what was killed."""
        daemon = psutil.Process(int((self.folder / f"slurmd-n{node}.pid").read_text()))
        # Step daemons live on when theirs is restarted: they are its children no more.
        steps = [process for process in psutil.process_iter() if self._is_step_of(process, node)]
        lost = [daemon, *steps]
        for process in list(lost):
            with suppress(psutil.NoSuchProcess):
                lost += process.children(recursive=True)
        for process in lost:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)  # nobody of it may see another end, and say so
        for process in lost:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return [process.pid for process in lost]

    def _is_step_of(self, process: psutil.Process, node: int) -> bool:
        with suppress(psutil.Error):
            if process.name() != "slurmstepd":
                return False
            held = " ".join(process.cmdline()) + " ".join(file.path for file in process.open_files())
            below = [child.environ().get("SLURMD_NODENAME") for child in process.children()]
            return f"n{node}" in below or f"slurmd-n{node}.log" in held
        return False


@contextmanager
def running(folder: Path, *, nodes: int = 4) -> Iterator[Cluster]:
    """A cluster whose files lie in `folder`; all of it is gone at the end."""
    folder.chmod(0o755)
    controller, port, first = _free_ports(nodes)
    host = socket.gethostname()
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host,
            controller=controller,
            port=port,
            first=first,
            last=first + nodes - 1,
            nodes=nodes,
            folder=folder,
            user=getpass.getuser(),
        )
    )
    cluster = Cluster(folder, nodes)
    key = folder / "munge.key"
    subprocess.run([tool("mungekey"), "--create", f"--keyfile={key}"], check=True)
    commands = [
        [
            tool("munged"),
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        ],
        [tool("slurmctld"), "-D", "-c"],
        *([tool("slurmd"), "-D", "-c", "-N", f"n{node}"] for node in range(1, nodes + 1)),
    ]
    daemons = []
    try:
        with (folder / "daemons.log").open("wb") as log:
            cores = sorted(os.sched_getaffinity(0))
            for number, command in enumerate(commands):
                environment = os.environ | cluster.environment
                # A node has a core, as far as there are so many: ranks that all take every core are slower than slow.
                os.sched_setaffinity(0, {cores[number % len(cores)]} if "-N" in command else cores)
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
                os.sched_setaffinity(0, cores)
                if command[0].endswith("munged"):
                    _wait((folder / "munge.socket").exists, folder)
        _wait(
            lambda: len(cluster.command("sinfo", "--noheader", "-N", "-t", "idle", "-o", "%N").split()) == nodes, folder
        )
        yield cluster
    finally:
        _end(daemons, folder)


def _end(daemons: list["subprocess.Popen[bytes]"], folder: Path) -> None:
    """End the daemons and whatever they started, which is found by the cluster's configuration in its environment."""
    for daemon in daemons:
        daemon.kill()
        daemon.wait()
    configuration = str(folder / "slurm.conf")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("SLURM_CONF") == configuration:
                process.kill()


def _wait(ready: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while time.monotonic() < deadline:
        with suppress(subprocess.CalledProcessError):
            if ready():
                return
        time.sleep(0.1)
    raise RuntimeError(f"the cluster did not come up:\n{(folder / 'daemons.log').read_text()[-3000:]}")


def _free_ports(nodes: int) -> tuple[int, int, int]:
    """Of the controller, of the node daemons' default, and the first of as many consecutive ones as there are nodes."""
    base = 20000 + os.getpid() % 2000 * 16
    while True:
        wanted = range(base, base + nodes + 2)
        if all(_is_free(port) for port in wanted):
            return wanted[0], wanted[1], wanted[2]
        base += 16


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


def tool(name: str) -> str:
    """Where one of Slurm's commands is."""
    found = _found(name)
    assert found is not None, name
    return found
