"""The record of a run."""

import pytest
from pydantic import ValidationError

from factories import make_run, make_workload


def test_loss_that_is_not_finite_makes_no_run():
    """A run whose loss is NaN cannot be recorded, and so never judged."""
    with pytest.raises(ValidationError, match="finite number"):
        make_run(losses=(6.0, float("nan")))


def test_rank_must_have_all_its_steps():
    """A rank that stopped early is no run."""
    run = make_run()
    first = run.ranks[0]
    short = {"seconds": first.seconds[1:], "data_seconds": first.data_seconds[1:], "losses": first.losses[1:]}
    ranks = (first.model_copy(update=short), run.ranks[1])

    with pytest.raises(ValidationError, match="seconds must have 40 entries, got 39"):
        type(run).model_validate({**run.model_dump(), "ranks": ranks})


def test_more_ranks_than_the_workload_are_refused():
    """A run holds each rank of its workload once."""
    run = make_run()

    with pytest.raises(ValidationError, match=r"ranks must be 0..0 in order, got \[0, 1\]"):
        type(run).model_validate({**run.model_dump(), "workload": make_workload(ranks=1)})
