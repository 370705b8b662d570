"""A session that was cut off goes on: runs that it kept count as measured where all agrees that decides speed.

`--perf-runs DIR` keeps every run as a file as it ends; `--perf-resume` reads them before a case is measured. What
cannot be told to be the same is measured again, and said: a run too many costs minutes, a foreign one the verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trainpace.cases import Workload
from trainpace.runs.run import Run
from trainpace.text import differences, short_revision


@dataclass(frozen=True, kw_only=True)
class Now:
    """What a kept run must agree with to be one of this session."""

    workload: Workload
    device: str
    revision: str | None
    software: dict[str, str]
    data: tuple[tuple[str, ...], str] | None
    """Names of the sources, and of the tokenizer; None where the trainer has data of its own."""

    def difference(self, run: Run) -> str | None:
        """Why `run` is not one of this session; None where it is."""
        versions = [
            f"was measured with {name} {old or 'none'}, here is {new or 'none'}"
            for name, old, new in differences(run.software, self.software)
        ]
        unnamed = self.revision is None or self.revision.endswith("+dirty")
        trained_on = run.data and (run.data.sources, run.data.tokenizer)
        reasons = {
            f"was disturbed: {''.join(run.health.faults[:1])}": bool(run.health.faults),
            f"was measured on {run.device.slug}, this is {self.device}": run.device.slug != self.device,
            "no commit names what is measured now: it may have changed since": unnamed,
            f"is of revision {_revision(run)}, this is {_revision(self)}": run.revision != self.revision,
            "; ".join(versions): bool(versions),
            "trained on other data": self.data is not None and trained_on != self.data,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


def resumed(runs: Sequence[Run], now: Now, number: int, most: int | None = None) -> tuple[list[Run], list[str]]:
    """Of the kept `runs` of a workload the newest `most` that count, and what is to be said of all of them.

    `number` are wanted; `most` (as many unless given) may be there, where a case was measured again.
    """
    reasons = [(run, now.difference(run)) for run in runs]
    usable = [run for run, reason in reasons if reason is None][-(most or number) :]
    case = now.workload.case
    said = []
    if usable:
        wanted = max(number, len(usable))
        said.append(f"{case}: {len(usable)} of {wanted} runs were there, measured from {usable[0].started} on")
    counted = Counter(reason for _, reason in reasons if reason is not None)
    said += [f"{case}: {count} kept runs measured again: {reason}" for reason, count in sorted(counted.items())]
    return usable, said


def _revision(of: Now | Run) -> str:
    return short_revision(of.revision, unknown="none")
