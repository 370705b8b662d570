"""The judgement of head against base: paired runs of one case in, a verdict and its reasons out."""

import math
from collections.abc import Sequence

from trainpace.judge.claims import cores_fault, tokens_fault
from trainpace.judge.command import Command
from trainpace.judge.comparison import Comparison
from trainpace.judge.numerics import later_losses_fault
from trainpace.judge.validity import LOSS_TOLERANCE, faults, first_losses
from trainpace.judge.verdict import Judgement, gather, judgement, would_decide
from trainpace.runs import metrics
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.text import gib, percent

MIN_TAIL_PAIRS = 4
"""Pairs from which on a longer tail of head's steps is a regression; with fewer the case is inconclusive."""
_NEW = 'say so with `--perf-new-numerics "reason"`'


def log_ratio(base: Run, head: Run) -> float:
    """log(TGS of head / TGS of base) of one pair."""
    return math.log(metrics.tgs(head) / metrics.tgs(base))


def numerics_fault(base: Sequence[Run], head: Sequence[Run]) -> str | None:
    """Why the newest pair did not train the same, for a wrong step is fast for free; None where it did.

    Args:
        base: runs of the base so far, oldest first, at least one.
        head: runs of head, as many.
    """
    ours, theirs = base[-1], head[-1]
    if ours.data != theirs.data:
        return "expected both sides to train on the same tokens, got different ones: name them with --perf-data"
    if fault := tokens_fault(ours, theirs):
        return f"{fault}: head trains another amount; where that is meant, {_NEW}"
    for step, (expected, got) in enumerate(zip(first_losses(ours), first_losses(theirs), strict=False)):
        if abs(got - expected) > LOSS_TOLERANCE * abs(expected):
            return (
                f"expected the base's loss {expected:.5g} at step {step}, got {got:.5g} (tolerance "
                f"{percent(LOSS_TOLERANCE)}): head computes something else; where that is meant, {_NEW}"
            )
    if fault := later_losses_fault(base, head):
        return f"{fault}: head computes something else; where that is meant, {_NEW}"
    return None


def longer_tail(base: Sequence[Run], head: Sequence[Run], detect: float) -> str | None:
    """What some of head's steps take more, which medians do not see; None where that is less than `detect`, a share.

    Every run of head must have a longer tail than every run of the base: unchanged code does that with a chance of 1
    in 6 with two pairs, and of 1 in 70 with MIN_TAIL_PAIRS, before `detect` is asked of it.
    """
    of_base, of_head = max(map(metrics.tail, base)), min(map(metrics.tail, head))
    if (1 + of_head) / (1 + of_base) <= 1 + detect:
        return None
    return (
        f"some steps of head take far longer: its mean step is {percent(of_head)} longer than its median one, and at "
        f"most {percent(max(of_base, 0.0))} in the base"
    )


def judge_pairs(
    base: Sequence[Run],
    head: Sequence[Run],
    comparison: Comparison,
    verdict: Verdict,
    *,
    peak_tflops: float | None,
    command: Command = Command(),  # noqa: B008 - it is immutable
) -> Judgement:
    """Say what was found of one case.

    `verdict` is the statistics'. Memory can still make it a regression, and an impossible speed makes it invalid.
    `command` is that of its test.
    """
    workload = head[0].workload
    ratio = comparison.ratio
    interval = f"{comparison.low - 1:+.1%} .. {comparison.high - 1:+.1%} in {len(comparison.log_ratios)} pairs"
    figures = gather(head, None, peak_tflops)
    assert figures.tgs is not None
    assert figures.peak_memory_bytes is not None
    found = f"TGS {figures.tgs:.1f} is {ratio - 1:+.1%} against the base's {comparison.base_tgs:.1f} ({interval})"
    reasons, needed = [], comparison.pairs_needed
    if verdict is Verdict.REGRESSION:
        reasons.append(f"{found}; to be found was a loss of {percent(comparison.detect)}")
    memory, base_memory = figures.peak_memory_bytes, max(metrics.peak_memory(run) for run in base)
    if memory > base_memory * (1 + comparison.detect):
        verdict = Verdict.REGRESSION
        reasons.append(f"peak memory {gib(memory)} is {percent(memory / base_memory - 1)} above the base's")
    if verdict in {Verdict.PASS, Verdict.IMPROVEMENT} and (tail := longer_tail(base, head, comparison.detect)):
        verdict = Verdict.REGRESSION if len(head) >= MIN_TAIL_PAIRS else Verdict.INCONCLUSIVE
        needed = MIN_TAIL_PAIRS
        reasons.append(f"{found}, by the median step; {tail}")
    elif verdict is Verdict.INCONCLUSIVE:
        reasons.append(f"{found}, too close to tell")
    impossible = [fault for run in head for fault in faults(run, peak_tflops=peak_tflops)]
    impossible += filter(None, map(cores_fault, base, head))
    if impossible:
        verdict, reasons = Verdict.INVALID, impossible
    decides, more = "", {}
    if verdict is Verdict.INCONCLUSIVE:
        decides = would_decide(needed, "pair")
        # Pairs that a long tail asks for are within those that are allowed.
        more = {"max_pairs": needed} if needed and needed == comparison.pairs_needed else {}
        reasons[-1] += f": {decides}"
    if verdict is not Verdict.PASS:
        where = " on a quieter machine" if decides and not needed else ""
        reasons.append(f"look again{where} with `{command.speed(workload, **more)}`")
    notes = list(figures.notes)
    if comparison.repeated:
        notes.append(f"{comparison.repeated} disturbed pairs were measured again")
    if comparison.set_aside:
        notes.append(f"{comparison.set_aside} of {len(comparison.log_ratios)} pairs set aside as outliers")
    return judgement(
        figures.model_copy(
            update={
                "notes": tuple(notes),
                "ratio": ratio,
                "tolerance": comparison.detect,
                "tolerance_source": interval,
                "comparison": comparison,
            }
        ),
        verdict,
        *reasons,
        what_decides=decides,
    )
