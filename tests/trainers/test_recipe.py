"""The one place of what every system trains with."""

import json
import subprocess
import sys

import pytest

from factories import make_workload
from trainpace.launch import external
from trainpace.trainers import recipe
from trainpace.trainers.external import load


def test_it_needs_no_torch():
    """The judging process writes it into other systems' configurations."""
    code = "import sys, trainpace.trainers.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


@pytest.mark.parametrize(("total", "steps"), [(1, 1), (33, 1), (34, 2), (1000, 30)])
def test_warmup(total, steps):
    """3 % of the optimizer steps, rounded up, and one at least."""
    assert recipe.warmup_steps(total) == steps


def test_compiled_linear_layers_are_torchs():
    """DeepSpeed's own would have torch trace every run's layers anew; of an eager step nothing changes."""
    eager, compiled = (recipe.deepspeed_config(make_workload(compile=each)) for each in (False, True))

    assert compiled["zero_optimization"] == eager["zero_optimization"] | {"memory_efficient_linear": False}


def test_other_systems_are_given_it(monkeypatch):
    """A changed recipe is in the configuration that a program gets."""
    monkeypatch.setattr(recipe, "CLIP", 0.5)
    values = dict.fromkeys(("python", "bin", "described", "work", "cache", "device", "ranks", "threads"), "x")
    description = load("hf").model_copy(update={"files": {}})

    files = external._files(description, make_workload(thresholds={"reduce_bucket_size": 7}), values)

    assert json.loads(files["zero3.json"]) == {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 7},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 30,
    }
