"""A row is one gate on one machine, simulated: its figures, their intervals, and the tables and the file of rows."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from trainpace.plan.paired import FASTER, OPEN, PASSED, SLOWER
from trainpace.simulate.gates import (
    EARLIER,
    EARLIER_PAIRS,
    MISTAKEN,
    OURS,
    OURS_KNOWN,
    STORED,
    Outcome,
    gates,
    mistaken,
)
from trainpace.simulate.noise import BEFORE, Floats, in_pairs, in_rounds, looked_at, runs, slow_down, slowed_case
from trainpace.stats.sequential import FURTHER_PAIRS

PAIRS = 8
"""Pairs that the others may choose from."""
LOOKS = 10
"""Runs of a case that the stored gate makes at most: five to begin with, and as many again."""
CASES = 14
BATCH = 500
TWO_SIDED = 1.96
"""Standard deviations of an interval of 95 %."""


@dataclass(frozen=True)
class Row:
    """One gate on one machine. Shares are of sessions; for the last two, one case of each has lost `loss`."""

    gate: str
    machine: str
    cases: int
    noise: float
    """Coefficient of variation of a run."""
    detect: float
    sessions: int
    red: float
    """Nothing changed: sessions with a regression."""
    inconclusive: float
    """Nothing changed: sessions with a case that was not decided."""
    not_zero: float
    """Nothing changed: sessions that end with another status than 0 under --perf-require-verdict."""
    runs: float
    """Nothing changed: runs spent on a case."""
    loss: float
    found: float
    """The changed case is a regression."""
    passed: float
    """It is called pass (or improvement)."""


def interval(share: float, number: int) -> tuple[float, float]:
    """That of 95 % for a share of `number` sessions.

    Source: Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    square = TWO_SIDED**2 / number
    middle = (share + square / 2) / (1 + square)
    half = TWO_SIDED * math.sqrt(share * (1 - share) / number + square / (4 * number)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def rows(
    gate: str,
    machine: str,
    *,
    cases: int,
    noise: float,
    detect: float,
    sessions: int,
    seed: int,
    losses: Sequence[float] = (),
) -> list[Row]:
    """Simulate one gate on one machine: a row for each loss (default: `detect`). The same seed draws the same sessions
    for every gate.
    """
    judge = (gates(detect) | mistaken(detect))[gate]
    unchanged: list[Outcome] = []
    changed: dict[float, list[Outcome]] = {loss: [] for loss in losses or (detect,)}
    for batch in range(0, sessions, BATCH):
        rng = np.random.default_rng([seed, batch])
        now, stored = _drawn(rng, gate, machine, (min(BATCH, sessions - batch), cases), noise)
        which = slowed_case(machine, len(now), cases)
        unchanged.append(judge(rng, now, stored, noise))
        for loss, outcomes in changed.items():
            whole = judge(rng, slow_down(now, loss, which), stored, noise)
            one = np.arange(len(now)), which
            outcomes.append(Outcome(whole.verdict[one], whole.runs[one]))
    same = _joined(unchanged)
    red, open_ = ((same.verdict == each).any(-1) for each in (SLOWER, OPEN))
    shares = float(red.mean()), float(open_.mean()), float((red | open_).mean()), float(same.runs.mean())
    found = []
    for loss, outcomes in changed.items():
        case = _joined(outcomes)
        passed = (case.verdict == PASSED) | (case.verdict == FASTER)
        lost = loss, float((case.verdict == SLOWER).mean()), float(passed.mean())
        found.append(Row(gate, machine, cases, noise, detect, sessions, *shares, *lost))
    return found


def _drawn(
    rng: np.random.Generator, gate: str, machine: str, shape: tuple[int, int], noise: float
) -> tuple[Floats, Floats]:
    """The session that is judged, and what was measured before it, as the gate takes them."""
    if gate == STORED:
        now, stored = (runs(rng, machine, (*shape, LOOKS), noise, order) for order in (looked_at, in_rounds))
        return now, stored
    if gate == OURS:
        now = runs(rng, machine, (*shape, FURTHER_PAIRS), noise, in_pairs)
        return now, now[:, :, :0]
    if gate == OURS_KNOWN or gate in MISTAKEN:
        now = runs(rng, machine, (*shape, FURTHER_PAIRS), noise, in_pairs)
        sessions, cases = shape
        before = runs(rng, BEFORE.get(machine, machine), (EARLIER * sessions, cases, EARLIER_PAIRS), noise, in_pairs)
        return now, before.reshape(sessions, EARLIER, cases, EARLIER_PAIRS, 2)
    now, stored = (runs(rng, machine, (*shape, PAIRS), noise, in_pairs) for _ in range(2))
    return now, stored


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(
        np.concatenate([each.verdict for each in outcomes]), np.concatenate([each.runs for each in outcomes])
    )


@dataclass(frozen=True)
class Bound:
    """What ours is held to, and what came."""

    name: str
    limit: float
    at_least: bool
    value: float
    sessions: int
    """That a share is of; 0: the value is a number of pairs."""

    @property
    def held(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        """A line of the table of bounds."""
        said = "at least" if self.at_least else "at most"
        limit, value = (
            (f"{self.limit:.0%}", share(self.value, self.sessions, 2))
            if self.sessions
            else (
                f"{self.limit:g}",
                f"{self.value:.2f}",
            )
        )
        return f"| {self.name} | {said} {limit} | {value} | {'held' if self.held else '**missed**'} |"


def pick(found: Iterable[Row], **wanted: object) -> Iterator[Row]:
    """The rows with these values."""
    return (row for row in found if all(getattr(row, name) == value for name, value in wanted.items()))


def standard(found: Iterable[Row], gate: str, noise: float, detect: float) -> list[Row]:
    """The rows of a gate with 14 cases, of which one lost D: one a machine."""
    first: dict[str, Row] = {}  # the curve has one of them again
    for row in pick(found, gate=gate, noise=noise, detect=detect, cases=CASES, loss=detect):
        first.setdefault(row.machine, row)
    return list(first.values())


def share(value: float, sessions: int, digits: int = 1) -> str:
    """A share with its interval: `0.43% [0.39, 0.47]`."""
    low, high = interval(value, sessions)
    return f"{value:.{digits}%} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


UNCHANGED = ("runs a case", "red", "inconclusive")
OF_PAIRS = ("pairs a case", "red session", "inconclusive", "status not 0", "found, of", "called pass, of")
"""Columns of ours, with intervals."""
COLUMNS: dict[str, Callable[[Row], str]] = {
    "gate": lambda row: row.gate,
    "machine": lambda row: row.machine,
    "cases": lambda row: f"{row.cases}",
    "noise": lambda row: f"{row.noise:.0%}",
    "loss": lambda row: f"{row.loss:.0%}",
    "runs a case": lambda row: f"{row.runs:.1f}",
    "red": lambda row: f"{row.red:.1%}",
    "inconclusive": lambda row: f"{row.inconclusive:.1%}",
    "found": lambda row: f"{row.found:.1%}",
    "called pass": lambda row: f"{row.passed:.1%}",
    "pairs a case": lambda row: f"{row.runs / 2:.1f}",
    "red session": lambda row: share(row.red, row.sessions),
    "status not 0": lambda row: share(row.not_zero, row.sessions),
    "found, of": lambda row: share(row.found, row.sessions),
    "called pass, of": lambda row: share(row.passed, row.sessions),
}


def table(names: Sequence[str], found: Iterable[Row], columns: dict[str, Callable[[Row], str]] = COLUMNS) -> list[str]:
    """Lines of Markdown."""
    heads = (name.removesuffix(", of") for name in names)
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(names) - 1)]
    return lines + [f"| {' | '.join(columns[name](row) for name in names)} |" for row in found]


def write_csv(found: Iterable[Row], path: Path) -> None:
    """One line a row, five digits."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows([f"{each:.5g}" if isinstance(each, float) else each for each in astuple(row)] for row in found)


def read_csv(path: Path) -> list[Row]:
    """What `write_csv` wrote."""
    with path.open(newline="") as file:
        return [
            Row(*(field.type(line[field.name]) for field in fields(Row)))  # type: ignore[operator]
            for line in csv.DictReader(file)
        ]
