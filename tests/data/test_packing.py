"""Packing: no token lost or changed, cut exactly, mixed by the seed; one entry for all ranks, whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpace.data import Packed, opened, packed
from trainpace.data.packing import Block, pack, shares, stream
from trainpace.data.tokenized import Tokenized, lists
from trainpace.errors import DataError
from trainpace.runs.run import DataIdentity, TrainedOn

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)

ASK = """
import sys
from pathlib import Path
from trainpace.data import packed
doing = set()
data = packed(sources=sys.argv[2:], tokenizer="bytes", sequence=256, count=64, seed=3, cache=Path(sys.argv[1]),
              progress=lambda fraction, what: doing.add(what))
print(data.identity["fingerprint"], int(data.ids.sum()), "packing" in doing)
"""

DIE = """
import os, signal, sys
from pathlib import Path
from trainpace.data import packed
def progress(fraction, what):
    if what == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
packed(sources=[], tokenizer="bytes", sequence=256, count=8, seed=0, cache=Path(sys.argv[1]), progress=progress)
"""


def tokens_of(lengths: list[int], first: int = 0) -> Tokenized:
    """Records of the given lengths whose ids are all different, `first` and on; every other token is judged."""
    ids = np.arange(first, first + sum(lengths), dtype=np.int32)
    labels = np.where(ids % 2, ids, np.int32(-100))
    return lists(ids, labels, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def whole(blocks: list[Block]) -> tuple[list[int], list[int]]:
    return (
        np.concatenate([block.ids for block in blocks]).tolist(),
        np.concatenate([block.labels for block in blocks]).tolist(),
    )


def ask(cache: Path, **changed: Any) -> Packed:
    asked: dict[str, Any] = {"sources": (), "tokenizer": "bytes", "sequence": 256, "count": 8, "seed": 0}
    return packed(cache=cache, **(asked | changed))


def written(path: Path, text: str) -> str:
    record = {"instruction": text, "input": "", "output": text}
    path.write_text(json.dumps([record] * 3))
    return str(path)


@given(LENGTHS, st.integers(1, 3), st.integers(0, 5), st.sampled_from([4, 50, 1 << 18]))
def test_stream_is_the_records_shuffled(lengths: list[int], passes: int, seed: int, block: int) -> None:
    """Every pass holds each record once, whole and unchanged, in an order of its own, whatever the block size."""
    tokens = tokens_of(lengths)
    random, again = (np.random.Generator(np.random.PCG64(seed)) for _ in range(2))
    records = tokens.ids.to_pylist()
    orders = [again.permutation(len(records)) for _ in range(passes)]
    expected = [token for order in orders for index in order for token in records[index]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainpace.data.packing._BLOCK", block)
        ids, labels = whole(list(stream(tokens, passes * tokens.num_tokens, random)))

    assert expected == ids
    assert [token if token % 2 else -100 for token in expected] == labels


@given(LENGTHS, st.data())
def test_stream_gives_what_is_needed(lengths: list[int], data: st.DataObject) -> None:
    """Fewer tokens are the beginning of more."""
    tokens = tokens_of(lengths)
    need = data.draw(st.integers(1, 2 * tokens.num_tokens))
    short, long = (
        whole(list(stream(tokens, size, np.random.Generator(np.random.PCG64(1)))))
        for size in (need, 2 * tokens.num_tokens)
    )

    assert short == (long[0][:need], long[1][:need])


@given(LENGTHS, LENGTHS, st.tuples(st.integers(1, 20), st.integers(1, 64)), st.integers(0, 3))
def test_pack_loses_only_the_remainder(
    tmp_path_factory: pytest.TempPathFactory, one: list[int], two: list[int], shape: tuple[int, int], seed: int
) -> None:
    """The rows, unmixed, are each source's stream cut into pieces, with labels and document starts in place.

    A row in which nothing is judged has its last token judged.
    """
    folder = tmp_path_factory.mktemp("packed")
    count, sequence = shape
    sources = [tokens_of(one), tokens_of(two, first=10_000)]
    fingerprint = pack(sources, folder, sequence=sequence, count=count, seed=seed)
    (folder / "identity.json").write_text(json.dumps({"fingerprint": fingerprint}))
    (folder / "trained_on.json").write_text("[]")
    made = opened(folder)
    streams = [
        list(stream(tokens, share * sequence, np.random.Generator(np.random.PCG64([seed, index + 1]))))
        for index, (tokens, share) in enumerate(
            zip(sources, shares([tokens.num_tokens for tokens in sources], count), strict=True)
        )
    ]
    expected = np.concatenate([block.ids for blocks in streams for block in blocks]).reshape(count, sequence)
    order = np.random.Generator(np.random.PCG64([seed, 0])).permutation(count)
    begins = {int(start) for tokens in sources for start in tokens.ids.values.to_numpy()[tokens.offsets[:-1]]}

    assert np.array_equal(expected, made.ids[order])
    labels = np.where(made.ids % 2, made.ids, -100)
    nothing = (labels[:, 1:] == -100).all(axis=1)
    labels[nothing, -1] = made.ids[nothing, -1]
    assert np.array_equal(labels, made.labels)
    for index in range(count):
        row = made.ids[index].tolist()
        assert [0, *(place for place in range(1, sequence) if row[place] in begins)] == (
            made.document_starts(index).tolist()
        )


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), st.integers(1, 10**6))
def test_shares_add_up(tokens: list[int], count: int) -> None:
    """Each source's part is within one sequence of its proportion."""
    found = shares(tokens, count)

    assert sum(found) == count
    assert all(abs(part - count * size / sum(tokens)) <= 1 + 1e-6 for part, size in zip(found, tokens, strict=True))


def test_default_corpus(tmp_path: Path) -> None:
    """Without sources: both generated sets, mixed, in sequences of the exact length, read-only."""
    made = ask(tmp_path, count=40)

    assert (made.ids.shape, made.labels.shape) == ((40, 256), (40, 256))
    assert (made.ids.dtype, made.labels.dtype) == (np.int32, np.int32)
    assert isinstance(made.ids, np.memmap)
    assert not made.ids.flags.writeable
    assert bool(((made.labels == made.ids) | (made.labels == -100)).all())
    assert made.identity["sources"] == ["generated-en-1", "generated-zh-1"]


def test_identity_is_that_of_a_run(tmp_path: Path) -> None:
    """The identity has the fields of a run's data identity and no path in it."""
    source = written(tmp_path / "mine.json", "some words")
    identity = ask(tmp_path, sources=[source]).identity

    assert DataIdentity.model_validate(identity).model_dump(mode="json") == identity
    assert identity["sources"][0].startswith("mine.json@")
    assert str(tmp_path) not in json.dumps(identity)
    assert (identity["tokenizer"], identity["seed"]) == ("bytes", 0)


def test_what_was_found_is_that_of_a_run(tmp_path: Path) -> None:
    """Kind, records and tokens of each source; records that were skipped are a part of the identity."""
    record = {"instruction": "a", "input": "", "output": "b"}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [record, {"text": "x"}, record])))
    made = ask(tmp_path, sources=[str(tmp_path / "a.jsonl")], skip_bad=True)
    (found,) = map(TrainedOn.model_validate, made.trained_on)

    assert (found.kind, found.records, found.tokens, found.skipped) == (
        "alpaca",
        2,
        2 * (3 + len("[INST] a [/INST]")),
        1,
    )
    assert [found.name] == made.identity["sources"]
    assert found.name.endswith(" less 1 record")
    assert str(found) == f"{found.name} (alpaca, 2 records, 38 tokens, 1 skipped)"
    assert str(found.left_out).startswith(f"{found.name}: skipped record 2: expected the keys of the kind alpaca ")


def test_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    """Equal requests give equal tokens in any cache; another seed, length, number or source gives others."""
    base = ask(tmp_path / "a").identity["fingerprint"]
    other = [
        ask(tmp_path / "a", **change).identity["fingerprint"]
        for change in (
            {"seed": 1},
            {"sequence": 128},
            {"count": 9},
            {"sources": [written(tmp_path / "x.json", "one")]},
            {"sources": [written(tmp_path / "y.json", "two")]},
        )
    ]

    assert base == ask(tmp_path / "b").identity["fingerprint"]
    assert len({base, *other}) == 6


def test_second_length_does_not_tokenise_again(tmp_path: Path) -> None:
    """The tokenised form is cached apart from what is packed from it."""
    said: list[str] = []
    ask(tmp_path)
    ask(tmp_path, sequence=512, progress=lambda _fraction, doing: said.append(doing))

    assert set(said) == {"packing", "packed"}


def test_progress_rises_to_one(tmp_path: Path) -> None:
    """A progress bar can follow the whole: each source's tokenising, then packing."""
    said: list[tuple[float, str]] = []
    ask(tmp_path, progress=lambda fraction, doing: said.append((fraction, doing)))
    fractions = [fraction for fraction, _ in said]

    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert [doing for _, doing in said] == [
        "tokenising generated-en-1",
        "tokenising generated-zh-1",
        "packing",
        "packing",
        "packed",
    ]


def test_records_repeat_as_needed(tmp_path: Path) -> None:
    """A small file fills as many and as long sequences as are asked for."""
    made = ask(tmp_path, sources=[written(tmp_path / "small.json", "a")], sequence=1000, count=7)

    assert made.ids.shape == (7, 1000)
    assert all(len(made.document_starts(index)) > 40 for index in range(7))


def test_ranks_share_one_entry(tmp_path: Path) -> None:
    """Of four processes that ask at once one packs, and all see the same."""
    ranks = [
        subprocess.Popen([sys.executable, "-c", ASK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [rank.communicate()[0].split() for rank in ranks]

    assert [rank.returncode for rank in ranks] == [0] * 4
    assert len({(fingerprint, total) for fingerprint, total, _ in answers}) == 1
    assert sorted(packs for *_, packs in answers) == ["False", "False", "False", "True"]


@pytest.mark.parametrize("at", ["tokenising generated-zh-1", "packing"])
def test_killed_writer_leaves_no_entry(tmp_path: Path, at: str) -> None:
    """After a writer is killed half-way the next one cleans up after it and packs what an undisturbed one does."""
    died = subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "cache"), at], check=False)
    left = [path.name for path in (tmp_path / "cache").glob(".*")]
    made = ask(tmp_path / "cache")

    assert died.returncode == -9
    assert left
    assert list((tmp_path / "cache").glob(".*")) == []
    assert made.identity == ask(tmp_path / "undisturbed").identity


def test_entry_that_is_not_whole(tmp_path: Path) -> None:
    """Files that someone cut or removed are named, with what to do."""
    folder = ask(tmp_path).folder
    (folder / "labels.npy").write_bytes((folder / "labels.npy").read_bytes()[:1000])
    with pytest.raises(DataError) as cut:
        ask(tmp_path)
    (folder / "ids.npy").unlink()
    with pytest.raises(DataError) as gone:
        opened(folder)

    assert str(cut.value).startswith(f"{folder}: not whole: ")
    assert str(cut.value).endswith("; delete the folder to have it made again")
    assert str(gone.value).startswith(f"{folder}: not whole: ")


@pytest.mark.parametrize(
    ("file", "said"),
    [("ids.npy", "ids and labels"), ("labels.npy", "ids and labels"), ("boundaries.npy", "boundaries")],
)
def test_entry_that_somebody_changed(tmp_path: Path, file: str, said: str) -> None:
    """Tokens that are not those that were packed are refused, though the files are whole and name the same identity."""
    path = ask(tmp_path).folder / file
    changed = np.load(path)
    changed.flat[7] += 1
    np.save(path, changed)

    with pytest.raises(DataError, match=f"expected {said} of the fingerprint [0-9a-f]{{16}}, as they were packed, got"):
        ask(tmp_path)


def test_bad_record_leaves_no_entry(tmp_path: Path) -> None:
    """An error in a file reaches the caller, and again at the next request."""
    (tmp_path / "bad.json").write_text('[\n{"instruction": "a", "input": ""}]')
    said = []
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            ask(tmp_path / "cache", sources=[str(tmp_path / "bad.json")])
        said.append(str(caught.value))

    assert said[0] == said[1]
    assert said[0].startswith(f"{tmp_path / 'bad.json'}, record 1 (line 2): key 'output': expected text")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sequence": 0}, "sequence must be at least 1, got 0"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_numbers_out_of_bounds(tmp_path: Path, change: dict[str, int], said: str) -> None:
    """A number that cannot be packed to is named with its bound."""
    with pytest.raises(ValueError, match=f"^{said}$"):
        ask(tmp_path, **change)


def test_document_starts_within_bounds(tmp_path: Path) -> None:
    """A sequence that is not there is an error, and not the last one's boundaries."""
    made = ask(tmp_path)
    with pytest.raises(IndexError, match=r"^index must be in 0..7, got 8$"):
        made.document_starts(8)
    with pytest.raises(IndexError, match=r"^index must be in 0..7, got -1$"):
        made.document_starts(-1)

    assert made.document_starts(7)[0] == 0
