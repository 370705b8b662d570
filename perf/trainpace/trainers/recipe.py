"""What every system trains with, ours and external ones: the published rows' rates, and DeepSpeed's configuration.

Imports no torch: the judging process writes these into other systems' configurations.
"""

import math
from collections.abc import Mapping
from typing import Any

LEARNING_RATE = 2e-5
BETAS = (0.9, 0.999)
CLIP = 1.0
WARMUP_SHARE = 0.03
"""Of the optimizer steps."""


def warmup_steps(total: int) -> int:
    """Optimizer steps, of `total`, over which the learning rate rises."""
    return max(1, math.ceil(WARMUP_SHARE * total))


def zero3(*, accumulation: int, dtype: str, thresholds: Mapping[str, int]) -> dict[str, Any]:
    """DeepSpeed's configuration: ZeRO-3 with a workload's thresholds."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": CLIP,
        "bf16": {"enabled": dtype == "bf16"},
        "zero_optimization": {"stage": 3, **thresholds},
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
    }
