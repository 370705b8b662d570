"""What every system trains with, ours and external ones: the published rows' rates, and DeepSpeed's configuration.

Imports no torch: the judging process writes these into other systems' configurations.
"""

import math
from typing import Any

LEARNING_RATE = 2e-5
BETAS = (0.9, 0.999)
CLIP = 1.0
WARMUP_SHARE = 0.03
"""Of the optimizer steps."""


def warmup_steps(total: int) -> int:
    """Optimizer steps, of `total`, over which the learning rate rises."""
    return max(1, math.ceil(WARMUP_SHARE * total))


def deepspeed_config(workload: Any) -> dict[str, Any]:
    """DeepSpeed's configuration for `workload` (a `trainpace.cases.Workload` or its like): ZeRO-3, or ZeRO-2."""
    thresholds = workload.thresholds if isinstance(workload.thresholds, dict) else vars(workload.thresholds)
    if workload.sharding == "zero2":
        zero = {"stage": 2, "reduce_bucket_size": thresholds.get("reduce_bucket_size", 500_000_000)}
    else:
        zero = {"stage": 3, **thresholds}
        if workload.compile:
            # Its own way through a linear layer saves nothing in a graph, which torch then keeps no trace of.
            zero["memory_efficient_linear"] = False
    bf16: dict[str, Any] = {"enabled": workload.dtype == "bf16"}
    if workload.param_dtype == "bf16":
        bf16 |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    config = {
        "train_micro_batch_size_per_gpu": workload.micro_batch,
        "gradient_accumulation_steps": workload.accumulation,
        "gradient_clipping": CLIP,
        "bf16": bf16,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
    }
    if workload.reduce_dtype:
        config["communication_data_type"] = workload.reduce_dtype
    return config
