"""The suite under torchrun on two nodes: network namespaces of this machine where it lets us, else its loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from repository import TOY, Done, wait_for
from trainpace.launch import torchrun
from trainpace.launch.torchrun import place

PATIENCE = 150.0


def ip(*arguments):
    """One of `ip`'s commands; whether it worked."""
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False)  # noqa: S607
    return done.returncode == 0


@contextmanager
def namespaces(count):
    """Network namespaces joined by a bridge, each with an address of its own; or None where there can be none."""
    names = [f"tp{os.getpid() % 10000}n{number}" for number in range(count)]
    bridge = f"tp{os.getpid() % 10000}b"
    made = [ip("link", "add", bridge, "type", "bridge") and ip("link", "set", bridge, "up")]
    try:
        for number, name in enumerate(names):
            link = f"{name}v"
            made += [
                ip("netns", "add", name),
                ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name),
                ip("link", "set", link, "master", bridge, "up"),
                ip("-n", name, "addr", "add", f"10.213.0.{number + 1}/24", "dev", "eth0"),
                ip("-n", name, "link", "set", "eth0", "up"),
                ip("-n", name, "link", "set", "lo", "up"),
            ]
        yield names if all(made) else None
    finally:
        for name in names:
            ip("netns", "del", name)
        ip("link", "del", bridge)


@pytest.fixture
def nodes():
    """How a command is started on each of two nodes, and the address of the first."""
    with namespaces(2) as names:
        if names is None:
            yield [[], []], "127.0.0.1"
        else:
            yield [["ip", "netns", "exec", name] for name in names], "10.213.0.1"


SLOWER = """
def setup(self, context):
    plain(self, context)
    self.wishes["seconds"] *= 2
Toy.setup = setup
"""


@pytest.fixture
def start(repository, nodes, tmp_path):
    """Starts the same command on both nodes; the processes of torchrun."""
    prefixes, address = nodes
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]

    def begin(*arguments, **toy):
        found = []
        for number, prefix in enumerate(prefixes):
            own = f"10.213.0.{number + 1}" if prefix else address
            options = [
                *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"),
                *("--rdzv-endpoint", f"{address}:{port}", "--local-addr", own),
                # By itself it hosts where the endpoint is its host's name, which both of these share.
                *("--rdzv-conf", f"is_host={int(number == 0)}", "-m"),
            ]
            found.append(
                subprocess.Popen(
                    [
                        *[*prefix, sys.executable, "-m", "torch.distributed.run", *options],
                        *["pytest", "perf", "--perf-launcher=torchrun", "--perf-scale=mini", *arguments],
                        *[f"--perf-shared={tmp_path / 'shared'}", f"--perf-runs={tmp_path / 'runs'}"],
                    ],
                    cwd=repository.path,
                    env=os.environ | {"TRAINPACE_TOY": json.dumps(toy), "XDG_STATE_HOME": str(tmp_path / "state")},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return found

    with ExitStack() as stack:
        yield lambda *arguments, **toy: [stack.enter_context(ended(process)) for process in begin(*arguments, **toy)]


@contextmanager
def ended(process):
    """A process that does not outlive its test."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process):
    text, _ = process.communicate(timeout=PATIENCE)
    print(text)  # noqa: T201 - shown where the test fails
    return Done(process.returncode, text)


def test_the_first_runs_the_suite_and_the_others_serve(start, tmp_path, started):
    """Every node's command ends well; the first one reports runs whose ranks are spread over both."""
    first, second = map(finish, start("-k", "8k", seconds=0.02))
    (run,) = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    reports = [done for done in (first, second) if "1 no baseline (ours-8k-sp1" in done.text]

    assert (first.code, second.code) == (0, 0)
    assert len(reports) == 1
    assert [node["ranks"] for node in run["nodes"]] == [1, 1]
    assert len({node["name"] for node in run["nodes"]}) == 2
    assert run["preflight"]["all_reduce_bytes_per_second"] > 0
    assert started.left() == []
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.slow
def test_head_against_base(repository, start, tmp_path, started):
    """Hosts of both sides last on both nodes, each stopped while the other's are measured; a slower head is red."""
    head = repository.copy(tmp_path / "head")
    trainer = head.path / "training.py"
    trainer.write_text(trainer.read_text() + "\nplain = Toy.setup\n" + SLOWER)
    first, second = map(finish, start("-k", "8k", "--perf-head=../head", "--perf-detect=0.2", seconds=0.02))

    assert (first.code, second.code) == (1, 0)
    assert "1 regression (ours-8k-sp1" in first.text
    assert started.left() == []


@pytest.mark.slow
def test_ranks_meet_over_the_network(repository, start, tmp_path):
    """Ranks with torch find each other from node to node."""
    for name in ("toy_trainer.py", "meeting_toy.py"):
        shutil.copy(TOY / name, repository.path)
    processes = start("-k", "8k", "--perf-trainer=meeting_toy:MeetingToy")

    assert [finish(process).code for process in processes] == [0, 0]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1


@pytest.mark.slow
def test_a_rank_fails(start, started):
    """A case that fails on one node is invalid, by name, the other is judged, and both commands end."""
    done = [finish(process) for process in start(do="raise", case="ours-8k-sp1", step=3, seconds=0.02)]
    (report,) = [each.text for each in done if "2 cases: " in each.text]

    assert "rank 1: ValueError: the toy broke (at step 3)" in report
    assert "1 no baseline (ours-32k-sp2" in report
    assert started.left() == []


@pytest.mark.slow
def test_a_node_is_lost(start, started, tmp_path):
    """The node that serves is killed in mid-run: invalid, and named, and the suite ends."""
    mark = tmp_path / "mark"
    processes = start("-k", "8k", seconds=0.3, step=5, mark=str(mark))
    wait_for(mark)
    served = next(process for process in processes if not reports(process))
    kill_all_of(served)
    (suite,) = [process for process in processes if process is not served]
    done = finish(suite)

    assert "is lost: " in done.text
    assert "1 invalid (ours-8k-sp1" in done.text
    assert started.left() == []


def reports(process):
    """Whether the suite runs below this torchrun: it has files open in the folder that is shared."""
    import psutil

    below = psutil.Process(process.pid).children(recursive=True)
    return any(child.environ().get("RANK") == "0" and "pytest" in " ".join(child.cmdline()) for child in below)


def kill_all_of(process):
    import psutil

    found = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in found:
        each.send_signal(signal.SIGSTOP)
    for each in found:
        each.kill()
    time.sleep(0.1)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "start this command under torchrun, on every node"),
        (
            {"RANK": "0", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1", "LOCAL_WORLD_SIZE": "8"},
            "expected torchrun --nproc-per-node 1, got 8: the suite starts a node's ranks itself",
        ),
    ],
)
def test_not_one_process_a_node(environment, said):
    """Without torchrun, or with several processes a node, the command says what to do."""
    with pytest.raises(ValueError, match=said):
        place(environment)


class Store:
    """In the place of torchrun's: keeps what rank 0 sets."""

    def set(self, _, value):
        self.port, self.word = value.split()


@pytest.fixture
def listener(monkeypatch, tmp_path):
    """The suite's end of two nodes, that waits for the other; what has become of it, and connections to it."""
    store = Store()
    monkeypatch.setattr(torchrun, "_store", lambda rank: store)
    monkeypatch.setattr(torchrun, "_HELLO_SECONDS", 0.3)
    monkeypatch.setattr(torchrun, "_GATHER_SECONDS", 10.0)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        suite = pool.submit(torchrun.Torchrun, shared=tmp_path)
        wait_for_port = time.monotonic() + 10
        while not hasattr(store, "word") and time.monotonic() < wait_for_port:
            time.sleep(0.01)

        def connect(line):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", int(store.port))))
            connection.sendall(line)
            return connection

        yield suite, connect, store.word
        suite.cancel()


@pytest.mark.parametrize(
    "line",
    ["é 1 control x\n".encode(), b"\xff\xff\n", b"wrong 1 control x\n", b"\n", b"x" * 100_000, b""],
    ids=lambda line: line[:9],
)
def test_who_does_not_know_the_word(listener, line):
    """Whatever somebody else sends, the suite waits for its nodes, and does not wait for him."""
    suite, connect, word = listener
    began = time.monotonic()
    connect(line)
    connect(f"{word} 1 control node2\n".encode())
    found = suite.result(timeout=10)
    found._listener.close()

    assert list(found._controls) == [1]
    assert time.monotonic() - began < 5


def test_who_sends_a_byte_at_a_time(listener):
    """The time is for the whole line, and not for each of its bytes."""
    suite, connect, word = listener
    slow = connect(b"")

    def drip():
        with suppress(OSError):
            while not suite.done():
                slow.sendall(b"x")
                time.sleep(0.05)

    dripping = threading.Thread(target=drip)
    dripping.start()
    connect(f"{word} 1 control node2\n".encode())
    found = suite.result(timeout=8)
    found._listener.close()
    dripping.join()

    assert list(found._controls) == [1]


def test_without_torchrun_is_a_usage_error(repository):
    """The option alone is refused before anything runs."""
    done = repository.suite("--perf-launcher=torchrun")

    assert done.code == 4
    assert "--perf-launcher torchrun: start this command under torchrun, on every node" in done.text
