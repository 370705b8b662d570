"""The run host by itself, spoken to as the judging side speaks to it."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import trainpace
from factories import make_workload
from repository import TOY, wait_for
from trainpace.rank import host as host_room

HOST = Path(trainpace.__file__).parent / "rank" / "__main__.py"
PATIENCE = 20.0


def settings(**overrides):
    """What a host is started with."""
    chosen = {
        "parent": os.getpid(),
        "loop": "loop",
        "checkout": str(TOY),
        "apart": [],
        "folder": None,
        "preload": ["toy_trainer"],
        "software": ["pytest", "no-such-distribution"],
    }
    return chosen | overrides


def request(folder, mark):
    """A run of a toy that hangs in its second step."""
    wishes = {"do": "hang", "step": 1, "mark": str(mark)}
    shape = make_workload().shape.model_copy(update={"config": wishes})
    return {
        "op": "run",
        "id": "one",
        "folder": str(folder),
        "trainer": "toy_trainer:Toy",
        "workload": make_workload(shape=shape).model_dump(),
        "device": "cpu",
        "pin": True,
        "data": {},
        "cache": str(folder),
        "watch": [],
    }


@pytest.fixture
def start(started):
    """Starts hosts, by their settings."""

    def begin(**overrides):
        return subprocess.Popen(
            [sys.executable, HOST, json.dumps(settings(**overrides))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    return begin


def spoiling(folder):
    """A trainer's module whose import spoils CUDA for what is forked, as asking whether a GPU is there does; without
    one, torch is made to say so."""
    spoils = "torch.cuda._is_in_bad_fork = lambda mother=os.getpid(): os.getpid() != mother"
    (folder / "spoiling.py").write_text(f"import os, torch\n{spoils}\n")
    return {"checkout": str(folder), "preload": ["spoiling"]}


def test_cuda_spoilt_by_an_import(start, tmp_path):
    """A trainer whose import leaves forked ranks without CUDA is refused before any is forked."""
    answer, _ = start(**spoiling(tmp_path), device="cuda").communicate("", timeout=PATIENCE)
    refused = json.loads(answer)

    assert refused["event"] == "refused"
    assert "CUDA was initialised while spoiling was imported" in refused["cause"]


def test_cuda_that_no_rank_needs(start, tmp_path):
    """On a CPU it does not matter: the commonest build of torch is one for CUDA, also where there is no GPU."""
    answer, _ = start(**spoiling(tmp_path), device="cpu").communicate("", timeout=PATIENCE)

    assert json.loads(answer)["event"] == "ready"


def test_what_decides_speed_is_told(start, monkeypatch):
    """Settings of CUDA and NCCL in a host's environment stand beside the versions; a node's own interface does not."""
    for name, value in (("NCCL_ALGO", "Ring"), ("CUDA_DEVICE_MAX_CONNECTIONS", "1"), ("NCCL_SOCKET_IFNAME", "eth0")):
        monkeypatch.setenv(name, value)
    answer, _ = start().communicate("", timeout=PATIENCE)
    told = json.loads(answer)["software"]

    assert (told["NCCL_ALGO"], told["CUDA_DEVICE_MAX_CONNECTIONS"]) == ("Ring", "1")
    assert "NCCL_SOCKET_IFNAME" not in told


def test_the_driver_is_told(monkeypatch, tmp_path):
    """As the kernel's module of it says."""
    (tmp_path / "version").write_text("580.159.04\n")
    monkeypatch.setattr(host_room, "_DRIVER", tmp_path / "version")

    assert host_room.versions([])["nvidia-driver"] == "580.159.04"


PLACES = """
import gc, json, os
class Trainer:
    def setup(self, context):
        print(json.dumps([sorted(os.sched_getaffinity(0)), gc.get_freeze_count()]), flush=True)
        raise SystemExit(3)
"""


@pytest.mark.parametrize(
    "near", [lambda all_: [all_[-1]], lambda all_: [*all_, 4000], lambda _: []], ids=["one", "all", "unknown"]
)
def test_ranks_beside_their_gpu(start, tmp_path, near):
    """A rank may use the cores beside its GPU's memory, of those that it has; all of them where none is told. What was
    imported before it began is no garbage to look for."""
    present = sorted(os.sched_getaffinity(0))
    (tmp_path / "placed.py").write_text(PLACES)
    (tmp_path / "rank-0.jsonl").touch()
    host = start(checkout=str(tmp_path), preload=["placed"])
    run = request(tmp_path, tmp_path / "mark")
    run |= {"trainer": "placed:Trainer", "pin": False, "gpu_cores": [near(present)]}
    run["workload"] = make_workload(ranks=1).model_dump()
    host.stdout.readline()
    host.stdin.write(json.dumps(run) + "\n")
    host.stdin.flush()
    host.stdout.readline()
    host.stdout.readline()
    cores, frozen = json.loads((tmp_path / "rank-0.log").read_text().splitlines()[0])

    assert cores == (sorted(set(near(present)) & set(present)) or present)
    assert frozen > 1000


def test_ready_says_protocol_and_versions(start):
    """The first answer tells what the host speaks, and the versions that are installed where it runs."""
    answer, _ = start().communicate("", timeout=PATIENCE)
    ready = json.loads(answer)

    assert (ready["event"], ready["protocol"]) == ("ready", 1)
    assert {"python", "pytest"} == ready["software"].keys()


def test_answers_are_not_for_the_preloaded(start, tmp_path):
    """A module that prints while it is imported does not speak for the host, and reads nothing of its requests."""
    (tmp_path / "chatty.py").write_text(
        "import os, sys\nprint('hello')\nos.write(1, b'hello')\nassert not sys.stdin.read()"
    )
    answer, said = start(checkout=str(tmp_path), preload=["chatty"]).communicate("", timeout=PATIENCE)

    assert json.loads(answer)["event"] == "ready"
    assert said.count("hello") == 2


def test_host_imports_nothing_of_the_suite(start, tmp_path):
    """Nothing of trainpace comes along, from beside the host or elsewhere: what is measured brings its own."""
    (tmp_path / "look.py").write_text(
        "import sys\nfound = [name for name in sys.modules if name.partition('.')[0] in {'perf', 'trainpace'}]\n"
        "raise RuntimeError(f'{found} {sys.path[0]}')"
    )
    answer, _ = start(checkout=str(tmp_path), preload=["look"]).communicate("", timeout=PATIENCE)

    assert f"RuntimeError: [] {tmp_path}" == json.loads(answer)["cause"]


@pytest.mark.parametrize("path", sorted(HOST.parent.glob("*.py")), ids=lambda path: path.name)
def test_only_the_standard_library_and_torch(path):
    """Besides its neighbours, by relative imports: `trainpace` there is the measured side's."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}

    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"torch"}


def test_trainpace_is_the_measured_sides(start, tmp_path):
    """`import trainpace` gives the checkout's; the judging side's code beside it has another name."""
    (tmp_path / "trainpace").mkdir()
    (tmp_path / "trainpace" / "__init__.py").touch()
    (tmp_path / "look.py").write_text(
        "import sys, trainpace\nfound = [name for name in sys.modules if name.startswith('trainpace.')]\n"
        "raise RuntimeError(f'{trainpace.__file__} {found} {sys.modules[\"trainpace_rank.host\"].__file__}')"
    )
    answer, _ = start(checkout=str(tmp_path), preload=["look"]).communicate("", timeout=PATIENCE)

    cause = f"RuntimeError: {tmp_path / 'trainpace' / '__init__.py'} [] {HOST.with_name('host.py')}"
    assert cause == json.loads(answer)["cause"]


def test_refused_import_ends_the_host(start):
    """A preload that raises is an answer, with its traceback, and the end."""
    host = start(preload=["broken_toy"])
    answer, _ = host.communicate("", timeout=PATIENCE)

    assert (
        json.loads(answer)["event"],
        json.loads(answer)["cause"],
    ) == ("refused", "ZeroDivisionError: division by zero")
    assert "broken_toy.py" in json.loads(answer)["detail"]
    assert host.returncode == 0


def test_host_of_a_dead_parent_ends(start):
    """A host whose parent died before it could ask the kernel to be told ends by itself."""
    host = start(parent=1)

    assert host.communicate("", timeout=PATIENCE) == ("", "")


@pytest.mark.parametrize("end", ["close", signal.SIGTERM, signal.SIGKILL], ids=str)
def test_ranks_end_with_the_host(start, started, tmp_path, end):
    """Ranks of a run under way end with the host: when its standard input closes, and by any signal."""
    host = start()
    host.stdin.write(json.dumps(request(tmp_path, tmp_path / "mark")) + "\n")
    host.stdin.flush()
    wait_for(tmp_path / "mark", host)
    alive = len(started.pids())
    host.stdin.close() if end == "close" else host.send_signal(end)
    host.wait(PATIENCE)

    assert alive == 3
    assert started.left() == []


def test_interrupt_is_not_for_the_host(start):
    """Ctrl-C belongs to the judging side: a host goes on."""
    host = start()
    host.stdout.readline()
    host.send_signal(signal.SIGINT)
    time.sleep(0.1)

    assert host.poll() is None
    host.communicate("", timeout=PATIENCE)


def test_each_rank_has_its_core(start, tmp_path):
    """Ranks on a CPU are pinned, each to a core of its own where there are enough."""
    host = start()
    host.stdin.write(json.dumps(request(tmp_path, tmp_path / "mark")) + "\n")
    host.stdin.flush()
    wait_for(tmp_path / "mark", host)
    _, begun = (json.loads(host.stdout.readline()) for _ in range(2))
    cores = {tuple(psutil.Process(pid).cpu_affinity()) for pid in begun["pids"]}
    host.communicate("", timeout=PATIENCE)

    assert min(2, len(os.sched_getaffinity(0))) == len(cores)
