"""What every file of this room shares: its error, and the callback that says how far it has come."""

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the fraction that is done, 0..1, and what is being done now."""


def silent(fraction: float, doing: str) -> None:
    """The progress callback of a caller that shows none."""


def within(progress: Progress, start: float, end: float) -> Progress:
    """A callback whose 0..1 is `start`..`end` of `progress`: a part reports without knowing of the whole."""
    return lambda fraction, doing: progress(start + (end - start) * fraction, doing)
