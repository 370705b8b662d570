"""The tokenised form: each record's ids and labels as Arrow lists over flat files, so that any length packs from it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainpace.data.base import Progress, silent
from trainpace.data.cache import content_key, entry
from trainpace.data.kinds import Dialogue
from trainpace.data.sources import Seen, Source
from trainpace.data.tokenizer import Ids, Positions, Tokenizer
from trainpace.errors import DataError

IGNORED = -100
"""The label of a token that is not judged (PyTorch's convention)."""

LAYOUT = 2
"""Of the folder. Not the cache's FORMAT, which names of tokenizers hang on. 2: what was found in the source."""

# Characters tokenised at once: enough that no time is spent per record, and the arrays of a batch stay in tens of MB.
_BATCH = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """The records of one source as token ids, mapped from disk."""

    ids: Any
    """pyarrow.LargeListArray of int32, a list a record: bos, prompt, answer, eos of each of its turns."""
    labels: Any
    """The same shape: the ids on answer and eos, IGNORED before. Not shifted."""
    offsets: Positions
    """[records + 1]: where each record's tokens start, and the end."""
    seen: Seen | None = None
    """What was found in the source; None where the lists are made of no source."""

    @property
    def num_tokens(self) -> int:
        """Tokens of one pass over the records."""
        return int(self.offsets[-1])


def lists(ids: Ids, labels: Ids, offsets: Positions, seen: Seen | None = None) -> Tokenized:
    """Arrow lists over flat `ids` and `labels`, [tokens] each, without a copy; `offsets` is [records + 1]."""
    import pyarrow as pa  # type: ignore[import-untyped]

    starts = pa.array(offsets)
    return Tokenized(
        ids=pa.LargeListArray.from_arrays(starts, pa.array(ids)),
        labels=pa.LargeListArray.from_arrays(starts, pa.array(labels)),
        offsets=offsets,
        seen=seen,
    )


def tokenized(source: Source, tokenizer: Tokenizer, cache: Path, progress: Progress = silent) -> Tokenized:
    """The tokenised form of `source`, made where the cache lacks it.

    Raises:
        DataError: for the first record that cannot be used.
    """
    key = content_key(LAYOUT, source.key, tokenizer.key)
    folder = entry(cache, f"tokens-{key}", lambda into: _write(into, source, tokenizer, progress), progress)
    ids, labels = (np.memmap(folder / name, np.int32, mode="r") for name in ("ids.i32", "labels.i32"))
    seen = Seen(**json.loads((folder / "seen.json").read_bytes()))
    return lists(ids, labels, np.fromfile(folder / "offsets.i64", np.int64), seen)


def _write(folder: Path, source: Source, tokenizer: Tokenizer, progress: Progress) -> None:
    end, seen = 0, Seen()
    with (
        (folder / "ids.i32").open("wb") as ids_file,
        (folder / "labels.i32").open("wb") as labels_file,
        (folder / "offsets.i64").open("wb") as offsets_file,
    ):
        np.zeros(1, np.int64).tofile(offsets_file)
        for fraction, batch in _batches(source.dialogues(seen)):
            ids, labels, lengths = encode(batch, tokenizer)
            ids.tofile(ids_file)
            labels.tofile(labels_file)
            (end + np.cumsum(lengths)).tofile(offsets_file)
            end += len(ids)
            progress(fraction, f"tokenising {source.name}")
    if not end:
        raise DataError(f"{source.name}: expected records, got none")
    (folder / "seen.json").write_text(json.dumps(asdict(seen)) + "\n")


def _batches(dialogues: Iterator[tuple[float, Dialogue]]) -> Iterator[tuple[float, list[Dialogue]]]:
    batch: list[Dialogue] = []
    size, fraction = 0, 0.0
    for fraction, dialogue in dialogues:
        batch.append(dialogue)
        size += sum(len(text) for turn in dialogue for text in turn)
        if size >= _BATCH:
            yield fraction, batch
            batch, size = [], 0
    if batch:
        yield fraction, batch


def encode(batch: list[Dialogue], tokenizer: Tokenizer) -> tuple[Ids, Ids, Positions]:
    """Token ids [tokens], labels [tokens] and lengths [records] of a batch: bos, prompt, answer, eos of each turn.

    Prompt and answer are tokenised apart, as published: no token may span what is judged and what is not.
    """
    turns = [turn for dialogue in batch for turn in dialogue]
    texts = [text for turn in turns for text in turn]
    content, content_lengths = tokenizer.encode(texts)
    has_bos = tokenizer.bos is not None
    # [turns, 2]: prompt with bos, answer with eos.
    parts = content_lengths.reshape(-1, 2) + np.array([int(has_bos), 1])
    lengths = parts.sum(axis=1)
    ends = np.cumsum(lengths)

    ids = np.empty(ends[-1], np.int32)
    is_content = np.ones(ends[-1], np.bool_)
    is_content[ends - 1] = False
    ids[ends - 1] = tokenizer.eos
    if has_bos:
        starts = ends - lengths
        is_content[starts] = False
        ids[starts] = tokenizer.bos
    ids[is_content] = content

    is_prompt = np.repeat(np.tile([True, False], len(turns)), parts.reshape(-1))
    labels = np.where(is_prompt, np.int32(IGNORED), ids)
    firsts = np.cumsum([0, *(len(dialogue) for dialogue in batch[:-1])])
    return ids, labels, np.add.reduceat(lengths, firsts)
