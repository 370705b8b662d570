"""The generated corpus: the same everywhere, with the lengths of the published sets."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from trainpace.data.corpus import CHINESE, ENGLISH, VERSION, Language, generated, records, token_lengths
from trainpace.data.sources import Seen
from trainpace.data.tokenized import tokenized
from trainpace.data.tokenizer import ByteTokenizer


@pytest.mark.parametrize(
    ("language", "published"),
    [(ENGLISH, (198.9, 148, 479, 747)), (CHINESE, (286.9, 242, 606, 752))],
)
def test_lengths_follow_the_published_sets(
    tmp_path: Path, language: Language, published: tuple[float, float, float, int]
) -> None:
    """In tokens of the byte tokenizer: mean, median, 95th percentile, maximum."""
    mean, median, p95, largest = published
    lengths = np.diff(tokenized(generated(language), ByteTokenizer(), tmp_path).offsets)

    assert mean == pytest.approx(lengths.mean(), abs=0.2)
    assert median == pytest.approx(np.median(lengths), abs=1)
    assert p95 == pytest.approx(np.percentile(lengths, 95), abs=1)
    assert largest == lengths.max()


@pytest.mark.parametrize(
    ("language", "expected"),
    [(ENGLISH, "1c7634164a77d9f7"), (CHINESE, "ca7feef05e521563")],
)
def test_text_is_pinned(language: Language, expected: str) -> None:
    """Baselines are compared by it: another text needs another VERSION, on every machine and library version."""
    text = json.dumps(records(language), ensure_ascii=False)

    assert VERSION == 1
    assert expected == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("language", [ENGLISH, CHINESE])
@pytest.mark.parametrize("count", [1, 2, 37, 1000])
def test_any_count_is_whole_alpaca(language: Language, count: int) -> None:
    """Every generated record passes the checks of a record from a file."""
    dialogues = list(generated(language, count).dialogues(Seen()))

    assert len(dialogues) == count
    assert dialogues[-1][0] == 1.0


@pytest.mark.parametrize(("language", "expected"), [(ENGLISH, 0.41), (CHINESE, 0.14)])
def test_part_with_an_input(language: Language, expected: float) -> None:
    """Some records have an input, as in the published sets."""
    found = [bool(record["input"]) for record in records(language)]

    assert expected == pytest.approx(np.mean(found), abs=0.04)


def test_lengths_between_the_quantiles_are_linear() -> None:
    """The ends are met exactly, in whole numbers."""
    assert token_lengths(((0, 10), (500, 20), (1000, 100)), 5) == [10, 15, 20, 60, 100]
    assert token_lengths(((0, 10), (1000, 100)), 1) == [10]
