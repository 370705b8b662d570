"""The command `pytest`, forked from a process that has imported it: to import costs a session three times what it does.

A forked session is a process as a user's is, with its own folder, environment, core, signals and exit status. What it
cannot show is how it starts: which modules it finds, when it imports them, and what they do then. Sessions that show
that are started as users start them: those of the installed package (test_installed.py), a stranger's (test_plugin.py),
the judge's whose modules are looked at or written over (test_gate_sides.py), and every base's own.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

INTERPRETER = ("PYTHON", "LANG", "LC_", "LD_", "TZ")
"""Variables, by how their names begin, that an interpreter or a module reads once and for all."""
_AT_FIRST = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRAINPACE_"))}
_MOST_BYTES = 1 << 20
_running = set()


class Session:
    """One that was forked, by the names that subprocess.Popen has."""

    def __init__(self, server, pid, output):
        self._server, self._output = server, output
        self.pid, self.returncode = pid, None
        self._ended = os.pidfd_open(pid)
        _running.add(self)

    def poll(self):
        """Its exit status, less than 0 of a signal; None: it runs."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self.returncode = self._server.ask({"ended": self.pid})
            os.close(self._ended)
            _running.discard(self)
        return self.returncode

    def wait(self, timeout=None):
        """Wait for its end."""
        if self.poll() is None and not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("pytest", timeout)
        return self.poll()

    def communicate(self, timeout=None):
        """What it printed until its end; and None, for what it has no other pipe for."""
        deadline = None if timeout is None else time.monotonic() + timeout
        read = b""
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._output], [], [], left)[0]:
                raise subprocess.TimeoutExpired("pytest", timeout, read)
            if not (more := os.read(self._output, _MOST_BYTES)):
                break
            read += more
        os.close(self._output)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return read.decode(), None

    def send_signal(self, number):
        """To it, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._ended, number)

    def kill(self):
        """Outright."""
        self.send_signal(signal.SIGKILL)


class _Server:
    """The process that forks: one for each worker, for as long as that lives."""

    def __init__(self):
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
                # Threads do not outlive a fork.
                env=_AT_FIRST | {"OPENBLAS_NUM_THREADS": "1"},
            )

    def ask(self, request, descriptors=()):
        """The answer to a request: a number."""
        socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
        if not (answer := self._connection.recv(_MOST_BYTES)):
            raise ChildProcessError(f"{__file__} ended with {self._process.wait()}; its errors stand above")
        return json.loads(answer)


@cache
def _server():
    return _Server()


def start(words, *, folder, environment, cores):
    """Fork a session with these `words`, the first of which is the path of pytest's script.

    None: the environment is of another interpreter than the one that forks.
    """
    if _of_interpreter(environment) != _of_interpreter(_AT_FIRST):
        return None
    ours, theirs = os.pipe()
    try:
        request = {"words": words, "folder": str(folder), "environment": environment, "cores": sorted(cores)}
        return Session(_server(), _server().ask(request, [theirs]), ours)
    finally:
        os.close(theirs)


def running():
    """Sessions that were not seen to end."""
    return [each for each in list(_running) if each.poll() is None]


def _of_interpreter(environment):
    return {name: value for name, value in environment.items() if name.startswith(INTERPRETER)}


def _serve(connection):
    """Fork a session for each request that names its words; tell of those that ended; until the worker is gone."""
    while message := socket.recv_fds(connection, _MOST_BYTES, 1):
        text, descriptors, _, _ = message
        if not text:
            return None
        request = json.loads(text)
        if "ended" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["ended"], 0)[1])
        elif (answer := os.fork()) == 0:
            connection.close()
            return _become(request, *descriptors)
        else:
            os.close(*descriptors)
        connection.send(json.dumps(answer).encode())
    return None


def _become(request, output):
    """In the forked process: a session as it starts, with what it was given."""
    from _pytest.config import _console_main

    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.sched_setaffinity(0, request["cores"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = None
    sys.argv = request["words"]
    return _console_main()


def _main():
    """Import what sessions import: what pytest does in one without tests, then what those with tests need."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    sys.path[0] = str(Path(sys.executable).parent)  # as of a script there
    import pytest

    from trainpace.app.beforehand import import_all

    with tempfile.TemporaryDirectory() as folder:
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder])
    import_all()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a worker's Ctrl-C is its own affair
    gc.collect()
    gc.freeze()
    sys.exit(_serve(connection))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _main()
