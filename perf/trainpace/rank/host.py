"""The run host: a process of its own that owns the warm fork server and starts and ends the ranks of each run.

Loaded by path from the judging checkout (__main__.py), in the measured side's interpreter; imports nothing else of
`trainpace`: what is measured is imported from `checkout`, and never from the folders `apart`, which are the other
side's; what times it is not. It works in `folder`, and so do the ranks that it forks. Requests come as JSON lines on
standard input, answers leave as JSON lines on standard output (protocol.py); everything else that is printed goes to
standard error.

The host ends, and takes every rank with it, when its standard input closes or its parent dies.
"""

import gc
import importlib
import importlib.metadata
import json
import os
import platform
import re
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from . import fork
from .imports import Own
from .proc import adopt_orphans, die_with_parent
from .protocol import PROTOCOL, RunRequest, Settings


class Host:
    """Answers one request at a time; at most one run is under way."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Preloaded libraries print as they like: the two pipes are moved out of their reach first.
        self._requests = os.dup(0)
        self._answers = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        self._pending = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._requests, selectors.EVENT_READ)
        self._launch: fork.Launch | None = None

    def serve(self) -> None:
        """Preload, say `ready`, then answer until standard input closes."""
        try:
            begin = time.perf_counter()
            self._preload()
        except Exception as error:  # noqa: BLE001 - a trainer's import may raise anything: it is the answer
            self._answer(event="refused", cause=f"{type(error).__name__}: {error}", detail=traceback.format_exc())
            return
        # What is imported by now stays: no rank looks for garbage in it, which takes seconds, while the others wait.
        gc.freeze()
        self._answer(
            event="ready",
            protocol=PROTOCOL,
            software=versions(self._settings["software"]),
            preload_seconds=time.perf_counter() - begin,
        )
        # From here on there may be ranks to end; before, the signal's own effect is right.
        signal.signal(signal.SIGTERM, self._terminated)
        loop = importlib.import_module(f".{self._settings['loop']}", __package__)
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._requests:
                    requests = self._read()
                    if requests is None:
                        return
                    for request in requests:
                        self._take(request, loop)
                else:
                    self._ended(key.fd)

    def close(self) -> None:
        """End the run that is under way, if any, and wait for it."""
        if self._launch is not None:
            self._launch.kill()
            self._launch.sweep()

    def _terminated(self, *_: Any) -> None:
        """End here and now: an exception could hit `close` itself, since a parent that dies also closes the pipe."""
        self.close()
        os._exit(128 + signal.SIGTERM)

    def _preload(self) -> None:
        if self._settings["folder"]:
            os.chdir(self._settings["folder"])
            os.environ["PWD"] = self._settings["folder"]
        Own(self._settings["checkout"], self._settings["apart"]).apply()
        for name in self._settings["preload"]:
            importlib.import_module(name)
        if self._settings.get("device") == "cuda" and not _forks_can_use_cuda():
            raise RuntimeError(
                f"CUDA was initialised while {' and '.join(self._settings['preload'])} was imported, and a rank, which "
                "is forked, could not use it any more: have the trainer ask for devices and make tensors on them in "
                "its setup(), not where its module is imported"
            )

    def _read(self) -> list[dict[str, Any]] | None:
        chunk = os.read(self._requests, 1 << 16)
        if not chunk:
            return None
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def _take(self, request: Any, loop: ModuleType) -> None:
        if request["op"] == "kill":
            if self._launch is not None:
                self._launch.kill()
            return
        assert self._launch is None, "one run at a time"
        if request["op"] == "pause":
            # Whoever asks stops this process next: nothing but SIGKILL ends it then.
            die_with_parent(signal.SIGKILL)
            self._answer(event="paused")
            return
        die_with_parent(signal.SIGTERM)
        run: RunRequest = request

        def rank_main(rank: int, local_rank: int) -> int:
            os.close(self._requests)
            os.close(self._answers)
            return int(loop.main(run, rank, local_rank))

        self._launch = fork.Launch(run, rank_main)
        for fd in self._launch.fds():
            self._selector.register(fd, selectors.EVENT_READ)
        self._answer(event="started", id=run["id"], pids=self._launch.pids())

    def _ended(self, fd: int) -> None:
        """A rank ended. The first that fails ends the others: a collective would wait for it for ever."""
        self._selector.unregister(fd)
        assert self._launch is not None
        if self._launch.reap(fd):
            exits, self._launch = self._launch.exits(), None
            self._answer(event="ended", exits=exits)

    def _answer(self, **message: Any) -> None:
        os.write(self._answers, json.dumps(message).encode() + b"\n")


def _forks_can_use_cuda() -> bool:
    """Whether what is forked from this process can use CUDA: a fork tells, for torch says it only there."""
    torch = sys.modules.get("torch")
    if torch is None:
        return True
    pid = os.fork()
    if pid == 0:
        # Asking whether a GPU is there is enough to spoil it, with no driver as with one, and is not told by
        # torch.cuda.is_initialized().
        os._exit(int(torch.cuda._is_in_bad_fork()))  # noqa: SLF001 - there is no public name
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


_DRIVER = Path("/sys/module/nvidia/version")
_SETTINGS = re.compile(
    r"(TORCH_)?NCCL_\w+|CUDA_DEVICE_MAX_CONNECTIONS|CUDA_LAUNCH_BLOCKING|CUBLAS_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE"
)
# What names a node's own interfaces, or what is logged.
_NO_SETTING = re.compile(r"\w*(IFNAME|IB_HCA|HOSTID|TOPO_FILE|CONF_FILE|DEBUG\w*|PKEY|COMM_ID)")


def versions(names: list[str]) -> dict[str, str]:
    """What decides speed: versions of the installed distributions among `names`, Python's and the GPUs' driver's, and
    settings of CUDA and NCCL in this process's environment."""
    found = {"python": platform.python_version()}
    with suppress(OSError):
        found["nvidia-driver"] = _DRIVER.read_text().strip()
    found |= {
        name: value
        for name, value in os.environ.items()
        if _SETTINGS.fullmatch(name) and not _NO_SETTING.fullmatch(name)
    }
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(read_settings: Callable[[], Settings] = lambda: json.loads(sys.argv[1])) -> None:
    """Serve until the judging side closes the pipe."""
    die_with_parent(signal.SIGTERM)
    adopt_orphans()
    settings = read_settings()
    if os.getppid() != settings["parent"]:
        return  # the parent died before the kernel was asked
    # Ctrl-C belongs to the judging side, which closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = Host(settings)
    try:
        host.serve()
    finally:
        host.close()
