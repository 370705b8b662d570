"""Libraries' own ways to train on several ranks, under an adapter: the losses of each rank, and what is profiled."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainpace

SCRIPT = Path(__file__).with_name("ranks.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "needed", "collectives"),
    [
        ("hf-ddp", "accelerate", {"c10d::allreduce_"}),
        ("hf-deepspeed", "accelerate", {"c10d::_allgather_base_"}),
        ("lightning-ddp", "pytorch_lightning", {"c10d::allreduce_"}),
    ],
)
def test_ranks(tmp_path, started, made, needed, collectives):
    """Two gloo ranks: each has the losses of the library's own loop, and other data than the other; a micro-step
    can be counted, and its collectives and its optimizer are in the profile."""
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}: tox run -e adapters")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command = [sys.executable, *launcher, "--rdzv-endpoint", "localhost:0", str(SCRIPT), made, str(tmp_path)]
    package = str(Path(trainpace.__file__).parents[1])
    subprocess.run(command, check=True, env=os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": package})
    told = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    for rank in told:
        assert rank["expected"] == pytest.approx(rank["losses"], abs=1e-6)
        assert collectives < set(rank["operators"])
        assert {"data", "forward", "backward", "optimizer"} < set(rank["parts"])
        assert rank["optimizer"] > 0.02  # a part of its own, also where DeepSpeed steps inside of the backward
        # Two sequences of seven tokens, 16 x 11 weights, two FLOPs each; twice that backward.
        assert (rank["flops"]["forward"], rank["flops"]["backward"]) == ([4928, 0], [9856, 0])
    assert told[0]["losses"] != told[1]["losses"]
