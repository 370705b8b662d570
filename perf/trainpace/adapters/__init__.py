"""Training loops that exist already, as trainers that the step loop calls: a few lines for each user.

    from trainpace.adapters import transformers_trainer     # in ours/training.py

    @transformers_trainer
    def trainer(context):                                   # pytest perf --perf-trainer ours.training:trainer
        return MyTrainer(model=..., args=..., train_dataset=...)

Each name is a decorator over `build(context)`, which is called in every rank and gets what trainers/protocol.py calls
`Context`. Runs in a rank, as a trainer does: imports the standard library alone, and of a training library what the
user's function has imported before.
"""

from trainpace.adapters.accelerated import accelerate_loop
from trainpace.adapters.hf_trainer import transformers_trainer
from trainpace.adapters.lightning_fit import lightning_trainer
from trainpace.adapters.plain import plain_loop

__all__ = ["accelerate_loop", "lightning_trainer", "plain_loop", "transformers_trainer"]
