"""Who keeps the cores of a rank busy, and which cores are quiet.

Inside the measured interpreter; imports nothing else of `trainpace`.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import proc

LOOK_SECONDS = 0.1
"""How long cores are looked at before some are chosen: ten of the kernel's ticks."""
QUIET = 0.1
"""Share of a core that may be busy while it counts as quiet: one tick of those."""
_EQUAL = 0.9
"""Cores at least so fast as the fastest, as a share of it, are equal: what boosts by a few percent is no other kind."""
_NAMED = 3
_WORTH_NAMING = 0.02  # of a core
_CPUS = Path("/sys/devices/system/cpu")


class Look(NamedTuple):
    """CPU time at one moment."""

    seconds: float
    """Monotonic."""
    busy: float | None
    """CPU seconds of this process's cores, whoever took them; None where the kernel does not tell them core by core."""
    processes: Mapping[int, proc.Stat]
    """All that can be read, by id."""


def look(*, processes: bool = True) -> Look:
    """What the cores of this process have done so far, and every process.

    Without `processes` only when it was: to read them all takes milliseconds, on a large node a tenth of a second.
    """
    if not processes:
        return Look(time.monotonic(), None, {})
    return Look(time.monotonic(), proc.busy_seconds(os.sched_getaffinity(0)), {each.pid: each for each in proc.stats()})


def between(first: Look, last: Look, watch: Collection[int]) -> dict[str, Any]:
    """Load of this process's cores between two looks.

    Args:
        first: at the window's begin.
        last: at its end.
        watch: processes that are the session's besides those of this process session.

    Returns:
        Fields of a rank's samples: `window_seconds`; `busy_cpu_seconds` of this process's cores (None: not told);
        `own_cpu_seconds` of the session's processes that may run there; `others`, those of nobody of the session that
        took the most time there, each with `pid`, `name` and `cores`.
    """
    cores, session, seconds = os.sched_getaffinity(0), os.getsid(0), max(last.seconds - first.seconds, 1e-9)
    own, others = 0.0, []
    for pid, process in last.processes.items():
        before = first.processes.get(pid)
        same = before is not None and before.started == process.started
        spent = process.cpu_seconds - (before.cpu_seconds if before is not None and same else 0.0)
        ours = process.session == session or pid in watch
        if (spent <= _WORTH_NAMING * seconds and not ours) or not cores & _affinity(pid, process):
            continue
        if ours:
            own += spent
        else:
            there = process.core in cores or (before is not None and before.core in cores)
            others.append((there, spent, {"pid": pid, "name": process.name, "cores": spent / seconds}))
    others.sort(key=lambda each: each[:2], reverse=True)
    return {
        "window_seconds": last.seconds - first.seconds,
        "busy_cpu_seconds": None if first.busy is None or last.busy is None else last.busy - first.busy,
        "own_cpu_seconds": own,
        "others": [each for _, _, each in others[:_NAMED]],
    }


def _affinity(pid: int, process: proc.Stat) -> set[int]:
    """Where a process may run; where it ran last, if it has ended or that is not told."""
    with suppress(OSError):
        return os.sched_getaffinity(pid)
    return {process.core}


class Core(NamedTuple):
    """A core that a rank may be bound to."""

    number: int
    busy: float = 0.0
    """Share of the time in which it was busy, its siblings' included."""
    speed: float = 1.0
    """In any unit."""
    siblings: frozenset[int] = frozenset()
    """Other cores of the same physical one."""


def choose(count: int, cores: Sequence[Core]) -> list[int]:
    """A core for each of `count` ranks, so that a machine's use beside them disturbs them least.

    Slower kinds of cores are used where no faster is left; then those that share a physical core with a rank's; among
    equals quiet ones come before busy ones, and low numbers before high ones: on a quiet machine every run has the same
    cores. Where there are fewer cores than ranks they are given in turn.
    """
    fastest, chosen = max(core.speed for core in cores), list[int]()
    left = {core.number: core for core in cores}
    while left and len(chosen) < count:
        best = min(
            left.values(),
            key=lambda core: (
                core.speed < _EQUAL * fastest,
                not core.siblings.isdisjoint(chosen),
                core.busy if core.busy > QUIET else 0.0,
                core.number,
            ),
        )
        chosen.append(left.pop(best.number).number)
    return [chosen[rank % len(chosen)] for rank in range(count)]


def quiet_cores(count: int) -> list[int]:
    """As `choose`, of the cores that this process may use; takes LOOK_SECONDS where there are more than `count`."""
    allowed = sorted(os.sched_getaffinity(0))
    if count >= len(allowed):
        return [allowed[rank % len(allowed)] for rank in range(count)]
    before = _busy_each()
    time.sleep(LOOK_SECONDS)
    after = _busy_each()
    busy = {core: (after[core] - before.get(core, 0.0)) / LOOK_SECONDS for core in after}
    cores = []
    for number in allowed:
        siblings = _siblings(number)
        shared = sum(busy.get(core, 0.0) for core in (number, *siblings))
        cores.append(Core(number=number, busy=shared, speed=_speed(number), siblings=siblings))
    return choose(count, cores)


def _busy_each() -> dict[int, float]:
    with suppress(OSError):
        return proc.busy_by_core()
    return {}


def _siblings(core: int) -> frozenset[int]:
    """From `0,4` or `0-1`; none where the kernel does not tell."""
    with suppress(OSError, ValueError):
        found: set[int] = set()
        for part in (_CPUS / f"cpu{core}/topology/thread_siblings_list").read_text().strip().split(","):
            low, _, high = part.partition("-")
            found.update(range(int(low), int(high or low) + 1))
        return frozenset(found - {core})
    return frozenset()


def _speed(core: int) -> float:
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        with suppress(OSError, ValueError):
            return float((_CPUS / f"cpu{core}" / name).read_text())
    return 1.0
