"""Losses of all steps: those of real runs of one code (losses/record.py), and of runs of another."""

import json
from pathlib import Path

import numpy as np
import pytest

from factories import make_run, make_workload
from trainpace.judge.numerics import later_losses_fault

RECORDED = {
    name: json.loads((Path(__file__).parent / "losses" / f"{name}.json").read_text()) for name in ("fresh", "by_heart")
}
"""Losses of eight runs of the same 500 steps, in bf16."""


def runs(losses):
    """A run of each list of losses."""
    workload = make_workload(ranks=1, warmup=4, steps=len(losses[0]) - 4)
    return [make_run(workload=workload, losses=tuple(each), seed=seed) for seed, each in enumerate(losses)]


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("steps", [8, 20, 40, 80, 500])
def test_unchanged_code_is_never_at_fault(name, steps):
    """Whichever of the recorded runs are the base's and whichever head's, one to four of each."""
    chance, found = np.random.default_rng(steps), runs([each[:steps] for each in RECORDED[name]])
    faults = []
    for pairs in (1, 2, 3, 4):
        for _ in range(25):
            drawn = chance.permutation(len(found))[: 2 * pairs]
            base, head = ([found[at] for at in part] for part in np.split(drawn, 2))
            faults.append(later_losses_fault(base, head))

    assert not any(faults)


WRONG = {
    "nonsense": lambda losses: losses[:5] + [99.0] * (len(losses) - 5),
    "not trained": lambda losses: losses[:5] + losses[4:5] * (len(losses) - 5),
    "half of the optimizer's steps": lambda losses: losses[:5] + [losses[5 + at // 2] for at in range(len(losses) - 5)],
    "from step 300 on": lambda losses: losses[:300] + [1.4 * loss + 0.2 for loss in losses[300:]],
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_another_training_is_at_fault(what, pairs):
    """Right at first and wrong later is named with the step, both losses and the tolerance."""
    for losses in RECORDED.values():
        base, head = runs(losses[:pairs]), runs([WRONG[what](each) for each in losses[pairs : 2 * pairs]])

        assert "expected the base's loss" in later_losses_fault(base, head)


def of_noise(*seeds, noise, shift=0.0):
    """Runs of 100 steps whose losses differ at random by `noise`, and from step 50 on by `shift`; both relative."""
    late = np.arange(100) >= 50
    return runs(
        [(2 * (1 + late * (shift + noise * np.random.default_rng(seed).normal(size=100)))).tolist() for seed in seeds]
    )


@pytest.mark.parametrize(("noise", "found"), [(0.0, True), (0.0003, True), (0.01, False)])
def test_the_bases_own_differences_are_what_is_allowed(noise, found):
    """2 % are too much where the base's runs agree to a thousandth, and not where they differ by as much."""
    fault = later_losses_fault(of_noise(1, 2, 3, noise=noise), of_noise(4, 5, 6, noise=noise, shift=0.02))

    assert bool(fault) == found


def test_the_mean_of_the_last_quarter():
    """A shift that no single step shows beside its noise shows in their mean."""
    fault = later_losses_fault(of_noise(1, 2, 3, noise=0.01), of_noise(4, 5, 6, noise=0.01, shift=0.06))

    assert "as the mean from step 75 on" in fault


def test_few_steps_and_no_losses():
    """Where all losses are first ones, or a program logs none, there is nothing more to compare."""
    short = runs([[1.0] * 5, [2.0] * 5])
    silent = [
        run.model_copy(update={"ranks": tuple(rank.model_copy(update={"losses": None}) for rank in run.ranks)})
        for run in short
    ]

    assert later_losses_fault(short[:1], short[1:]) is None
    assert later_losses_fault(silent[:1], silent[1:]) is None
