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
from trainpace.stats.memory import memory_tolerance, peak_of
from trainpace.stats.tolerance import SESSION_ERROR
from trainpace.text import fixed_percent, gib, percent, signed_percent

MOST_EFFECT = 0.5
"""A larger minimum effect is not suggested: nobody wants to know of nothing but half of the speed."""
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
    error: float = SESSION_ERROR,
) -> Judgement:
    """Say what was found of one case.

    `verdict` is the statistics'. Memory can still make it a regression, and an impossible speed makes it invalid.
    `command` is that of its test. `error` is the chance that unchanged code takes more resident memory than is
    tolerated.
    """
    workload = head[0].workload
    ratio = comparison.ratio
    low, high = signed_percent(comparison.low - 1), signed_percent(comparison.high - 1)
    interval = f"{low} .. {high} in {len(comparison.log_ratios)} pairs"
    figures = gather(head, None, peak_tflops)
    assert figures.tgs is not None
    assert figures.peak_memory_bytes is not None
    apart = f"{fixed_percent(abs(ratio - 1))} {'below' if ratio < 1 else 'above'}"
    found = f"TGS {figures.tgs:.1f} is {apart} the base's {comparison.base_tgs:.1f} ({interval})"
    reasons, needed = [], comparison.pairs_needed
    if verdict is Verdict.REGRESSION:
        reasons.append(f"{found}; the gate is set to find a loss of {percent(comparison.detect)}")
    if more_memory := _more_memory(base, head, error):
        verdict = Verdict.REGRESSION
        reasons.append(more_memory)
    if verdict in {Verdict.PASS, Verdict.IMPROVEMENT} and (tail := longer_tail(base, head, comparison.detect)):
        verdict = Verdict.REGRESSION if len(head) >= MIN_TAIL_PAIRS else Verdict.INCONCLUSIVE
        needed = MIN_TAIL_PAIRS
        reasons.append(f"{found}, by the median step; {tail}")
    elif verdict is Verdict.INCONCLUSIVE:
        spread = "" if comparison.spread is None else f", its runs spread {percent(comparison.spread)}"
        reasons.append(f"{found}, too close to tell a loss of {percent(comparison.detect)}{spread}")
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
    if verdict is Verdict.INCONCLUSIVE and (effect := _effect_of_its_own(comparison)):
        reasons.append(
            f"or let it be judged by a minimum effect of its own: `--perf-detect {workload.case}={effect:g}`"
        )
    return judgement(
        figures.model_copy(
            update={
                "notes": (*figures.notes, *_notes(comparison)),
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


def _more_memory(base: Sequence[Run], head: Sequence[Run], error: float) -> str | None:
    """What head takes more of, beyond the tolerance; None where it does not."""
    peaks = [[metrics.peak_memory(run) for run in side] for side in (base, head)]
    counted = head[0].device.kind == "cuda" and head[0].source == "measured"
    allowed = memory_tolerance(peaks, allocated=counted, error=error)
    of_base, of_head = (peak_of(each, allocated=counted) for each in peaks)
    if of_head <= of_base * (1 + allowed):
        return None
    return (
        f"peak memory {gib(of_head)} is {percent(of_head / of_base - 1)} above the base's {gib(of_base)} (tolerance "
        f"{percent(allowed)})"
    )


def _effect_of_its_own(comparison: Comparison) -> float | None:
    """The minimum effect, a share, that these pairs would have excluded; None where nobody would want one so large."""
    excluded = math.ceil(100 * (1 - comparison.low)) / 100
    return excluded if comparison.detect < excluded <= MOST_EFFECT else None


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if comparison.repeated:
        notes.append(f"{comparison.repeated} disturbed pairs were measured again")
    if comparison.set_aside:
        notes.append(f"{comparison.set_aside} of {len(comparison.log_ratios)} pairs set aside as outliers")
    if comparison.contradicted:
        notes.append("its pairs do not spread as earlier ones did: what was known of them is not used")
    return notes
