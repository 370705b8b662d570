"""A measured step beside its prediction."""

from types import SimpleNamespace

import pytest

from factories import make_published_run
from trainpace.app.prediction import beside_predictions, model_named
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS
from trainpace.errors import UsageError


def finding(tgs, **changed):
    """What beside_predictions reads of a finding: Llama2-7B at 8k on eight A100, measured."""
    run = make_published_run()
    workload = run.workload.model_copy(update={"thresholds": DEEPSPEED_THRESHOLDS, **changed})
    judgement = SimpleNamespace(case=workload.case, tgs=tgs, workload=workload, explanation=())
    device = SimpleNamespace(slug="a100-sxm4-80gb", kind_slug="a100-sxm4-80gb")
    return SimpleNamespace(judgement=judgement, runs=[SimpleNamespace(device=device)])


def test_a_step_as_fast_as_predicted():
    """Its share of the prediction, with the interval and whose rows it was learnt from."""
    (line,) = beside_predictions([finding(3000.0)])

    assert line.startswith("of the prediction (docs/prediction.md): llama2_7b-8k-sp1 9")
    assert line.endswith("as the rows of xtuner on a100-sxm4-80gb")


def test_a_step_below_the_interval_says_so():
    """And what would tell which part is slow."""
    (line,) = beside_predictions([finding(1500.0)])

    assert "below the interval; which part is slow only a profile tells" in line
    assert "--perf-against 'HEAD~1'" in line or "--perf-against HEAD~1" in line


@pytest.mark.parametrize("changed", [{"scale": "proxy"}, {"attention": "varlen"}, {"sequence": 8191}])
def test_what_was_never_counted_has_no_prediction(changed):
    """A cut step, masked documents, a shape of one's own."""
    assert beside_predictions([finding(1500.0, **changed)]) == []


def test_models_by_name():
    """Those of the package and of its tables."""
    assert model_named("llama2_7b").title == "Llama2-7B"
    assert model_named("mpt_7b").shape.architecture == "gpt2"
    with pytest.raises(UsageError, match=r"--model: expected the path of a config.json, or one of llama2_7b"):
        model_named("mpt")
