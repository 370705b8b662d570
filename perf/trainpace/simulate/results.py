"""What is simulated, what came of it, and the tables and the file that say so."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from trainpace.plan.paired import FASTER, OPEN, PASSED, SLOWER
from trainpace.simulate.gates import (
    AT_EQUAL_COST,
    OURS,
    OURS_RAISED,
    STORED,
    Outcome,
    gates,
)
from trainpace.simulate.noise import MACHINES, in_pairs, in_rounds, looked_at, runs, slow_down

PAIRS = 8
LOOKS = 10
"""Runs of a case that the stored gate makes at most: five to begin with, and as many again."""
CASES = 14
SETTINGS = ((0.01, 0.03), (0.02, 0.05))
"""Noise of a run, and D."""
CURVE = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)
"""Losses for the curve of detection, at the noisier setting."""
RAISED = ((14, 0.03), (14, 0.05), (4, 0.03), (4, 0.05), (1, 0.03), (1, 0.05))
"""Cases and noise of sessions that cannot find 5 %."""
RAISED_LOSSES = (0.05, 0.1, 0.15)
FEW = (4, 1)
"""Cases of smaller sessions."""
EVERY_CASE = f"{STORED}, every case slower"
"""The gate's name in rows of sessions all of whose cases have lost `loss`."""
EVERY_LOSSES = (0.03, 0.05, 0.1, 0.15, 0.2)
BATCH = 500


@dataclass(frozen=True)
class Row:
    """One gate on one machine. Shares are of sessions; for the last three, one case of each has lost `loss`."""

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
    runs: float
    """Nothing changed: runs spent on a case."""
    detect_used: float
    """Nothing changed: mean over the cases; `detect` where the gate does not raise it."""
    loss: float
    found: float
    """The changed case is a regression."""
    passed: float
    """It is called pass (or improvement)."""
    overlooked: float
    """It is called pass though it lost at least the D that the gate says it would have found."""


@dataclass(frozen=True)
class Plan:
    """How many sessions of what."""

    main: int = 100_000
    """Of ours, independent noise."""
    ours: int = 20_000
    """Of ours, each other machine."""
    stored: int = 3_000
    """Of the stored gate, each machine."""
    others: int = 1_000
    """Of every other gate."""
    machines: tuple[str, ...] = tuple(MACHINES)


QUICK = Plan(main=2_000, ours=500, stored=300, others=100, machines=("independent", "outliers", "slow node"))


def simulate(plan: Plan, seed: int) -> Iterator[Row]:
    """Every row of the plan, as it comes."""
    for noise, detect in SETTINGS:
        at = partial(rows, noise=noise, detect=detect, seed=seed)
        for machine in plan.machines:
            ours = plan.main if machine == "independent" else plan.ours
            sizes = {OURS: ours, OURS_RAISED: ours, STORED: plan.stored}
            for gate in gates(detect):
                yield from at(gate, machine, cases=CASES, sessions=sizes.get(gate, plan.others))
        yield from every_case_slower(noise, detect, sessions=plan.others, seed=seed)
        for cases in FEW:
            yield from at(OURS, "independent", cases=cases, sessions=plan.ours)
    noise, detect = SETTINGS[1]
    for gate in gates(detect):
        if gate == OURS or gate.startswith(AT_EQUAL_COST):
            sessions = plan.ours if gate == OURS else plan.others
            at = partial(rows, noise=noise, detect=detect, seed=seed)
            yield from at(gate, "independent", cases=CASES, sessions=sessions, losses=CURVE)
    for cases, noise in RAISED:
        at = partial(rows, noise=noise, detect=0.05, seed=seed)
        yield from at(OURS_RAISED, "independent", cases=cases, sessions=plan.ours, losses=RAISED_LOSSES)


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
    judge = gates(detect)[gate]
    orders, rounds = ((looked_at, in_rounds), LOOKS) if gate == STORED else ((in_pairs, in_pairs), PAIRS)
    unchanged: list[Outcome] = []
    changed: dict[float, list[Outcome]] = {loss: [] for loss in losses or (detect,)}
    for batch in range(0, sessions, BATCH):
        shape = (min(BATCH, sessions - batch), cases, rounds)
        rng = np.random.default_rng([seed, batch])
        now, stored = (runs(rng, machine, shape, noise, order) for order in orders)
        unchanged.append(judge(rng, now, stored, noise))
        for loss, outcomes in changed.items():
            outcomes.append(_changed_case(judge(rng, slow_down(now, loss), stored, noise)))
    same = _joined(unchanged)
    given = (gate, machine, cases, noise, detect, sessions)
    figures = (
        float((same.verdict == SLOWER).any(-1).mean()),
        float((same.verdict == OPEN).any(-1).mean()),
        float(same.runs.mean()),
        detect if same.detect is None else float(same.detect.mean()),
    )
    found = []
    for loss, outcomes in changed.items():
        case = _joined(outcomes)
        passed = (case.verdict == PASSED) | (case.verdict == FASTER)
        promised = loss >= (detect if case.detect is None else case.detect) - 1e-9
        shares = (case.verdict == SLOWER).mean(), passed.mean(), (passed & promised).mean()
        found.append(Row(*given, *figures, loss, *map(float, shares)))
    return found


def every_case_slower(noise: float, detect: float, *, sessions: int, seed: int) -> Iterator[Row]:
    """The stored gate where a change meets every case: `found` is a red session, `passed` one without even an unclear
    case.
    """
    rng = np.random.default_rng(seed)
    shape = (sessions, CASES, LOOKS)
    now, stored = (runs(rng, "independent", shape, noise, order) for order in (looked_at, in_rounds))
    judge = gates(detect)[STORED]

    def shares(loss: float) -> tuple[float, float, float]:
        outcome = judge(rng, now + np.log1p(-loss), stored, noise)
        red, unclear = ((outcome.verdict == each).any(-1) for each in (SLOWER, OPEN))
        return float(red.mean()), float((~red & ~unclear).mean()), float(outcome.runs.mean())

    red, quiet, spent = shares(0.0)
    for loss in EVERY_LOSSES:
        found, passed, _ = shares(loss)
        yield Row(
            EVERY_CASE,
            "independent",
            CASES,
            noise,
            detect,
            sessions,
            red,
            1 - red - quiet,
            spent,
            detect,
            loss,
            found,
            passed,
            passed,
        )


def _changed_case(outcome: Outcome) -> Outcome:
    sessions, cases = outcome.verdict.shape
    one = np.arange(sessions), np.arange(sessions) % cases
    return Outcome(outcome.verdict[one], outcome.runs[one], None if outcome.detect is None else outcome.detect[one])


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    detect = [each.detect for each in outcomes if each.detect is not None]
    return Outcome(
        np.concatenate([each.verdict for each in outcomes]),
        np.concatenate([each.runs for each in outcomes]),
        np.concatenate(detect) if detect else None,
    )


@dataclass(frozen=True)
class Bound:
    """What ours is held to, and what came."""

    name: str
    limit: float
    at_least: bool
    value: float

    @property
    def held(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def bounds(found: Sequence[Row]) -> list[Bound]:
    """The bounds of both gates: 14 cases, at most 8 pairs, D not raised."""
    held = []
    for (noise, detect), most_pairs, least_found in zip(SETTINGS, (3.2, 4.5), (0.95, 0.92), strict=True):
        where = f"noise {noise:.0%}, D = {detect:.0%}"
        for row in standard(found, OURS, noise, detect):
            if row.machine != "independent":
                held.append(Bound(f"{where}, {row.machine}: sessions red, nothing changed", 0.02, False, row.red))
                continue
            held += [
                Bound(f"{where}: sessions red, nothing changed", 0.01, False, row.red),
                Bound(f"{where}: sessions with an inconclusive case, nothing changed", 0.05, False, row.inconclusive),
                Bound(f"{where}: pairs a case, nothing changed", most_pairs, False, row.runs / 2),
                Bound(f"{where}: one case slower by D is found", least_found, True, row.found),
            ]
    for noise, detect in SETTINGS:
        held += [
            Bound(
                f"noise {noise:.0%}, {row.machine}: sessions red against a stored baseline, nothing changed",
                0.01 if row.machine == "independent" else 0.02,
                False,
                row.red,
            )
            for row in standard(found, STORED, noise, detect)
        ]
    return held


def pick(found: Iterable[Row], **wanted: object) -> Iterator[Row]:
    """The rows with these values."""
    return (row for row in found if all(getattr(row, name) == value for name, value in wanted.items()))


def standard(found: Iterable[Row], gate: str, noise: float, detect: float) -> list[Row]:
    """The rows of a gate with 14 cases, of which one lost D: one a machine."""
    first: dict[str, Row] = {}  # the curve has one of them again
    for row in pick(found, gate=gate, noise=noise, detect=detect, cases=CASES, loss=detect):
        first.setdefault(row.machine, row)
    return list(first.values())


def tables(found: Sequence[Row]) -> str:
    """Everything as Markdown."""
    text = ["### Bounds\n", "| | bound | simulated | |", "|---|---|---:|---|"]
    for bound in bounds(found):
        number, limit = ("{:.2f}", "{:g}") if bound.limit > 1 else ("{:.2%}", "{:.0%}")
        said = ("at least " if bound.at_least else "at most ") + limit.format(bound.limit)
        text.append(
            f"| {bound.name} | {said} | {number.format(bound.value)} | {'held' if bound.held else '**missed**'} |"
        )
    for noise, detect in SETTINGS:
        each = {gate: standard(found, gate, noise, detect) for gate in gates(detect)}
        where = f"noise {noise:.0%}, D = {detect:.0%}, {CASES} cases"
        text += ["", f"### Gates: {where}, independent noise\n"]
        independent = [row for of_gate in each.values() for row in of_gate if row.machine == "independent"]
        text += _table(("gate", *UNCHANGED, "found", "called pass"), independent)
        for gate in (OURS, OURS_RAISED, STORED):
            text += ["", f"### Machines: {gate}; {where}\n"]
            used, overlooked = (("D used",), ("overlooked",)) if gate == OURS_RAISED else ((), ())
            text += _table(("machine", *UNCHANGED, *used, "found", "called pass", *overlooked), each[gate])
    text += ["", f"### {EVERY_CASE[0].upper()}{EVERY_CASE[1:]}; independent noise, {CASES} cases\n"]
    text += _table(("noise", "loss", "red session", "no case red or inconclusive"), pick(found, gate=EVERY_CASE))
    few = [row for row in pick(found, gate=OURS, machine="independent") if row.cases in FEW]
    text += ["", f"### Fewer cases: {OURS}; independent noise\n"]
    text += _table(("cases", "noise", "loss", *UNCHANGED, "found", "called pass"), few)
    text += ["", f"### More noise than 5 % can be found in: {OURS_RAISED}; independent noise, D = 5%\n"]
    noisy = [row for cases, noise in RAISED for row in pick(found, gate=OURS_RAISED, cases=cases, noise=noise)]
    text += _table(("cases", "noise", *UNCHANGED, "D used", "loss", "found", "called pass", "overlooked"), noisy)
    return "\n".join(text) + "\n"


UNCHANGED = ("runs a case", "red", "inconclusive")
COLUMNS: dict[str, Callable[[Row], str]] = {
    "gate": lambda row: row.gate,
    "machine": lambda row: row.machine,
    "cases": lambda row: f"{row.cases}",
    "noise": lambda row: f"{row.noise:.0%}",
    "loss": lambda row: f"{row.loss:.0%}",
    "runs a case": lambda row: f"{row.runs:.1f}",
    "red": lambda row: f"{row.red:.1%}",
    "inconclusive": lambda row: f"{row.inconclusive:.1%}",
    "D used": lambda row: f"{row.detect_used:.1%}",
    "found": lambda row: f"{row.found:.1%}",
    "red session": lambda row: f"{row.found:.1%}",
    "no case red or inconclusive": lambda row: f"{row.passed:.1%}",
    "called pass": lambda row: f"{row.passed:.1%}",
    "overlooked": lambda row: f"{row.overlooked:.1%}",
}


def _table(names: Sequence[str], found: Iterable[Row]) -> list[str]:
    lines = [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]
    return lines + [f"| {' | '.join(COLUMNS[name](row) for name in names)} |" for row in found]


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
