"""Several training systems on one case, in rounds: A B C, C B A, .. so that the machine's drift meets all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from trainpace.cases.machine import Device
from trainpace.cases.published import Case
from trainpace.cases.workload import Workload
from trainpace.errors import RunFailed, Skipped
from trainpace.judge.systems import SideBySide, Status, System, figures
from trainpace.judge.validity import LOSS_TOLERANCE, NUM_LOSSES, faults
from trainpace.plan.task import Task, attempts
from trainpace.runs import flops, metrics
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import Run
from trainpace.stats.tolerance import mean_if_known
from trainpace.text import percent

DEFAULT_ROUNDS = 3


@dataclass(kw_only=True)
class ComparedSystem:
    """One system on its way through the rounds."""

    trainer: str
    """As it was asked for: `native`, `hf`, a path."""
    title: str
    """For people."""
    workload: Workload
    footnotes: Sequence[str] = ()
    """What differs from the native trainer."""
    runs: list[Run] = field(default_factory=list)
    """One a round."""
    status: Status = "measured"
    reason: str = ""
    """Why it is not `measured`."""
    detail: str = ""
    """What a failing program printed."""
    command: str = ""
    """What was run, as it can be typed."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts of the files that the command names, by their paths below the report's folder."""
    repeated: int = 0
    """Runs that were measured again because something disturbed them."""
    notes: list[str] = field(default_factory=list)
    """Of this measurement."""

    def drop(self, status: Status, reason: str, detail: str = "") -> None:
        """Take it out of the rounds."""
        self.status, self.reason, self.detail = status, reason, detail


class SystemsPlan:
    """Measures each system once a round."""

    def __init__(self, test: str, case: Case, systems: Sequence[ComparedSystem], *, rounds: int) -> None:
        """Plan `rounds` rounds of `systems`, at least one, in the order in which they were asked for."""
        self.systems = list(systems)
        self.rounds = rounds
        self._test, self._case = test, case
        self._number, self._place, self._attempt = 0, 0, 1
        present = [system for system in self.systems if system.status == "measured"]
        if len(present) == 1:
            present[0].drop("skipped", "not measured: no other system is there to be compared with")

    def begin_no_more(self) -> None:
        """A comparison has no limit of time."""

    def next(self, wanted: str | None = None) -> Task | None:
        """The next run; `wanted` makes no difference, the plan has one case."""
        while self._number < self.rounds:
            if self._place == len(self.systems):
                self._number, self._place = self._number + 1, 0
            elif self._system.status != "measured":
                self._place += 1
            else:
                return self._task()
        return None

    def examine(self, task: Task, run: Run) -> tuple[Run, bool]:
        """A run as it is to be kept, and whether it cannot be trusted."""
        return run, bool(self._faults(run))

    def add(self, task: Task, result: Run | RunFailed | Skipped) -> None:
        """Take one run; one that cannot be trusted is measured again, at last the system drops out."""
        system = self._system
        if isinstance(result, Skipped):
            system.drop("skipped", str(result))
        elif isinstance(result, RunFailed):
            status: Status = "out of memory" if "out of memory" in result.cause.lower() else "invalid"
            system.drop(status, f"expected a run of all its steps, got none: {result}", result.detail)
        elif wrong := self._faults(result):
            system.repeated += 1
            self._attempt += 1
            if self._attempt <= (most := attempts(result)):
                return
            runs = "a run" if most == 1 else f"{most} runs"
            why = f"{runs} of round {self._number + 1} cannot be trusted: {wrong[0]}"
            system.drop("invalid", why)
        else:
            system.runs.append(result)
        self._place, self._attempt = self._place + 1, 1

    def compared(self, device: Device) -> SideBySide:
        """How the systems stand to each other, when all rounds are over."""
        first = next((system for system in self.systems if system.status == "measured"), None)
        for system in self.systems:
            if first is not None and system is not first and system.status == "measured":
                _compare_losses(first, system)
        workload = self.systems[0].workload
        states = [run.flops_per_step for system in self.systems for run in system.runs if system.status == "measured"]
        # One convention for all of them: what a trainer says of its own steps, where each says it.
        convention = flops.chosen(workload, stated=states[0] if states and all(states) else None).name
        return SideBySide(
            case=self._case.id,
            title=self._case.model.title,
            length=self._case.length,
            workload=workload,
            device=device,
            rounds=self.rounds,
            convention=convention,
            systems=tuple(
                _record(system, first, peak_tflops(device, system.workload.dtype), convention)
                for system in self.systems
            ),
        )

    @property
    def detail(self) -> str:
        """What failing programs printed."""
        return "\n".join(f"--- {system.title}\n{system.detail}" for system in self.systems if system.detail)

    @property
    def _system(self) -> ComparedSystem:
        order = self.systems if self._number % 2 == 0 else self.systems[::-1]
        return order[self._place]

    def _task(self) -> Task:
        system = self._system
        workload = system.workload
        again = f", attempt {self._attempt}" if self._attempt > 1 else ""
        of = f"round {self._number + 1} of {self.rounds}"
        return Task(
            test=self._test,
            workload=workload,
            side=system.trainer,
            label=f"{workload.case} {workload.scale}, {of}, {system.title}{again}",
        )

    def _faults(self, run: Run) -> list[str]:
        return faults(run, peak_tflops=peak_tflops(run.device, run.workload.dtype))


def _compare_losses(first: ComparedSystem, other: ComparedSystem) -> None:
    """Let `other` drop out where it did not train what `first` did; note where that cannot be told.

    Systems that train the same agree to 1e-5 at the first step, and to 1e-3 at the eighth, where their schedules have
    begun to differ.
    """
    expected, got = first.runs[0], other.runs[0]
    if why := _incomparable(first.title, expected, got):
        other.notes.append(why)
        return
    for step, (want, came) in enumerate(zip(_losses(expected), _losses(got), strict=False)):
        if abs(came - want) > LOSS_TOLERANCE * abs(want):
            other.drop(
                "invalid",
                f"expected {first.title}'s loss {want:.4f} at step {step} within {percent(LOSS_TOLERANCE)}, got "
                f"{came:.4f}: something else is trained",
            )
            return


def _incomparable(reference: str, expected: Run, got: Run) -> str | None:
    """Why the losses of two systems say nothing of each other, for a footnote; None where they must agree."""
    if not _losses(got):
        return "losses not logged: not compared"
    if not _losses(expected):
        return f"losses not compared: {reference} logs none"
    if got.data is None:
        return "losses not compared: it does not say which tokens it trained on"
    if expected.data is None:
        return f"losses not compared: {reference} does not say which tokens it trained on"
    if expected.data != got.data:
        return f"losses not compared: it trained on other tokens than {reference}"
    return None


def _losses(run: Run) -> list[float]:
    """Mean over the ranks, of the first steps; empty where a program logs none."""
    return [fmean(losses) for losses in zip(*((each.losses or [])[:NUM_LOSSES] for each in run.ranks), strict=True)]


def _record(system: ComparedSystem, first: ComparedSystem | None, peak: float | None, convention: str) -> System:
    notes = [*system.footnotes, *system.notes]
    if any(run.flops_per_step for run in system.runs):
        notes.append("MFU: of the FLOPs that its trainer says")
    if system.repeated:
        notes.append(f"{system.repeated} disturbed runs were measured again")
    facts = System(
        trainer=system.trainer,
        title=system.title,
        status=system.status,
        reference=system is first,
        reason=system.reason,
        command=system.command,
        files=dict(system.files),
        software=system.runs[0].software if system.runs else {},
        footnotes=tuple(notes),
    )
    if system.status != "measured" or first is None:
        return facts
    tgs = [metrics.tgs(run) for run in system.runs]
    return facts.model_copy(
        update={
            **figures(tgs, [metrics.tgs(run) for run in first.runs]),
            "tgs_of_runs": tuple(tgs),
            "tflops": mean_if_known(metrics.tflops(run, convention) for run in system.runs),
            "mfu": mean_if_known(metrics.mfu(run, peak) for run in system.runs),
            "hfu": mean_if_known(metrics.hfu(run, peak) for run in system.runs),
            "peak_memory_bytes": max(metrics.peak_memory(run) for run in system.runs),
            "startup_seconds": median(run.startup_seconds for run in system.runs),
        }
    )
