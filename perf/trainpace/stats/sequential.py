"""The sequential test of the pull-request gate: log ratios of pairs in, a decision a case out, after every round.

Two questions are asked of a case's loss, -log(TGS head / TGS base): is it above 0 (then `regression`), and is it below
D, the minimum effect (then `pass`)? Each has its own error, spent over the rounds, so that deciding after every round
does not raise it: ALPHA for all cases of a session together, BETA for each case.

What a case's own pairs spread is asked too. Where it is known beforehand (`prior`), it answers alone. Where it is not,
the spread that the session's cases share answers first, and the case's own pairs must not contradict: they are few, so
that a `pass` takes more of them.

docs/statistics.md shows what it finds and how often it errs, and the command that computes it; docs/log.md what else
was tried.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from trainpace.runs.verdict import Verdict
from trainpace.stats.spending import Spending, chi_square_medians, f_quantiles, quantiles, student, student_levels
from trainpace.stats.tolerance import (
    MAX_OUTLIER_SHARE,
    MIN_OUTLIER_DOF,
    OUTLIER_SD,
    SESSION_ERROR,
    Spread,
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
ALPHA_EXPONENT, BETA_EXPONENT = 3, 2
"""After the share t of the pairs, error * t^exponent is spent. Late for `regression`, which keeps the power of a single
look at the end; sooner for `pass`, which is what ends a session of unchanged code early."""
OWN_ALPHA, OWN_BETA = 0.005, 0.06
"""The same two errors of a case by its own pairs alone, where its spread was not known beforehand."""
OWN_BETA_EXPONENT = 1
"""Sooner still: few pairs tell little of their spread, and the other question was asked more strictly."""
PRIOR_DOF = 20
"""Degrees of freedom from which on a prior is enough to judge a case by its own spread alone."""
PRIOR_AS = 2
"""Cases that a spread would have to be pooled over to be known as well as with a prior, at least."""
MOST_PRIOR_DOF = 60
"""More than that are believed as that many: what was measured months ago is not known for ever."""
CONTRADICTED = 1e-3
"""Level of the test that a case's pairs spread wider than was known."""
CONTRADICTED_BY_ALL = 0.01
"""The same for all cases of a session together."""
LEAST_PAIRS = 3
"""Fewest pairs that a `pass` takes where the case's own spread was not known beforehand."""
PAIRS = 8
"""Pairs of a case, where nothing else is said or known."""
FURTHER_PAIRS = 40
"""Pairs of a case that its own noise leaves undecided, at most."""
UNDECIDED = 0.05
"""Chance that an unchanged case of known spread is undecided after the pairs that are planned for it."""
NORMAL_MEDIAN = 0.6745
"""Median distance of a normal value from its mean, in standard deviations."""
LEAST_SPREAD = 1e-4
"""No clock tells runs apart better than that: equal values are not infinitely significant."""
WIDEST = math.log(1000)
"""Limits of an interval end here, on either side of 1: where nothing is known yet, they are these."""
MOST_PAIRS = 1000
"""More pairs than that are never asked for."""


@dataclass(frozen=True, kw_only=True)
class SequentialDesign:
    """What is asked of the cases of one session, or of many. Arrays of shape (sessions, cases), or (1, cases)."""

    min_effect: "Floats"
    """D, the loss of TGS that must be found, a share."""
    prior_sd: "Floats"
    """How far the log ratios of a case's pairs spread, as far as it was known before the session."""
    prior_dof: "Integers"
    """Degrees of freedom of `prior_sd`; 0: nothing was known."""
    planned: "Integers"
    """Pairs that are planned for a case."""
    most: int
    """Largest number of pairs of any case; where it is above `planned`, an undecided case gets further ones."""

    @property
    def loss(self) -> "Floats":
        """D on the log scale."""
        import numpy as np

        return -np.log1p(-self.min_effect)

    def part(self, sessions: "Integers", cases: "Integers") -> "SequentialDesign":
        """That of some sessions, and of some of their cases."""

        def of(array: "Any") -> "Any":
            return array[:, cases] if len(array) == 1 else array[sessions[:, None], cases]

        arrays = {each.name: of(getattr(self, each.name)) for each in fields(self) if each.name != "most"}
        return replace(self, **arrays)


def plan_pairs(
    min_effect: "Floats", prior_sd: "Floats", prior_dof: "Integers", *, max_pairs: int = PAIRS, further: bool = True
) -> SequentialDesign:
    """Plan the pairs of each case, before the first is measured.

    A case gets `max_pairs`. Where its spread is known to need more, it is planned with as many as decide it if it did
    not change, in all but UNDECIDED.

    Args:
        min_effect: shape (sessions or 1, cases), shares.
        prior_sd: of the same shape; read where `prior_dof` is not 0.
        prior_dof: of the same shape.
        max_pairs: at least 2.
        further: whether a case may have more than `max_pairs`, up to FURTHER_PAIRS.

    Raises:
        ValueError: for a share that is none, and for a single pair, which has no spread.
    """
    import numpy as np

    if not np.all((min_effect > 0) & (min_effect < 1)):
        raise ValueError(f"min_effect: expected a share between 0 and 1, got {min_effect!r}")
    if max_pairs < 2:
        raise ValueError(f"max_pairs: expected at least 2, a single pair has no spread, got {max_pairs!r}")
    most = max(max_pairs, FURTHER_PAIRS) if further else max_pairs
    dof = np.minimum(prior_dof, MOST_PRIOR_DOF)
    sd = np.where(dof > 0, np.maximum(prior_sd, LEAST_SPREAD), 1.0)
    planned = np.full(np.broadcast_shapes(min_effect.shape, dof.shape), max_pairs)
    room = -np.log1p(-min_effect) / sd
    chance = student(UNDECIDED, MOST_PRIOR_DOF)[dof]
    for number in range(most, max_pairs, -1):
        # The last that one pair fewer would not do for, unless even the most would not do.
        fewer = _table(Spending(BETA, BETA_EXPONENT, number - 1, most), PRIOR_AS, MOST_PRIOR_DOF)
        sure = fewer[number - 1, dof]
        wanted = (room * math.sqrt(number - 1) < sure + chance) & (room * math.sqrt(most) > sure)
        planned = np.where((dof >= PRIOR_DOF) & wanted & (planned == max_pairs), number, planned)
    return SequentialDesign(min_effect=min_effect, prior_sd=sd, prior_dof=dof, planned=planned, most=most)


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
    """D, a share."""
    spread: float | None
    """Standard deviation of a pair's log ratio that the case was judged by; None: nothing is known."""
    own: Spread | None
    """Of the log ratios of its own pairs that were not set aside; None: there are not two."""
    set_aside: int = 0
    """Pairs that were outliers, and are in none of the figures above."""
    informed: bool = False
    """Whether it was judged by its own spread, which was known beforehand."""
    contradicted: bool = False
    """Whether there was such a spread, and the session's pairs do not spread so."""
    pairs_needed: int | None = None
    """Of an undecided case: pairs in all that would decide it if they go on like this; None where MOST_PAIRS do not."""


@dataclass(frozen=True)
class Analysis:
    """Every case of one session or of many after a round. Arrays of shape (sessions, cases); losses are on the log
    scale."""

    slower: "Booleans"
    faster: "Booleans"
    passed: "Booleans"
    """Neither of the two, and a loss of D is excluded."""
    hopeless: "Booleans"
    """Open after its planned pairs, and not even the most would decide it, as it looks now and had it not changed."""
    mean: "Floats"
    """Log ratio."""
    spread: "Floats"
    """Standard deviation of a pair that the case is judged by: where two are, the larger."""
    dof: "Integers"
    """Degrees of freedom that it rests on."""
    low: "Floats"
    high: "Floats"
    loss: "Floats"
    """D, the loss that was to be found."""
    informed: "Booleans"
    """Judged by its own spread, which was known beforehand."""
    contradicted: "Booleans"
    """It was known, and the session's pairs do not spread so."""
    squares: "Floats"
    """Of the log ratios around their mean, of those that were not set aside."""
    kept: "Integers"
    pairs: "Integers"


def analyse(log_ratios: "Floats", design: SequentialDesign) -> Analysis:
    """The verdicts of a round, for one session or for many at once.

    Args:
        log_ratios: shape (sessions, cases, pairs), NaN from the first pair on that was not measured.
        design: of all these sessions and cases.
    """
    import numpy as np

    cases, most = log_ratios.shape[1], design.most
    seen = _evidence(log_ratios, design)
    planned = np.broadcast_to(design.planned, seen.pairs.shape)
    alike = [(number, planned == number) for number in np.unique(planned).tolist()]
    pooled = ~seen.informed & ~seen.alone

    def reach(error: float, exponent: int, those: "Booleans", known: float, dof: "Integers") -> "Floats":
        """Student's quantiles for `those`, cases of one kind; 0 for others."""
        found = np.zeros(planned.shape)
        for number, of_number in alike:
            chosen = those & of_number
            if chosen.any():
                of_chosen = dof[chosen]
                table = _table(Spending(error, exponent, number, most), known, int(of_chosen.max()))
                found[chosen] = table[seen.pairs[chosen], of_chosen]
        return found

    def bound(error: float, exponent: int, own_error: float, own_exponent: int) -> "Floats":
        """How far the mean may be off by chance, by the spread that the case is judged by, and by its own pairs."""
        kinds = ((seen.informed, PRIOR_AS), (seen.alone, 1), (pooled, cases))
        quantiles = sum(reach(error, exponent, those, known, seen.dof) for those, known in kinds)
        own = reach(own_error, own_exponent, pooled, 1, seen.own_dof)
        return np.maximum(quantiles * seen.error, own * seen.own_error)

    beyond = bound(error_per_case(cases), ALPHA_EXPONENT, OWN_ALPHA, ALPHA_EXPONENT)
    within = bound(BETA, BETA_EXPONENT, OWN_BETA, OWN_BETA_EXPONENT)
    margin = np.maximum(beyond, design.loss / 2)
    slower, faster = -seen.mean > margin, seen.mean > margin
    enough = seen.informed | (seen.pairs >= LEAST_PAIRS)
    passed = ~slower & ~faster & enough & (design.loss + seen.mean > within)
    spread = np.sqrt(seen.kept) * np.maximum(seen.error, np.where(pooled, seen.own_error, 0))
    # Would the last pair of all decide, were the spread as it looks now: `pass`, had it not changed, or as it stands?
    final = seen.dof + most - seen.pairs

    def last(error: float, exponent: int) -> "Floats":
        quantiles = _table(Spending(error, exponent, most, most), PRIOR_AS, int(final.max()))[most]
        return np.asarray(quantiles[final] * spread / math.sqrt(most))

    hopeless = (last(BETA, BETA_EXPONENT) > design.loss) & (
        np.abs(seen.mean) < last(error_per_case(cases), ALPHA_EXPONENT)
    )
    return Analysis(
        slower=slower,
        faster=faster,
        passed=passed,
        hopeless=hopeless & (seen.pairs >= design.planned) & ~(slower | faster | passed),
        mean=seen.mean,
        spread=spread,
        dof=seen.dof,
        low=np.clip(seen.mean - within, -WIDEST, WIDEST),
        high=np.clip(seen.mean + beyond, -WIDEST, WIDEST),
        loss=np.broadcast_to(design.loss, seen.mean.shape),
        informed=seen.informed,
        contradicted=seen.contradicted,
        squares=seen.squares,
        kept=seen.kept,
        pairs=seen.pairs,
    )


def _table(spending: Spending, known: float, freedom: int) -> "Floats":
    """Student's quantiles to be passed, by pairs and degrees of freedom (0 to `freedom`, and more)."""
    return quantiles(spending, 100 * (freedom // 100 + 1), known)  # of a round size: one serves many rounds


@dataclass(frozen=True)
class _Evidence:
    """Arrays of shape (sessions, cases)."""

    pairs: "Integers"
    kept: "Integers"
    mean: "Floats"
    squares: "Floats"
    error: "Floats"
    dof: "Integers"
    own_error: "Floats"
    own_dof: "Integers"
    informed: "Booleans"
    alone: "Booleans"
    contradicted: "Booleans"


def _evidence(log_ratios: "Floats", design: SequentialDesign) -> _Evidence:
    """Means, and their errors: from a case's own variance where it was known beforehand, (d s0^2 + SS_i) / (d + n_i -
    1), else from that pooled over a session's cases, s^2 = sum SS_i / sum (n_i - 1).

    One outlier would otherwise be everybody's noise, or a regression of its case. So gross pairs are set aside, at
    most a quarter of a case's; a case with more of them (always one with two pairs, of which nobody knows which is
    wrong) is kept out of the pool and judged by its own pairs. So is a case whose pairs spread wider than was known.

    Source: the pooled variance of Snedecor and Cochran, Statistical Methods (8th edition), chapter 6; the variance of
    a normal sample under a conjugate prior, Gelman et al., Bayesian Data Analysis (3rd edition), chapter 2.6.
    """
    import numpy as np

    measured = ~np.isnan(log_ratios)
    pairs = measured.sum(-1)
    known = np.broadcast_to(design.prior_dof >= PRIOR_DOF, pairs.shape)
    gross = _gross(log_ratios, design)
    many = gross.sum(-1) > pairs * MAX_OUTLIER_SHARE
    kept, mean, squares = _moments(log_ratios, measured & ~(gross & ~many[..., None]))
    own = np.maximum(kept - 1, 0)
    wider, unlike = _contradicted(squares, own, design)
    informed = known & ~wider & ~unlike
    alone = (many | (wider & ~unlike)) & ~informed

    def variance(squares: "Floats", dof: "Integers") -> "Floats":
        return np.asarray(np.maximum(squares / np.maximum(dof, 1), LEAST_SPREAD**2))

    pooled_dof = np.where(alone, 0, own).sum(-1, keepdims=True)
    pooled = variance(np.where(alone, 0, squares).sum(-1, keepdims=True), pooled_dof)
    # A prior that is too short to answer alone still knows something of the case.
    prior_dof = np.where(known & ~informed, 0, design.prior_dof)
    own_dof = own + prior_dof
    own_variance = variance(squares + prior_dof * design.prior_sd**2, own_dof)
    return _Evidence(
        pairs=pairs,
        kept=kept,
        mean=mean,
        squares=squares,
        error=np.sqrt(np.where(informed | alone, own_variance, pooled) / np.maximum(kept, 1)),
        dof=np.where(informed | alone, own_dof, pooled_dof),
        own_error=np.sqrt(own_variance / np.maximum(kept, 1)),
        own_dof=own_dof,
        informed=informed,
        alone=alone,
        contradicted=wider | unlike,
    )


def _gross(log_ratios: "Floats", design: SequentialDesign) -> "Booleans":
    """Pairs that are far from the median of their case, by the spread that was known; else by the median of the cases'
    own variances, each over the median of its chi-square, which half of the cases cannot move, or, of a case that is
    noisier than the others, by its own median distance.
    """
    import numpy as np

    pairs, _, squares = _moments(log_ratios, ~np.isnan(log_ratios))
    own = np.maximum(pairs - 1, 0)
    dof = own.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        variances = squares / np.maximum(own, 1) / chi_square_medians(log_ratios.shape[-1])[own]
    # A median over nothing warns; without freedom nothing is told apart anyway.
    scale = np.sqrt(np.nanmedian(np.where(dof > 0, variances, 1.0), axis=-1, keepdims=True))
    scale = np.where(dof < MIN_OUTLIER_DOF, np.inf, np.maximum(scale, LEAST_SPREAD))
    away = np.abs(log_ratios - _median(log_ratios, pairs))
    scale = np.maximum(scale, _median(away, pairs)[..., 0] / NORMAL_MEDIAN)
    scale = np.where(design.prior_dof >= PRIOR_DOF, design.prior_sd, scale)
    # Two pairs are equally far from their median, which is their mean: each by half of their difference.
    scale = np.where(pairs == 2, scale / math.sqrt(2), scale)
    with np.errstate(invalid="ignore"):
        return np.asarray(away > OUTLIER_SD * scale[..., None])


def _contradicted(squares: "Floats", own: "Integers", design: SequentialDesign) -> "tuple[Booleans, Booleans]":
    """Cases whose pairs spread wider than was known, and cases of sessions all of whose pairs together spread more, or
    less, than was known: there another machine is known than the one at hand.

    Both are F tests. Among all together no case counts for more than chance makes of it.
    """
    import numpy as np

    known = np.broadcast_to(design.prior_dof >= PRIOR_DOF, own.shape)
    cases, looks = own.shape[-1], int(own.max()) + 1
    ratio = squares / np.maximum(own, 1) / design.prior_sd**2
    wider = known & (ratio > f_quantiles(1 - CONTRADICTED, PRIOR_DOF, looks)[own])
    counted = np.where(known, own, 0)
    dof = counted.sum(-1, keepdims=True)
    capped = np.minimum(ratio, np.where(own > 0, f_quantiles(1 - CONTRADICTED_BY_ALL, PRIOR_DOF, looks)[own], 0))
    shared = (capped * counted).sum(-1, keepdims=True) / np.maximum(dof, 1)
    low, high = (
        f_quantiles(level, PRIOR_DOF * cases, looks * cases)[dof]
        for level in (CONTRADICTED_BY_ALL, 1 - CONTRADICTED_BY_ALL)
    )
    several = (known.sum(-1, keepdims=True) > 1) & (dof > 0)
    return wider, known & several & ((shared < low) | (shared > high))


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
    own = int(seen.kept[case]) - 1
    return Decision(
        verdict=verdict,
        ratio=math.exp(float(seen.mean[case])),
        low=math.exp(float(seen.low[case])),
        high=math.exp(float(seen.high[case])),
        min_effect=-math.expm1(-float(seen.loss[case])),
        spread=float(seen.spread[case]) if seen.dof[case] else None,
        own=Spread(math.sqrt(float(seen.squares[case]) / own), own) if own > 0 else None,
        set_aside=int(seen.pairs[case] - seen.kept[case]),
        informed=bool(seen.informed[case]),
        contradicted=bool(seen.contradicted[case]),
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
    number = np.arange(pairs + 1, MOST_PAIRS + 1)
    error = float(seen.spread[case]) / np.sqrt(number)
    slow, sure = (
        error * -stdtrit(dof + number - pairs, student_levels(Spending(share, exponent, design.most), 1)[-1])
        for share, exponent in ((error_per_case(cases), ALPHA_EXPONENT), (BETA, BETA_EXPONENT))
    )
    loss, min_effect = -float(seen.mean[case]), float(seen.loss[case])
    decided = (abs(loss) > np.maximum(slow, min_effect / 2)) | (min_effect - loss > sure)
    return int(number[np.argmax(decided)]) if decided.any() else None
