"""The default corpus: generated records of made-up words, so that a first run needs neither a file nor a network.

Their lengths, in tokens of the byte tokenizer, follow the published sets in Llama-2 tokens (mean, median, 95th
percentile and maximum), so that a packed sequence holds about as many documents as there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainpace.data.cache import content_key
from trainpace.data.kinds import ALPACA, Dialogue, dialogue
from trainpace.data.sources import Seen, Source

# Raised when the text changes; the name of a generated source carries it.
# 1: first text (2026-11).
VERSION = 1

# Tokens of a record that are no text of ours: bos, "[INST] ", " [/INST]", eos.
_TEMPLATE = 17


@dataclass(frozen=True, kw_only=True)
class Language:
    """What the records of one set look like."""

    name: str
    quantiles: tuple[tuple[int, int], ...]
    """(per mille of the records, tokens at most), lines in between. The ends, the median, 950 and the mean are those
    of the published set; 250 and 750 are chosen for the mean to come out."""
    with_input: int
    """Per cent of the records that have an input."""
    seed: int


ENGLISH = Language(
    name="en", quantiles=((0, 42), (250, 72), (500, 148), (750, 268), (950, 479), (1000, 747)), with_input=41, seed=1
)
CHINESE = Language(
    name="zh", quantiles=((0, 84), (250, 141), (500, 242), (750, 384), (950, 606), (1000, 752)), with_input=14, seed=2
)


def generated(language: Language, count: int = 1000) -> Source:
    """A source of `count` generated records; the same on every machine."""
    return Source(
        name=f"generated-{language.name}-{VERSION}",
        key=content_key("generated", VERSION, language.name, count),
        dialogues=lambda seen: _dialogues(language, count, seen),
    )


def _dialogues(language: Language, count: int, seen: Seen) -> Iterator[tuple[float, Dialogue]]:
    seen.kind = ALPACA.name
    for number, record in enumerate(records(language, count), start=1):
        seen.records = number
        yield number / count, dialogue(record, ALPACA)


def records(language: Language, count: int = 1000) -> list[dict[str, str]]:
    """`count` Alpaca records (instruction, input, output), shuffled; each has exactly its length in UTF-8 bytes."""
    random = np.random.Generator(np.random.PCG64(language.seed))
    lengths = random.permutation(token_lengths(language.quantiles, count))
    with_input = random.integers(100, size=count) < language.with_input
    words = _chinese_words(random) if language is CHINESE else _english_words(random)
    # The square makes early words frequent: uneven as in a language, though not its law.
    draws = (random.random(count * 200) ** 2 * len(words)).astype(np.int64)
    drawn = _Words(words, draws, space="" if language is CHINESE else " ")
    return [
        _record(drawn, int(length) - _TEMPLATE, has_input=bool(has))
        for length, has in zip(lengths, with_input, strict=True)
    ]


def token_lengths(quantiles: Sequence[tuple[int, int]], count: int) -> list[int]:
    """`count` lengths in tokens, shortest first, at evenly spaced places of the distribution; in whole numbers only."""
    lengths = []
    for index in range(count):
        # In units of 1 / (count - 1) per mille, so that nothing is rounded before the division.
        place, unit = index * 1000, max(count - 1, 1)
        (low, low_tokens), (high, high_tokens) = next(
            pair for pair in pairwise(quantiles) if place <= pair[1][0] * unit
        )
        lengths.append(low_tokens + (high_tokens - low_tokens) * (place - low * unit) // ((high - low) * unit))
    return lengths


def _record(words: "_Words", size: int, *, has_input: bool) -> dict[str, str]:
    instruction = min(max(size // 4, 9), 90)
    extra = size // 5 if has_input else 0
    # A line break stands between instruction and input.
    output = size - instruction - (extra + 1 if extra else 0)
    return {
        "instruction": words.text(instruction),
        "input": words.text(extra) if extra else "",
        "output": words.text(output),
    }


class _Words:
    """Hands out text of an exact size in bytes, word after drawn word."""

    def __init__(self, words: list[str], draws: np.ndarray[tuple[int], np.dtype[np.int64]], *, space: str) -> None:
        self._words = [word + space for word in words]
        self._draws = iter(draws.tolist())

    def text(self, size: int) -> str:
        parts: list[str] = []
        left = size
        while left > 0:
            parts.append(self._words[next(self._draws)])
            left -= len(parts[-1].encode())
        # Cut by bytes, a character may be halved; what is missing then, and the last byte, become full stops.
        kept = "".join(parts).encode()[: size - 1].decode(errors="ignore").rstrip()
        return kept + "." * (size - len(kept.encode()))


def _english_words(random: np.random.Generator) -> list[str]:
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    picks = random.integers((len(consonants), len(vowels)) * 4, size=(2000, 8)).tolist()
    syllables = random.integers(1, 5, size=2000).tolist()
    return [
        "".join(consonants[c] + vowels[v] for c, v in zip(pick[::2], pick[1::2], strict=True))[: 2 * count]
        for pick, count in zip(picks, syllables, strict=True)
    ]


def _chinese_words(random: np.random.Generator) -> list[str]:
    first, last = 0x4E00, 0x9FA5
    picks = random.integers(first, last + 1, size=(2000, 3)).tolist()
    characters = random.integers(1, 4, size=2000).tolist()
    return ["".join(map(chr, pick[:count])) for pick, count in zip(picks, characters, strict=True)]
