"""Calls torchtitan's own code in its own environment, as far as it needs no GPU; knows nothing of trainpace.

    python torchtitan_parts.py '[[tokens, seconds, loss], ..]' ARGUMENTS OF torchtitan.train ..

Prints what the arguments became, the size of the first batch of its loader, and what its logging says of these steps:
the seconds and tokens are given to it, in the place of those that it measures.
"""

import json
import sys
from types import SimpleNamespace

from torchtitan.components import metrics
from torchtitan.config import ConfigManager
from torchtitan.tools.logging import init_logger
from torchtitan.tools.utils import NoColor


def main():
    """See above."""
    init_logger()
    steps, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    config = ConfigManager().parse_args(arguments)
    length, batch = config.training.seq_len, config.training.local_batch_size
    tokenizer = config.tokenizer.build(tokenizer_path=config.hf_assets_path)
    loader = config.dataloader.build(
        dp_world_size=2, dp_rank=1, tokenizer=tokenizer, seq_len=length, local_batch_size=batch
    )
    inputs, labels = next(iter(loader))
    told = {
        "steps": config.training.steps,
        "log_freq": config.metrics.log_freq,
        "input": list(inputs["input"].shape),
        "labels": list(labels.shape),
        "ids": sorted(set(inputs["input"].flatten().tolist())),
        "off": [config.profiler.enable_profiling, config.checkpoint.enable, config.validator.enable],
        "model": config.model_spec.flavor,
    }
    print("PARSED", json.dumps(told), flush=True)  # noqa: T201 - a program

    # Its constructor asks a GPU for its name; its logging is as it is.
    logs = object.__new__(metrics.MetricsProcessor)
    none = metrics.DeviceMemStats(1.0, 1.0, 1.0, 1.0, 0, 0)
    logs.config, logs.parallel_dims = config.metrics, SimpleNamespace(non_data_parallel_size=1)
    logs.device_memory_monitor = SimpleNamespace(get_peak_stats=lambda: none, reset_peak_stats=lambda: None)
    logs.color = NoColor() if config.metrics.disable_color_printing else metrics.utils.Color()
    logs.gpu_peak_flops, logs.num_flops_per_token, logs.has_quantization = 312e12, 10**9, False
    logs.logger, logs.data_loading_times = metrics.BaseLogger(), []
    clock = iter([moment for _, seconds, _ in steps for moment in (seconds, 0.0)])
    metrics.time = SimpleNamespace(perf_counter=lambda: next(clock))
    for step, (tokens, _, loss) in enumerate(steps, start=1):
        if logs.should_log(step):
            logs.time_last_log, logs.ntokens_since_last_log = 0.0, tokens
            logs.data_loading_times.append(0.001)
            logs.log(step, loss, loss, 1.0, extra_metrics={"n_tokens_seen": step * tokens, "lr": 1e-3})


if __name__ == "__main__":
    main()
