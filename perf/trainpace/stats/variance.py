"""How far the runs of a case differ, within a session and from session to session: each case's own, moderated.

A few runs tell their spread to within a factor of two. Cases of one device at one scale are alike, but not equal: a
case five times as noisy as the others judged by a pooled spread is red by chance. So each case's variance is drawn
towards that of the others by as much as the cases' variances are alike, which they tell themselves.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Protocol

from trainpace.stats.tolerance import ASSUMED_BETWEEN, CaseNoise, Spread, squares

MIN_SESSION_DOF = 2.5
"""Degrees of freedom between sessions, over all cases, below which the spread between them is assumed: one case alone
has 2.3 after four sessions, and 2.9 after five."""
MIN_SHARING_CASES = 5
"""Cases of two sessions that tell what these did to all of them."""
LEAST_VARIANCE = 1e-5
"""Of the median of the cases' variances: no case is quieter than that."""


class SessionRuns(Protocol):
    """The runs of one case in one session."""

    @property
    def recorded(self) -> str:
        """Which session: equal for its cases."""

    @property
    def level(self) -> int:
        """Sessions of one level are of equal speed but for the machine."""

    @property
    def tgs(self) -> Sequence[float]:
        """Of each run, positive."""


def case_noises(cases: Sequence[Sequence[SessionRuns]], *, shared: bool) -> list[CaseNoise | None]:
    """The noise of each case; None where no two runs are known of any.

    Args:
        cases: of each case the sessions of its baseline, oldest first; the last one's level is the baseline's.
        shared: whether what all cases of a session share is taken out when a session is judged. Where it is not, it is
            part of what a session does to a case.
    """
    within = moderated([_within(sessions) for sessions in cases])
    own = _between(cases, shared=shared)
    known = sum(each.dof for each in own) >= MIN_SESSION_DOF
    means = _moderated_means(own, within) if known else [None] * len(cases)
    found: list[CaseNoise | None] = []
    for sessions, runs, mean, seen in zip(cases, within, means, own, strict=True):
        if runs is None and mean is None:
            found.append(None)
            continue
        noise = CaseNoise(
            within=runs,
            session=mean,
            num_sessions=sum(each.level == sessions[-1].level for each in sessions),
            runs=1 / fmean(1 / len(each.tgs) for each in sessions),
        )
        if mean is None and seen.dof and runs is not None:  # a hint of more than what is assumed is not left unheard
            hint = math.sqrt(max(0.0, seen.sd**2 - runs.sd**2 / noise.runs))
            noise = CaseNoise(
                within=runs,
                assumed=max(ASSUMED_BETWEEN, hint),
                num_sessions=noise.num_sessions,
                runs=noise.runs,
            )
        found.append(noise)
    return found


def moderated(own: Sequence[Spread]) -> list[Spread | None]:
    """Each case's variance, drawn towards the others' by as much as all of them are alike; None where none is known.

    The variances of the cases are taken as drawn from a scaled inverse chi-square distribution of d0 degrees of freedom
    around s0^2. Both are estimated from the logarithms of the cases' own variances: what these differ by beyond
    chance, trigamma(d / 2), is trigamma(d0 / 2). Then s^2 = (d0 s0^2 + d s^2) / (d0 + d), with d0 + d degrees of
    freedom, but no more than all cases have together. Where they differ by no more than chance, all get the pooled one.

    Args:
        own: of each case; with no degrees of freedom nothing is known of it, and it gets s0.

    Source: Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, Statistical Applications in Genetics and Molecular Biology 3 (2004), article 3, section 6.
    """
    known = [each for each in own if each.dof > 0]
    if not known:
        return [None] * len(own)
    total = sum(each.dof for each in known)
    pooled = sum(each.dof * each.sd**2 for each in known) / total
    prior, prior_dof = _prior(known) if len(known) > 1 and pooled > 0 else (pooled, 0.0)
    if math.isinf(prior_dof):
        return [Spread(math.sqrt(pooled), total)] * len(own)
    if prior_dof == 0:  # one case, or no noise at all
        return [each if each.dof > 0 else Spread(math.sqrt(pooled), total) for each in own]
    return [
        Spread(
            math.sqrt((prior_dof * prior + each.dof * each.sd**2) / (prior_dof + each.dof)),
            min(prior_dof + each.dof, total),
        )
        for each in own
    ]


def _moderated_means(own: Sequence[Spread], within: Sequence[Spread | None]) -> list[Spread | None]:
    """The spreads of the sessions' means, moderated as they are or as multiples of the cases' spreads within a session:
    as they are more alike. Where cases differ in noise, what sessions do to them mostly differs as much.
    """
    known = [(mean, runs) for mean, runs in zip(own, within, strict=True) if mean.dof and runs and runs.sd]
    if len(known) < 2 or any(not runs or not runs.sd for runs in within):
        return moderated(own)
    plain = _unlikeness([mean for mean, _ in known])
    by_noise = _unlikeness([Spread(mean.sd / runs.sd, mean.dof) for mean, runs in known])
    if plain <= by_noise - fmean(trigamma(runs.dof / 2) for _, runs in known):
        return moderated(own)
    scaled = moderated([Spread(mean.sd / runs.sd, mean.dof) for mean, runs in zip(own, within, strict=True) if runs])
    return [
        Spread(share.sd * runs.sd, 1 / (1 / share.dof + 1 / runs.dof))
        for share, runs in zip(scaled, within, strict=True)
        if share and runs
    ]


def _logs(known: Sequence[Spread]) -> list[float]:
    """Logarithms of the variances, without the bias that their degrees of freedom give these."""
    from scipy.special import psi

    least = LEAST_VARIANCE * median(each.sd**2 for each in known) or min(each.sd**2 for each in known if each.sd)
    return [math.log(max(each.sd**2, least)) - float(psi(each.dof / 2)) + math.log(each.dof / 2) for each in known]


def _unlikeness(known: Sequence[Spread]) -> float:
    """By how much the logarithms of the cases' variances differ beyond chance: a variance, negative where by less."""
    if not any(each.sd for each in known):
        return -math.inf
    return squares(_logs(known)) / (len(known) - 1) - fmean(trigamma(each.dof / 2) for each in known)


def trigamma(value: float) -> float:
    """The second derivative of log gamma."""
    # scipy.special, not scipy.stats, which takes a second to import; and only where something is judged.
    from scipy.special import polygamma

    return float(polygamma(1, value))


def _prior(known: Sequence[Spread]) -> tuple[float, float]:
    """s0^2 and d0 of `moderated`; d0 is infinite where the variances differ by no more than chance."""
    from scipy.special import psi

    more = _unlikeness(known)
    if more <= 0:
        return 0.0, math.inf
    dof = 2 * _inverse_trigamma(more)
    return math.exp(fmean(_logs(known)) + float(psi(dof / 2)) - math.log(dof / 2)), dof


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = `value`, positive: Newton's method on 1 / trigamma, which is nearly straight.

    Source: Smyth (2004), appendix.
    """
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        here = trigamma(x)
        step = here * (1 - here / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x


def _within(sessions: Sequence[SessionRuns]) -> Spread:
    """Between the runs of a session, pooled over the sessions of a case."""
    groups = [[math.log(value) for value in session.tgs] for session in sessions]
    dof = sum(len(group) - 1 for group in groups)
    return Spread(math.sqrt(sum(map(squares, groups)) / dof) if dof else 0.0, dof)


def _between(cases: Sequence[Sequence[SessionRuns]], *, shared: bool) -> list[Spread]:
    """Of each case the spread of a session's mean, from the differences of sessions that follow each other in a level.

    What slowly moves over many sessions is hardly in these, and so cannot widen the tolerance for itself. K sessions of
    a level give K - 1 differences, each of twice the variance, worth 2 (K - 1)^2 / (3 K - 4) degrees of freedom.
    With `shared`, the median over the cases is taken out of the differences between the same two sessions.

    Source: von Neumann, Kent, Bellinson and Hart, The mean square successive difference, Annals of Mathematical
    Statistics 12 (1941), 153-162, for the estimate and its variance.
    """
    differences: list[list[tuple[tuple[str, str], float]]] = []
    dofs = []
    for sessions in cases:
        means = [fmean(map(math.log, session.tgs)) for session in sessions]
        steps = [
            ((before.recorded, after.recorded), means[place + 1] - means[place])
            for place, (before, after) in enumerate(pairwise(sessions))
            if before.level == after.level
        ]
        differences.append(steps)
        lengths = [sum(each.level == level for each in sessions) for level in {each.level for each in sessions}]
        dofs.append(sum(2 * (length - 1) ** 2 / (3 * length - 4) for length in lengths if length > 1))
    common: dict[tuple[str, str], float] = {}
    if shared:
        by_pair: dict[tuple[str, str], list[float]] = {}
        for steps in differences:
            for pair, step in steps:
                by_pair.setdefault(pair, []).append(step)
        common = {pair: median(found) for pair, found in by_pair.items() if len(found) >= MIN_SHARING_CASES}
    return [
        Spread(math.sqrt(fmean((step - common.get(pair, 0.0)) ** 2 for pair, step in steps) / 2), dof)
        if steps
        else Spread(0.0, 0.0)
        for steps, dof in zip(differences, dofs, strict=True)
    ]
