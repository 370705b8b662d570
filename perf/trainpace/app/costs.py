"""The cost tests of one session: counts every selected case at once, judges each against what is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from trainpace.app.resources import Show
from trainpace.cases.architectures import cannot
from trainpace.cases.published import Case
from trainpace.cases.scaling import full_workload
from trainpace.cases.workload import Dtype
from trainpace.cost.own_model import OwnModel
from trainpace.cost.worker import CountFailed, counted
from trainpace.judge.command import Command
from trainpace.judge.cost import CostJudgement, judge_cost
from trainpace.judge.finding import Finding, cost_finding
from trainpace.runs.cost import Cost
from trainpace.runs.verdict import Verdict
from trainpace.store.costs import load_costs, refresh_costs


@dataclass(kw_only=True)
class Costs:
    """Finds what is to be said of counted costs.

    Nothing is traced before the first case asks. Then all are, and the processes are gone again: what a speed test
    measures after it must not run beside them.
    """

    folder: Path
    """Where stored costs are read and refreshed."""
    dtype: Dtype
    refresh: bool
    show: Show
    cache: Path | None
    """The folder of all caches; None: all is counted anew, and not kept."""
    environment: Sequence[str] = ()
    """Names of environment variables that counting is given besides those of launch/environment.py."""
    cases: list[Case] = field(default_factory=list)
    """Selected in this session."""
    _counted: dict[str, Cost | CountFailed] = field(default_factory=dict)

    def find(self, case: Case, command: Command, own: OwnModel | None = None) -> Finding:
        """Count `case` and judge it; in a refresh, store it. `command` is that of its test, `own` the model that is
        counted instead of the native trainer's.

        Raises:
            FileError: for stored costs that cannot be used.
        """
        stored = self._stored
        found = self._cost(case) if own is None else self._cost_of(case, own)
        if isinstance(found, CountFailed):
            reason = f"expected the counts of a step, got none: {found}"
            return cost_finding(
                CostJudgement(case=case.id, verdict=Verdict.INVALID, reasons=(reason,)), detail=found.detail
            )
        judgement = judge_cost(found, stored.get(found.key), command)
        if not self.refresh or (judgement.verdict is Verdict.INVALID and found.unknown):
            return cost_finding(judgement)
        (change,) = refresh_costs(self.folder, [found])
        return cost_finding(judgement, change=change)

    @cached_property
    def _stored(self) -> dict[str, Cost]:
        """As they were when the session first asked: what it refreshes itself changes nothing for its other cases."""
        return load_costs(self.folder)

    def _cost_of(self, case: Case, own: OwnModel) -> Cost | CountFailed:
        """Of a model that its test brings, which no other test can be counted with."""
        try:
            with self.show("counting a full-size step", 1) as progress:
                ((_, cost),) = counted(
                    [full_workload(case, dtype=self.dtype, trainer=own.name)],
                    cache=self.cache,
                    progress=progress,
                    added=self.environment,
                    own=own,
                )
        except CountFailed as failure:
            return failure
        return cost

    def _cost(self, case: Case) -> Cost | CountFailed:
        selected = [each for each in (*self.cases, case) if each.model.shape is not None]
        for each in selected:
            if why := cannot(each.model.decoder, each.sequence):
                self._counted.setdefault(each.id, CountFailed(why))
        if case.id not in self._counted:
            cases = {each.id: each for each in selected if each.id not in self._counted}
            workloads = [full_workload(each, dtype=self.dtype) for each in cases.values()]
            title = f"counting {len(cases)} full-size step{'' if len(cases) == 1 else 's'}"
            try:
                with self.show(title, len(cases)) as progress:
                    for name, cost in counted(workloads, cache=self.cache, progress=progress, added=self.environment):
                        self._counted[name] = cost
            except CountFailed as failure:
                for name in cases:
                    self._counted.setdefault(name, failure)
        return self._counted[case.id]
