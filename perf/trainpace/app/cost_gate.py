"""The cost gate of one session: counts every selected case at once, judges each against what is stored."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from trainpace.cases import Case
from trainpace.cases.scaling import full_workload
from trainpace.cases.workload import Dtype
from trainpace.cost.worker import CountFailed, counted
from trainpace.judge.cost import CostChange, CostJudgement, judge_cost
from trainpace.runs.cost import Cost
from trainpace.runs.verdict import Verdict
from trainpace.store.costs import load_costs, refresh_costs
from trainpace.text import count

Show = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]


@dataclass
class Counted:
    """What came of one case: the judgement, and in a refresh what was stored."""

    judgement: CostJudgement
    detail: str = ""
    change: CostChange | None = None


@dataclass(kw_only=True)
class CostGate:
    """Nothing is traced before the first case asks. Then all are, and the processes are gone again: what a speed test
    measures after it must not run beside them."""

    folder: Path
    """Where stored costs are read and refreshed."""
    dtype: Dtype
    refresh: bool
    show: Show
    cases: list[Case] = field(default_factory=list)
    """Selected in this session."""
    counted: dict[str, Counted] = field(default_factory=dict)
    """By test id."""
    _costs: dict[str, Cost | CountFailed] = field(default_factory=dict)

    def judge(self, test: str, case: Case) -> Counted:
        """Count `case` and judge it; in a refresh, store it. Remembered under `test`.

        Raises:
            FileError: for stored costs that cannot be used.
        """
        stored = load_costs(self.folder)
        found = self._cost(case)
        if isinstance(found, CountFailed):
            reason = f"expected the counts of a step, got none: {found}"
            result = Counted(CostJudgement(case=case.id, verdict=Verdict.INVALID, reasons=(reason,)), found.detail)
        else:
            result = Counted(judge_cost(found, stored.get(found.key)))
            if self.refresh:
                (result.change,) = refresh_costs(self.folder, [found])
        self.counted[test] = result
        return result

    def _cost(self, case: Case) -> Cost | CountFailed:
        if case.id not in self._costs:
            cases = {each.id: each for each in (*self.cases, case) if each.id not in self._costs}
            workloads = [full_workload(each, dtype=self.dtype) for each in cases.values()]
            title = f"counting {count(len(cases), 'full-size step')}"
            try:
                with self.show(title, len(cases)) as progress:
                    for done, (name, cost) in enumerate(counted(workloads), start=1):
                        self._costs[name] = cost
                        progress(done, name)
            except CountFailed as failure:
                for name in cases:
                    self._costs.setdefault(name, failure)
        return self._costs[case.id]
