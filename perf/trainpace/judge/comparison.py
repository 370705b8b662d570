"""What a case of a pull request was compared with, and how closely."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from trainpace.records import Record


class Comparison(Record):
    """Head against base, measured side by side in pairs."""

    base: str
    """What the base is: a commit, or an interpreter."""
    head: str
    base_tgs: PositiveFloat
    """Geometric mean over the pairs."""
    log_ratios: tuple[float, ...]
    """log(TGS of head / TGS of base), one a pair."""
    ratio: PositiveFloat
    """TGS of head / TGS of base, geometric mean over the pairs that were not set aside."""
    low: PositiveFloat
    """The ratio's interval, at the error that the session leaves a case."""
    high: PositiveFloat
    detect: PositiveFloat
    """The loss of TGS that had to be found, a share."""
    set_aside: NonNegativeInt = 0
    """Pairs that were outliers, and are in none of the figures."""
    repeated: NonNegativeInt = 0
    """Pairs measured again because something disturbed them."""
    pairs_needed: PositiveInt | None = None
    """Of an undecided case: pairs in all that would decide it; None where no number does."""
    spread: NonNegativeFloat | None = None
    """Standard deviation of log TGS between runs that it was judged by; None: nothing is known."""
    informed: bool = False
    """Whether the case's own spread was known before the session, and was used."""
    contradicted: bool = False
    """Whether it was known, and the session's pairs do not spread so."""
