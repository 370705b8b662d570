"""The sequential test of the pull-request gate: log ratios of pairs in, a decision a case out, after every round.

Two questions are asked of a case's loss, -log(TGS head / TGS base): is it above 0 (then `regression`), and is it below
D, the minimum effect (then `pass`)? Each has its own error, spent over the rounds, so that deciding after every round
does not raise it: ALPHA for all cases of a session together, BETA for each case.

docs/statistics.md shows what it finds and how often it errs, and the command that computes it; docs/log.md what else
was tried.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainpace.runs.verdict import Verdict
from trainpace.stats.spending import chi_square_medians, quantiles, student, student_levels
from trainpace.stats.tolerance import (
    MAX_OUTLIER_SHARE,
    MIN_OUTLIER_DOF,
    OUTLIER_SD,
    SESSION_ERROR,
    WITHIN_CASE_ALPHA,
    error_per_case,
)

if TYPE_CHECKING:
    from numpy import bool_, float64, int64
    from numpy.typing import NDArray

    Floats = NDArray[float64]
    Integers = NDArray[int64]
    Booleans = NDArray[bool_]

ALPHA = SESSION_ERROR
"""Chance that a session of unchanged code shows any regression; the same again for improvements."""
BETA = 0.02
"""Chance that a case which lost D is called `pass`."""
UNDECIDED = 0.05
"""Share of unchanged sessions that may end with an undecided case: a D that leaves more is raised until it does not."""
ALPHA_EXPONENT, BETA_EXPONENT = 3, 2
"""After the share t of the pairs, error * t^exponent is spent. Late for `regression`, which keeps the power of a single
look at the end; sooner for `pass`, which is what ends a session of unchanged code early."""
LEAST_SPREAD = 1e-4
"""No clock tells runs apart better than that: equal values are not infinitely significant."""
WIDEST = math.log(1000)
"""Limits of an interval end here, on either side of 1: where nothing is known yet, they are these."""
MOST_PAIRS = 1000
"""More pairs than that are never asked for."""


@dataclass(frozen=True, kw_only=True)
class SequentialDesign:
    """The minimum effect, and the number of pairs."""

    min_effect: float = 0.05
    """D, the loss of TGS that must be found: a share, 0 to 1."""
    max_min_effect: float = 0.2
    """Largest D, a share. D is raised from `min_effect` to what the noise allows in `max_pairs`, and no further; never
    where this is not above `min_effect`."""
    max_pairs: int = 8
    """Largest number of pairs of a case, at least 2."""

    def __post_init__(self) -> None:
        for name in ("min_effect", "max_min_effect"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a share between 0 and 1, got {getattr(self, name)!r}")
        if self.max_pairs < 2:
            raise ValueError(f"max_pairs: expected at least 2, a single pair has no spread, got {self.max_pairs!r}")


@dataclass(frozen=True)
class Decision:
    """What is known of one case after a round."""

    verdict: Verdict | None
    """`pass`, `regression` or `improvement`; None: another pair is wanted, or at the end, `inconclusive`."""
    ratio: float
    """TGS head / TGS base, geometric mean over the pairs that were not set aside."""
    low: float
    """The ratio's interval, valid after every round. Above 1 - D: a loss of D is excluded, but for BETA."""
    high: float
    """Below 1: it is slower, but for ALPHA over the whole session. Between 1/1000 and 1000, as is `low`."""
    min_effect: float
    """The D that was used: `SequentialDesign.min_effect`, or raised to what the noise allows."""
    set_aside: int = 0
    """Pairs that were outliers, and are in none of the figures above."""
    pairs_needed: int | None = None
    """Of an undecided case: pairs in all that would decide it if they go on like this; None where MOST_PAIRS do not."""


@dataclass(frozen=True)
class Analysis:
    """Every case of one session or of many after a round. Arrays of shape (..., cases); losses are on the log scale."""

    slower: "Booleans"
    faster: "Booleans"
    passed: "Booleans"
    """Neither of the two, and a loss of D is excluded."""
    mean: "Floats"
    """Log ratio."""
    error: "Floats"
    """Standard error of `mean`, from the session's pooled variance, or the case's own where it is judged alone."""
    own_error: "Floats"
    """The same from the case's own variance."""
    dof: "Integers"
    """Degrees of freedom of `error`."""
    low: "Floats"
    high: "Floats"
    min_effect: "Floats"
    """The loss that was to be found."""
    aside: "Integers"
    pairs: "Integers"


def analyse(log_ratios: "Floats", design: SequentialDesign) -> Analysis:
    """The verdicts of a round, for one session or for many at once.

    Args:
        log_ratios: shape (..., cases, design.max_pairs), NaN from the first pair on that was not measured.
        design: of all these sessions.
    """
    import numpy as np

    cases, most = log_ratios.shape[-2:]
    seen = _evidence(log_ratios)
    slow = quantiles(error_per_case(cases), most, ALPHA_EXPONENT, cases)
    sure = quantiles(BETA, most, BETA_EXPONENT, cases)
    beyond, within = (table[seen.pairs, seen.dof] * seen.error for table in (slow, sure))
    # What the session's noise allows: with all its pairs, an unchanged case must be fast enough for `pass`, but for
    # UNDECIDED. A case that is judged alone gets no D of its own: it may be uneven because of what changed.
    final = np.where(seen.pooled_dof > 0, seen.pooled_dof + most - seen.pairs, 0)
    chance = student(1 - (1 - UNDECIDED) ** (1 / cases), cases * most)
    allowed = (chance[final] + sure[most, final]) * seen.pooled_spread / math.sqrt(most)
    wanted = -math.log1p(-design.min_effect)
    min_effect = np.clip(allowed, wanted, max(wanted, -math.log1p(-design.max_min_effect)))
    # With equal noise in all cases it costs next to nothing; it is what keeps a noisy one from being red by mistake.
    margin = np.maximum(
        np.maximum(beyond, min_effect / 2), student(WITHIN_CASE_ALPHA, most)[seen.kept - 1] * seen.own_error
    )
    slower, faster = -seen.mean > margin, seen.mean > margin
    return Analysis(
        slower=slower,
        faster=faster,
        passed=~slower & ~faster & (min_effect + seen.mean > within),
        mean=seen.mean,
        error=seen.error,
        own_error=seen.own_error,
        dof=seen.dof,
        low=np.clip(seen.mean - within, -WIDEST, WIDEST),
        high=np.clip(seen.mean + beyond, -WIDEST, WIDEST),
        min_effect=min_effect,
        aside=seen.pairs - seen.kept,
        pairs=seen.pairs,
    )


@dataclass(frozen=True)
class _Evidence:
    """Arrays of shape (..., cases)."""

    pairs: "Integers"
    kept: "Integers"
    mean: "Floats"
    error: "Floats"
    own_error: "Floats"
    dof: "Integers"
    pooled_spread: "Floats"
    """Of one pair; of shape (..., 1), as is its freedom."""
    pooled_dof: "Integers"


def _evidence(log_ratios: "Floats") -> _Evidence:
    """Means, and their errors from the variance pooled over a session's cases: s^2 = sum SS_i / sum (n_i - 1).

    One outlier would otherwise be everybody's noise, or a regression of its case. So gross pairs are set aside, at
    most a quarter of a case's; a case with more of them (always one with two pairs, of which nobody knows which is
    wrong) is kept out of the pool and judged by its own variance. The scale that says what is gross is the median of
    the cases' own variances, each over the median of its chi-square: half of the cases cannot move it.

    Source: the pooled variance of Snedecor and Cochran, Statistical Methods (8th edition), chapter 6.
    """
    import numpy as np

    measured = ~np.isnan(log_ratios)
    pairs, _, squares = _moments(log_ratios, measured)
    own = pairs - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        variances = np.where(own > 0, squares / own / chi_square_medians(log_ratios.shape[-1])[own], np.nan)
    # A median over nothing warns; without freedom nothing is told apart anyway.
    scale = np.sqrt(np.nanmedian(np.where(own.sum(-1, keepdims=True) > 0, variances, 1.0), axis=-1, keepdims=True))
    scale = np.where(own.sum(-1, keepdims=True) < MIN_OUTLIER_DOF, np.inf, np.maximum(scale, LEAST_SPREAD))
    # Two pairs are equally far from their median, which is their mean: each by half of their difference.
    scale = np.where(pairs == 2, scale / math.sqrt(2), scale)
    with np.errstate(invalid="ignore"):
        gross = np.abs(log_ratios - _median(log_ratios, pairs)) > OUTLIER_SD * scale[..., None]
    alone = gross.sum(-1) > pairs * MAX_OUTLIER_SHARE
    kept, mean, squares = _moments(log_ratios, measured & ~(gross & ~alone[..., None]))
    own = kept - 1
    pooled_squares = np.where(alone, 0, squares).sum(-1, keepdims=True)
    pooled_dof = np.where(alone, 0, own).sum(-1, keepdims=True)
    own_variance = squares / np.maximum(own, 1)
    pooled_variance = np.maximum(pooled_squares / np.maximum(pooled_dof, 1), LEAST_SPREAD**2)
    variance = np.where(alone, np.maximum(own_variance, LEAST_SPREAD**2), pooled_variance)
    return _Evidence(
        pairs=pairs,
        kept=kept,
        mean=mean,
        error=np.sqrt(variance / kept),
        own_error=np.sqrt(own_variance / kept),
        dof=np.where(alone, own, pooled_dof),
        pooled_spread=np.sqrt(pooled_variance),
        pooled_dof=pooled_dof,
    )


def _moments(values: "Floats", mask: "Booleans") -> "tuple[Integers, Floats, Floats]":
    """Number, mean, and sum of squares around it, over the last axis where `mask` is set."""
    import numpy as np

    number = mask.sum(-1)
    mean = np.where(mask, values, 0).sum(-1) / np.maximum(number, 1)
    return number, mean, (np.where(mask, values - mean[..., None], 0) ** 2).sum(-1)


def _median(values: "Floats", number: "Integers") -> "Floats":
    """Over the last axis, which is kept; the first `number` values are no NaN. numpy's own takes ten times as long."""
    import numpy as np

    ordered = np.sort(values, axis=-1)  # NaN last
    middle = np.stack([np.maximum(number - 1, 0) // 2, number // 2], axis=-1)
    return np.asarray(np.take_along_axis(ordered, middle, -1).mean(-1, keepdims=True))


def of_session(seen: Analysis, session: int) -> Analysis:
    """The figures of one of many sessions: arrays of shape (cases)."""
    return Analysis(**{name: values[session] for name, values in vars(seen).items()})


def decision_of(seen: Analysis, case: int, design: SequentialDesign) -> Decision:
    """What is known of one case of one session."""
    verdicts = {Verdict.REGRESSION: seen.slower, Verdict.IMPROVEMENT: seen.faster, Verdict.PASS: seen.passed}
    verdict = next((name for name, found in verdicts.items() if found[case]), None)
    return Decision(
        verdict=verdict,
        ratio=math.exp(float(seen.mean[case])),
        low=math.exp(float(seen.low[case])),
        high=math.exp(float(seen.high[case])),
        min_effect=-math.expm1(-float(seen.min_effect[case])),
        set_aside=int(seen.aside[case]),
        pairs_needed=None if verdict else _pairs_needed(seen, case, design),
    )


def _pairs_needed(seen: Analysis, case: int, design: SequentialDesign) -> int | None:
    """The fewest pairs, more than there are, that decide at the same mean and spread by the level of the last look.

    None while nothing is known of the spread.
    """
    import numpy as np
    from scipy.special import stdtrit

    pairs, dof, cases = int(seen.pairs[case]), int(seen.dof[case]), len(seen.mean)
    if dof == 0:
        return None
    loss, min_effect = -float(seen.mean[case]), float(seen.min_effect[case])
    number = np.arange(pairs + 1, MOST_PAIRS + 1)
    shrunk = np.sqrt(pairs / number)
    slow, sure = (
        -stdtrit(dof + number - pairs, student_levels(share, design.max_pairs, exponent, cases)[-1])
        * (float(seen.error[case]) * shrunk)
        for share, exponent in ((error_per_case(cases), ALPHA_EXPONENT), (BETA, BETA_EXPONENT))
    )
    slow = np.maximum(slow, -stdtrit(number - 1, WITHIN_CASE_ALPHA) * (float(seen.own_error[case]) * shrunk))
    decided = (abs(loss) > np.maximum(slow, min_effect / 2)) | (min_effect - loss > sure)
    return int(number[np.argmax(decided)]) if decided.any() else None
