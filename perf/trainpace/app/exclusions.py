"""What of that which a user can ask for excludes what, in one table."""

from collections.abc import Collection

import pytest

SPEED_CASE = "a speed case"
COMPARISON = "a comparison"
SECOND_SIDE = "a second side"
SEVERAL_TRAINERS = "several trainers"
SIDE_BY_SIDE = (
    "-n runs cases side by side, where they measure each other: leave it out for perf cases, or add -n 0 where "
    "pytest's settings hold it"
)
EXTERNAL_SYSTEM = "an external system"

# What is asked for, what it excludes or (after "no ") needs, and what is said; the first row that applies is.
EXCLUDES: tuple[tuple[str, str, str], ...] = (
    (
        "--perf-refresh",
        "--perf-replay",
        "--perf-refresh records fresh runs only: --perf-replay cannot be refreshed from",
    ),
    (
        "--perf-accept-slower",
        "no --perf-refresh",
        "--perf-accept-slower belongs to --perf-refresh: judging never accepts a slowdown",
    ),
    (
        EXTERNAL_SYSTEM,
        "--perf-launcher",
        "--perf-launcher: an external system starts its own ranks, on this machine: leave the option out",
    ),
    *(
        (flag, SEVERAL_TRAINERS, f"{flag} takes one trainer: name --perf-trainer once")
        for flag in (
            "--perf-refresh",
            "--perf-replay",
            "--perf-resume",
            "--perf-against-runs",
            "--perf-head",
            "--perf-self-test",
            "--perf-against-python",
        )
    ),
    (
        "--perf-resume",
        "no --perf-runs",
        "--perf-resume: expected --perf-runs DIR, the folder of the session that was cut off",
    ),
    *(
        ("--perf-resume", flag, f"--perf-resume takes up measuring of one side: leave out {flag}")
        for flag in ("--perf-replay", "--perf-head", "--perf-against", "--perf-against-python", "--perf-self-test")
    ),
    (
        "--perf-accepted",
        "--perf-refresh",
        "--perf-accepted belongs to judging: a refresh records with --perf-accept-slower",
    ),
    *(
        ("--perf-missing record", flag, f"--perf-missing record records what this checkout measures: leave out {flag}")
        for flag in ("--perf-replay", "--perf-against-runs", "--perf-table", "--perf-head", "--perf-against")
    ),
    ("--perf-missing record", "--perf-refresh", "--perf-missing record: --perf-refresh records every case"),
    ("--perf-slurm", "no --perf-launcher slurm", "--perf-slurm asks Slurm for nodes: add --perf-launcher slurm"),
    *(
        (
            "--perf-self-test",
            flag,
            "--perf-self-test compares this checkout with itself: leave out --perf-head and the like",
        )
        for flag in ("--perf-head", "--perf-against-python")
    ),
    *(
        (flag, f"no {SECOND_SIDE}", f"{flag} compares two sides: name the other with --perf-head")
        for flag in ("--perf-build", "--perf-new-numerics", "--perf-explain")
    ),
    *(
        (flag, SECOND_SIDE, f"{flag} has one side: leave out --perf-head and --perf-against")
        for flag in ("--perf-refresh", "--perf-replay", "--perf-against-runs")
    ),
    *((kind, "-n", SIDE_BY_SIDE) for kind in (SPEED_CASE, COMPARISON)),
    (SPEED_CASE, "-p no:benchmark", "perf cases need pytest-benchmark: leave -p no:benchmark out"),
    *(
        (SPEED_CASE, flag, f"{flag} drops the measurement of perf cases: leave it out")
        for flag in ("--benchmark-disable", "--benchmark-skip")
    ),
)


def refuse(facts: Collection[str]) -> None:
    """Hold what is asked for against the table.

    Args:
        facts: Flags that are not at their default, `--flag value` where there is a choice, and the names above.

    Raises:
        pytest.UsageError: with the words of the first row that applies.
    """
    for wanted, excluded, words in EXCLUDES:
        needed = excluded.removeprefix("no ")
        if wanted in facts and (needed in facts) == (needed == excluded):
            raise pytest.UsageError(words)


def refuse_other_plugins(config: pytest.Config, selected: set[str]) -> None:
    """Refuse what other plugins would do to what is selected: "a speed case", "a comparison".

    Raises:
        pytest.UsageError: naming the other plugin's option.
    """
    facts = set(selected)
    if config.getoption("dist", "no") != "no" or config.getoption("numprocesses", None):
        facts.add("-n")
    if not config.pluginmanager.hasplugin("benchmark"):
        facts.add("-p no:benchmark")
    facts |= {f"--benchmark-{name}" for name in ("disable", "skip") if config.getoption(f"benchmark_{name}", None)}
    refuse(facts)
