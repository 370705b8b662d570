"""Why head is slower than base: where a step's time went on both sides, as a difference, largest first."""

from collections.abc import Mapping, Sequence
from statistics import median

from trainpace.judge.cost import changed_counters
from trainpace.runs.cost import Cost
from trainpace.runs.metrics import peak_memory
from trainpace.runs.run import Run
from trainpace.text import GIB, signed_percent

Profile = Mapping[str, Mapping[str, float]]
"""Of one side, by rank/profile.py: `parts` and `operators` in seconds of a micro-step, `calls` by operator."""

_AUTOGRAD = "autograd::engine::evaluate_function: "
_PART = "part: "
"""What rank/profile.py puts before a part's name: of a part by itself is left what no operator took."""
NUM_OPERATORS = 8
"""Most operators shown, those with the largest differences."""
MIN_SHARE = 0.01
"""Least difference shown, as a share of the base's step: a smaller one is noise."""


def explain(base: Profile, head: Profile) -> list[str]:
    """Lines on what slowed, by part of the step and by operator, and whether head does more work.

    Times are those under a profiler: they say where, not how much.
    """
    whole = sum(base["parts"].values())
    if not whole:
        return ["nothing to explain: the base's profile is empty"]
    lines = [f"under a profiler a step took {_ms(whole)} on base and {_ms(sum(head['parts'].values()))} on head"]
    lines += [f"  {row}" for row in _rows(base["parts"], head["parts"], whole)]
    slower = _shown(base["operators"], head["operators"], whole)[:NUM_OPERATORS]
    if slower:
        rows = _rows(base["operators"], head["operators"], whole)[:NUM_OPERATORS]
        lines += ["by operator, without what it calls:", *(f"  {row}" for row in rows)]
    more = [
        f"{_short(name)} {base['calls'].get(name, 0):.0f} -> {head['calls'][name]:.0f}"
        for name in slower
        if head["operators"].get(name, 0) > base["operators"].get(name, 0)
        and head["calls"].get(name, 0) > base["calls"].get(name, 0)
    ]
    if more:
        lines.append(f"head does more work, calls a step: {', '.join(more)}")
    else:
        lines.append("what slowed is called no more often than before: the same work, slower")
    return lines


def beside(base: Sequence[Run], head: Sequence[Run]) -> list[str]:
    """Lines on start-up and compiling (medians, seconds) and peak memory (largest, GiB) of base and head."""
    figures = (
        ("start-up", "s", [[run.startup_seconds for run in runs] for runs in (base, head)], median),
        ("compiling", "s", [[run.compile_seconds for run in runs] for runs in (base, head)], median),
        ("peak memory", "GiB", [[peak_memory(run) / GIB for run in runs] for runs in (base, head)], max),
    )
    shown = [(name, unit, of(values[0]), of(values[1])) for name, unit, values, of in figures]
    return [f"{name}: {old:.2f} -> {new:.2f} {unit}" for name, unit, old, new in shown if old or new]


def count_differences(base: Cost, head: Cost) -> list[str]:
    """Lines on the counters of a full-size step that differ between base and head."""
    changed = changed_counters(base.counters, head.counters)
    if not changed:
        return ["counted at full size: both sides do the same work"]
    return ["counted at full size, base -> head:", *(f"  {each}" for each in changed)]


def _rows(base: Mapping[str, float], head: Mapping[str, float], whole: float) -> list[str]:
    differences = {name: head.get(name, 0.0) - base.get(name, 0.0) for name in base.keys() | head.keys()}
    return [
        f"{_short(name)}: {_ms(base.get(name, 0))} -> {_ms(head.get(name, 0))} "
        f"({signed_percent(differences[name] / whole)} of the step)"
        for name in _shown(base, head, whole)
    ]


def _shown(base: Mapping[str, float], head: Mapping[str, float], whole: float) -> list[str]:
    """Names whose difference is at least MIN_SHARE of `whole`, what slowed most first."""
    differences = {name: head.get(name, 0.0) - base.get(name, 0.0) for name in base.keys() | head.keys()}
    shown = [name for name in differences if abs(differences[name]) >= MIN_SHARE * whole]
    return sorted(shown, key=lambda name: (-differences[name], name))


def _short(name: str) -> str:
    """A profiler's name for people: `autograd: MulBackward0`, `forward, between operators`."""
    if name.startswith(_PART):
        return f"{name.removeprefix(_PART)}, between operators"
    return name.replace(_AUTOGRAD, "autograd: ")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
