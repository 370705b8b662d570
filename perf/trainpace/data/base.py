"""What every file of this room shares: what the ranks train on, and the callback that says how far packing has come."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[float, str], None]
"""Called with the fraction that is done, 0..1, and what is being done now."""


def silent(fraction: float, doing: str) -> None:
    """The progress callback of a caller that shows none."""


def within(progress: Progress, start: float, end: float) -> Progress:
    """A callback whose 0..1 is `start`..`end` of `progress`: a part reports without knowing of the whole."""
    return lambda fraction, doing: progress(start + (end - start) * fraction, doing)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Text and tokenizer that the ranks train on."""

    sources: tuple[str, ...] = ()
    """Local files or names on the hub; without any the generated corpus."""
    tokenizer: str = "bytes"
    """`bytes`, a local file, or a name on the hub."""
    skip_bad: bool = False
    """Whether records that cannot be used are left out and counted, and not refused."""
    seed: int = 0
    """Of the packing's order, and of the generated corpus."""
