"""The gate of a pull request: every selected case on both sides, in rounds A B, B A, A B ... until each is decided.

A pair is two runs that follow each other, so that the machine's drift meets both; the order turns with every round.
Decided cases drop out. Everything is measured before anything is reported: the correction across cases and the pooled
variance need all of them.

`PairedRounds` decides, on arrays over many sessions at once; `PairedPlan` makes tasks of its rounds for one session of
real runs. The simulation drives the first, the program the second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trainpace.cases.workload import Workload
from trainpace.errors import RunFailed, Skipped
from trainpace.judge.claims import clock_fault, token_faults
from trainpace.judge.command import Command
from trainpace.judge.comparison import Comparison
from trainpace.judge.head_vs_base import MIN_TAIL_PAIRS, judge_pairs, log_ratio, longer_tail, numerics_fault
from trainpace.judge.validity import core_fault
from trainpace.judge.verdict import Judgement, judge_failure, unjudged
from trainpace.plan.task import Task, attempts
from trainpace.runs import metrics
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.stats.sequential import (
    PAIRS,
    Analysis,
    Decision,
    SequentialDesign,
    analyse,
    decision_of,
    of_session,
    plan_pairs,
)
from trainpace.stats.tolerance import Spread, error_per_case, geometric_mean
from trainpace.text import percent

if TYPE_CHECKING:
    from numpy import bool_, float64, int64
    from numpy.typing import NDArray

OPEN, PASSED, SLOWER, FASTER = range(4)
"""What is decided of a case; OPEN: nothing yet, and at the end `inconclusive`."""


@dataclass(frozen=True)
class MinEffects:
    """D, the loss of TGS that must be found: of all cases, and of those whose owner wrote down another."""

    share: float = 0.05
    of_cases: tuple[tuple[str, float], ...] = ()
    """Ids of cases, and their D."""

    def of(self, case: str) -> float:
        """D of a case, a share."""
        return dict(self.of_cases).get(case, self.share)


@dataclass(frozen=True)
class Round:
    """One pair more of each case that wants one."""

    number: int
    """0 first."""
    wanted: "NDArray[bool_]"
    """Shape (sessions, cases)."""


class PairedRounds:
    """What is decided of the pairs of S sessions at once, round by round; S = 1 is the program's own session."""

    def __init__(self, design: SequentialDesign, sessions: int = 1) -> None:
        import numpy as np

        shape = (sessions, design.planned.shape[1])
        self.design = design
        self.verdict: NDArray[int64] = np.zeros(shape, np.int64)
        """OPEN, PASSED, SLOWER or FASTER. What was decided stays decided: its error was spent then."""
        self.given_up: NDArray[bool_] = np.zeros(shape, bool)
        """Open cases that get no further pair: all were measured, or none could decide them."""
        self.log_ratios: NDArray[float64] = np.full((*shape, design.most), np.nan)
        """log(TGS head / TGS base) of each pair; NaN where none was measured."""
        self.failed: NDArray[bool_] = np.zeros(shape[1], bool)
        """Cases that are out of it: their pairs are nobody's noise. The same in all sessions."""
        self._number = 0
        self._closed = False

    def next(self, wanted: object = None) -> Round | None:
        """The next round; None where every case is decided or gets no further pair."""
        going = (self.verdict == OPEN) & ~self.given_up & ~self.failed
        if self._closed or self._number >= self.design.most or not going.any():
            return None
        return Round(self._number, going)

    def add(self, task: Round, result: "NDArray[float64]") -> "tuple[Analysis, list[int]] | None":
        """Judge every session after a round.

        Args:
            task: the round.
            result: log ratios of shape (sessions, cases), NaN where no pair was measured; of cases that were not
                wanted they are not looked at.

        Returns:
            The figures of the sessions that were still open, and the cases (columns) that they are of; None where no
            pair was ever measured.
        """
        import numpy as np

        self._number = task.number + 1
        self.log_ratios[..., task.number] = np.where(task.wanted, result, np.nan)
        columns = np.flatnonzero(~self.failed & ~np.isnan(self.log_ratios[..., : self._number]).all(axis=(0, 2)))
        going = np.flatnonzero(task.wanted.any(-1))
        if not len(columns):
            return None
        part = np.ix_(going, columns)
        seen = analyse(self.log_ratios[part][..., : self._number], self.design.part(going, columns))
        found = np.select([seen.slower, seen.faster, seen.passed], [SLOWER, FASTER, PASSED], OPEN)
        wanted = self.verdict[part] == OPEN
        self.verdict[part] = np.where(wanted, found, self.verdict[part])
        self.given_up[part] |= seen.hopeless
        return seen, columns.tolist()

    def begin_no_more(self) -> None:
        """No further round."""
        self._closed = True

    @property
    def pairs(self) -> "NDArray[int64]":
        """Pairs measured, shape (sessions, cases)."""
        import numpy as np

        return np.asarray((~np.isnan(self.log_ratios)).sum(-1))


@dataclass(kw_only=True)
class PairedCase:
    """One case on its way to a verdict."""

    test: str
    """Id of the test that will report it."""
    workload: Workload
    min_effect: float
    """D, the loss of TGS that must be found, a share."""
    prior: Spread | None = None
    """Of the log ratios of its pairs, as far as it is known before the session; None: nothing is."""
    command: Command = field(default_factory=Command)
    """What runs the test again."""
    base: list[Run] = field(default_factory=list)
    """The base's runs of the pairs that count, oldest first."""
    head: list[Run] = field(default_factory=list)
    repeated: int = 0
    """Pairs that were measured again because something disturbed them."""
    decision: Decision | None = None
    """After the last round in which the case was open; None: it had no pair yet."""
    failure: Judgement | None = None
    """What ends the case before it is decided; None: nothing did."""
    detail: str = ""
    """The failing rank's traceback or log."""

    @property
    def open(self) -> bool:
        """Whether nothing is decided."""
        return self.failure is None and (self.decision is None or self.decision.verdict is None)


class PairedPlan:
    """Head against base for one session of real runs."""

    def __init__(
        self,
        cases: Sequence[PairedCase],
        *,
        max_pairs: int | None = None,
        head: str = "head",
        new_numerics: bool = False,
    ) -> None:
        """Plan pairs of `cases`, which take their runs, decisions and failures.

        Args:
            cases: in the order in which a round visits them.
            max_pairs: of a case, at least 2. None: PAIRS, and further ones where its own noise leaves a case undecided.
            head: the side that is measured against `base`: `head`, or `injected` in a self-test.
            new_numerics: whether the losses of head may differ from the base's.
        """
        self.cases = list(cases)
        self.messages: list[str] = []
        """What is to be said of the session: which cases get further pairs, and why."""
        design = _design(self.cases, max_pairs)
        for case, pairs in zip(self.cases, design.planned[0].tolist(), strict=True):
            if case.prior is not None and pairs > PAIRS and max_pairs is None:
                self._say_further(case, case.prior.sd, pairs)
        self._rounds = PairedRounds(design)
        self._head, self._new_numerics = head, new_numerics
        self._round = self._rounds.next()
        self._place = 0
        """The case that the round has come to."""
        self._attempt = 1
        self._pair: dict[str, Run] = {}
        """Of the pair that is under way: its runs, by side."""
        self._closed = False

    def begin_no_more(self) -> None:
        """Finish the pair that is under way; begin no other."""
        self._closed = True

    def next(self, wanted: str | None = None) -> Task | None:
        """The next run of the round. Rounds are of all cases: `wanted` makes no difference."""
        while self._round is not None:
            if self._place == len(self.cases):
                self._judge()
                continue
            case = self.cases[self._place]
            wanted_more = case.failure is None and self._round.wanted[0, self._place]
            if not wanted_more or (self._closed and not self._pair and self._attempt == 1):
                self._place += 1
                continue
            side = next(each for each in self._order if each not in self._pair)
            again = f", attempt {self._attempt}" if self._attempt > 1 else ""
            workload = case.workload
            return Task(
                test=case.test,
                workload=workload,
                side=self._head if side == "head" else "base",
                label=f"{workload.case} {workload.scale}, pair {self._round.number + 1}, {side}{again}",
            )
        return None

    def examine(self, task: Task, run: Run) -> tuple[Run, bool]:
        """A run as it is to be kept, and whether another one takes its place."""
        return run, bool(run.health.faults)

    def add(self, task: Task, result: Run | RunFailed | Skipped) -> None:
        """Take one run; a pair that was disturbed is measured again as a whole, and counted."""
        case, side = self.cases[self._place], "base" if task.side == "base" else "head"
        if not isinstance(result, Run):
            cause = result.cause if isinstance(result, RunFailed) else str(result)
            rank = result.rank if isinstance(result, RunFailed) else None
            self._fail(case, RunFailed(f"{side}: {cause}", rank=rank), getattr(result, "detail", ""))
            return
        self._pair[side] = result
        if len(self._pair) < 2:
            return
        base, head = self._pair["base"], self._pair["head"]
        self._pair = {}
        if fault := self._other_work(case, base, head):
            self._fail(case, RunFailed(fault))
        elif faults := self._faults(base, head):
            case.repeated += 1
            self._attempt += 1
            if self._attempt > (most := attempts(base, head)):
                times = f" {most} times" if most > 1 else ""
                self._fail(case, RunFailed(f"pair {self._number + 1} was disturbed{times}: {faults}"))
        else:
            case.base.append(base)
            case.head.append(head)
            self._attempt, self._place = 1, self._place + 1

    def judgement(self, case: PairedCase, *, names: tuple[str, str], peak_tflops: float | None) -> Judgement:
        """What is said of a case when all rounds are over; `names` are the base's and the head's."""
        if case.failure is not None:
            return case.failure
        if case.decision is None:
            return unjudged(case.workload.case, "did not fit --perf-max-minutes: no pair was measured")
        decision = case.decision
        comparison = Comparison(
            base=names[0],
            head=names[1],
            base_tgs=geometric_mean([metrics.tgs(run) for run in case.base]),
            log_ratios=tuple(log_ratio(base, head) for base, head in zip(case.base, case.head, strict=True)),
            ratio=decision.ratio,
            low=decision.low,
            high=decision.high,
            detect=decision.min_effect,
            set_aside=decision.set_aside,
            repeated=case.repeated,
            pairs_needed=decision.pairs_needed,
            spread=None if decision.spread is None else decision.spread / math.sqrt(2),
            informed=decision.informed,
            contradicted=decision.contradicted,
        )
        verdict = decision.verdict or Verdict.INCONCLUSIVE
        return judge_pairs(
            case.base,
            case.head,
            comparison,
            verdict,
            peak_tflops=peak_tflops,
            command=case.command,
            error=error_per_case(len(self.cases)),
        )

    @property
    def _number(self) -> int:
        assert self._round is not None
        return self._round.number

    @property
    def _order(self) -> tuple[str, str]:
        return ("base", "head") if self._number % 2 == 0 else ("head", "base")

    def _other_work(self, case: PairedCase, base: Run, head: Run) -> str | None:
        """Why a pair is not of the same work, and no speed can be compared; None where it is, as far as is known."""
        for side, run in (("base", base), ("head", head)):
            for fault in token_faults(run):
                return f"{side}: {fault}"
        return None if self._new_numerics else numerics_fault([*case.base, base], [*case.head, head])

    def _faults(self, base: Run, head: Run) -> str:
        """What disturbed a pair; empty where nothing did."""
        of_side = {"base": base, "head": head}
        found = [f"{side}: {fault}" for side in self._order for fault in of_side[side].health.faults]
        min_effect = self.cases[self._place].min_effect
        return "; ".join(found or filter(None, [_unequal(base, head), clock_fault(base, head, min_effect)]))

    def _fail(self, case: PairedCase, failure: RunFailed, detail: str = "") -> None:
        """End a case; its pairs say nothing of the noise of the others."""
        case.failure = judge_failure(case.workload.case, case.workload, failure, case.command)
        case.detail = detail
        self._rounds.failed[self._place] = True
        self._pair, self._attempt, self._place = {}, 1, self._place + 1

    def _judge(self) -> None:
        """The round is over: judge every open case by its pairs so far, and begin the next round."""
        assert self._round is not None
        import numpy as np

        ratios = np.full((1, len(self.cases)), np.nan)
        for column, case in enumerate(self.cases):
            if len(case.head) > self._number:
                ratios[0, column] = log_ratio(case.base[self._number], case.head[self._number])
        if (judged := self._rounds.add(self._round, ratios)) is not None:
            seen, columns = of_session(judged[0], 0), judged[1]
            for place, column in enumerate(columns):
                if self.cases[column].open:
                    self._decide(column, decision_of(seen, place, self._rounds.design))
        if self._closed:
            self._rounds.begin_no_more()
        self._round, self._place = self._rounds.next(), 0
        if self._round is not None:
            design = self._rounds.design
            for column in np.flatnonzero(self._round.wanted[0] & (design.planned[0] == self._round.number)).tolist():
                decision = self.cases[column].decision
                if decision is not None and decision.spread is not None:
                    self._say_further(self.cases[column], decision.spread, design.most)

    def _decide(self, column: int, decision: Decision) -> None:
        """Take a decision; one that a few pairs with far longer steps contradict waits for MIN_TAIL_PAIRS."""
        case = self.cases[column]
        quiet = decision.verdict in {Verdict.PASS, Verdict.IMPROVEMENT}
        if quiet and len(case.head) < MIN_TAIL_PAIRS and longer_tail(case.base, case.head, decision.min_effect):
            decision = replace(decision, verdict=None)
            self._rounds.verdict[0, column] = OPEN
        case.decision = decision

    def _say_further(self, case: PairedCase, spread: float, pairs: int) -> None:
        """`spread` is that of log ratios; people know that of runs."""
        self.messages.append(
            f"{case.workload.case}: its runs spread {percent(spread / math.sqrt(2))}, too far for {PAIRS} pairs: "
            f"up to {pairs}"
        )


def _design(cases: Sequence[PairedCase], max_pairs: int | None) -> SequentialDesign:
    import numpy as np

    none = Spread(0.0, 0)
    return plan_pairs(
        np.array([[case.min_effect for case in cases]], np.float64),
        np.array([[(case.prior or none).sd for case in cases]], np.float64),
        np.array([[(case.prior or none).dof for case in cases]], np.int64),
        max_pairs=max_pairs or PAIRS,
        further=max_pairs is None,
    )


def _unequal(base: Run, head: Run) -> str | None:
    """Why the machine was not the same to both runs of a pair; None where it was, or where that cannot be told."""
    if base.health.foreign_cores is None or base.software.get("python") != head.software.get("python"):
        return None
    fault = core_fault(metrics.yardstick(head), metrics.yardstick(base), faster_too=True)
    return f"head beside base: {fault}" if fault else None


def self_tested(unchanged: Judgement, injected: Judgement, slowdown: str) -> Judgement:
    """Pass where the gate is quiet without a slowdown and red with one; else invalid, with what it missed.

    `slowdown` is the injected one, for people: `30 %`.
    """
    if unchanged.verdict is Verdict.INVALID or injected.verdict is Verdict.INVALID:
        return unchanged if unchanged.verdict is Verdict.INVALID else injected
    wrong = []
    if unchanged.verdict is Verdict.REGRESSION:
        wrong.append(f"self-test: found a slowdown where nothing was changed: {'; '.join(unchanged.reasons)}")
    if injected.verdict is not Verdict.REGRESSION:
        wrong.append(
            f"self-test: expected an injected slowdown of {slowdown} to be a regression, got {injected.verdict} "
            f"({injected.tolerance_source})"
        )
    if wrong:
        return unchanged.model_copy(update={"verdict": Verdict.INVALID, "reasons": tuple(wrong), "what_decides": ""})
    note = f"self-test: an injected slowdown of {slowdown} was found ({injected.tolerance_source})"
    return unchanged.model_copy(update={"notes": (*unchanged.notes, note)})
