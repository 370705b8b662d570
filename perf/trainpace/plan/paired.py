"""Measures every selected case on both sides, in rounds: A B, B A, A B ... until each case is decided.

A pair is two runs that follow each other, so that the machine's drift meets both; the order turns with every round.
Decided cases drop out. Everything is measured before anything is reported: the correction across cases and the pooled
variance need all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trainpace.cases import Workload
from trainpace.errors import RunFailed
from trainpace.judge.comparison import Comparison
from trainpace.judge.head_vs_base import judge_pairs, log_ratio, numerics_fault
from trainpace.judge.validity import core_fault
from trainpace.judge.verdict import Judgement, judge_failure, unjudged
from trainpace.runs import metrics
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.stats.sequential import Decision, SequentialDesign, decide
from trainpace.stats.tolerance import geometric_mean

DISTURBED_ATTEMPTS = 3
"""Pairs measured in place of one that something disturbed, before its case is invalid."""

Measure = Callable[[Workload, str, str], Run]
"""Makes one run of a workload, on the side `base` or `head`, under a title."""


@dataclass(kw_only=True)
class Pairs:
    """One case on its way to a verdict."""

    test: str
    """The test that will report it."""
    workload: Workload
    base: list[Run] = field(default_factory=list)
    head: list[Run] = field(default_factory=list)
    repeated: int = 0
    decision: Decision | None = None
    failure: Judgement | None = None
    detail: str = ""
    """The failing rank's traceback or log."""

    @property
    def log_ratios(self) -> list[float]:
        """One a pair, oldest first."""
        return [log_ratio(base, head) for base, head in zip(self.base, self.head, strict=True)]

    @property
    def open(self) -> bool:
        """Whether another pair is wanted."""
        return self.failure is None and (self.decision is None or self.decision.verdict is None)


def measure_rounds(
    cases: Sequence[Pairs],
    measure: Measure,
    design: SequentialDesign,
    *,
    new_numerics: bool = False,
    time_is_up: Callable[[], bool] = lambda: False,
) -> None:
    """Measure `cases` in rounds until each is decided, has failed, or has had all its pairs.

    Args:
        cases: take their runs, decisions and failures.
        measure: makes one run.
        design: of the sequential test.
        new_numerics: whether the losses of head may differ from the base's.
        time_is_up: whether no further pair is to be begun.
    """
    for number in range(design.max_pairs):
        order = ("base", "head") if number % 2 == 0 else ("head", "base")
        for pairs in cases:
            if pairs.open and not time_is_up():
                _measure_pair(pairs, measure, order, number + 1, new_numerics=new_numerics)
        whole = [pairs for pairs in cases if pairs.base and pairs.failure is None]
        decisions = decide({pairs.test: pairs.log_ratios for pairs in whole}, design)
        for pairs in whole:
            if pairs.open:  # what was decided stays decided: its error was spent then
                pairs.decision = decisions[pairs.test]
        if time_is_up() or not any(pairs.open for pairs in cases):
            return


def judgement(pairs: Pairs, *, names: tuple[str, str], peak_tflops: float | None) -> Judgement:
    """What is said of a case when all rounds are over; `names` are the base's and the head's."""
    if pairs.failure is not None:
        return pairs.failure
    if pairs.decision is None:
        return unjudged(pairs.workload.case, "did not fit --perf-max-minutes: no pair was measured")
    decision = pairs.decision
    comparison = Comparison(
        base=names[0],
        head=names[1],
        base_tgs=geometric_mean([metrics.tgs(run) for run in pairs.base]),
        log_ratios=tuple(pairs.log_ratios),
        ratio=decision.ratio,
        low=decision.low,
        high=decision.high,
        detect=decision.min_effect,
        set_aside=decision.set_aside,
        repeated=pairs.repeated,
        pairs_needed=decision.pairs_needed,
    )
    return judge_pairs(
        pairs.base, pairs.head, comparison, decision.verdict or Verdict.INCONCLUSIVE, peak_tflops=peak_tflops
    )


def _unequal(base: Run, head: Run) -> str | None:
    """Why the machine was not the same to both runs of a pair; None where it was, or where that cannot be told."""
    if base.health.foreign_cores is None or base.software.get("python") != head.software.get("python"):
        return None
    fault = core_fault(metrics.yardstick(head), metrics.yardstick(base))
    return f"head beside base: {fault}" if fault else None


def _measure_pair(pairs: Pairs, measure: Measure, order: tuple[str, str], number: int, *, new_numerics: bool) -> None:
    """One pair that can be trusted; one that was disturbed is measured again as a whole, and counted."""
    workload, faults = pairs.workload, ""
    for attempt in range(1, DISTURBED_ATTEMPTS + 1):
        again = f", attempt {attempt}" if attempt > 1 else ""
        runs: dict[str, Run] = {}
        for side in order:
            try:
                runs[side] = measure(workload, side, f"{workload.case} {workload.scale}, pair {number}, {side}{again}")
            except RunFailed as failure:
                said = RunFailed(f"{side}: {failure.cause}", rank=failure.rank)
                pairs.failure, pairs.detail = judge_failure(workload.case, workload, said), failure.detail
                return
        if fault := None if new_numerics else numerics_fault(runs["base"], runs["head"]):
            pairs.failure = judge_failure(workload.case, workload, RunFailed(fault))
            return
        found = [f"{side}: {fault}" for side in order for fault in runs[side].health.faults]
        faults = "; ".join(found or filter(None, [_unequal(runs["base"], runs["head"])]))
        if not faults:
            pairs.base.append(runs["base"])
            pairs.head.append(runs["head"])
            return
        pairs.repeated += 1
    disturbed = RunFailed(f"pair {number} was disturbed {DISTURBED_ATTEMPTS} times: {faults}")
    pairs.failure = judge_failure(workload.case, workload, disturbed)
