"""How many tokens a batch has, by what it is made of."""

import sys
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import BatchEncoding

from trainpace.rank.batch import size

IDS = np.zeros((4, 128), np.int64)
ROW, LONGER = np.zeros(128, np.uint16), np.zeros((4, 129), np.int32)
MASK = np.ones((4, 1, 128, 128), np.int64)
HIDDEN = np.zeros((4, 128, 32), np.float32)
Pair = namedtuple("Pair", "inputs targets")


@dataclass(slots=True)
class Batch:
    """Without a `__dict__`."""

    labels: np.ndarray
    input_ids: np.ndarray


@pytest.mark.parametrize(
    ("batch", "tokens", "sequences"),
    [
        (IDS, 512, 4),
        (ROW, 128, 1),
        (LONGER, 516, 4),
        ({"input_ids": IDS, "labels": LONGER, "attention_mask": MASK, "position_ids": IDS}, 512, 4),
        ({"x": IDS, "y": IDS, "padding_mask": MASK}, 512, 4),
        ({"data": {"tokens": ROW}, "seqlens": np.zeros(7, int)}, 128, 1),
        ({"embeddings": HIDDEN, "labels": IDS}, 512, 4),
        (BatchEncoding({"input_ids": IDS, "attention_mask": IDS}), 512, 4),
        ((IDS, IDS), 512, 4),
        (Pair(IDS, LONGER), 512, 4),
        (Batch(labels=LONGER, input_ids=IDS), 512, 4),
        (SimpleNamespace(ids=ROW, step=3), 128, 1),
        ([IDS, IDS], 512, 4),
        ([ROW, ROW[:5]], 133, 2),
        ([{"input_ids": IDS, "labels": IDS}] * 2, 1024, 8),
        ([[1, 2, 3], [4, 5]], 5, 2),
    ],
    ids=[
        "rows", "one row", "one token more", "named", "without the mask", "nested", "labels alone", "a mapping",
        "ids and labels", "named tuple", "slots", "object", "as a DataLoader gives them", "ragged", "micro-batches",
        "Python's",
    ],
)  # fmt: skip
def test_size(batch, tokens, sequences):
    """The ids count once, whatever stands beside them; sequences and micro-batches in a list add up."""
    found = size(batch)

    assert (found.tokens, found.sequences) == (tokens, sequences)


class Endless:
    """Holds itself."""

    def __init__(self):
        self.inner = self


@pytest.mark.parametrize(
    "batch",
    [3, None, "compute", HIDDEN, np.array(3), MASK > 0, (1, 2), [], {}, lambda: IDS, iter([IDS]), Endless()],
    ids=lambda batch: type(batch).__name__,
)
def test_unknown(batch):
    """Where there is no array of integers there is nothing to count."""
    assert size(batch) is None


def test_tensors_count_as_arrays():
    """By their shape and the name of their type: a tensor on a device is not waited for."""
    torch = pytest.importorskip("torch")
    on_no_device = torch.empty(4, 128, dtype=torch.int64, device="meta")

    assert size({"input_ids": on_no_device}).tokens == 512
    assert size(on_no_device.float()) is None
    assert size(on_no_device.bool()) is None


def test_it_takes_microseconds():
    """A batch of four arrays is looked at with fewer than 100 calls of Python: no step feels it."""
    calls = []
    sys.setprofile(lambda _, event, __: calls.append(event) if event == "call" else None)
    try:
        size({"input_ids": IDS, "labels": IDS, "attention_mask": MASK, "position_ids": IDS})
    finally:
        sys.setprofile(None)

    assert len(calls) < 100
