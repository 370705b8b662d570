"""Why head is slower than base: where a step's time went on both sides, as a difference, largest first."""

from collections.abc import Mapping, Sequence
from statistics import median

from perf.measure.run import Run
from perf.measure.throughput import peak_memory

Profile = Mapping[str, Mapping[str, float]]
"""What perf/measure/profile.py gives: seconds of a micro-step by part and by operator, and calls by operator."""

NUM_OPERATORS = 8
"""Operators shown: the largest differences."""
LEAST_SHARE = 0.01
"""Of the base's step: a smaller difference is noise, and not shown."""
MORE_WORK = 0.02
"""Share by which the number of calls must grow before the step is said to do more work."""


def explain(base: Profile, head: Profile) -> list[str]:
    """Sentences and rows: what slowed, by part of the step and by operator; more work, or the same work slower.

    Times are those under a profiler: they say where, not how much.
    """
    whole = sum(base["parts"].values())
    if not whole:
        return ["nothing to explain: the base's profile is empty"]
    lines = [f"under a profiler a step took {_ms(whole)} on base and {_ms(sum(head['parts'].values()))} on head"]
    lines += [f"  {row}" for row in _rows(base["parts"], head["parts"], whole)]
    operators = _rows(base["operators"], head["operators"], whole)[:NUM_OPERATORS]
    if operators:
        lines += ["by operator, without what it calls:", *(f"  {row}" for row in operators)]
    before, after = sum(base["calls"].values()), sum(head["calls"].values())
    grown = [name for name, calls in head["calls"].items() if calls > base["calls"].get(name, 0.0)]
    if before and after > before * (1 + MORE_WORK):
        named = ", ".join(sorted(grown, key=lambda name: base["calls"].get(name, 0.0) - head["calls"][name])[:3])
        lines.append(f"head does more work: {after:.0f} calls a step for {before:.0f}, most of them more of {named}")
    else:
        lines.append(f"the same work, slower: {after:.0f} calls a step for {before:.0f}")
    return lines


def beside(base: Sequence[Run], head: Sequence[Run]) -> list[str]:
    """What else is compared: start-up and compiling (medians, seconds), peak memory (largest, GiB)."""
    figures = (
        ("start-up", "s", [[run.startup_seconds for run in runs] for runs in (base, head)], median),
        ("compiling", "s", [[run.compile_seconds for run in runs] for runs in (base, head)], median),
        ("peak memory", "GiB", [[peak_memory(run) / 2**30 for run in runs] for runs in (base, head)], max),
    )
    shown = [(name, unit, of(values[0]), of(values[1])) for name, unit, values, of in figures]
    return [f"{name}: {old:.2f} -> {new:.2f} {unit}" for name, unit, old, new in shown if old or new]


def _rows(base: Mapping[str, float], head: Mapping[str, float], whole: float) -> list[str]:
    differences = {name: head.get(name, 0.0) - base.get(name, 0.0) for name in base.keys() | head.keys()}
    shown = [name for name in differences if abs(differences[name]) >= LEAST_SHARE * whole]
    return [
        f"{name}: {_ms(base.get(name, 0))} -> {_ms(head.get(name, 0))} ({differences[name] / whole:+.1%} of the step)"
        for name in sorted(shown, key=lambda name: (-differences[name], name))
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
