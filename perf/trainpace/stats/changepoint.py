"""The trend of one case over its runs: where its level moved, and how far it is below its best. Numbers in and out.

A level that creeps down by 1 % ten times passes every comparison of neighbours. So the whole history is divided into
stretches of one level each, and the last stretch is judged against the best one before it.

Why no library: ruptures finds the same places, by a penalty that stands for no error rate; a scheduled check that is
red without a cause gets switched off. This search has a rate, holds it where consecutive runs resemble each other, and
takes time linear in the number of runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from trainpace.runs.verdict import Verdict
from trainpace.stats.tolerance import CAP, FLOOR

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Logs = NDArray[float64]

ALPHA = 0.001
"""Chance that one check of unchanged code is red, over all its cases. Small, because a nightly check asks every day."""
MIN_RUNS = 4
"""A level shows in at least this many runs: one or two slow ones are outliers."""
CLAMP_SD = 2.5
"""A run farther than this many standard deviations from the median of those around it counts as just that far."""
AROUND = 3
"""Runs on each side that are around one."""
FEW_SESSIONS = 12
"""Sessions from which on each counts as one run."""
LOCATION_ERROR = 0.05
"""Chance that a change lies outside the runs that are named for it."""
LEAST_SPREAD = 1e-4
"""No clock tells runs apart better than that: equal values are not infinitely significant."""
APART = (4, 5, 6)
"""Runs this far apart resemble each other no more than any two; nearer ones may."""
MOST_CORRELATION = 0.6
"""Of a run with the one before. What is smoother than that is taken for a level that moves, not for noise."""
LAYERS = 10
"""Sizes of stretches that are searched besides the whole, each shorter by the square root of two."""
SOON = 5
"""Runs after a change for which the sensitivity is given."""


@dataclass(frozen=True)
class Segment:
    """Consecutive runs of one level: `start` up to, not including, `stop`."""

    start: int
    stop: int
    level: float
    """Geometric mean of their TGS."""

    @property
    def runs(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True)
class Change:
    """The level moved between the runs `at - 1` and `at`."""

    at: int
    first: int
    last: int
    """It moved at one of the runs first..last, at a confidence of 1 - LOCATION_ERROR; `at` is the likeliest."""
    ratio: float
    """Level after / level before."""


@dataclass(frozen=True)
class Trend:
    """What the history of one case says."""

    segments: tuple[Segment, ...]
    changes: tuple[Change, ...]
    """Between the segments, one fewer."""
    reference: Segment
    """The best one; the last where the case was never faster."""
    loss: float
    """How far the last level is below the reference, as a share of it; 0 where it is the reference."""
    lost: bool
    """The loss is above FLOOR and not by chance."""
    finds: float | None
    """A loss of this share from now on is found after SOON runs, in half of all cases; None with too few runs."""

    @property
    def verdict(self) -> Verdict:
        """A pass only where a loss of CAP would be seen: what cannot be judged is never called pass."""
        if self.lost:
            return Verdict.REGRESSION
        return Verdict.PASS if self.finds is not None and self.finds <= CAP else Verdict.INCONCLUSIVE


def trend(tgs: Sequence[float], *, error: float = ALPHA, sessions: Sequence[int] | None = None) -> Trend:
    """Divide the runs of one case into levels, and judge the last against the best.

    Binary segmentation: a significant split, then those of both sides; then every split is placed again between its
    neighbours, and taken back where it no longer stands. A history that never changed is divided at all with a chance
    of at most `error`.

    Args:
        tgs: positive, oldest first, at least one; invalid runs are left out before.
        error: of this case: a caller who judges k cases gives a k-th of the error of them all.
        sessions: number of the session that each run was measured in, 0, 0, 0, 1, ...: its runs share the machine's
            mood. From FEW_SESSIONS on a session counts as one run, their mean; without it, and with fewer sessions
            (whose mood cannot be told from a change), every run counts.

    Source: Vostrikova, Soviet Mathematics Doklady 24 (1981), 55-59, for the search; Bai, Econometric Theory 13 (1997),
    315-352, for placing again.
    """
    import numpy as np

    logs = np.log(np.asarray(tgs, dtype=np.float64))
    starts = np.arange(len(logs) + 1)  # of the units, as runs; the last one ends there
    if sessions is not None and sessions[-1] - sessions[0] >= FEW_SESSIONS - 1:
        starts = np.searchsorted(sessions, np.arange(sessions[0], sessions[-1] + 2))
        logs = np.add.reduceat(logs, starts[:-1]) / np.diff(starts)
    logs = without_outliers(logs)

    def segment(first: int, last: int) -> Segment:
        return Segment(int(starts[first]), int(starts[last]), math.exp(float(logs[first:last].mean())))

    if len(logs) < 2 * MIN_RUNS:
        return Trend((segment(0, len(logs)),), (), segment(0, len(logs)), 0.0, lost=False, finds=None)
    search = _Search(logs, error)
    splits = search.placed_again(search.splits())
    bounds = [0, *(split.at for split in splits), len(logs)]
    segments = tuple(segment(first, last) for first, last in pairwise(bounds))
    changes = tuple(
        Change(int(starts[split.at]), int(starts[split.first]), int(starts[split.last]), after.level / before.level)
        for split, (before, after) in zip(splits, pairwise(segments), strict=True)
    )
    best = max(range(len(segments)), key=lambda index: (segments[index].level, index))
    loss = 1 - segments[-1].level / segments[best].level
    spread, dof = search.spread(bounds)
    units = np.diff(bounds)
    t = -math.log1p(-loss) / (spread * math.sqrt(1 / units[best] + 1 / units[-1]))
    lost = loss > FLOOR and _tail(t, dof) <= error / len(changes)
    return Trend(segments, changes, segments[best], loss, lost, _finds(int(units[-1]), spread, error))


def without_outliers(logs: "Logs") -> "Logs":
    """The values with those far from the median around them pulled in to CLAMP_SD standard deviations of it.

    A lone slow run says nothing of a level, and a step that stays is left as it is. The standard deviation is that of
    successive differences, by their median, so that neither steps nor outliers raise it.

    Source: Hampel's filter, as in Davies and Gather, JASA 88 (1993), 782-792.
    """
    import numpy as np

    if len(logs) <= 2 * AROUND:
        return logs
    # The first and last few are held against the same seven: a mirrored edge would count an outlier twice.
    median = np.median(np.lib.stride_tricks.sliding_window_view(logs, 2 * AROUND + 1), axis=1)
    median = np.pad(median, AROUND, mode="edge")
    spread = max(float(np.median(np.abs(np.diff(logs)))) / (0.6745 * math.sqrt(2)), LEAST_SPREAD)
    return np.clip(logs, median - CLAMP_SD * spread, median + CLAMP_SD * spread)


@dataclass(frozen=True)
class _Split:
    at: int
    first: int
    last: int
    p: float


@dataclass(frozen=True)
class _Search:
    logs: "Logs"
    error: float

    def splits(self) -> list[_Split]:
        """Of the whole, then of both sides, until none is significant."""
        found, todo = [], [(0, len(self.logs))]
        while todo:
            start, stop = todo.pop()
            if split := self.split(start, stop):
                found.append(split)
                todo += [(start, split.at), (split.at, stop)]
        return sorted(found, key=lambda split: split.at)

    def split(self, start: int, stop: int) -> _Split | None:
        """One split of start..stop, if there is any.

        Half of the error goes to the whole. Where the level goes down and up again no split of the whole says much:
        the other half goes to stretches of it, the same to each length, in each of which the level may move just once.

        Source: Kovacs, Li, Buehlmann and Munk, Biometrika 110 (2023), 249-256: seeded binary segmentation.
        """
        whole = self.best_split(start, stop, self.error / 2)
        if whole:
            return whole
        lengths = [round((stop - start) * 2 ** (-layer / 2)) for layer in range(1, LAYERS + 1)]
        lengths = [length for length in lengths if length >= 2 * MIN_RUNS]
        for length in lengths:
            number = math.ceil(2 * (stop - start) / length) - 1
            starts = [start + round(index * (stop - start - length) / (number - 1)) for index in range(number)]
            tried = [self.best_split(each, each + length, self.error / 2 / len(lengths) / number) for each in starts]
            if found := [split for split in tried if split]:
                return min(found, key=lambda split: split.p)
        return None

    def placed_again(self, splits: list[_Split]) -> list[_Split]:
        """Each split anew between its neighbours, the least significant first, since it may fall."""
        placed = list(splits)
        for split in sorted(splits, key=lambda each: -each.p):
            index = placed.index(split)
            start = placed[index - 1].at if index else 0
            stop = placed[index + 1].at if index + 1 < len(placed) else len(self.logs)
            placed[index : index + 1] = filter(None, [self.best_split(start, stop, self.error)])
        return placed

    def best_split(self, start: int, stop: int, error: float) -> _Split | None:
        """The split of the runs start..stop with the largest Student's t, where significant and above FLOOR."""
        import numpy as np

        number = stop - start
        if number < 2 * MIN_RUNS:
            return None
        values = self.logs[start:stop] - self.logs[start:stop].mean()
        left = np.arange(1, number)
        explained = np.cumsum(values)[:-1] ** 2 * number / (left * (number - left))  # sum of squares, by each split
        at = int(np.argmax(explained[MIN_RUNS - 1 : number - MIN_RUNS])) + MIN_RUNS
        if abs(values[at:].mean() - values[:at].mean()) < -math.log1p(-FLOOR):
            return None
        residuals = np.concatenate([_around_line(values[:at]), _around_line(values[at:])])
        variance = _variance(residuals, taken=4)
        t = math.sqrt(float(explained[at - 1]) / variance)
        p = _p_of_largest(t, number, number - 4)
        if p > error:
            return None
        # Every place whose log likelihood is within x of the best one's; the change is beyond on one side with a
        # chance of exp(-x). Source: Siegmund, Confidence sets in change-point problems, International Statistical
        # Review 56 (1988), 31-48.
        behind = (explained[at - 1] - explained) / (2 * variance)
        likely = np.flatnonzero(behind <= -math.log(1 - math.sqrt(1 - LOCATION_ERROR))) + 1
        return _Split(start + at, start + min(at, int(likely[0])), start + max(at, int(likely[-1])), p)

    def spread(self, bounds: Sequence[int]) -> tuple[float, int]:
        """Standard deviation of a run within the levels, correlation included, and its degrees of freedom."""
        import numpy as np

        residuals = np.concatenate([_around_line(self.logs[a:b]) for a, b in pairwise(bounds)])
        taken = 2 * (len(bounds) - 1)
        variance = _variance(residuals, taken=taken)
        return math.sqrt(variance), len(residuals) - taken


def _around_line(values: "Logs") -> "Logs":
    """What is left of the values beside a straight line: noise. A level that creeps is not noise against itself."""
    import numpy as np

    place = np.arange(len(values)) - (len(values) - 1) / 2
    centred = values - values.mean()
    rest: Logs = centred - place * ((place * centred).sum() / (place * place).sum())
    return rest


def _variance(residuals: "Logs", *, taken: int) -> float:
    """What a run adds to the variance of a mean of runs, `taken` figures having been fitted to the values.

    Runs that resemble each other say less than their number: the variance of one is multiplied by (1 + r) / (1 - r), r
    the correlation with the run before. It comes from differences: r = 1 - (to the next run / to one APART)^2, raised
    by half its standard error, since too little costs false alarms; not below 0, for runs do not avoid each other, and
    at most MOST_CORRELATION. So is the variance at most what second differences, which hardly see a level that moves,
    leave possible: for such a process they are 2 (1 - r) (3 - r) of it.

    Source: Tecuapetla-Gomez and Munk, Scandinavian Journal of Statistics 44 (2017), 346-368.
    """
    import numpy as np

    number = len(residuals)
    rough = _mean_square(np.diff(residuals, 2)) / (2 * (1 - MOST_CORRELATION) * (3 - MOST_CORRELATION))
    variance = min(float((residuals * residuals).sum()) / (number - taken), rough)
    near = _mean_square(np.diff(residuals))
    far = _mean_square(np.concatenate([residuals[lag:] - residuals[:-lag] for lag in APART]))
    r = (1 - near / far if far else 0.0) + 0.5 / math.sqrt(number)
    r = min(max(r, 0.0), MOST_CORRELATION)
    return max(variance, LEAST_SPREAD**2) * (1 + r) / (1 - r)


def _mean_square(values: "Logs") -> float:
    # Not values @ values: BLAS starts threads, which on a busy machine cost more than they save.
    return float((values * values).mean())


def _tail(t: float, dof: int) -> float:
    """P(T > t) of Student's t."""
    from scipy.special import stdtr

    return float(stdtr(max(dof, 1), -t))


def _p_of_largest(t: float, number: int, dof: int) -> float:
    """Chance that the largest |t| over the splits of `number` runs of one level is at least t.

    With b the normal value of the same tail: b phi(b) sum_k nu(b / sqrt(j_k)) / j_k, j_k = k (n - k) / n, over the
    allowed splits k, and never more than Bonferroni's. Source: James, James and Siegmund, Biometrika 74 (1987), 71-83;
    nu as in Siegmund and Yakir, The Statistics of Gene Mapping (2007), p. 112.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    tail = _tail(t, dof)
    bonferroni = min(1.0, 2 * (number - 2 * MIN_RUNS + 1) * tail)
    if not 1e-300 < tail < 0.02:  # beyond the approximation; there Bonferroni's bound is small or large enough
        return bonferroni
    b = -float(ndtri(tail))
    left = np.arange(MIN_RUNS, number - MIN_RUNS + 1)
    information = left * (number - left) / number
    x = b / np.sqrt(information)
    density = np.exp(-(x**2) / 8) / math.sqrt(2 * math.pi)
    nu = (2 / x) * (ndtr(x / 2) - 0.5) / ((x / 2) * ndtr(x / 2) + density)
    siegmund = b * math.exp(-b * b / 2) / math.sqrt(2 * math.pi) * float((nu / information).sum())
    return min(bonferroni, siegmund)


def _finds(level: int, spread: float, error: float) -> float:
    """The loss whose t, after SOON more runs, is just significant: half of such losses are found by then."""
    number = level + SOON
    low, high = 0.0, 1000.0
    for _ in range(40):
        t = (low + high) / 2
        low, high = (t, high) if _p_of_largest(t, number, number - 4) > error else (low, t)
    return max(FLOOR, -math.expm1(-high * spread * math.sqrt(1 / level + 1 / SOON)))
