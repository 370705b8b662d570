"""The value of a run: its samples in, a few numbers out. The run is the unit of statistics, never the step.

Sizes: a run has R ranks and N measured steps; a thousand of each are judged within half a second.
"""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainpace.cases.workload import Workload, is_own_trainer
from trainpace.runs import flops
from trainpace.runs.run import Run

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

WARMUP_EXCESS = 0.10
"""First measured steps this much slower than the later ones say that the warm-up was too short."""
TAIL_EXCESS = 0.20
"""Share above which the mean step is said to be longer than the median one."""
FALL = 0.03
"""Steps of the last quarter this much slower than those of the second say that throughput fell."""
MIN_QUARTER = 4
"""Steps of a quarter; the median of fewer says nothing."""
SLOW_RANK = 0.05
"""Share above the median rank from which a slow rank is named."""


def tgs(run: Run) -> float:
    """Tokens per GPU per second: (S / sp) / (median step + median optimizer seconds / accumulation), slowest rank.

    The medians leave out the step that a page fault or a log flush hit; the optimizer counts with the share that
    accumulation gives it, and so does the last micro-step of a group where it may do more (`ends_of_groups`). On steady
    steps that is what whole_window_tgs gives.
    """
    return run.workload.rank_tokens / float(_step_seconds(run).max())


def ends_of_groups(workload: Workload) -> slice | None:
    """Which of the measured micro-steps end a group that shares an optimizer step; None where all are alike.

    A user's own trainer may sum gradients over ranks in these alone (`no_sync` of DDP), which a median over all steps
    does not see from an accumulation of 3 on. The native trainer does in every micro-step.
    """
    number = workload.accumulation
    return slice(number - 1, None, number) if is_own_trainer(workload.trainer) and number > 1 else None


def micro_step_seconds(seconds: Sequence[float], workload: Workload) -> float:
    """Seconds of a micro-step without the optimizer's, of one rank's measured ones; as `tgs` has it, without arrays."""
    ends = ends_of_groups(workload)
    if ends is None or not (last := seconds[ends]):
        return statistics.median(seconds)
    others, share = list(seconds), 1 / workload.accumulation
    del others[ends]
    return share * statistics.median(last) + (1 - share) * statistics.median(others)


def whole_window_tgs(run: Run) -> float:
    """TGS as a stopwatch gives it: all measured tokens of a rank / all its measured seconds, slowest rank."""
    seconds = max(sum(samples.seconds) + sum(samples.optimizer_seconds) for samples in run.ranks)
    return run.workload.rank_tokens * run.steps / seconds


def tail(run: Run) -> float:
    """How much longer the mean step is than the median one, a share, of the rank where it is largest.

    The value of a run is a median, which does not see what every third step does: a check, a write, a collection.
    About 0 on steady steps (an H100: within 0.3 %), larger where a machine is disturbed.
    """
    import numpy as np

    seconds = np.array([samples.seconds for samples in run.ranks])
    return float((seconds.mean(axis=1) / _medians(run)).max()) - 1


def tail_note(run: Run) -> str | None:
    """Say that some steps took far longer than the median, by which a run is judged; None where they did not."""
    excess = tail(run)
    if excess <= TAIL_EXCESS:
        return None
    return f"the mean step took {excess:.0%} longer than the median one, by which speed is judged: some took far longer"


def tflops(run: Run, convention: str | None = None) -> float | None:
    """TFLOP/s of one GPU at the run's TGS, in a named convention (None: the run's own, `convention_of`).

    None where the convention's formula does not hold, or the step was not counted.
    """
    name = convention or convention_of(run).name
    return flops.tflops(tgs(run), run.workload, name, **_known(run))


def convention_of(run: Run) -> flops.Convention:
    """In which its TFLOPs are shown and stored."""
    return flops.chosen(run.workload, counted=run.step_flops, stated=run.flops_per_step)


def _known(run: Run) -> dict[str, Any]:
    """What is known of the FLOPs of its steps, besides its workload."""
    return {"mean_attended": run.mean_attended, "counted": run.step_flops, "stated": run.flops_per_step}


def mfu(run: Run, peak_tflops: float | None) -> float | None:
    """Model FLOPs that were trained in a second / those that the device can do; None where either is not known."""
    per_token = flops.model_flops(run.workload, **_known(run))
    return _share(run, per_token, peak_tflops)


def hfu(run: Run, peak_tflops: float | None) -> float | None:
    """FLOPs that were executed in a second, what is made again included / those that the device can do; None as `mfu`,
    and for another trainer than the native one that was not counted.
    """
    per_token = flops.hardware_flops(run.workload, mean_attended=run.mean_attended, counted=run.step_flops)
    return _share(run, per_token, peak_tflops)


def _share(run: Run, per_token: float | None, peak_tflops: float | None) -> float | None:
    return tgs(run) * per_token / 1e12 / peak_tflops if per_token and peak_tflops else None


def peak_memory(run: Run) -> int:
    """Bytes: the largest peak over the ranks (allocated on a GPU, resident on a CPU)."""
    return max(samples.peak_memory_bytes for samples in run.ranks)


def yardstick(run: Run) -> float | None:
    """Seconds of the suite's fixed piece of work on the slowest rank's core; None where it was not measured."""
    found = [samples.yardstick_seconds for samples in run.ranks]
    return None if None in found else max(filter(None, found))


def data_share(run: Run) -> float | None:
    """The part of the steps' time that loading took, 0 to 1, of the rank where it is largest; None where a program does
    not say."""
    shares = [sum(each.data_seconds) / sum(each.seconds) for each in run.ranks if each.data_seconds is not None]
    return max(shares, default=None)


def slow_rank_note(run: Run) -> str | None:
    """Name the rank, and where it ran, whose steps take SLOW_RANK longer than the median rank's; None where none does.

    Ranks that meet in collectives wait for each other within a step: what shows is what a rank does outside of them.
    """
    import numpy as np

    seconds = _step_seconds(run)
    slowest = int(seconds.argmax())
    excess = float(seconds[slowest] / np.median(seconds)) - 1
    if excess <= SLOW_RANK:
        return None
    return f"rank {slowest} on {run.ranks[slowest].place} took {excess:.0%} longer than the median rank"


def slow_node(run: Run) -> str | None:
    """Name the node all of whose ranks take SLOW_RANK longer than the median rank of the others; None where none does.

    As with ranks: what shows is what a node does outside of collectives.
    """
    import numpy as np

    seconds, first = _step_seconds(run), 0
    for node in run.nodes if len(run.nodes) > 1 else ():
        own = np.arange(first, first + node.ranks)
        first += node.ranks
        others = float(np.median(np.delete(seconds, own)))
        excess = float(seconds[own].min()) / others - 1
        if excess > SLOW_RANK:
            return f"node {node.name} is slow: all its ranks took {excess:.0%} longer than the median of the others"
    return None


def warmup_note(runs: Sequence[Run]) -> str | None:
    """Say that the warm-up of one workload's runs was too short, by how much at most and what to run; None where it was
    long enough in all of them.

    The median of the first eighth of the measured steps (slowest rank of each step) is compared with that of their
    second half. Slower counts above WARMUP_EXCESS and above three standard errors of a median of that many steps
    (1.2533 sigma / sqrt(n); sigma = 1.4826 x the median absolute deviation, so that single outliers do not hide it).
    """
    found = [each for each in map(_warmup_excess, runs) if each is not None]
    if not found:
        return None
    excess, first = max(found)
    longer = f"{'up to ' if len(found) > 1 else ''}{excess:.0%} longer than the later ones"
    of = f" in {len(found)} of {len(runs)} runs" if len(runs) > 1 else ""
    return (
        f"warm-up too short: the first {first} measured steps took {longer}{of}; measure again with --perf-warmup "
        f"{2 * runs[0].workload.warmup + first}, which is another workload, with a baseline of its own"
    )


def _warmup_excess(run: Run) -> tuple[float, int] | None:
    """What the first measured steps took longer, a share, and how many they are; None where that is noise."""
    import numpy as np

    steps = np.array([samples.seconds for samples in run.ranks]).max(axis=0)
    if len(steps) < 2:
        return None
    first, later = steps[: max(1, len(steps) // 8)], steps[len(steps) // 2 :]
    typical = float(np.median(later))
    sigma = 1.4826 * float(np.median(np.abs(later - typical))) / typical
    excess = float(np.median(first)) / typical - 1
    return (excess, len(first)) if excess > max(WARMUP_EXCESS, 3 * 1.2533 * sigma / len(first) ** 0.5) else None


def falling_note(run: Run) -> str | None:
    """Say that steps became slower while they were measured, and by how much; None where they did not.

    The median of the last quarter of the measured steps (slowest rank of each step) is compared with that of the second
    quarter: the first may be warm-up. Slower counts above FALL and above four standard errors of the difference of two
    such medians (1.2533 sigma / sqrt(n) each; sigma as in `warmup_note`). A GPU that gets hot loses 15 % within a
    hundred steps.
    """
    import numpy as np

    steps = np.array([samples.seconds for samples in run.ranks]).max(axis=0)
    number = len(steps) // 4
    if number < MIN_QUARTER:
        return None
    before, last = steps[number : 2 * number], steps[-number:]
    typical, slower = float(np.median(before)), float(np.median(last))
    variance = [(1.4826 * float(np.median(np.abs(part - np.median(part))))) ** 2 for part in (before, last)]
    excess, error = slower / typical - 1, 1.2533 * (sum(variance) / number) ** 0.5 / typical
    if excess <= max(FALL, 4 * error):
        return None
    return (
        f"throughput fell while it was measured: the last {number} steps took {excess:.0%} longer than those of the "
        "second quarter (a device that gets hot?); "
        f"--perf-warmup {run.workload.warmup + 3 * number} measures what it falls to"
    )


def _step_seconds(run: Run) -> "NDArray[float64]":
    """Seconds of one micro-step with its share of the optimizer, per rank: shape (R,)."""
    import numpy as np

    # A program that reports itself tells the two not apart.
    optimizers = [samples.optimizer_seconds or [0.0] for samples in run.ranks]
    if len({len(each) for each in optimizers}) == 1:  # as they are, unless somebody else wrote the file
        optimizer = np.median(np.array(optimizers), axis=1)
    else:
        optimizer = np.array([np.median(each) for each in optimizers])
    found: NDArray[float64] = _medians(run) + optimizer / run.workload.accumulation
    return found


def _medians(run: Run) -> "NDArray[float64]":
    """Seconds of one micro-step by its median, or by the two of `ends_of_groups`, per rank: shape (R,)."""
    import numpy as np

    seconds = np.array([samples.seconds for samples in run.ranks])
    found: NDArray[float64] = np.median(seconds, axis=1)
    ends = ends_of_groups(run.workload)
    if ends is not None and seconds[:, ends].size:
        share, others = 1 / run.workload.accumulation, np.delete(seconds, ends, axis=1)
        found = share * np.median(seconds[:, ends], axis=1) + (1 - share) * np.median(others, axis=1)
    return found
