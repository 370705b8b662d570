"""How far a case's pairs spread, as far as it is known before a session: what earlier sessions of the pull-request gate
showed, else what the stored baseline's runs did. store/noise.py keeps the first.
"""

import math
from collections.abc import Sequence

from pydantic import NonNegativeFloat, PositiveInt

from trainpace.records import Record
from trainpace.stats.sequential import MOST_PRIOR_DOF, PRIOR_DOF
from trainpace.stats.tolerance import Spread

MOST_OF_SESSION = 8
"""Degrees of freedom that one session counts for, at most: one that was unlike the others is not the case's noise."""


class SessionNoise(Record):
    """What the pairs of one case spread in one session of the pull-request gate."""

    recorded: str
    """UTC, ISO 8601."""
    sd: NonNegativeFloat
    """Standard deviation of the pairs' log ratios around their own mean: a slower head does not change it."""
    dof: PositiveInt
    """Its degrees of freedom: pairs that were not set aside, less one."""


def with_session(sessions: Sequence[SessionNoise], new: SessionNoise) -> tuple[SessionNoise, ...]:
    """The newest sessions, `new` among them: as many as make MOST_PRIOR_DOF degrees of freedom, oldest first."""
    counted, kept = 0, []
    for session in sorted((*sessions, new), key=lambda each: each.recorded, reverse=True):
        if counted >= MOST_PRIOR_DOF:
            break
        kept.append(session)
        counted += min(session.dof, MOST_OF_SESSION)
    return tuple(reversed(kept))


def prior(sessions: Sequence[SessionNoise], of_runs: Spread | None) -> Spread | None:
    """Spread of a case's log ratios; None where nothing is known.

    That of earlier pairs, if they have PRIOR_DOF degrees of freedom: they are the thing itself. Else that of runs,
    which holds what the machine does between them, too. Where neither has as many, both together.

    Args:
        sessions: of earlier sessions' pairs.
        of_runs: of log TGS between runs of a session, as `run_noise` gives it. A pair is two runs: twice its variance.
    """
    of_pairs: list[tuple[float, float]] = [(each.sd, min(each.dof, MOST_OF_SESSION)) for each in sessions]
    if of_runs is not None and sum(dof for _, dof in of_pairs) < PRIOR_DOF:
        runs = math.sqrt(2) * of_runs.sd, of_runs.dof
        of_pairs = [runs] if of_runs.dof >= PRIOR_DOF else [*of_pairs, runs]
    total = sum(dof for _, dof in of_pairs)
    return Spread(math.sqrt(sum(dof * sd**2 for sd, dof in of_pairs) / total), total) if total else None
