"""FLOPs of the steps of one session, traced where no formula holds for their model: once a workload."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainpace.app.messages import Messages
from trainpace.app.resources import Show
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS
from trainpace.cases.workload import Workload
from trainpace.cost.worker import CountFailed, counted
from trainpace.runs import flops
from trainpace.runs.flops import StepFlops
from trainpace.runs.run import Run


@dataclass(kw_only=True)
class StepsFlops:
    """Counts what a run's TFLOPs, MFU and HFU need.

    Nothing is traced before the first run that needs it is to begin. Then all workloads of the session that need it
    are, and the process is gone again: what is measured must not run beside it.
    """

    show: Show
    messages: Messages
    cache: Path | None
    """The folder of all caches; None: all is counted anew, and not kept."""
    environment: Sequence[str] = ()
    """Names of environment variables that counting is given besides those of launch/environment.py."""
    _expected: dict[str, Workload] = field(default_factory=dict)
    """By hash: to be counted with the first one that is asked for."""
    _found: dict[str, StepFlops | None] = field(default_factory=dict)
    """By hash; None: could not be counted, which was said."""

    def expect(self, workloads: Iterable[Workload]) -> None:
        """Say what this session is going to measure."""
        for each in map(_traced, filter(_needed, workloads)):
            self._expected[each.hash] = each

    def of(self, workload: Workload) -> StepFlops | None:
        """FLOPs of a step of `workload`; None where formulas hold, and where they cannot be counted."""
        if not _needed(workload):
            return None
        name = _traced(workload).hash
        if name not in self._found:
            self.expect([workload])
            self._count([each for key, each in self._expected.items() if key not in self._found])
        return self._found[name]

    def added(self, run: Run) -> Run:
        """`run` with its step's FLOPs, where it needs them and has none."""
        found = None if run.step_flops else self.of(run.workload)
        return run.model_copy(update={"step_flops": found}) if found else run

    def _count(self, workloads: Sequence[Workload]) -> None:
        # The process tells results apart by the case's id, which workloads of one session may share.
        named = {f"{each.case} {each.hash}": each for each in workloads}
        renamed = [each.model_copy(update={"case": name}) for name, each in named.items()]
        title = f"counting {len(named)} step{'' if len(named) == 1 else 's'}: no formula for their FLOPs"
        try:
            with self.show(title, len(named)) as progress:
                found = counted(renamed, cache=self.cache, progress=progress, added=self.environment)
                for name, cost in found:
                    if isinstance(cost, CountFailed):
                        self._fail([named[name]], cost)
                    else:
                        self._found[named[name].hash] = cost.step_flops
        except CountFailed as failure:
            self._fail([each for each in workloads if each.hash not in self._found], failure)

    def _fail(self, workloads: Sequence[Workload], failure: CountFailed) -> None:
        for each in workloads:
            self._found[each.hash] = None
            self.messages.say(f"{each.case}: its step could not be counted: {failure}")


def _needed(workload: Workload) -> bool:
    """Whether its FLOPs are those of the trace. What another trainer computes the trace does not know."""
    return workload.trainer == "native" and flops.chosen(workload).name == flops.COUNTED


def _traced(workload: Workload) -> Workload:
    """What decides the products of a step: one trace serves both engines, any number of steps, any documents."""
    same = {"engine": "deepspeed", "thresholds": DEEPSPEED_THRESHOLDS, "attention": "causal", "warmup": 1, "steps": 1}
    return workload.model_copy(update={**same, "nodes": 1, "network": "", "compile": False})
