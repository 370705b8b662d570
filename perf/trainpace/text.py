"""Figures as text, written one way in every report and message: `4.8 %`, `1.25 GiB`, `torch 2.12.0 -> 2.13.0`."""

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

GIB = 1 << 30
"""Bytes."""
UNKNOWN = "-"
"""What stands for a figure that is not known."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters, those that hide in text or turn its direction, and halves of characters, which are no Unicode."""


def harmless(value: str) -> str:
    """What somebody else's program said, as text that a terminal shows and does not obey, and that is valid Unicode.

    Colours and movements are taken out; every other control character (but tab and newline) and every half of a
    character becomes U+FFFD. A carriage return begins a new line, as in the log of a progress bar.
    """
    return _CONTROL.sub("\ufffd", _COLOUR.sub("", value.replace("\r\n", "\n").replace("\r", "\n")))


def harmless_values(value: Any) -> Any:
    """What JSON holds, with every text in it `harmless`."""
    match value:
        case str():
            return harmless(value)
        case dict():
            return {harmless(key): harmless_values(each) for key, each in value.items()}
        case list():
            return [harmless_values(each) for each in value]
    return value


_LAST_COMMAND = re.compile(r"(.*[^\s,:(])[,:]?\s+`((?:pytest|pip|python|tox) [^`]*)`", re.DOTALL)


def command_apart(sentence: str) -> tuple[str, str | None]:
    """A sentence that ends in a command, and the command: `record it with:` and `pytest perf --perf-refresh`.

    On a terminal it stands on a line of its own, which can be copied whole: in a shell its quotes would run what the
    command prints. None for a sentence without one.
    """
    found = _LAST_COMMAND.fullmatch(sentence)
    return (f"{found[1]}:", found[2]) if found else (sentence, None)


def known(value: float | None, form: str) -> str:
    """`value` in the format `form`; UNKNOWN where it is None."""
    return UNKNOWN if value is None else f"{value:{form}}"


def percent(share: float) -> str:
    """A share with at most one digit: `4.1 %`, `5 %`."""
    return fixed_percent(share).replace(".0 ", " ")


def fixed_percent(share: float, digits: int = 1) -> str:
    """A share with `digits` digits: `57.0 %`, which a column aligns."""
    return f"{100 * share:.{digits}f} %"


def signed_percent(share: float, digits: int = 1) -> str:
    """A difference as a share: `+1.5 %`, `-0.3 %`."""
    return f"{100 * share:+.{digits}f} %"


def gib(num_bytes: float, digits: int = 2) -> str:
    """`1.25 GiB`."""
    return f"{num_bytes / GIB:.{digits}f} GiB"


def tflops(value: float | None) -> str:
    """At most six characters from a mini model to a B200: `0.0011`, `12.35`, `2250`; UNKNOWN for None."""
    return known(value, ".4g" if value is None or value >= 1 else "#.2g")


def count(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def tally(
    named: Iterable[tuple[str, str]], *, order: Iterable[str], unnamed: Container[str] = (), once: bool = False
) -> str:
    """`13 pass, 1 regression (llama2_7b-8k-sp1)`: how many there are of each kind, and their names.

    Args:
        named: kind and name of each.
        order: the kinds in the order in which they are counted; what is not there is left out.
        unnamed: kinds whose names are not given.
        once: a name that a kind has twice is given once.
    """
    names = grouped((name, [kind]) for kind, name in named)
    parts = []
    for kind in order:
        if kind in names:
            listed = ", ".join(dict.fromkeys(names[kind]) if once else names[kind])
            parts.append(f"{len(names[kind])} {kind}" + ("" if kind in unnamed else f" ({listed})"))
    return ", ".join(parts)


def short_revision(revision: str | None, *, unknown: str) -> str:
    """The first ten digits of a commit, and `+dirty` where it is; `unknown` for None."""
    commit, plus, dirty = (revision or unknown).partition("+")
    return commit[:10] + plus + dirty


def differences(
    then: Mapping[str, str], now: Mapping[str, str], names: Iterable[str] | None = None
) -> list[tuple[str, str | None, str | None]]:
    """Software whose versions differ: name, version then, version now (None where it is absent), by name.

    `names` are those to look at; None for all.
    """
    looked_at = then.keys() | now.keys() if names is None else names
    return [(name, then.get(name), now.get(name)) for name in sorted(looked_at) if then.get(name) != now.get(name)]


def version_changes(
    then: Mapping[str, str], now: Mapping[str, str], names: Iterable[str] | None = None, *, absent: str = "absent"
) -> list[str]:
    """`torch 2.12.0 -> 2.13.0` of each of the `differences`."""
    return [f"{name} {old or absent} -> {new or absent}" for name, old, new in differences(then, now, names)]


def grouped(sentences: Iterable[tuple[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Each sentence once, with the cases that it is said of.

    Args:
        sentences: a case, and what is said of it.
    """
    cases: dict[str, list[str]] = {}
    for case, texts in sentences:
        for text in texts:
            cases.setdefault(text, []).append(case)
    return cases
