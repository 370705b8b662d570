"""What the judging side, run hosts and ranks say to each other: JSON objects, one a line.

Requests reach a host on its standard input and answers leave on its standard output (host.py). A rank appends its lines
to `rank-<n>.jsonl` in its run's folder (lines.py). Between nodes an agent passes requests and answers on
(launch/agent.py), with `node` in each answer, and answers of its own.
"""

from typing import Any, Literal, NotRequired, TypedDict

# Raised whenever a request, an answer or a line of a rank changes its meaning, or the trainer's four parts do.
# 1: first protocol (2026-11).
PROTOCOL = 1


class Settings(TypedDict):
    """What a host is started with, as its one argument."""

    parent: int
    """Process id of whoever starts it: it ends when that dies."""
    loop: Literal["loop", "program"]
    """The module of this package that a rank runs: the step loop, or what runs an external system."""
    checkout: str | None
    """Where the trainer is imported from first; None: it is installed."""
    apart: list[str]
    """Folders of the other side, which nothing is imported from."""
    folder: str | None
    """Where the host and its ranks work; None: where the host was started."""
    preload: list[str]
    """Modules that are imported once, before ranks are forked."""
    software: list[str]
    """Distributions whose versions are told."""
    device: NotRequired[Literal["cpu", "cuda"]]
    """What its ranks run on."""


class Placed(TypedDict):
    """Which ranks of a run are one node's."""

    node: int
    first: int
    """The lowest rank."""
    count: int


class Profile(TypedDict):
    """Where a profiler writes its trace."""

    folder: str


class Own(TypedDict):
    """Two sides' folders (imports.py)."""

    checkout: str
    apart: list[str]


class Program(TypedDict):
    """An external system's program."""

    command: list[str]
    environment: dict[str, str]
    """Variables besides those of the host."""
    progress: str
    """What its output has once for each record: a regular expression."""
    accumulation: int
    """Micro-steps of a record."""
    warmup: int
    """Micro-steps before the measured ones."""


class RunRequest(TypedDict):
    """`run`: fork the ranks of one run."""

    op: Literal["run"]
    id: str
    folder: str
    """The run's: logs and lines of its ranks, the rendezvous."""
    workload: dict[str, Any]
    """Fields of trainpace.cases.workload.Workload; of a program the number of ranks, 1, alone."""
    pin: bool
    """Whether each rank is bound to a core, of the quietest that there are."""
    watch: list[int]
    """Process ids of the suite, whose CPU time is not foreign."""
    placed: NotRequired[Placed]
    """Absent on one machine: all ranks are its own."""
    counts: NotRequired[list[int]]
    """Ranks of each node; the agent makes `placed` of it."""
    gpu_cores: NotRequired[list[list[int]]]
    """Cores that each rank of this node may use, those of its GPU's own memory node; empty where it is not known."""
    program: NotRequired[Program]
    """Of an external system alone, which needs none of what follows."""
    trainer: NotRequired[str]
    """`package.module:object`."""
    device: NotRequired[Literal["cpu", "cuda"]]
    data: NotRequired[dict[str, Any]]
    """Fields of trainpace.data.base.Data."""
    cache: NotRequired[str]
    """The folder of packed tokens."""
    injected: NotRequired[float]
    """A slowdown that is added to every step, a share: a self-test's."""
    borders: NotRequired[list[float]]
    """Seconds of a micro-step at which the verdict changes; none: the run makes all its steps."""
    own: NotRequired[Own | None]
    count_flops: NotRequired[bool]
    """Whether one more micro-step is trained and its FLOPs are counted."""
    profile: NotRequired[Profile | None]
    """None: no steps under a profiler."""


class Exit(TypedDict):
    """How a rank ended."""

    rank: int
    code: int
    """Negative: a signal."""
    killed: bool
    """Whether it was ended by the host."""


# Requests of a host besides `run`:
#     {"op": "kill"}                                      end the run under way
#     {"op": "pause"}                                     it is stopped (SIGSTOP) as soon as it has answered `paused`
# and of an agent:
#     {"op": "resume"}                                    its host goes on
#
# Answers of a host:
#     {"event": "ready", "protocol": 1, "software": {...}, "preload_seconds": ...}
#     {"event": "refused", "cause": ..., "detail": ...}   a module could not be preloaded: the host ends
#     {"event": "started", "id": ..., "pids": [...]}      after `run`
#     {"event": "ended", "exits": [Exit, ...]}            the last rank of the run is gone
#     {"event": "paused"}                                 an agent's: it is stopped; `left` says what runs beside it
#
# Answers of an agent besides:
#     {"event": "hello", "facts": {...}, "clock": ...}    what the node is: trainpace.launch.cluster.Node
#     {"event": "beat"}                                   it lives
#     {"event": "gone", "cause": ...}                     its host ended
#
# Lines of a rank:
#     {"event": "begin"}                                  the process runs
#     {"event": "note", "text": ...}                      what the trainer is doing before its first step
#     {"event": "set-up"}                                 the trainer's setup has returned
#     {"event": "step", "step": 0}                        a step was issued (on a CPU: done); with the last one of
#                                                         the warm-up the measured window opens
#     {"event": "measured"}                               all steps are done, all losses read: it closes
#     {"event": "samples", "seconds": [...], ...}         once, after the last step: every step as measured
#     {"event": "counted", "forward": [...], ...}         FLOPs of one micro-step more, where asked for: counted.py
#     {"event": "profile", "parts": {...}, ...}           where the time of a few steps more went, where asked for
#     {"event": "error", "type": ..., "message": ..., "traceback": ..., "time": ...}  what ended the rank
