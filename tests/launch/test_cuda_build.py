"""Whether forked ranks can use CUDA, in torch's build for it, which needs no GPU for this: `tox run -e cuda-build`."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import trainpace
from factories import make_workload
from trainpace.launch.host_client import Side, host_command

HOST = Path(trainpace.__file__).parent / "rank" / "__main__.py"
PATIENCE = 300.0
NATIVE = "import trainpace.trainers.native, deepspeed\nDEVICE = None\n"
ASKS = 'import torch\nDEVICE = "cuda" if torch.cuda.is_available() else "cpu"\n'
"""The line that most modules of PyTorch begin with."""
TRAINER = """
import json, torch
class Trainer:
    def setup(self, context):
        print(json.dumps([torch.cuda._is_in_bad_fork(), torch.cuda.is_initialized(), DEVICE]), flush=True)
        raise SystemExit(3)
"""


@pytest.fixture(scope="module", autouse=True)
def cuda_build():
    """Any other build of torch has nothing that could be spoilt."""
    torch = find_spec("torch")
    assert torch is not None
    if runpy.run_path(str(Path(torch.origin).with_name("version.py")))["cuda"] is None:
        pytest.skip("torch is built without CUDA here: tox run -e cuda-build")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of a stand-in for the driver's library, which torch asks how many GPUs there are."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in driver with")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).parents[1] / "probe" / "fake_nvml.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


@pytest.fixture
def answers(tmp_path, started):
    """What a host answers first to a trainer's module for GPUs, and what its first rank finds; None where it has none.

    The rank's own device is the CPU: a GPU is nowhere needed.
    """

    def of(module, **environment):
        (tmp_path / "ours.py").write_text(module + TRAINER)
        for name in ("rank-0.jsonl", "rendezvous"):
            (tmp_path / name).touch()
        command = host_command(Side(checkout=tmp_path), ["ours"], "cuda")
        given = command.variables(os.environ) | environment
        given["PYTHONPATH"] = str(Path(trainpace.__file__).parents[1])
        host = subprocess.Popen(
            [sys.executable, HOST, json.dumps(dict(command.settings) | {"parent": os.getpid()})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=given,
            text=True,
        )
        first = json.loads(host.stdout.readline())
        if first["event"] != "ready":
            host.communicate(timeout=PATIENCE)
            return first, None
        run = {"op": "run", "id": "one", "folder": str(tmp_path), "trainer": "ours:Trainer"}
        run |= {"workload": make_workload(ranks=1).model_dump(), "device": "cpu", "pin": False, "data": {}}
        run |= {"cache": str(tmp_path), "watch": [], "gpu_cores": []}
        host.stdin.write(json.dumps(run) + "\n")
        host.stdin.flush()
        assert json.loads(host.stdout.readline())["event"] == "started"
        assert json.loads(host.stdout.readline())["event"] == "ended"
        host.communicate(timeout=PATIENCE)
        return first, json.loads((tmp_path / "rank-0.log").read_text().splitlines()[0])

    return of


def test_what_is_preloaded_leaves_cuda_to_the_ranks(answers):
    """The native trainer and DeepSpeed, imported for GPUs: a rank that is forked afterwards can use CUDA."""
    first, rank = answers(NATIVE)

    assert first["event"] == "ready", first
    assert rank == [False, False, None]


def test_a_module_that_asks_for_a_gpu(answers, driver):
    """With a driver torch asks its library, which spoils nothing: the module finds the GPU, and so can its ranks."""
    first, rank = answers(ASKS, LD_LIBRARY_PATH=str(driver))

    assert first["event"] == "ready", first
    assert rank == [False, False, "cuda"]


def test_a_module_that_spoils_cuda(answers):
    """Without a driver the same question is CUDA's own: refused with its cause, before a rank is forked."""
    if shutil.which("nvidia-smi"):
        pytest.skip("a driver is installed here")
    first, _ = answers(ASKS)

    assert first["event"] == "refused"
    assert "CUDA was initialised while ours was imported" in first["cause"]


def test_a_module_that_uses_cuda(answers, driver):
    """With a driver only torch's question goes another way: a module that uses CUDA itself is refused."""
    first, _ = answers("import torch\nDEVICE = torch._C._cuda_getDeviceCount()\n", LD_LIBRARY_PATH=str(driver))

    assert first["event"] == "refused"
    assert "make tensors on them in its setup(), not where its module is imported" in first["cause"]
