"""One step of somebody else's model, traced without a GPU: fake ranks, fake tensors, FSDP2 around its own code.

    count_own(workload, own) -> Cost

`build(workload)` is called as rank 0 of `workload.ranks` ranks that do not exist, on tensors that have shapes and no
bytes. What it did not shard itself is sharded as the native trainer's: one group for each member of the outermost
ModuleLists, one for the rest. All its layers are traced.
"""

import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from platform import python_version
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard import _fully_shard
from torch.utils._pytree import tree_map_only

from trainpace.cases.workload import Workload
from trainpace.cost.counter import CannotTrace, Counter
from trainpace.cost.memory import Memory
from trainpace.cost.own_model import OwnModel
from trainpace.cost.trace import SOFTWARE, as_traced, collected, fake_group, one_chunk
from trainpace.cost.zero3 import fsdp2_memory
from trainpace.judge.claims import alike
from trainpace.rank.batch import size
from trainpace.runs.cost import Cost, Traced, sent
from trainpace.trainers.native.engines import DTYPES
from trainpace.trainers.recipe import BETAS, CLIP, LEARNING_RATE


def count_own(workload: Workload, own: OwnModel) -> Cost:
    """Count one micro-step and one optimizer step of `own`, per rank, in the middle of training.

    Raises:
        CannotTrace: naming the operator, or the function, that stopped it.
    """
    own.enter()
    random.seed(0)  # code that draws for itself (layers that are dropped) draws the same each time
    traced = _trace(workload, own)
    return Cost(
        workload=workload,
        traced_layers=traced.layers,
        counters=sent(traced.counters) | fsdp2_memory(traced),
        operators=dict(sorted(traced.operators.items())),
        unknown=traced.unknown,
        products=traced.products,
        software={"python": python_version()} | {name: version(name) for name in SOFTWARE},
    )


def _trace(workload: Workload, own: OwnModel) -> Traced:
    build, batch_of = own.build.load(), own.batch.load()
    loss_of = own.loss.load() if own.loss else _loss
    memory = Memory()
    counter = Counter(memory)
    with fake_group(workload.ranks), collected():
        mesh = init_device_mesh("cpu", (workload.ranks,))
        with FakeTensorMode(allow_non_fake_inputs=True) as fake, memory.resizes(), counter, one_chunk():
            with _default_mesh(mesh), _conversions():
                model = _called(build, workload)
            if not isinstance(model, nn.Module):
                raise CannotTrace(f"build must return a torch.nn.Module, got {type(model).__name__}")
            blocks = _shard(model, mesh, workload)
            if any(parameter.is_meta for parameter in model.parameters()):
                model.to_empty(device="cpu")
            model.train()
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            if not trained:
                raise CannotTrace("build must return a module that is trained, got one without a parameter that is")
            memory.claim(list(model.parameters()), "parameters")
            memory.claim(list(model.buffers()), "parameters")
            optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True)
            _optimize(trained, optimizer, fill=True)  # makes the moments
            memory.claim_rest("optimizer")
            if workload.accumulation > 1:
                _fill_gradients(trained)
                memory.claim_rest("gradients")
            batch = tree_map_only(Tensor, partial(_faked, fake), _called(batch_of, workload))
            _check_tokens(batch, workload)
            memory.see(batch)
            handles = [block.register_forward_hook(partial(_leave, memory)) for block in blocks]
            counter.part, memory.phase = "step", "forward"
            loss = _called(loss_of, model, batch)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise CannotTrace(f"expected a loss of one number, got {_shape(loss)}: give judge_cost `loss=`")
            if not loss.requires_grad:
                raise CannotTrace(f"expected a loss with gradients, got one of {loss.dtype} without")
            memory.claim_rest("activations")
            memory.phase = "backward_middle"
            (loss / workload.accumulation).backward()
            memory.phase = None
            for handle in handles:
                handle.remove()
            if memory.now["gradients"] == 0:
                memory.claim([parameter.grad for parameter in trained], "gradients")
            counter.part, memory.phase = "optimizer", "optimizer"
            _optimize(trained, optimizer)
            counter.part = memory.phase = None
    return as_traced(counter, memory, layers=max(1, len(blocks)))


def _check_tokens(batch: Any, workload: Workload) -> None:
    """Refuse a batch of other tokens than the case's, as told by shapes: what is counted would be another step.

    Raises:
        CannotTrace: with both numbers.
    """
    found = size(batch)
    if found is None or found.tokens == workload.micro_batch:  # a label a sequence: its tokens are no integers
        return
    # Or a rank takes its part of a whole sequence.
    declared = {workload.rank_tokens, workload.rank_tokens * workload.sp}
    if not any(alike(each, found.tokens, found.sequences) for each in declared):
        raise CannotTrace(
            f"batch must return the case's {' or '.join(map(str, sorted(declared)))} tokens (micro-batch x sequence / "
            f"sp), got {found.tokens} by the shapes of its integers"
        )


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except CannotTrace as error:  # as an operator raised it: the line that called the operator is the user's
        raise CannotTrace(f"{error}{_where(error, function)}") from error


def _where(error: Exception, function: Callable[..., Any]) -> str:
    """`, called in model.py line 7`: the innermost line of the file that holds `function`; empty where none is."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", called in {lines[-1].filename} line {lines[-1].lineno}" if lines else ""


def _loss(model: nn.Module, batch: Any) -> Any:
    """What the model returns of a batch, or its `loss`."""
    if isinstance(batch, Mapping):
        out = model(**batch)
    else:
        out = model(*batch) if isinstance(batch, tuple | list) else model(batch)
    if isinstance(out, Mapping):
        return out.get("loss", out)
    return getattr(out, "loss", out)


@contextmanager
def _default_mesh(mesh: Any) -> Iterator[None]:
    """What `fully_shard` without a mesh takes: made here it would have no numbers."""
    usual = getattr(_fully_shard, "_init_default_mesh", None)
    if usual is None:  # another torch calls it by another name
        yield
        return
    _fully_shard._init_default_mesh = lambda *_, **__: mesh
    try:
        yield
    finally:
        _fully_shard._init_default_mesh = usual


@contextmanager
def _conversions() -> Iterator[None]:
    """Let a module of fake tensors be moved to another dtype, `model.to(torch.bfloat16)`.

    torch puts the new content into the same parameter then, unless something refers to that weakly. Here that is the
    fake tensors' own memory of what they were made of, which a new module has no need of.
    """
    usual = getattr(torch.utils, "weakref", None)
    if usual is None:  # another torch does it in another way
        yield
        return
    torch.utils.weakref = SimpleNamespace(getweakrefs=lambda _: [])  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.utils.weakref = usual


def _shape(given: Any) -> str:
    return f"one of {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__


def _shard(model: nn.Module, mesh: Any, workload: Workload) -> list[nn.Module]:
    """Shard what is not sharded yet; the members of its outermost lists."""
    blocks = [block for block in _blocks(model) if any(True for _ in block.parameters())]
    if not any(isinstance(module, FSDPModule) for module in model.modules()):
        policy = MixedPrecisionPolicy(
            param_dtype=DTYPES[workload.dtype], reduce_dtype=DTYPES[workload.reduce_dtype or "fp32"]
        )
        shard = partial(fully_shard, mesh=mesh, mp_policy=policy)
        if workload.sharding == "zero2":
            shard = partial(shard, reshard_after_forward=False)
        for module in (*blocks, model):
            shard(module)
    return blocks


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists."""
    for child in module.children():
        yield from _members(child) if isinstance(child, nn.ModuleList) else _blocks(child)


def _members(container: nn.Module) -> Iterator[nn.Module]:
    """Of a list; of members that hold others and have no forward, theirs."""
    for member in container.children():
        yield from _members(member) if isinstance(member, nn.ModuleList | nn.ModuleDict) else [member]


def _leave(memory: Memory, *_: Any) -> None:
    if torch._C._current_graph_task_id() == -1:  # not in what a backward makes again
        memory.claim_rest("activations")


def _faked(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, FakeTensor) else fake.from_tensor(tensor)


def _fill_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)


def _optimize(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, *, fill: bool = False) -> None:
    """Clip, apply, clear."""
    if fill:
        _fill_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, CLIP)
    optimizer.step()
    optimizer.zero_grad()
