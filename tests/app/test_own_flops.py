"""FLOPs of a trainer with torch, as a session counts a real step of it."""

import json

import pytest

TRAINER = """
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(64, 32), nn.Linear(32, 32, bias=False)
        self.head = nn.Linear(32, 64, bias=False)

    def forward(self, ids):
        return self.head(checkpoint(lambda hidden: self.layer(hidden).sin(), self.embedding(ids), use_reentrant=False))

class Trainer:
    def setup(self, context):
        dist.init_process_group("gloo")
        torch.manual_seed(0)
        self.workload = context.workload
        assert self.workload.shape is None
        self.model = Model()
        for module in (self.model.layer, self.model):
            fully_shard(module)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def load(self, step):
        return torch.zeros(self.workload.micro_batch, self.workload.sequence, dtype=torch.int64)

    def forward_backward(self, ids):
        loss = nn.functional.cross_entropy(self.model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        return loss.detach()

    def optimizer_step(self):
        self.optimizer.step()
        self.optimizer.zero_grad()
"""
TEST = """
import pytest
from trainpace.cases import Case

@pytest.mark.parametrize("case", [Case.of("sharded", tokens=64, gpus=2, micro_batch=2)], ids=str)
def test_sharded(case, judge_speed):
    judge_speed(case)
"""


@pytest.mark.slow
def test_a_sharded_step_is_counted(repository, started):
    """Of two ranks under FSDP2: the layer once more for what is made again, which is no FLOP of the model."""
    (repository.path / "sharded.py").write_text(TRAINER)
    (repository.path / "perf" / "test_sharded.py").write_text(TEST)
    done = repository.suite(
        "-k", "test_sharded", "--perf-trainer=sharded:Trainer", "--perf-count-flops", "--perf-runs=runs"
    )
    (run,) = [json.loads(path.read_text()) for path in (repository.path / "runs").rglob("*.json")]
    layer, head = 2 * 2 * 64 * 32 * 32, 2 * 2 * 64 * 32 * 64

    assert done.code == 0
    assert run["step_flops"] == {
        "model_products": 3 * (layer + head),
        "model_attention": 0,
        "products": 4 * layer + 3 * head,
        "attention": 0,
    }
