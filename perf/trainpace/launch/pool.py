"""Run hosts of one session by what they run: started when first asked for, ended with it; one run at a time."""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from trainpace.cases.machine import Device
from trainpace.cases.workload import Workload
from trainpace.errors import FileError, RunFailed
from trainpace.launch import orphans, quiet
from trainpace.launch.environment import say_withheld, withheld
from trainpace.launch.folders import explained, keep_logs, run_folder, work_folder
from trainpace.launch.host_client import HostCommand, Hosts, NodeLost
from trainpace.launch.launcher import Launcher
from trainpace.launch.quiet import Scheduling
from trainpace.rank import proc
from trainpace.runs.run import Run
from trainpace.store.files import check_record

_COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch keeps the code that it compiles."""


@dataclass(kw_only=True)
class Begun:
    """One run, from ready hosts to its record."""

    hosts: Hosts
    command: HostCommand
    """What started the hosts."""
    id: str
    folder: Path
    kept: bool
    """Whether the folder outlives the run."""
    _began: float = 0.0
    _started: str = ""

    def start(self, **request: Any) -> None:
        """Have the hosts start its ranks; `request` is what rank/protocol.py says, without `op`, `id` and `folder`."""
        request |= {"id": self.id, "folder": str(self.folder)}
        if self.kept:
            with suppress(OSError):
                (self.folder / "request.json").write_text(
                    json.dumps({"host": asdict(self.command), "run": request}, indent=1)
                )
        self._began, self._started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        self.hosts.start_run(**request)

    def record(
        self, workload: Workload, *, device: Device, first_step: float, ranks: Sequence[Any], **more: Any
    ) -> Run:
        """The run's record.

        Args:
            workload: what was trained.
            device: on what.
            first_step: when the first step was done, monotonic seconds.
            ranks: samples of each rank.
            more: other fields of a Run.

        Raises:
            RunFailed: where the samples are none.
        """
        fields = {"id": self.id, "started": self._started, "workload": workload, "device": device, "ranks": ranks}
        fields["startup_seconds"] = first_step - self._began
        try:
            return check_record(fields | more, Run, where="the samples cannot be used")
        except FileError as error:
            cause, _, rest = str(error).partition("\n")
            raise RunFailed(cause, detail=rest) from None


class Pool:
    """Used as a context: its processes and files are gone at the end."""

    def __init__(self, launcher: Launcher, keep_logs: Path | None = None) -> None:
        """
        Args:
            launcher: what starts the hosts.
            keep_logs: where the folder of every run is kept, as `<case>/<run id>/`; None: removed with the run.
        """
        self.launcher = launcher
        self._keep_logs = keep_logs
        self._logs: dict[str, Path] = {}
        self._hosts: dict[str, Hosts] = {}
        self._folder: Path | None = None
        self._scheduling = Scheduling.of(0)
        self._adopted = False

    def __enter__(self) -> Self:
        orphans.sweep(self.launcher.parent)
        self._adopted = proc.adopts_orphans()
        proc.adopt_orphans()
        self._scheduling = Scheduling.of(0)
        self._folder = work_folder(self.launcher.parent)
        return self

    def __exit__(self, *_: object) -> None:
        for hosts in self._hosts.values():
            hosts.kill()
        self._hosts.clear()
        proc.adopt_orphans(self._adopted)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """What runs write lies here."""
        assert self._folder, "used outside its `with`"
        return self._folder

    @property
    def pids(self) -> list[int]:
        """Process ids of what speaks for the hosts here."""
        return [hosts.pid for hosts in self._hosts.values() if hosts.pid is not None]

    @contextmanager
    def run(self, command: HostCommand, *, case: str, nodes: int = 1, ranks: int) -> Iterator[Begun]:
        """Hosts that are ready for one run of `ranks` ranks on `nodes` nodes; at its end nothing of the run is left.

        Nothing but its logs, where those are kept, by `case`.

        Raises:
            RunFailed: what is raised inside, with what the ranks printed; and where the hosts cannot be started.
        """
        compared = bool(command.settings["apart"])
        if compared:
            # Whatever the other side did to this process is inherited by the hosts that it starts.
            self._scheduling.check(0, "the suite")
        command = self.of_session(command)
        key = json.dumps([command.python, dict(command.settings), dict(command.environment), nodes])
        run_id = uuid.uuid4().hex[:12]
        kept = self._keep_logs / case / run_id if self._keep_logs else None
        self._pause_others(key)
        if key not in self._hosts:
            self._start(key, command, nodes, kept)
        hosts = self._hosts[key]
        outside = self._outside()
        folder = run_folder(self.folder, run_id, ranks)
        try:
            hosts.resume()
            yield Begun(hosts=hosts, command=command, id=run_id, folder=folder, kept=kept is not None)
            if compared and self.launcher.lasting:
                _pause(hosts)
        except RunFailed as error:
            if isinstance(error, NodeLost):
                self.launcher.exclude_node(error.node)
            raise explained(error, folder, kept, _missed(command)) from None
        finally:
            if not (hosts.end_run() and hosts.is_clean and self.launcher.lasting):
                self._hosts.pop(key).kill()
            quiet.end_strays(self._outside() - outside)
            if kept:
                keep_logs(folder, self._logs[key], kept)
            shutil.rmtree(folder, ignore_errors=True)

    def of_session(self, command: HostCommand) -> HostCommand:
        """`command` with a folder for the code that torch compiles: the session's, and the side's own.

        What is compiled there once a session is loaded by its later runs. What one side compiled the other must not
        load: torch knows it by the graph, and not by the code that made the graph. A folder that the user has set is
        taken where nothing is compared.
        """
        if _COMPILED in os.environ and not command.settings["apart"]:
            return command
        side = json.dumps([command.python, dict(command.settings)], sort_keys=True)
        folder = self.folder / "compiled" / hashlib.sha256(side.encode()).hexdigest()[:12]
        return replace(command, environment={**command.environment, _COMPILED: str(folder)})

    def _pause_others(self, key: str) -> None:
        """Stop every host but this one: what it has started must not run beside the ranks that are measured."""
        for other, hosts in list(self._hosts.items()):
            if other != key:
                try:
                    hosts.pause()
                except RunFailed:
                    self._hosts.pop(other).kill()

    def _outside(self) -> set[int]:
        """What descends from this process and is no host's: what a host that was killed has left is among it."""
        if self.launcher.nodes:  # elsewhere
            return set()
        found = proc.descendants(os.getpid())
        for pid in self.pids:
            found -= {pid} | proc.descendants(pid)
        return found

    def _start(self, key: str, command: HostCommand, nodes: int, kept: Path | None) -> None:
        log = self._logs[key] = self.folder / f"host-{uuid.uuid4().hex[:8]}.log"
        hosts = Hosts(self.launcher.connect(command, nodes, log))
        try:
            hosts.wait_ready()
        except BaseException as error:
            hosts.kill()
            if isinstance(error, NodeLost):
                self.launcher.exclude_node(error.node)
            if kept:
                keep_logs(None, log, kept)
            if isinstance(error, RunFailed):
                where = f"the host's log: {kept}" if kept else ""
                error.detail = "\n".join(filter(None, (error.detail.rstrip(), _missed(command), where)))
            raise
        self._hosts[key] = hosts


def _pause(hosts: Hosts) -> None:
    """Stop hosts whose run has ended.

    Raises:
        RunFailed: where something else than hosts ran beside it.
    """
    if hosts.end_run() and (left := hosts.pause()):
        raise RunFailed(quiet.say_left(left))


def _missed(command: HostCommand) -> str:
    """Which variables were withheld: one may be what the trainer missed."""
    return say_withheld(withheld(os.environ, command.added))
