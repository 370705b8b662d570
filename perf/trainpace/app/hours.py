"""How long a selection takes, said before anything runs where hours are counted; and what was spent, said after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainpace.app.messages import Messages
from trainpace.app.options import Options
from trainpace.app.resources import Resources
from trainpace.app.workloads import Workloads
from trainpace.cases.published import Case
from trainpace.cases.workload import Workload
from trainpace.cost.predict import devices, predicted_on
from trainpace.errors import BudgetExceeded, FileError, RunFailed
from trainpace.judge import baseline as baselines
from trainpace.judge.command import Command
from trainpace.plan.budget import Duration, ResourceUsage, duration_of, estimate_of, format_duration
from trainpace.plan.stored import DEFAULT_REFRESH_RUNS
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import flops_per_token
from trainpace.stats.sequential import PAIRS

ASSUMED_SHARE = 0.35
"""Of a GPU's peak that training is taken to reach where nothing was measured: an H100 gave 33 to 38 %."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """One speed test of a session: the case that it measures, and with which trainer."""

    test: str
    """Id of the test."""
    case: Case
    trainer: str
    command: Command = field(default_factory=Command)
    """What runs the test again."""


@dataclass(kw_only=True)
class Hours:
    """Says what a session takes, in hours of GPUs or of nodes; says nothing on a machine whose hours nobody counts."""

    options: Options
    resources: Resources
    workloads: Workloads
    messages: Messages

    def announce(self, selection: Sequence[Selected]) -> None:
        """Say before anything runs how long the selection takes, where hours are counted.

        Raises:
            BudgetExceeded: where that is longer than --perf-max-hours.
        """
        most = self.options.max_hours
        if self.options.replay or (most is None and not self._hours_are_counted()):
            return
        names = [each.case.id for each in selection]
        try:
            estimate = estimate_of([self._duration(each) for each in selection], names, unit=self._unit())
        except RunFailed:  # there are no nodes: every case will say so
            return
        self.messages.tell(str(estimate))
        self.messages.say(str(estimate))
        if most is not None and estimate.hours > most:
            raise BudgetExceeded(
                f"--perf-max-hours {most:g}: the selection takes about {format_duration(estimate.hours)}: select fewer "
                "cases with -k, or allow more"
            )

    def _duration(self, selected: Selected) -> Duration | None:
        """What a selected case takes, at most; None where nothing is known of it."""
        self.resources.allocate()
        try:
            workload = self.workloads.resolve(selected.case, selected.trainer).workload
        except RunFailed:  # it will say so itself
            return None
        options, device = self.options, self.workloads.device_of(workload)
        found = baselines.find(self.workloads.baselines(device), workload)
        runs = options.runs_per_case or (DEFAULT_REFRESH_RUNS if options.refresh else 1)
        if found is None and options.records_missing:
            runs += DEFAULT_REFRESH_RUNS
        if options.gate is not None:
            runs = 2 * (options.gate.max_pairs or PAIRS)
        return duration_of(workload, found, predicted_tgs(workload, device.kind_slug), runs)

    def _hours_are_counted(self) -> bool:
        """Of GPUs, and of several nodes."""
        return self.options.launcher != "local" or self.resources.allocate().gpus is not None

    def _unit(self) -> str:
        return "GPU" if self.resources.allocate().gpus else "rank"

    def say_usage(self, usage: ResourceUsage) -> None:
        """Say what was spent and saved, where that is counted."""
        if usage.spent and self._hours_are_counted():
            self.messages.say(usage.text(self._unit()))


def predicted_tgs(workload: Workload, device: str) -> float | None:
    """TGS that the counts suggest for a published row as it was published, else ASSUMED_SHARE of the device's peak.

    None on a CPU, for a device without a peak, and where nothing is known of the model.
    """
    if workload.scale == "full" and device in devices():
        try:
            if (predicted := predicted_on(device).get(workload.case)) is not None:
                return predicted
        except FileError:
            pass
    sheet = DATASHEETS.get(device)
    if workload.shape is None or workload.scale == "mini" or sheet is None or sheet.bf16_tflops is None:
        return None
    return ASSUMED_SHARE * 1e12 * sheet.bf16_tflops / flops_per_token(workload.shape, workload.sequence)
