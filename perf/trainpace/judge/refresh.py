"""Recording baselines: which runs may become one, and what that changes in a device's file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from trainpace.judge.baseline import MAX_SESSIONS, BaselineFile, Measured, StoredSession, case_noise, mean_of_sessions
from trainpace.judge.validity import faults, first_losses
from trainpace.runs import flops, metrics
from trainpace.runs.run import Run
from trainpace.stats.tolerance import NoiseModel, allowed_loss, geometric_mean, relative_spread
from trainpace.text import percent, signed_percent

MAX_SPREAD = 0.10
"""Coefficient of variation of TGS between runs above which they are no reference. A busy CPU machine shows 3-5.5 %."""


@dataclass(frozen=True)
class Change:
    """What a refresh does to one baseline."""

    key: str
    old: Measured | None
    """The baseline before; None where there was none."""
    new: Measured | None
    """The baseline after; None where it is refused."""
    refused: str | None = None
    """Why nothing is recorded: what was expected, what came, and what to do; None where it is recorded."""

    def __str__(self) -> str:
        if self.new is None:
            return f"{self.key}: not recorded: {self.refused}"
        if self.old is None:
            return f"{self.key}: none -> {self.new.tgs:.1f} TGS"
        change = signed_percent(self.new.tgs / self.old.tgs - 1)
        mean = f", the mean of {len(self.new.counted_tgs)} sessions" if len(self.new.counted_tgs) > 1 else ""
        before = self.old.data or "what the suite does not know"
        data = "" if self.new.data == self.old.data else f", trained on other data: before on {before}"
        return f"{self.key}: {self.old.tgs:.1f} -> {self.new.tgs:.1f} TGS ({change}){mean}{data}"


def changes(
    stored: BaselineFile,
    runs: Sequence[Run],
    *,
    recorded: str,
    num_cases: int = 1,
    max_spread: float = MAX_SPREAD,
    accept_slower: str | None = None,
    peak_tflops: float | None = None,
    missing_only: bool = False,
) -> list[Change]:
    """What recording `runs` of one device, grouped by workload, does to its baselines: one change per workload.

    A workload is refused (and the others still recorded) where a run is invalid, where the runs spread more than
    `max_spread`, or where they are slower than the stored reference by more than the tolerance of the stored gate:
    without that allowance noise alone would refuse every second refresh. Published rows are never touched.

    Args:
        stored: the device's file as it is.
        runs: of that device.
        recorded: when the session began to record, the same for all its cases: UTC, ISO 8601.
        num_cases: that the session refreshes: they share its chance of refusing unchanged code.
        max_spread: largest coefficient of variation of TGS between the runs of a workload.
        accept_slower: the reason to record a slower value all the same, which is stored; None: it is refused.
        peak_tflops: what the device can do; None where that is unknown.
        missing_only: whether a baseline that is there is left as it is.
    """
    return [
        _change(
            group,
            stored,
            recorded,
            num_cases=num_cases,
            max_spread=max_spread,
            accept_slower=accept_slower,
            peak_tflops=peak_tflops,
            missing_only=missing_only,
        )
        for group in _by_workload(runs).values()
    ]


def _by_workload(runs: Iterable[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.workload.key, []).append(run)
    return groups


def _change(
    runs: list[Run],
    file: BaselineFile,
    recorded: str,
    *,
    num_cases: int,
    max_spread: float,
    accept_slower: str | None,
    peak_tflops: float | None,
    missing_only: bool,
) -> Change:
    key = runs[0].workload.key
    stored = file.baselines.get(key)
    old = stored if isinstance(stored, Measured) else None
    if old is not None and missing_only:
        return Change(key, old, None, "another session has recorded it meanwhile")
    values = [metrics.tgs(run) for run in runs]
    if why := _unfit(runs, values, max_spread, peak_tflops):
        return Change(key, old, None, why)
    new = _measured(runs, values, recorded)
    if old is None:
        return Change(key, None, new)
    # What all cases share is not taken out of a refresh.
    noise = NoiseModel(case_noise(old, file.baselines.values(), shared=False), num_cases)
    tolerance = allowed_loss(noise, now=len(values))
    allowed = tolerance.value
    ratio = new.tgs / old.reference_tgs
    if ratio < 1 - allowed:
        if accept_slower:
            return Change(key, old, _new_level(old, new).model_copy(update={"accepted_slower": accept_slower}))
        why = (
            f"expected at least {percent(1 - allowed)} of the stored {old.reference_tgs:.1f} TGS ({tolerance.source}), "
            f'got {new.tgs:.1f}, {percent(ratio)}: find the slowdown, or say why with --perf-accept-slower "reason"'
        )
        return Change(key, old, None, why)
    # Other documents are other work, whatever its speed.
    same = ratio <= 1 / (1 - allowed) and new.mean_attended == old.mean_attended
    return Change(key, old, _one_session_more(old, new) if same else _new_level(old, new))


def _one_session_more(old: Measured, new: Measured) -> Measured:
    """`new`, as fast as `old`, as one session more of it. The reference stays, or small losses would add up unseen."""
    sessions = _joined(old, new, level=old.level)
    tgs = _rounded(mean_of_sessions([each.tgs for each in sessions if each.level == old.level]))
    return new.model_copy(
        update={
            "sessions": sessions,
            "tgs": tgs,
            "tflops": None if new.tflops is None else _rounded(new.tflops * tgs / new.tgs),
            "reference_tgs": old.reference_tgs,
            "accepted_slower": old.accepted_slower,
        }
    )


def _new_level(old: Measured, new: Measured) -> Measured:
    """`new`, which is faster or slower than `old`: the sessions before tell of the noise, and no more of the speed."""
    return new.model_copy(update={"sessions": _joined(old, new, level=old.level + 1)})


def _joined(old: Measured, new: Measured, *, level: int) -> list[StoredSession]:
    """The sessions of `old` and the one of `new`, the newest ones. Runs that are recorded again are one session."""
    (session,) = new.sessions
    before = [each for each in old.sessions if not each.shares_runs(session)]
    return [*before, session.model_copy(update={"level": level})][-MAX_SESSIONS:]


def _unfit(runs: list[Run], values: list[float], max_spread: float, peak_tflops: float | None) -> str | None:
    reference = (runs[0].data, first_losses(runs[0]))
    for run in runs:
        if found := faults(run, peak_tflops=peak_tflops, reference=reference):
            return f"run {run.id} is invalid: {'; '.join(found)}"
    if any((run.data, run.mean_attended) != (runs[0].data, runs[0].mean_attended) for run in runs):
        return "its runs trained on different data: measure them in one session"
    spread = relative_spread(values)
    if spread > max_spread:
        return (
            f"expected a spread between runs of at most {percent(max_spread)}, got {100 * spread:.2f} % over "
            f"{len(values)} runs: measure on a quieter machine, or allow it with --perf-max-spread"
        )
    return None


def baseline_of(runs: list[Run]) -> Measured:
    """The baseline that `runs` of one workload make, without recording it: dated by the last of them."""
    return _measured(runs, [metrics.tgs(run) for run in runs], max(run.started for run in runs))


def baselines_of(runs: Iterable[Run], device: str) -> list[Measured]:
    """The baselines that the runs on `device` make, one a workload, without recording them."""
    return [baseline_of(group) for group in _by_workload(run for run in runs if run.device.slug == device).values()]


def _measured(runs: list[Run], values: list[float], recorded: str) -> Measured:
    first, tgs = runs[0], geometric_mean(values)
    peaks = [metrics.peak_memory(run) for run in runs]
    convention = metrics.convention_of(first)
    tflops = flops.tflops(
        tgs,
        first.workload,
        convention.name,
        mean_attended=first.mean_attended,
        counted=first.step_flops,
        stated=first.flops_per_step,
    )
    return Measured(
        origin="measured",
        workload=first.workload,
        tgs=_rounded(tgs),
        sessions=[
            StoredSession(
                recorded=recorded,
                revision=first.revision,
                level=1,
                tgs=[_rounded(value) for value in values],
                ids=[run.id for run in runs],
                peak_memory_bytes=peaks,
            )
        ],
        reference_tgs=_rounded(tgs),
        tflops=None if tflops is None else _rounded(tflops),
        convention=convention.name,
        convention_version=convention.version,
        mean_attended=first.mean_attended,
        peak_memory_bytes=max(peaks),
        yardstick_seconds=_median_yardstick(runs),
        first_losses=[_rounded(loss) for loss in first_losses(first)],
        data=first.data,
        startup_seconds=_rounded(median(run.startup_seconds for run in runs)),
        device=first.device,
        software=first.software,
        accepted_slower=None,
    )


def _median_yardstick(runs: list[Run]) -> float | None:
    found = [seconds for seconds in map(metrics.yardstick, runs) if seconds is not None]
    return _rounded(median(found)) if len(found) == len(runs) else None


def _rounded(value: float) -> float:
    # Six digits are a hundred times finer than the finest tolerance, and a diff that people can read.
    return float(f"{value:.6g}")
