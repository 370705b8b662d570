"""Run hosts of one session by what they run: started when first asked for, ended with it; one run at a time."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from trainpace.errors import RunFailed
from trainpace.launch import orphans
from trainpace.launch.folders import explained, keep_logs, run_folder, work_folder
from trainpace.launch.host_client import HostCommand, Hosts, NodeLost
from trainpace.launch.launcher import Launcher


@dataclass(frozen=True)
class Begun:
    """Ready hosts, and the folder of the run that they are to be asked for."""

    hosts: Hosts
    id: str
    folder: Path


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

    def __enter__(self) -> Self:
        orphans.sweep(self.launcher.parent)
        self._folder = work_folder(self.launcher.parent)
        return self

    def __exit__(self, *_: object) -> None:
        for hosts in self._hosts.values():
            hosts.kill()
        self._hosts.clear()
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
        key = json.dumps([command.python, dict(command.settings), dict(command.environment), nodes])
        run_id = uuid.uuid4().hex[:12]
        kept = self._keep_logs / case / run_id if self._keep_logs else None
        if key not in self._hosts:
            self._start(key, command, nodes, kept)
        hosts = self._hosts[key]
        folder = run_folder(self.folder, run_id, ranks)
        try:
            yield Begun(hosts, run_id, folder)
        except RunFailed as error:
            if isinstance(error, NodeLost):
                self.launcher.exclude_node(error.node)
            raise explained(error, folder, kept) from None
        finally:
            if not (hosts.end_run() and self.launcher.lasting):
                self._hosts.pop(key).kill()
            if kept:
                keep_logs(folder, self._logs[key], kept)
            shutil.rmtree(folder, ignore_errors=True)

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
            raise
        self._hosts[key] = hosts
