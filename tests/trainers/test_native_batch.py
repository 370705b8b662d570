"""A micro-batch of several sequences is one after the other, and each keeps to itself."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from trainpace.trainers.native import Native
from trainpace.trainers.native.loss import IGNORED

SEQUENCE = 6
STARTS = {0: [0, 4], 1: [0], 2: [0, 1, 3]}
IDS = np.arange(18).reshape(3, SEQUENCE)


def loaded(part, *, sp, attention):
    """What rank `part` of those that share the three sequences loads."""
    native = Native()
    native._workload = SimpleNamespace(
        sequence=SEQUENCE, micro_batch=3, sp=sp, attention=attention, warmup=1, steps=1, accumulation=1
    )
    native._data = SimpleNamespace(ids=IDS, labels=IDS + 100, document_starts=lambda row: np.array(STARTS[row]))
    native._device, native._replica, native._part, native._replicas = "cpu", 0, part, 1
    batch = native.load(0)
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in batch.items()}


@pytest.mark.parametrize(
    ("attention", "ends", "longest"),
    [("causal", [0, 6, 12, 18], 6), ("varlen", [0, 4, 6, 12, 13, 15, 18], 6)],
)
def test_no_document_reaches_over_a_sequence(attention, ends, longest):
    """Positions begin anew with each, and the last token of a sequence is not asked for the next one's first."""
    batch = loaded(0, sp=1, attention=attention)
    positions = [place for first, last in pairwise(ends) for place in range(last - first)]

    assert (batch["document_ends"], batch["longest"], batch["positions"]) == (ends, longest, positions)
    assert batch["tokens"] == list(range(18))
    assert batch["labels"] == [label for row in IDS + 100 for label in [*row[1:], IGNORED]]
    assert batch["judged"] == 15


@pytest.mark.parametrize("attention", ["causal", "varlen"])
def test_ranks_share_the_whole_micro_batch(attention):
    """The second of three sequences lies on both of two ranks; each knows where all documents end."""
    whole = loaded(0, sp=1, attention=attention)
    parts = [loaded(part, sp=2, attention=attention) for part in (0, 1)]

    for name in ("tokens", "labels", "positions"):
        assert whole[name] == parts[0][name] + parts[1][name]
    assert all(part[name] == whole[name] for part in parts for name in ("document_ends", "longest", "judged"))
