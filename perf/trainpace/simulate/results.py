"""What is simulated, and what came of it, in parts: the gate of a pull request (pairs.py), the stored gate, others."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from trainpace.plan.paired import OPEN, SLOWER
from trainpace.simulate import pairs
from trainpace.simulate.gates import AT_EQUAL_COST, MISTAKEN, STORED, gates
from trainpace.simulate.noise import MACHINES, PAIR_MACHINES, in_rounds, looked_at, runs
from trainpace.simulate.pairs import CURVE, SETTINGS, Sizes
from trainpace.simulate.rows import CASES, COLUMNS, LOOKS, UNCHANGED, Bound, Row, pick, rows, standard, table

EVERY_CASE = f"{STORED}, every case slower"
"""The gate's name in rows of sessions all of whose cases have lost `loss`."""
EVERY_LOSSES = (0.03, 0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class Plan:
    """How many sessions of what."""

    pairs: Sizes = field(default_factory=Sizes)
    """Of head against base."""
    stored: int = 3_000
    """Of the stored gate, each machine."""
    others: int = 1_000
    """Of every other gate."""
    machines: tuple[str, ...] = tuple(MACHINES)
    """Of the stored gate and of others."""
    pair_machines: tuple[str, ...] = tuple(PAIR_MACHINES)


QUICK_MACHINES = ("independent", "outliers", "slow node")
QUICK = Plan(pairs=pairs.QUICK, stored=300, others=100, machines=QUICK_MACHINES, pair_machines=QUICK_MACHINES)


PARTS = ("pairs", "stored", "others")
"""What can be simulated anew by itself."""


def part_of(gate: str) -> str:
    """The part that a gate's rows are of."""
    if gate in pairs.BOTH or gate in MISTAKEN:
        return "pairs"
    return "stored" if gate in {STORED, EVERY_CASE} else "others"


def simulate(plan: Plan, seed: int, parts: Collection[str] = PARTS) -> Iterator[Row]:
    """Every row of these parts of the plan, as it comes."""
    if "pairs" in parts:
        yield from pairs.simulate(plan.pairs, seed, plan.pair_machines)
    for noise, detect in SETTINGS:
        at = partial(rows, cases=CASES, noise=noise, detect=detect, seed=seed)
        for machine in plan.machines:
            if "stored" in parts:
                yield from at(STORED, machine, sessions=plan.stored)
            if "others" in parts:
                for gate in gates(detect):
                    if part_of(gate) == "others":
                        yield from at(gate, machine, sessions=plan.others)
        if "stored" in parts:
            yield from every_case_slower(noise, detect, sessions=plan.others, seed=seed)
    if "others" not in parts:
        return
    noise, detect = SETTINGS[1]
    for gate in gates(detect):
        if gate.startswith(AT_EQUAL_COST):
            at = partial(rows, cases=CASES, noise=noise, detect=detect, seed=seed)
            yield from at(gate, "independent", sessions=plan.others, losses=CURVE)


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
        given = (EVERY_CASE, "independent", CASES, noise, detect, sessions)
        yield Row(*given, red, 1 - red - quiet, 1 - quiet, spent, loss, found, passed)


def bounds(found: Sequence[Row]) -> list[Bound]:
    """What our gates are held to."""
    held = pairs.bounds(found)
    for noise, detect in SETTINGS:
        held += [
            Bound(
                f"{STORED}: {row.machine}, {noise:.0%}: unchanged, red",
                0.01 if row.machine == "independent" else 0.02,
                False,
                row.red,
                row.sessions,
            )
            for row in standard(found, STORED, noise, detect)
        ]
    return held


def tables(found: Sequence[Row]) -> str:
    """Everything as Markdown."""
    text = ["### Bounds\n", "| | bound | simulated | |", "|---|---|---:|---|", *map(str, bounds(found))]
    for noise, detect in SETTINGS:
        each = {gate: standard(found, gate, noise, detect) for gate in gates(detect)}
        where = f"noise {noise:.0%}, D = {detect:.0%}, {CASES} cases"
        text += ["", f"### Gates: {where}, independent noise\n"]
        independent = [row for of_gate in each.values() for row in of_gate if row.machine == "independent"]
        text += table(("gate", *UNCHANGED, "found", "called pass"), independent)
        text += ["", f"### Machines: {STORED}; {where}\n"]
        text += table(("machine", *UNCHANGED, "found", "called pass"), each[STORED])
    text += pairs.tables(found)
    text += ["", f"### {EVERY_CASE[0].upper()}{EVERY_CASE[1:]}; independent noise, {CASES} cases\n"]
    columns = COLUMNS | {"red session": COLUMNS["found"], "no case red or inconclusive": COLUMNS["called pass"]}
    names = ("noise", "loss", "red session", "no case red or inconclusive")
    text += table(names, pick(found, gate=EVERY_CASE), columns)
    return "\n".join(text) + "\n"
