"""What shards the native trainer: DeepSpeed's ZeRO-3 (as the table was measured) or torch's FSDP2.

An engine owns the model's shards and the optimizer. `forward` returns the summed loss of this rank's part, `backward`
takes the loss to differentiate and whether the optimizer steps next, `step` clips, applies and clears the gradients.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainpace.cases import Shape
from trainpace.cases.parameters import layer_parameters
from trainpace.trainers.native.model import CausalLm, initial, plain
from trainpace.trainers.recipe import BETAS, CLIP, LEARNING_RATE, deepspeed_config, warmup_steps

Build = Callable[[], CausalLm]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def learning_rate_factor(step: int, total: int) -> float:
    """Linear warm-up over the first 3 % of `total` optimizer steps, then half a cosine to zero, as published."""
    warmup = warmup_steps(total)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _optimizer(parameters: Iterator[nn.Parameter], total: int) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, total))
    return optimizer, schedule


class Fsdp2:
    """torch.distributed.fsdp.fully_shard: one group a layer, one for the rest."""

    def __init__(self, build: Build, workload: Any, device: str, total: int, fake_mesh: Any = None) -> None:
        """`fake_mesh` is the DeviceMesh of ranks that do not exist: parameters then have no values."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
        from torch.distributed.tensor import distribute_tensor

        mesh = fake_mesh or init_device_mesh(device, (workload.ranks,))
        with torch.device("meta"), parameters_in(DTYPES[workload.param_dtype]):
            self.model = build()
        policy = MixedPrecisionPolicy(
            param_dtype=DTYPES[workload.dtype], reduce_dtype=DTYPES[workload.reduce_dtype or "fp32"]
        )
        shard = partial(fully_shard, mesh=mesh, mp_policy=policy)
        if workload.sharding == "zero2":  # what a forward gathered is kept until the optimizer has changed it
            shard = partial(shard, reshard_after_forward=False)
        for layer in self.model.layers:
            shard(layer)
        shard(self.model)
        self.model.to_empty(device=device)
        _fill_buffers(self.model, device)
        if not fake_mesh:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    whole = initial(name, parameter.shape, self.model.config, device)
                    parameter.copy_(distribute_tensor(whole, mesh, parameter.placements, src_data_rank=None))
        self._accumulation = workload.accumulation
        self._optimizer, self._schedule = _optimizer(self.model.parameters(), total)

    def forward(self, **batch: Any) -> Tensor:
        """Summed loss of this rank's part."""
        return self.model(**batch)

    def backward(self, loss: Tensor, *, last: bool) -> None:  # noqa: ARG002 - the other engine must know
        """Accumulate the gradients of `loss`, averaged over ranks and over the accumulation."""
        (loss / self._accumulation).backward()

    def step(self) -> None:
        """Clip, apply, clear."""
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


class DeepSpeed:
    """DeepSpeed's ZeRO-3, with torch's AdamW: its own optimizers compile for over a minute first."""

    def __init__(self, build: Build, workload: Any, device: str, total: int) -> None:
        import deepspeed

        if device == "cpu":
            # A shared-memory all-reduce that takes 40 s to compile; gloo does.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            # As DeepSpeed's own launcher says it: else a program, numactl, is started in every backward to ask.
            os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        config = deepspeed_config(workload)
        if workload.sharding == "full":
            config["zero_optimization"]["memory_efficient_linear"] = not _weights_stay(workload)
        self._knows_beforehand = workload.sharding == "zero2"
        # Without its argument `dtype`, which it ignores where the accelerator has no fp16: fp32 became bf16 on a CPU.
        split = deepspeed.zero.Init(config_dict_or_path=config) if workload.sharding == "full" else nullcontext()
        with split:
            self.model = build()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                    if workload.sharding == "zero2" or dist.get_rank() == 0:
                        parameter.copy_(initial(name, parameter.shape, self.model.config, device))
        if workload.sharding == "zero2":
            self.model.to(device)
        # Compiled: else every module in a layer gathers its own parameters, by a hook within what is compiled.
        if workload.compile or (workload.sharding == "full" and _gathered_at_once(self.model, workload)):
            deepspeed.utils.set_z3_leaf_modules(self.model, [type(self.model.layers[0])])
        optimizer, schedule = _optimizer(self.model.parameters(), total)
        self.engine, *_ = deepspeed.initialize(
            model=self.model, optimizer=optimizer, lr_scheduler=schedule, config=config, dist_init_required=False
        )
        # Under zero.Init the frequencies of the rotary embedding were made in bf16: positions past 256 would blur.
        _fill_buffers(self.model, device)

    def forward(self, **batch: Any) -> Tensor:
        """Summed loss of this rank's part."""
        return self.engine(**batch)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate the gradients of `loss`, averaged over ranks and over the accumulation."""
        # The step loop says when the optimizer steps: the engine must not count by itself. ZeRO-2 must know beforehand.
        self.engine.set_gradient_accumulation_boundary(last and self._knows_beforehand)
        self.engine.backward(loss)

    def step(self) -> None:
        """Clip, apply, clear."""
        self.engine.set_gradient_accumulation_boundary(True)
        self.engine.step()


def _weights_stay(workload: Any) -> bool:
    """Whether a layer's weights stay gathered from its recompute to its backward, whatever else holds them.

    DeepSpeed puts a linear layer of its own in the place of torch's, which would hold a weight that ZeRO-3 lets go of.
    It is an autograd function in Python, and a recompute makes the last product of a layer with it, which nobody needs
    again: 6 % of a Llama2-7B's step. Torch's is taken where it holds nothing longer than ZeRO-3: where a forward keeps
    nothing, and the reuse distance reaches from the first parameter of a recompute to its backward.
    """
    # A newer judging side may say more of a shape than this side knows.
    shape = Shape(**{name: value for name, value in plain(workload.shape).items() if name in Shape.model_fields})
    layer = max(layer_parameters(shape, place) for place in range(shape.layers))
    reach = plain(workload.thresholds).get("stage3_max_reuse_distance", 0)
    return workload.recompute in ("full", "selective_op") and 2 * layer <= reach


def _gathered_at_once(model: CausalLm, workload: Any) -> bool:
    """Whether ZeRO-3 gathers the whole model by one prefetch, and reduces its gradients in one bucket.

    Then what is gathered and when does not depend on which module asks for it, and DeepSpeed's hooks, four in Python
    around every module, do nothing: layers are told to be leaf modules, which have them once a layer. At full width a
    prefetch holds less than a layer, and each module has its own.
    """
    total = sum(parameter.ds_numel for parameter in model.parameters())
    limits = ("stage3_prefetch_bucket_size", "stage3_max_live_parameters", "reduce_bucket_size")
    return all(total <= plain(workload.thresholds).get(name, 0) for name in limits)


ENGINES: dict[str, Callable[..., Fsdp2 | DeepSpeed]] = {"deepspeed": DeepSpeed, "fsdp2": Fsdp2}


@contextmanager
def parameters_in(dtype: torch.dtype) -> Iterator[None]:
    """What is built here has parameters of `dtype`."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _fill_buffers(model: CausalLm, device: str) -> None:
    """Give the model what no checkpoint holds: frequencies of rotary embeddings, in float32, and embeddings' scales."""
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            for name, buffer in type(module)(model.config).named_buffers():
                module.register_buffer(name, buffer.to(device), persistent=False)
        elif isinstance(scale := getattr(module, "scalar_embed_scale", None), float):
            module.register_buffer("embed_scale", torch.tensor(scale, device=device), persistent=False)
    rotary = {id(each) for module in model.modules() for each in _filled(module)}
    left = [name for name, buffer in model.named_buffers() if id(buffer) not in rotary]
    if left:
        raise ValueError(f"the model has buffers that only its own constructor could fill: {', '.join(left)}")


def _filled(module: nn.Module) -> list[Tensor]:
    known = type(module).__name__.endswith("RotaryEmbedding") or hasattr(module, "scalar_embed_scale")
    return list(module.buffers(recurse=False)) if known else []
