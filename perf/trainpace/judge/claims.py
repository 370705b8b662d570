"""What a rank claims, held against what the judging side saw: the time that passed, and the tokens of the batches.

A rank runs the code that is to be judged, and that code can change every clock of its process. So the judging side
looks at its own: from the line of the warm-up's last step to the line that says that all losses are read. A rank's
steps and optimizer fill most of that; what is left is reading losses, the pieces of work between steps, and lines.
"""

from trainpace.runs.run import BatchTokens, RankSamples, Run, TokenRange

UNCLAIMED_SHARE = 0.10
UNCLAIMED_SECONDS = 0.3
UNCLAIMED_STEP_SECONDS = 0.005
"""What a single run may leave of its window without an account: a share of it, and seconds, once and for each step.
Wide, because a rank that waits for its core between two steps is no liar; a pair is held more closely."""
CLOCK_SHARE, CLOCK_SECONDS = 0.01, 0.01
"""How much more than was seen a rank may claim: one machine's clocks differ by less."""
PAIR_SECONDS = 0.02
PAIR_STEP_SECONDS = 0.001
"""What the two runs of a pair may differ by in what they leave without an account, besides half the minimum effect:
once and for each step."""
LATE_SECONDS = 5.0
"""How much later the lines of other nodes may be seen: a shared file system shows them when it likes."""
_SAY = "let the trainer say with `tokens(batch)` what a batch holds (docs/own-trainer.md)"
TOKEN_TOLERANCE = 0.01
"""Relative. Tokens of a step that differ by less are the same work; so is a token more or less in each sequence."""


def claim_faults(run: Run) -> list[str]:
    """Why the times of a run cannot be what they are said to be, by the judging side's clock; empty where they can."""
    late = LATE_SECONDS if run.nodes else 0.0
    for samples in run.ranks:
        seen, claimed = samples.observed, samples.claimed_seconds
        if seen is None:
            continue
        most = seen.most * (1 + CLOCK_SHARE) + CLOCK_SECONDS + late
        left = UNCLAIMED_SHARE * seen.least + UNCLAIMED_SECONDS + UNCLAIMED_STEP_SECONDS * run.steps + late
        if claimed > most or claimed < seen.least - left:
            return [
                f"rank {samples.rank} claims {claimed:.3f} s for its steps, and by the judging side's clock the window "
                f"took {max(0.0, seen.least):.3f} to {seen.most:.3f} s: its clock is wrong, it wrote what it did not "
                "measure, or its work is done outside of its steps (a thread, a loss that is computed when it is read)"
            ]
    return []


def clock_fault(base: Run, head: Run, min_effect: float) -> str | None:
    """Why the two runs of a pair cannot be compared by what they claim; None where they can, or nothing was seen.

    Each leaves some time of its window without an account. Unchanged code leaves the same; where the difference is
    above half of `min_effect` (a share) of the window, it could hide or feign what was to be found.
    """
    late = LATE_SECONDS if base.nodes or head.nodes else 0.0
    for ours, theirs in zip(base.ranks, head.ranks, strict=True):
        if ours.observed is None or theirs.observed is None:
            continue
        left = [_left(each) for each in (ours, theirs)]
        apart = max(left[1][0] - left[0][1], left[0][0] - left[1][1])
        window = max(ours.claimed_seconds, 0.0)
        allowed = min_effect / 2 * window + PAIR_SECONDS + PAIR_STEP_SECONDS * head.steps + late
        if apart > allowed:
            return (
                f"of the window that the judging side's clock saw, rank {ours.rank} of the base gives no account of "
                f"{_between(left[0])}, head's of {_between(left[1])} (claimed: {ours.claimed_seconds:.3f} and "
                f"{theirs.claimed_seconds:.3f} s; limit of the difference {allowed:.3f} s): one of them has a wrong "
                "clock, or does work outside of its steps"
            )
    return None


def _left(samples: RankSamples) -> tuple[float, float]:
    """Seconds of the window that a rank gives no account of: at least, at most."""
    assert samples.observed is not None
    return samples.observed.least - samples.claimed_seconds, samples.observed.most - samples.claimed_seconds


def _between(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.3f} to {seconds[1]:.3f} s"


def token_faults(run: Run) -> list[str]:
    """Why the speed of a run, which is declared tokens over measured seconds, is not that of what it trained."""
    declared = [run.workload.rank_tokens]
    if run.workload.sp > 1:  # or a rank loads the whole sequence, and takes its part afterwards
        declared.append(run.workload.rank_tokens * run.workload.sp)
    for samples in run.ranks:
        if samples.tokens is None or (found := samples.tokens.said or samples.tokens.counted) is None:
            continue
        for tokens, step in ((found.least, found.least_step), (found.most, found.most_step)):
            if any(alike(each, tokens, found.sequences) for each in declared):
                continue
            how = "as its tokens(batch) says" if samples.tokens.said else "by the shapes of what load() returned"
            want = " or ".join(map(str, declared))
            return [
                f"expected {want} tokens in a batch, as the workload declares (micro-batch x sequence / sp), got "
                f"{tokens} at step {step} on rank {samples.rank}, {how}: TGS counts the declared ones; have load() "
                f"return as many, or {_SAY}"
            ]
    return []


def tokens_fault(base: Run, head: Run) -> str | None:
    """Why two sides did not train the same number of tokens; None where they did, or where the base's are not known."""
    for ours, theirs in zip(base.ranks, head.ranks, strict=True):
        expected, got = _comparable(ours.tokens, theirs.tokens)
        if expected is None:
            continue
        if got is None:
            return f"expected the base's {expected.most} tokens in a batch, got one whose tokens cannot be told: {_SAY}"
        margin = max(expected.sequences, got.sequences)
        for want, came, step in (
            (expected.least, got.least, got.least_step),
            (expected.most, got.most, got.most_step),
        ):
            if not alike(want, came, margin):
                return f"expected the base's {want} tokens in a batch, got {came} (step {step}, rank {theirs.rank})"
    return None


def cores_fault(base: Run, head: Run) -> str | None:
    """Why two sides did not have the same cores: code of a rank can take more than it was given. None where they did,
    and on GPUs."""
    for ours, theirs in zip(base.ranks, head.ranks, strict=True):
        before, after = (each.place.partition("/cpu ")[2].split(",") for each in (ours, theirs))
        if len(before) != len(after):
            return (
                f"expected rank {ours.rank} to run on as many cores on both sides, got {len(before)} of the base and "
                f"{len(after)} of head: leave the affinity of a rank as the suite sets it"
            )
    return None


def tokens_note(run: Run) -> str | None:
    """Say that nobody knows how many tokens a batch had; None where that is known, or was not asked."""
    if any(rank.tokens is not None and not (rank.tokens.said or rank.tokens.counted) for rank in run.ranks):
        return (
            "how many tokens a batch holds is not known, and taken as declared: load() returns no arrays of integers "
            "(a trainer says it with `tokens(batch)`)"
        )
    return None


def _comparable(base: BatchTokens | None, head: BatchTokens | None) -> tuple[TokenRange | None, TokenRange | None]:
    """The tokens of both sides, told in the same way where both can be: what shapes tell is above the word of one."""
    if base is None or head is None:
        return None, None
    if base.said and head.said:
        return base.said, head.said
    return base.counted or base.said, head.counted or head.said


def alike(expected: int, got: int, sequences: int) -> bool:
    """Whether a batch of `sequences` has the expected tokens; in each one more or less is to be predicted."""
    return abs(got - expected) <= max(sequences, TOKEN_TOLERANCE * expected)
