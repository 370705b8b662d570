"""Token ids -> packed sequences: each source shuffled, concatenated and cut on its own, then all mixed; cached.

As published: documents run on across cuts, and what a pass leaves over after its last whole sequence is dropped.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainpace.data.base import Progress, silent, within
from trainpace.data.cache import content_key, entry
from trainpace.data.corpus import CHINESE, ENGLISH, generated
from trainpace.data.sources import Seen, Source, source
from trainpace.data.tokenized import IGNORED, LAYOUT, Tokenized, tokenized
from trainpace.data.tokenizer import Ids, Positions, tokenizer_named
from trainpace.errors import DataError

# Tokens gathered at once: few calls, and arrays that stay in a core's cache better than whole sequences of 1M.
_BLOCK = 1 << 18

# The part of the progress that tokenising is given; packing is an order of magnitude faster.
_TOKENISING = 0.8


@dataclass(frozen=True, kw_only=True)
class Packed:
    """`count` sequences of exactly `sequence` tokens, mapped from disk and shared by all ranks of a machine."""

    ids: "np.memmap[Any, np.dtype[np.int32]]"
    """[count, sequence], read-only."""
    labels: "np.memmap[Any, np.dtype[np.int32]]"
    """[count, sequence], read-only: the ids where judged, else -100. Not shifted."""
    boundaries: Positions
    """Positions in [count * sequence], ascending, at which a document starts or, cut in two, goes on in a sequence."""
    identity: dict[str, Any]
    """The fields of a run's data identity: sources, tokenizer, fingerprint (over ids and labels), seed."""
    trained_on: list[dict[str, Any]]
    """Of each source the fields of trainpace.runs.run.TrainedOn: name, kind, records, tokens, what was skipped."""
    folder: Path
    """Where the files lie: `opened(folder)` gives the same in another process."""

    def document_starts(self, index: int) -> Positions:
        """Where documents start within sequence `index`; the first is 0, a piece cut off before included."""
        count, sequence = self.ids.shape
        if not 0 <= index < count:
            raise IndexError(f"index must be in 0..{count - 1}, got {index}")
        low, high = np.searchsorted(self.boundaries, (index * sequence, (index + 1) * sequence))
        starts: Positions = self.boundaries[low:high] - index * sequence
        return starts


def packed(
    *,
    sources: Sequence[str],
    tokenizer: str,
    sequence: int,
    count: int,
    seed: int,
    cache: Path,
    progress: Progress = silent,
    skip_bad: bool = False,
) -> Packed:
    """`count` packed sequences of `sequence` tokens, from the cache or made and put there.

    Sources (files, names on the hub; none: the generated corpus) supply sequences in proportion to their tokens, and
    their records repeat, shuffled anew each time, as often as `count` needs. Many processes may call it at once: one
    makes the entry, the others wait and map it. With `skip_bad` records that cannot be used are left out and counted.

    Raises:
        DataError: for a source, a record or a tokenizer that cannot be used.
        ValueError: for a number out of bounds.
    """
    for name, value, least in (("sequence", sequence, 1), ("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    found = sources_named(sources, skip_bad=skip_bad)
    encoder = tokenizer_named(tokenizer)
    names = [one.name for one in found]
    key = content_key(LAYOUT, names, [one.key for one in found], encoder.name, encoder.key, sequence, count, seed)

    def build(folder: Path) -> None:
        share = _TOKENISING / len(found)
        tokens = [
            tokenized(one, encoder, cache, within(progress, share * index, share * (index + 1)))
            for index, one in enumerate(found)
        ]
        packing = within(progress, _TOKENISING, 1.0)
        fingerprint = pack(tokens, folder, sequence=sequence, count=count, seed=seed, progress=packing)
        trained_on = [_trained_on(one, each) for one, each in zip(found, tokens, strict=True)]
        identity = {
            "sources": [each["name"] for each in trained_on],
            "tokenizer": encoder.name,
            "fingerprint": fingerprint,
            "seed": seed,
        }
        (folder / "identity.json").write_text(json.dumps(identity, indent=1, sort_keys=True) + "\n")
        (folder / "trained_on.json").write_text(json.dumps(trained_on, indent=1, sort_keys=True) + "\n")

    folder = entry(cache, f"packed-{key}", build, progress)
    progress(1.0, "packed")
    return opened(folder)


def opened(folder: Path) -> Packed:
    """Map what `packed` left in `folder`, and compare it with what it is said to be: others may write there.

    Reads all of it, about a second a gigabyte.

    Raises:
        DataError: where the files are not there, not whole, or not those that were packed.
    """
    try:
        found = Packed(
            ids=np.load(folder / "ids.npy", mmap_mode="r"),
            labels=np.load(folder / "labels.npy", mmap_mode="r"),
            boundaries=np.load(folder / "boundaries.npy"),
            identity=json.loads((folder / "identity.json").read_bytes()),
            trained_on=json.loads((folder / "trained_on.json").read_bytes()),
            folder=folder,
        )
        compared = (
            ("ids and labels", found.identity["fingerprint"], _fingerprint(found.ids, found.labels)),
            ("boundaries", (folder / "boundaries.sha256").read_text().strip(), _hash(found.boundaries)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not whole: {error}; delete the folder to have it made again") from None
    for name, expected, got in compared:
        if got != expected:
            raise DataError(
                f"{folder}: expected {name} of the fingerprint {expected}, as they were packed, got {got}: somebody "
                "changed them; delete the folder to have it made again"
            )
    return found


def pack(
    sources: Sequence[Tokenized], folder: Path, *, sequence: int, count: int, seed: int, progress: Progress = silent
) -> str:
    """Pack `sources` into ids.npy and labels.npy, [count, sequence], and boundaries.npy with its hash.

    Returns the fingerprint of ids and labels.
    """
    ids_map, labels_map = (_created(folder / name, (count, sequence)) for name in ("ids.npy", "labels.npy"))
    ids, labels = np.asarray(ids_map), np.asarray(labels_map)
    # Sequence k of the sources, one source after the other, goes to row rows[k].
    rows = np.random.Generator(np.random.PCG64([seed, 0])).permutation(count)
    boundaries = [np.arange(count) * sequence]
    first = 0
    for index, (tokens, share) in enumerate(
        zip(sources, shares([one.num_tokens for one in sources], count), strict=True)
    ):
        random = np.random.Generator(np.random.PCG64([seed, index + 1]))
        at = first * sequence
        for block in stream(tokens, share * sequence, random):
            row, column = np.divmod(at + block.starts, sequence)
            boundaries.append(rows[row] * sequence + column)
            _place(block, at, rows, ids, labels)
            at += len(block.ids)
            progress(at / (count * sequence), "packing")
        first += share
    _judge_something(ids, labels)
    found = np.sort(np.concatenate(boundaries))
    # A document that starts where its sequence does was found twice.
    once = found[np.diff(found, prepend=-1) > 0]
    np.save(folder / "boundaries.npy", once)
    (folder / "boundaries.sha256").write_text(_hash(once) + "\n")
    return _fingerprint(ids, labels)


def _trained_on(source: Source, tokens: Tokenized) -> dict[str, Any]:
    seen = tokens.seen or Seen()
    return {
        "name": source.name_of(seen),
        "kind": seen.kind,
        "records": seen.records,
        "tokens": tokens.num_tokens,
        "skipped": seen.skipped,
        "reasons": seen.reasons,
    }


def sources_named(names: Sequence[str], *, skip_bad: bool = False) -> list[Source]:
    """The sources of these names; of none the generated corpus.

    Raises:
        DataError: for a name that leads to none.
    """
    return [source(name, skip_bad=skip_bad) for name in names] or [generated(ENGLISH), generated(CHINESE)]


class Block(NamedTuple):
    """A part of a source's stream of tokens."""

    ids: Ids
    labels: Ids
    starts: Positions
    """Where records start in it."""


def stream(tokens: Tokenized, need: int, random: np.random.Generator) -> Iterator[Block]:
    """The first `need` tokens of the records, shuffled, concatenated, and shuffled anew for every further pass."""
    import pyarrow as pa  # type: ignore[import-untyped]

    lengths = np.diff(tokens.offsets)
    while need > 0:
        order = random.permutation(len(lengths))
        ends = np.cumsum(lengths[order])
        # Of the last pass only the records that are still needed.
        used = min(len(order), int(np.searchsorted(ends, need)) + 1)
        cuts = np.searchsorted(ends[:used], np.arange(_BLOCK, int(ends[used - 1]), _BLOCK), side="right")
        for part in np.split(order[:used], np.unique(cuts[cuts > 0])):
            taken = pa.array(part)
            ids, labels = (lists.take(taken).flatten().to_numpy()[:need] for lists in (tokens.ids, tokens.labels))
            starts = np.cumsum(lengths[part]) - lengths[part]
            yield Block(ids, labels, starts)
            need -= len(ids)


def shares(tokens: Sequence[int], count: int) -> list[int]:
    """How many of `count` sequences each source supplies: in proportion to its `tokens`, largest remainders up."""
    total = sum(tokens)
    result = [one * count // total for one in tokens]
    by_remainder = sorted(range(len(tokens)), key=lambda index: -(tokens[index] * count % total))
    for index in by_remainder[: count - sum(result)]:
        result[index] += 1
    return result


def _place(block: Block, at: int, rows: Positions, ids: Ids, labels: Ids) -> None:
    """Copy `block`, whose first token is number `at` of the unmixed sequences, to the rows that it runs through."""
    sequence = ids.shape[1]
    done = 0
    while done < len(block.ids):
        row, column = divmod(at + done, sequence)
        end = min(len(block.ids), done + sequence - column)
        ids[rows[row], column : column + end - done] = block.ids[done:end]
        labels[rows[row], column : column + end - done] = block.labels[done:end]
        done = end


def _judge_something(ids: Ids, labels: Ids) -> None:
    """Judge the last token of a sequence in which none is: the mean loss over no token is a number for nobody.

    Only sequences shorter than a record's prompt have that. The first label is never used: it has nothing before it.
    """
    for row in range(len(labels)):
        if (labels[row, 1:] == IGNORED).all():
            labels[row, -1] = ids[row, -1]


def _created(path: Path, shape: tuple[int, int]) -> "np.memmap[Any, np.dtype[np.int32]]":
    """An empty .npy file to map; a full disk says so here, and not by a bus error when a page is written."""
    created = np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return created


def _hash(boundaries: Positions) -> str:
    return hashlib.sha256(boundaries.tobytes()).hexdigest()[:16]


def _fingerprint(ids: Ids, labels: Ids) -> str:
    digest = hashlib.sha256(repr(ids.shape).encode())
    digest.update(ids.data)
    digest.update(labels.data)
    return digest.hexdigest()[:16]
