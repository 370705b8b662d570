"""The launcher `slurm`: every run is one `srun` step, an agent with its run host on each of its nodes.

In an allocation the steps run there; else the session gets one of its own, and gives it back at its end. The allocation
is held by a process that ends when the suite does, however that ends.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from trainpace.cases.machine import Machine
from trainpace.errors import RunFailed
from trainpace.launch.agent import agent_command, start_line
from trainpace.launch.cluster import Node, ask_nodes, machine_of
from trainpace.launch.environment import given
from trainpace.launch.host_client import HostCommand, Pipe, Transport
from trainpace.store.files import writing

_END_SECONDS = 5.0
# What a batch script asked for its own tasks; a step that inherits it would get a part of the node.
_OF_TASKS = re.compile(
    r"(SLURM|SRUN)_(NTASKS.*|NPROCS|TASKS_PER_NODE|CPUS_PER_TASK|CPUS_PER_GPU|GPUS|GPUS_PER_TASK|GPUS_PER_SOCKET|"
    r"TRES_PER_TASK|TRES_BIND|GPU_BIND|CPU_BIND.*|MEM_PER_.*|DISTRIBUTION|HINT|THREADS_PER_CORE|CORE_SPEC|NNODES|"
    r"NODELIST|STEP.*|OVERLAP|EXACT)"
)


def for_step(variables: Mapping[str, str]) -> dict[str, str]:
    """Of an allocation's variables those that a step of ours may inherit."""
    return {name: value for name, value in variables.items() if not _OF_TASKS.fullmatch(name)}


class Slurm:
    """Steps in one allocation."""

    lasting = False

    def __init__(self, *, shared: Path, options: Sequence[str], nodes: int) -> None:
        """
        Args:
            shared: a folder that all nodes see.
            options: of `salloc`, for an allocation of the session's own; none inside of one.
            nodes: that the own allocation gets, unless `options` say.

        Raises:
            RunFailed: where there is no Slurm, or no allocation.
        """
        with writing(shared):
            shared.mkdir(parents=True, exist_ok=True)
        self.parent: Path | None = shared
        self._shared = shared
        self._held: subprocess.Popen[str] | None = None
        self._excluded: set[str] = set()
        self._job = os.environ.get("SLURM_JOB_ID", "")
        listed = os.environ.get("SLURM_JOB_NODELIST", "")
        if not self._job:
            self._job, listed = self._allocate(options, nodes)
        elif options:
            raise RunFailed(f"--perf-slurm asks for an allocation, and this is one (job {self._job}): leave it out")
        self._names = tuple(_said("scontrol", "show", "hostnames", listed).split())

    @cached_property
    def nodes(self) -> Sequence[Node]:
        """See Launcher. Asks an agent on each node, in a step of its own."""
        log = Path(tempfile.gettempdir()) / f"trainpace-{os.getpid()}-{uuid.uuid4().hex[:8]}.log"
        try:
            return ask_nodes(self._step(self._names, log))
        finally:
            log.unlink(missing_ok=True)

    def machine(self) -> Machine:
        """See Launcher."""
        return machine_of(self.nodes)

    def connect(self, host: HostCommand, nodes: int, log: Path) -> Transport:
        """See Launcher."""
        there = [name for name in self._names if name not in self._excluded]
        if len(there) < nodes:
            lost = f"; lost: {', '.join(sorted(self._excluded))}" if self._excluded else ""
            raise RunFailed(f"expected {nodes} nodes, {len(there)} are there{lost}")
        return self._step(there[:nodes], log, host)

    def exclude_node(self, node: str) -> None:
        """See Launcher."""
        self._excluded.add(node)

    def close(self) -> None:
        """Give the session's own allocation back."""
        if self._held is not None:
            assert self._held.stdin
            with contextlib.suppress(BrokenPipeError):
                self._held.stdin.close()
            try:
                self._held.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                _run("scancel", self._job)
                self._held.kill()
                self._held.wait()
            assert self._held.stdout
            self._held.stdout.close()

    def _step(self, names: Sequence[str], log: Path, host: HostCommand | None = None) -> "Step":
        return Step(self._job, tuple(names), self._shared, log, host)

    def _allocate(self, options: Sequence[str], nodes: int) -> tuple[str, str]:
        """Get an allocation, and hold it by a process whose input is ours: when we end, however, it does.

        Returns:
            The job's number and the list of its nodes.
        """
        asked = [f"--{option}" for option in options]
        if not any(re.match(r"(nodes|N)\b", option) for option in options):
            asked.insert(0, f"--nodes={nodes}")
        hold = 'echo "$SLURM_JOB_ID $SLURM_JOB_NODELIST"; exec cat > /dev/null'
        self._held = subprocess.Popen(
            [_tool("salloc"), "--job-name=trainpace", *asked, "sh", "-c", hold],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._held.stdout
        assert self._held.stderr
        # Whoever waits in a queue waits as long as --perf-slurm's own immediate=SECONDS says.
        line = self._held.stdout.readline().split()
        if len(line) != 2:
            said = self._held.stderr.read().strip()
            self._held.stderr.close()
            self.close()
            raise RunFailed(f"Slurm gave no allocation: {said.splitlines()[-1] if said else 'salloc said nothing'}")
        self._held.stderr.close()
        return line[0], line[1]


class Step(Pipe):
    """One job step: an agent on each of its nodes."""

    def __init__(
        self,
        job: str,
        names: tuple[str, ...],
        shared: Path,
        log: Path,
        host: HostCommand | None,
    ) -> None:
        self._job, self._name = job, f"trainpace-{uuid.uuid4().hex[:8]}"
        count = len(names)
        command = [
            _tool("srun"),
            f"--jobid={job}",
            f"--job-name={self._name}",
            f"--nodes={count}",
            f"--ntasks={count}",
            "--ntasks-per-node=1",
            f"--nodelist={','.join(names)}",
            "--overlap",  # also inside an interactive step, which holds all of the allocation
            "--cpu-bind=none",
            "--mpi=none",
            "--kill-on-bad-exit=1",
            "--unbuffered",
            *agent_command(shared=shared),
        ]
        # srun gives it to the agents. What srun itself may need to be let in is not for the host that they start.
        inherited = given(os.environ, ("SLURM_JWT", *(host.added if host else ())))
        super().__init__(command, for_step(inherited), log, nodes=names)
        if host is not None:
            self.send(start_line(host))

    def kill(self) -> None:
        """End the step: agents end when their input does; what does not is ended by Slurm."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            if how is not None:
                self.process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=_END_SECONDS)
                break
        for step in self._left():
            _run("scancel", step)
        self.close()

    def ended(self) -> RunFailed:
        """See Transport."""
        code = self.process.wait()
        tail = self.stderr_tail()
        said = [line for line in tail.splitlines() if line.startswith(("srun: ", "slurmstepd: "))]
        return RunFailed(f"the step ended (exit status {code}{': ' + said[-1] if said else ''})", detail=tail)

    def track_group(self, pid: int) -> None:
        """See Transport: it is another machine's, and ends with the step."""

    def _left(self) -> list[str]:
        """This step, where it is still there."""
        found = _said("squeue", "--noheader", "--steps", f"--jobs={self._job}", "--format=%i %j").splitlines()
        return [line.split()[0] for line in found if line.split()[1:] == [self._name]]


def _said(*command: str) -> str:
    """What one of Slurm's commands prints."""
    done = _run(*command)
    if done.returncode:
        raise RunFailed(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def _run(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([_tool(name), *arguments], capture_output=True, text=True, check=False)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RunFailed(f"--perf-launcher slurm: there is no {name} here: start the suite where Slurm's commands are")
    return found
