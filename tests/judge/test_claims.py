"""What a rank claims, held against what was seen of it."""

import pytest

from factories import make_run, make_workload
from trainpace.judge.claims import claim_faults, clock_fault, token_faults, tokens_fault, tokens_note
from trainpace.runs.run import BatchTokens, Observed, RunNode, TokenRange

WORKLOAD = make_workload(ranks=2, warmup=2, steps=40)
WINDOW = make_run(workload=WORKLOAD).ranks[0].claimed_seconds


def seen(least, most=None, *, rank=1, tgs=1000.0, **overrides):
    """A run whose rank `rank` was seen to take `least` to `most` times what a run at 1000 TGS takes."""
    run = make_run(workload=WORKLOAD, tgs=tgs, **overrides)
    ranks = [
        each.model_copy(
            update={"observed": Observed(least=least * WINDOW, most=(most or least) * WINDOW)}
            if each.rank == rank
            else {}
        )
        for each in run.ranks
    ]
    return run.model_copy(update={"ranks": tuple(ranks)})


def loaded(*counted, said=(), sp=1, sequence=128, sequences=1, micro_batch=1):
    """A run whose batches had between the least and the most of `counted` tokens, or `said` to have."""
    workload = make_workload(ranks=4, sp=sp, sequence=sequence, accumulation=1, micro_batch=micro_batch)
    run = make_run(workload=workload)
    of = {
        how: TokenRange(least=min(n), least_step=7, most=max(n), most_step=9, sequences=sequences) if n else None
        for how, n in (("counted", counted), ("said", said))
    }
    return run.model_copy(
        update={"ranks": tuple(each.model_copy(update={"tokens": BatchTokens(**of)}) for each in run.ranks)}
    )


@pytest.mark.parametrize(
    ("run", "faulty"),
    [
        (seen(1.02), False),
        (seen(1.1, 1.2), False),
        (seen(0.5, 1.1), False),
        (seen(0.5, 0.9), True),
        (seen(-0.01, 0.01), True),
        (seen(1.0, tgs=1500.0), True),
        (seen(1.0, tgs=155_000.0), True),
        (seen(3.0), True),
        (make_run(workload=WORKLOAD), False),
    ],
    ids=[
        "as seen", "a wait between steps", "seen late", "more than passed", "written at once", "1.5 times as fast",
        "155 times as fast", "busy between steps", "recorded before",
    ],
)  # fmt: skip
def test_a_run_claims_what_was_seen(run, faulty):
    """Neither more time than passed, nor far less; what was seen late may lie anywhere between two looks."""
    found = claim_faults(run)

    assert bool(found) == faulty
    assert not found or "rank 1 claims" in found[0]


def test_lines_of_other_nodes_come_late():
    """A shared file system shows them seconds later: a window that seems shorter or longer by those is no fault."""
    nodes = tuple(RunNode(name=name, ranks=1) for name in "ab")

    assert not claim_faults(seen(1 + 4.0 / WINDOW, nodes=nodes))
    assert not claim_faults(seen(max(0.01, 1 - 4.0 / WINDOW), nodes=nodes))
    assert not clock_fault(seen(1.0, nodes=nodes), seen(1 + 4.0 / WINDOW, nodes=nodes), 0.05)


@pytest.mark.parametrize(
    ("base", "head", "faulty"),
    [
        (seen(1.01), seen(1.02), False),
        (seen(1.01), seen(0.51, tgs=2000.0), False),
        (seen(1.01), seen(2.01, tgs=500.0), False),
        (seen(1.01), seen(1.01, tgs=1000 * 1.1), True),
        (seen(1.01), seen(1.01, tgs=1000 * 1.5), True),
        (seen(1.01), seen(1.01, tgs=1000 * 155), True),
        (seen(1.01), seen(1.51, tgs=1000), True),
        (seen(1.51), seen(1.01), True),
        (seen(1.01), seen(0.9, 1.3, tgs=1000 * 1.1), False),
        (seen(1.01), seen(0.7, 1.3), False),
        (make_run(workload=WORKLOAD), seen(1.2), False),
    ],
    ids=[
        "alike", "twice as fast", "half as fast", "claims 1.1x", "claims 1.5x", "claims 155x", "slow outside its steps",
        "a base that is", "cannot be told", "seen late", "recorded before",
    ],
)  # fmt: skip
def test_a_pair_leaves_the_same_without_an_account(base, head, faulty):
    """Half of the minimum effect, as a share of the window, is all that the two may differ by; speed is no fault."""
    found = clock_fault(base, head, 0.05)

    assert bool(found) == faulty
    assert not found or "rank 1" in found


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (loaded(128), None),
        (loaded(129), None),
        (loaded(127), None),
        (loaded(132, sequences=4), None),
        (loaded(32, sp=4), None),
        (loaded(128, sp=4), None),
        (loaded(4 * 129, sequences=4, micro_batch=4), None),
        (loaded(4 * 128, sp=4, micro_batch=4), None),
        (loaded(4 * 128, said=[128]), None),
        (loaded(), None),
        (make_run(), None),
        (loaded(64), "as the workload declares (micro-batch x sequence / sp), got 64 at step 7"),
        (loaded(4 * 128), "got 512 at step 7 on rank 0, by the shapes of what load() returned"),
        (loaded(128, 140), "got 140 at step 9"),
        (loaded(64, sp=4), "expected 32 or 128 tokens"),
        (loaded(128, said=[64]), "got 64 at step 7 on rank 0, as its tokens(batch) says"),
    ],
    ids=[
        "declared", "one more to predict", "one less", "one more a sequence", "its part", "the whole sequence",
        "a micro-batch", "the whole micro-batch", "said",
        "not known", "recorded before", "half", "four times", "at one step", "half of its part", "said otherwise",
    ],
)  # fmt: skip
def test_tokens_are_the_declared_ones(run, message):
    """TGS counts declared tokens: a batch of others is named with both numbers."""
    found = token_faults(run)

    assert len(found) == (message is not None)
    assert message is None or message in found[0]


@pytest.mark.parametrize(
    ("base", "head", "message"),
    [
        (loaded(128), loaded(128), None),
        (loaded(128), loaded(129), None),
        (loaded(128, said=[64]), loaded(96, said=[64]), None),
        (loaded(), loaded(64), None),
        (loaded(), loaded(), None),
        (make_run(ranks=4), loaded(64), None),
        (loaded(128), loaded(64), "expected the base's 128 tokens in a batch, got 64 (step 7, rank 0)"),
        (loaded(128), loaded(64, 128), "expected the base's 128 tokens in a batch, got 64"),
        (loaded(128), loaded(64, said=[128]), "expected the base's 128 tokens in a batch, got 64"),
        (loaded(128), loaded(said=[128]), None),
        (loaded(128), loaded(), "got one whose tokens cannot be told: let the trainer say with `tokens(batch)`"),
        (loaded(128, said=[64]), loaded(128, said=[32]), "expected the base's 64 tokens in a batch, got 32"),
    ],
)
def test_tokens_are_those_of_the_base(base, head, message):
    """Told in the same way on both sides; the word of head alone does not stand against what shapes tell."""
    found = tokens_fault(base, head)

    assert found == message if message is None else message in found


def test_unknown_tokens_are_said():
    """Where nobody knows how many there were; not of runs that are older than the question."""
    assert "is not known" in tokens_note(loaded())
    assert tokens_note(loaded(128)) is None
    assert tokens_note(make_run()) is None
