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
from trainpace.launch import orphans as left
from trainpace.launch.folders import explained, run_folder, work_folder
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

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self._hosts: dict[str, Hosts] = {}
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        left.sweep(self.launcher.parent)
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
        """Of the processes that speak for the hosts."""
        return [hosts.pid for hosts in self._hosts.values()]

    @contextmanager
    def run(self, command: HostCommand, *, nodes: int = 1, ranks: int) -> Iterator[Begun]:
        """Hosts that are ready for one run of `ranks` ranks on `nodes` nodes; at its end nothing of the run is left.

        Raises:
            RunFailed: what is raised inside, with what the ranks printed; and where the hosts cannot be started.
        """
        key = json.dumps([command.python, dict(command.settings), dict(command.environment), nodes])
        hosts = self._hosts.get(key) or self._started(key, command, nodes)
        run_id = uuid.uuid4().hex[:12]
        folder = run_folder(self.folder, run_id, ranks)
        try:
            yield Begun(hosts, run_id, folder)
        except RunFailed as error:
            if isinstance(error, NodeLost):
                self.launcher.lose(error.node)
            raise explained(error, folder) from None
        finally:
            if not (hosts.end_run() and self.launcher.lasting):
                self._hosts.pop(key).kill()
            shutil.rmtree(folder, ignore_errors=True)

    def _started(self, key: str, command: HostCommand, nodes: int) -> Hosts:
        log = self.folder / f"host-{uuid.uuid4().hex[:8]}.log"
        hosts = Hosts(self.launcher.connect(command, nodes, log))
        try:
            hosts.wait_ready()
        except BaseException as error:
            hosts.kill()
            if isinstance(error, NodeLost):
                self.launcher.lose(error.node)
            raise
        self._hosts[key] = hosts
        return hosts
