"""The tokenised form: ids and labels of each record, written in one pass and mapped."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.data.kinds import Dialogue, Turn
from trainpace.data.sources import Seen, Source
from trainpace.data.tokenized import encode, tokenized
from trainpace.data.tokenizer import ByteTokenizer
from trainpace.errors import DataError

TURNS = st.lists(st.builds(Turn, st.text("ab é"), st.text("ab é", min_size=1)), min_size=1, max_size=3)
DIALOGUES = st.lists(TURNS.map(tuple), min_size=1)


def made_of(dialogues: list[Dialogue]) -> Source:
    def read(seen: Seen) -> Iterator[tuple[float, Dialogue]]:
        for number, one in enumerate(dialogues, start=1):
            seen.records = number
            yield number / len(dialogues), one

    return Source(name="made", key=str(hash(tuple(dialogues))), dialogues=read)


def plain(one: Dialogue) -> list[int]:
    return [id_ for prompt, answer in one for id_ in (1, *(3 + byte for byte in (prompt + answer).encode()), 2)]


def test_labels_judge_answer_and_eos_only() -> None:
    """Bos and prompt are -100; the labels are not shifted."""
    ids, labels, lengths = encode([(Turn("ab", "c"),), (Turn("d", "ef"),)], ByteTokenizer())

    assert ids.tolist() == [1, 100, 101, 102, 2, 1, 103, 104, 105, 2]
    assert labels.tolist() == [-100, -100, -100, 102, 2, -100, -100, 104, 105, 2]
    assert lengths.tolist() == [5, 5]


def test_each_turn_of_a_conversation_is_judged() -> None:
    """Each turn has a bos and an eos of its own; the record is as long as all its turns."""
    ids, labels, lengths = encode([(Turn("a", "b"), Turn("c", "de")), (Turn("", "f"),)], ByteTokenizer())

    assert ids.tolist() == [1, 100, 101, 2, 1, 102, 103, 104, 2, 1, 105, 2]
    assert labels.tolist() == [-100, -100, 101, 2, -100, -100, 103, 104, 2, -100, 105, 2]
    assert lengths.tolist() == [9, 3]


def test_tokenizer_without_bos_opens_no_record() -> None:
    """Where the tokenizer's config says that it has none, a record starts with its prompt."""
    tokenizer = ByteTokenizer()
    tokenizer.bos = None
    ids, labels, lengths = encode([(Turn("ab", "c"),), (Turn("d", "e"),)], tokenizer)

    assert ids.tolist() == [100, 101, 102, 2, 103, 104, 2]
    assert labels.tolist() == [-100, -100, 102, 2, -100, 104, 2]
    assert lengths.tolist() == [4, 3]


@given(DIALOGUES)
def test_lists_hold_each_record(tmp_path_factory: pytest.TempPathFactory, dialogues: list[Dialogue]) -> None:
    """The lists on disk are what a plain loop over the records gives."""
    tokens = tokenized(made_of(dialogues), ByteTokenizer(), tmp_path_factory.mktemp("cache"))
    expected = [plain(one) for one in dialogues]

    assert tokens.ids.to_pylist() == expected
    assert [len(labels) for labels in tokens.labels.to_pylist()] == [len(ids) for ids in expected]
    assert tokens.num_tokens == sum(map(len, expected))
    assert tokens.seen == Seen(records=len(dialogues))
    assert str(tokens.ids.type) == "large_list<item: int32>"


def test_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches give the lists that one gives, and each says how far it is."""
    dialogues = [(Turn("p" * size, "a" * (7 - size)),) for size in range(1, 7)] * 5
    whole = tokenized(made_of(dialogues), ByteTokenizer(), tmp_path / "whole")
    monkeypatch.setattr("trainpace.data.tokenized._BATCH", 20)
    said: list[tuple[float, str]] = []
    parts = tokenized(
        made_of(dialogues), ByteTokenizer(), tmp_path / "parts", lambda fraction, doing: said.append((fraction, doing))
    )

    assert whole.ids.equals(parts.ids)
    assert whole.labels.equals(parts.labels)
    assert np.array_equal(whole.offsets, parts.offsets)
    assert said == [(done / 30, "tokenising made") for done in range(3, 31, 3)]


def test_source_without_records(tmp_path: Path) -> None:
    """A set that has no record left is refused, and leaves nothing in the cache."""
    with pytest.raises(DataError, match=r"^made: expected records, got none$"):
        tokenized(made_of([]), ByteTokenizer(), tmp_path)

    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
