"""Counted costs: what a difference from the stored one means.

Counts have no noise, so there is no tolerance: more of a counter is a regression, less an improvement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainpace.judge.command import Command
from trainpace.records import Record
from trainpace.runs.cost import CATEGORIES, Cost
from trainpace.runs.verdict import Verdict
from trainpace.text import count, gib, version_changes

SHOWN = 8
"""Counters, and operators, that a message names at most."""

# Of memory the peak is judged. What it is made of is that of one moment, which another moment may replace.
_INFORMATIVE = tuple(f".memory.{category}" for category in CATEGORIES)


class CostJudgement(Record):
    """One case's counted cost, judged."""

    case: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Sentences that say why the verdict is not `pass`."""
    notes: tuple[str, ...] = ()
    cost: Cost | None = None
    """The counts; None where the case could not be counted."""
    baseline: Cost | None = None
    """The stored counts; None where there are none."""
    version_differences: tuple[str, ...] = ()
    """`torch 2.12.0 -> 2.13.0`, baseline -> now."""


@dataclass(frozen=True)
class CostChange:
    """What a refresh does to the counts of one case."""

    old: Cost | None
    new: Cost

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.new.key}: none -> {_amount('flops', self.new.flops)} FLOPs a step"
        if changed := changed_counters(self.old.counters, self.new.counters):
            return f"{self.new.key}: {'; '.join(changed)}"
        return f"{self.new.key}: the same counts"


def judge_cost(
    cost: Cost,
    stored: Cost | None,
    command: Command = Command(),  # noqa: B008 - it is immutable
) -> CostJudgement:
    """Judge a cost against the stored one of its key; `command` is that of its test."""
    facts = CostJudgement(case=cost.workload.case, verdict=Verdict.PASS, cost=cost, baseline=stored)
    if cost.unknown:
        unknown = ", ".join(f"{name} ({count(calls, 'call')})" for name, calls in sorted(cost.unknown.items()))
        formula = "torch.utils.flop_counter.register_flop_formula, beside the code that calls it, gives it one"
        return _ends(facts, Verdict.INVALID, f"expected a formula for the FLOPs of {unknown}, got none: {formula}")
    refresh = f"`{command.cost(cost.workload, refresh=True)}`"
    if stored is None:
        reason = f"no baseline for the cost of {cost.key}: record it with {refresh}"
        return _ends(facts, Verdict.NO_BASELINE, reason)
    here, there = cost.counters.keys(), stored.counters.keys()
    missing = [f"expected counter {name} in the baseline, got none: record it with {refresh}" for name in here - there]
    missing += [f"expected counter {name} as in the baseline, got none: it is not counted now" for name in there - here]
    differences = tuple(version_changes(stored.software, cost.software))
    facts = facts.model_copy(update={"version_differences": differences})
    if missing:
        return _ends(facts, Verdict.INVALID, *sorted(missing))
    judged = [name for name in sorted(cost.counters) if not name.endswith(_INFORMATIVE)]
    more = [name for name in judged if cost.counters[name] > stored.counters[name]]
    less = [name for name in judged if cost.counters[name] < stored.counters[name]]
    if not more and not less:
        return facts
    said = changed_counters(stored.counters, cost.counters, more or less)
    if operators := _operators(stored, cost):
        said.append(f"operators: {operators}")
    if differences:
        said.append(f"the baseline was counted with other versions: {', '.join(differences)}")
    if more:
        also = changed_counters(stored.counters, cost.counters, less)
        said += [f"less, too: {'; '.join(also)}"] if also else []
        return _ends(facts, Verdict.REGRESSION, *said, f"where that is meant, record it with {refresh}")
    stale = f"a stale baseline hides the next regression, record it with {refresh}"
    return _ends(facts, Verdict.IMPROVEMENT, *said, stale)


def _ends(facts: CostJudgement, verdict: Verdict, *reasons: str) -> CostJudgement:
    return facts.model_copy(update={"verdict": verdict, "reasons": reasons})


def changed_counters(then: Mapping[str, int], now: Mapping[str, int], names: Iterable[str] | None = None) -> list[str]:
    """`step.calls 2,400 -> 2,432 (+1.3 %)`, the largest change first; of a peak also what it is made of."""
    if names is None:
        names = [name for name in now if now[name] != then.get(name) and not name.endswith(_INFORMATIVE)]
    share = {name: (now[name] / then[name] - 1) if then.get(name) else float("inf") for name in names}
    ordered = sorted(share, key=lambda name: (-abs(share[name]), name))
    said = [_change(name, then, now) for name in ordered[:SHOWN]]
    return [*said, f"and {len(ordered) - SHOWN} counters more"] if len(ordered) > SHOWN else said


def _change(name: str, then: Mapping[str, int], now: Mapping[str, int]) -> str:
    old, new = then.get(name, 0), now[name]
    percents = f" ({100 * (new / old - 1):+.3g} %)" if old else ""
    parts = ""
    if name.endswith(".memory.peak"):
        made_of = [name.replace("peak", category) for category in CATEGORIES]
        pairs = [(part.rsplit(".", 1)[1], then.get(part, 0), now.get(part, 0)) for part in made_of]
        parts = ", ".join(f"{part} {_amount(name, a)} -> {_amount(name, b)}" for part, a, b in pairs if a != b)
    return f"{name} {_amount(name, old)} -> {_amount(name, new)}{percents}{f': {parts}' if parts else ''}"


def _amount(name: str, value: int) -> str:
    """Memory in GiB, whatever is counted whole up to a million whole, the rest with six digits."""
    if ".memory." in name:
        return gib(value, 3)
    return f"{value:,}" if value < 10_000_000 else f"{value:.6g}"


def _operators(stored: Cost, cost: Cost) -> str:
    """The operators that are called, compute or move more or less than before."""
    said = []
    none = (0, 0, 0)
    for name in sorted(stored.operators.keys() | cost.operators.keys()):
        then, now = stored.operators.get(name, none), cost.operators.get(name, none)
        for what, index in (("calls", 0), ("FLOPs", 1), ("bytes", 2)):
            if then[index] != now[index]:
                weight = abs(now[index] - then[index]) / max(then[index], 1)
                said.append((-weight, f"{name} {_amount('', then[index])} -> {_amount('', now[index])} {what}"))
                break
    texts = [text for _, text in sorted(said)]
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")
