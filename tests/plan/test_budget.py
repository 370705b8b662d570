"""Durations told before, hours told after."""

import pytest

from factories import make_runs, make_workload
from trainpace.app.hours import predicted_tgs
from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.judge.refresh import baseline_of
from trainpace.plan.budget import ResourceUsage, duration_of, estimate_of, format_duration


def test_duration_from_a_baseline():
    """Its start-up and its speed, for as many runs as there will be."""
    runs = make_runs(128.0, 128.0)
    duration = duration_of(runs[0].workload, baseline_of(runs), None, 3)

    assert duration is not None
    assert duration.seconds == pytest.approx(3 * (2.0 + 43 * 128 / 128.0))
    assert (duration.ranks, duration.source) == (2, "baseline")


def test_duration_from_counts():
    """A published row that was never measured here takes what the counts suggest; only at full scale."""
    case = next(case for case in PUBLISHED if case.id == "llama2_70b-1m-sp64")
    tgs = predicted_tgs(full_workload(case), "a100-sxm4-80gb")

    assert tgs == pytest.approx(25.3, rel=0.3)
    assert predicted_tgs(make_workload(), "a100-sxm4-80gb") is None
    assert predicted_tgs(full_workload(case), "cpu-x-2c") is None


def test_duration_of_a_proxy():
    """What was never measured and is no published row is taken to reach a third of the GPU's peak; not on a CPU."""
    case = next(case for case in PUBLISHED if case.id == "llama2_7b-8k-sp1")
    full = full_workload(case)
    proxy = full.model_copy(
        update={"scale": "proxy", "ranks": 1, "shape": full.shape.model_copy(update={"layers": 20})}
    )

    # Measured on an H100: 9041 under ZeRO-3, 9710 under FSDP2.
    assert predicted_tgs(proxy, "h100-sxm5-80gb") == pytest.approx(9041, rel=0.1)
    assert predicted_tgs(proxy, "unknown-card") is None
    assert predicted_tgs(make_workload(), "h100-sxm5-80gb") is None


def test_nothing_known():
    """A case without either is named, and counts as nothing."""
    known = duration_of(make_workload(), None, 100.0, 1)
    estimate = estimate_of([known, None], ["a", "b"], unit="GPU")

    assert str(estimate).endswith("GPU hours (1 from predicted); nothing is known of the duration of b")
    assert str(estimate_of([None], ["b"], unit="GPU")) == "nothing is known of the duration of b"


def test_usage():
    """Spent and saved over all ranks, with why."""
    usage = ResourceUsage()
    usage.spend(1800, 8)
    usage.save(900, 8, "runs ended early")

    assert usage.text("GPU") == "GPU hours: 4.00 spent, 2.00 saved (runs ended early)"


@pytest.mark.parametrize(("hours", "text"), [(0.01, "36 s"), (0.5, "30 min"), (3.46, "3.5 h")])
def test_durations_in_words(hours, text):
    """In the unit that people would say it in."""
    assert text == format_duration(hours)
