"""Trains twice in each of several ranks: by the library's own loop, and by an adapter under the step loop.

torchrun --nproc-per-node 2 tests/adapters/ranks.py hf-ddp FOLDER
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parent))

from trainpace import adapters
from trainpace.rank import counted, loop, profile

STEPS = 10
ZERO = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto"}


def hf(folder, **named):
    import in_transformers

    def build():
        return in_transformers.build(folder, 2, **named)

    def alone():
        trainer = build()
        trainer.train()
        return trainer.losses[:STEPS]

    return alone, adapters.transformers_trainer(lambda _: build())


def light(folder):
    import in_lightning

    def build(**named):
        return in_lightning.build(folder, 2, strategy="ddp", devices=2, **named)

    def alone():
        trainer, module, loader = build(limit_train_batches=STEPS)
        trainer.fit(module, loader)
        return module.losses

    return alone, adapters.lightning_trainer(lambda _: build())


def hf_deepspeed(folder):
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, for a minute
    return hf(folder, deepspeed={**ZERO, "zero_optimization": {"stage": 2}, "zero_allow_untested_optimizer": True})


MADE = {
    "hf-ddp": hf,
    "hf-deepspeed": hf_deepspeed,
    "lightning-ddp": light,
}


def main():
    which, folder = sys.argv[1:]
    torch.set_num_threads(1)
    alone, trainer = MADE[which](folder)
    expected = alone()
    workload = SimpleNamespace(warmup=2, steps=STEPS - 2, accumulation=2)
    trainer.setup(SimpleNamespace(workload=workload, device="cpu"))
    window = loop.measure(trainer, workload, loop.CpuClock(), lambda *_, **__: None, watch=[])
    flops = counted.count(trainer, STEPS)
    found = profile.profile(trainer, workload, STEPS, Path(folder) / f"{os.environ['RANK']}.json.gz", "cpu")
    told = {
        "expected": expected,
        "losses": window["losses"],
        "optimizer": min(window["optimizer_seconds"]),
        "flops": flops,
        "parts": sorted(found["parts"]),
        "operators": sorted(found["operators"]),
    }
    (Path(folder) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told))
    torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # as a rank ends


if __name__ == "__main__":
    main()
