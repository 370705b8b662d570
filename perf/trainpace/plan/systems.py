"""Measures several trainers on one case in rounds: A B C, C B A, .. so that the machine's drift meets all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING

from trainpace.cases import Case, Workload
from trainpace.errors import RunFailed, Skipped
from trainpace.judge.systems import SideBySide, Status, System, figures
from trainpace.judge.validity import NUM_LOSSES, faults
from trainpace.runs import flops, metrics
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import Run
from trainpace.stats.tolerance import geometric_mean
from trainpace.text import percent
from trainpace.trainers.external import Description, is_described, load

if TYPE_CHECKING:
    from trainpace.app.session import Session

DEFAULT_ROUNDS = 3
DISTURBED_ATTEMPTS = 3
"""Runs in place of one that something disturbed, before the system is called invalid."""
LOSS_TOLERANCE = 0.005
"""Relative, of the mean loss of a step. Systems that train the same agree to 1e-5 at the first step, and to 1e-3 at the
eighth, where their schedules have begun to differ."""


@dataclass(kw_only=True)
class _Entry:
    """One system on its way through the rounds."""

    trainer: str
    workload: Workload
    description: Description | None
    runs: list[Run] = field(default_factory=list)
    status: Status = "measured"
    reason: str = ""
    detail: str = ""
    command: str = ""
    repeated: int = 0
    notes: list[str] = field(default_factory=list)
    """Of this measurement."""

    @property
    def title(self) -> str:
        if self.description is not None:
            return self.description.title
        return f"native ({self.workload.engine})" if self.trainer == "native" else self.trainer

    def leave(self, status: Status, reason: str, detail: str = "") -> None:
        """Drop out of the rounds."""
        self.status, self.reason, self.detail = status, reason, detail


def compare(session: "Session", case: Case) -> tuple[SideBySide, str]:
    """Measure every trainer of the session on `case`; what came of it, and what failing programs printed.

    Raises:
        RunFailed: where the case cannot be cut to this machine.
        FileError: for a description that cannot be used.
    """
    entries = [
        _Entry(
            trainer=trainer,
            workload=session.resolve(case, trainer).workload,
            description=load(trainer) if is_described(trainer) else None,
        )
        for trainer in session.options.trainers
    ]
    for entry in entries:
        if entry.description is not None:
            try:
                session.programs.check(entry.description, entry.workload)
            except Skipped as reason:
                entry.leave("skipped", str(reason))
    rounds = session.options.runs_per_case or DEFAULT_ROUNDS
    there = [entry for entry in entries if entry.status == "measured"]
    if len(there) == 1:
        there[0].leave("skipped", "not measured: no other system is there to be compared with")
    for number in range(rounds):
        for entry in entries if number % 2 == 0 else entries[::-1]:
            if entry.status == "measured":
                _measure(session, entry, number, rounds)
    first = next((entry for entry in entries if entry.status == "measured"), None)
    for entry in entries:
        if first is not None and entry is not first and entry.status == "measured":
            _compare_losses(first, entry)
    device = session.device_of(entries[0].workload)
    found = SideBySide(
        case=case.id,
        title=case.model.title,
        length=case.length,
        workload=entries[0].workload,
        device=device,
        rounds=rounds,
        convention=flops.DEFAULT,
        systems=tuple(_system(entry, first, peak_tflops(device, entry.workload.dtype)) for entry in entries),
    )
    return found, "\n".join(f"--- {entry.title}\n{entry.detail}" for entry in entries if entry.detail)


def _measure(session: "Session", entry: _Entry, number: int, rounds: int) -> None:
    """One run that can be trusted, or none and the system drops out."""
    fault = ""
    for attempt in range(1, DISTURBED_ATTEMPTS + 1):
        again = f", attempt {attempt}" if attempt > 1 else ""
        title = f"{entry.workload.case} {entry.workload.scale}, round {number + 1} of {rounds}, {entry.title}{again}"
        try:
            run, entry.command = session.once(entry.workload, title)
        except RunFailed as failure:
            status: Status = "out of memory" if "out of memory" in failure.cause.lower() else "invalid"
            entry.leave(status, f"expected a run of all its steps, got none: {failure}", failure.detail)
            return
        wrong = faults(run, peak_tflops=peak_tflops(run.device, run.workload.dtype))
        session.keep(run, replaced=bool(wrong))
        if not wrong:
            entry.runs.append(run)
            return
        entry.repeated += 1
        fault = wrong[0]
    entry.leave("invalid", f"{DISTURBED_ATTEMPTS} runs of round {number + 1} cannot be trusted: {fault}")


def _compare_losses(first: _Entry, entry: _Entry) -> None:
    """Let `entry` drop out where it did not train what `first` did; note where that cannot be told."""
    expected, got = first.runs[0], entry.runs[0]
    if why := _incomparable(first.title, expected, got):
        entry.notes.append(why)
        return
    for step, (want, came) in enumerate(zip(_losses(expected), _losses(got), strict=False)):
        if abs(came - want) > LOSS_TOLERANCE * abs(want):
            entry.leave(
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


def _system(entry: _Entry, first: _Entry | None, peak: float | None) -> System:
    description = entry.description
    notes = [*(description.footnotes if description else ()), *entry.notes]
    if entry.repeated:
        notes.append(f"{entry.repeated} disturbed runs were measured again")
    facts = System(
        trainer=entry.trainer,
        title=entry.title,
        status=entry.status,
        reference=entry is first,
        reason=entry.reason,
        command=entry.command,
        software=entry.runs[0].software if entry.runs else {},
        footnotes=tuple(notes),
    )
    if entry.status != "measured" or first is None:
        return facts
    tgs = [metrics.tgs(run) for run in entry.runs]
    reached = geometric_mean([metrics.tflops(run) for run in entry.runs])
    return facts.model_copy(
        update={
            **figures(tgs, _speeds(first)),
            "tgs_of_runs": tuple(tgs),
            "tflops": reached,
            "peak_share": reached / peak if peak else None,
            "peak_memory_bytes": max(metrics.peak_memory(run) for run in entry.runs),
            "startup_seconds": median(run.startup_seconds for run in entry.runs),
        }
    )


def _speeds(entry: _Entry) -> Sequence[float]:
    return [metrics.tgs(run) for run in entry.runs]
