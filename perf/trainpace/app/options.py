"""The suite's options: declared for pytest, checked once, frozen."""

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from trainpace.cases.workload import Dtype, Scale
from trainpace.trainers.external import is_described, names

DEFAULT_REFRESH_RUNS = 5
LAUNCHERS = ("local", "slurm", "torchrun")
INVOCATION = "TRAINPACE_INVOCATION"
"""Names the folder that relative paths are relative to, where the suite was started from another."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Head against base: which head, and what must be found."""

    folder: Path
    """What relative paths are relative to."""
    head: str | None
    """A folder or a revision; None: the same checkout."""
    python: str | None
    build: str | None
    detect: float
    max_pairs: int
    new_numerics: str | None
    explain: bool
    self_test: bool


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for, checked."""

    scale: Literal["auto"] | Scale
    dtype: Dtype
    engine: str
    trainers: tuple[str, ...]
    """At least one; several are compared side by side."""
    pythons: Mapping[str, str]
    """Interpreters of described trainers, by name."""
    varlen: bool
    data: tuple[str, ...]
    tokenizer: str
    warmup: int | None
    steps: int | None
    runs_per_case: int | None
    tolerance: float | None
    baselines: Path | None
    runs: Path | None
    resume: bool
    """Take the runs that are there as measured."""
    report: Path | None
    replay: tuple[Path, ...]
    against_runs: tuple[Path, ...]
    """Recorded runs that take the place of stored baselines."""
    refresh: bool
    max_spread: float
    accept_slower: str | None
    accepted: str | None
    require_verdict: bool
    step_timeout: float | None
    launcher: str
    """`local`, `slurm` or `torchrun`."""
    slurm: tuple[str, ...]
    """Options of an allocation of the session's own, as salloc takes them."""
    shared: Path | None
    """A folder that all nodes see; None where there is only this machine."""
    max_minutes: float | None
    max_hours: float | None
    gate: Gate | None
    """None: judged against stored baselines."""

    @property
    def trainer(self) -> str:
        """What is measured; of several the first."""
        return self.trainers[0]

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """Read and check the options of a session.

        Raises:
            pytest.UsageError: naming the option, what it takes and what it got.
        """
        option = config.getoption
        folder = invocation_folder(config)

        def path(name: str) -> Path | None:
            value = option(name)
            return Path(folder, value) if value else None

        replay, against_runs = (
            tuple(Path(folder, value) for value in option(name)) for name in ("perf_replay", "perf_against_runs")
        )
        for name, files in (("replay", replay), ("against-runs", against_runs)):
            for file in files:
                if not file.exists():
                    raise pytest.UsageError(f"--perf-{name}: {file} does not exist")
        for name in ("runs", "report", "baselines"):
            results = path(f"perf_{name}")
            if results and (name != "baselines" or option("perf_refresh")):
                _refuse_unwritable(f"--perf-{name}", results)
        if replay and option("perf_refresh"):
            raise pytest.UsageError("--perf-refresh records fresh runs only: --perf-replay cannot be refreshed from")
        if option("perf_accept_slower") is not None and not option("perf_refresh"):
            raise pytest.UsageError("--perf-accept-slower belongs to --perf-refresh: judging never accepts a slowdown")
        return cls(
            scale=option("perf_scale"),
            dtype=option("perf_dtype"),
            engine=option("perf_engine"),
            trainers=_trainers(config, folder),
            pythons=_pythons(option("perf_trainer_python"), folder),
            varlen=option("perf_varlen"),
            data=tuple(_source(source, folder) for source in option("perf_data")),
            tokenizer=_tokenizer(option("perf_tokenizer"), folder),
            warmup=option("perf_warmup"),
            steps=option("perf_steps"),
            runs_per_case=option("perf_runs_per_case"),
            tolerance=option("perf_tolerance"),
            baselines=path("perf_baselines"),
            runs=path("perf_runs"),
            resume=_resume(config),
            report=path("perf_report"),
            replay=replay,
            against_runs=against_runs,
            refresh=option("perf_refresh"),
            max_spread=option("perf_max_spread"),
            accept_slower=option("perf_accept_slower"),
            accepted=_accepted(option("perf_accepted"), refresh=option("perf_refresh")),
            require_verdict=option("perf_require_verdict"),
            step_timeout=option("perf_step_timeout"),
            launcher=option("perf_launcher"),
            slurm=_slurm(config),
            shared=shared_folder(config),
            max_minutes=option("perf_max_minutes"),
            max_hours=option("perf_max_hours"),
            gate=_gate(config, folder),
        )


def invocation_folder(config: pytest.Config) -> Path:
    """What relative paths among our options are relative to: where the user typed the command."""
    return Path(os.environ.get(INVOCATION) or config.invocation_params.dir)


def cache_folder() -> Path:
    """Where packed tokens are kept between sessions: TRAINPACE_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("TRAINPACE_CACHE") or user_cache_path("trainpace"))


def shared_folder(config: pytest.Config) -> Path | None:
    """What all nodes see, as --perf-shared says, else the cache folder; None where there is only this machine."""
    if config.getoption("perf_launcher") == "local":
        return None
    given = config.getoption("perf_shared")
    return Path(invocation_folder(config), given) if given else cache_folder()


def declare(parser: pytest.Parser) -> None:
    """Declare every option. All are prefixed, and repeatable instead of taking several values."""
    parser.addini("perf_trainer", "What is measured where no --perf-trainer is given.", default="native")
    group = parser.getgroup("perf", "trainpace: speed of LLM training")
    add = group.addoption
    add(
        "--perf-scale",
        choices=("auto", "full", "proxy", "mini"),
        default="auto",
        help="How cases are cut to this machine (default: auto, the largest that it can run).",
    )
    add(
        "--perf-trainer",
        action="append",
        default=[],
        metavar="NAME",
        help="What is measured: native, package.module:object, a described system (hf, llamafactory, trl, xtuner) or "
        "the .toml file of one; two or more are compared side by side (default: ini option perf_trainer, else native).",
    )
    add(
        "--perf-trainer-python",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="The interpreter that a described system lives in; repeatable (default: this one).",
    )
    add(
        "--perf-engine",
        choices=("deepspeed", "fsdp2"),
        default="deepspeed",
        help="What shards the native trainer (default: deepspeed, ZeRO-3 as published).",
    )
    add("--perf-dtype", choices=("bf16", "fp32"), default="bf16", help="What the model computes in (default: bf16).")
    add(
        "--perf-varlen",
        action="store_true",
        help="Mask attention at the documents' borders (default: plain causal, as published).",
    )
    add(
        "--perf-data",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="Alpaca records: a JSON or JSONL file, or a name on the hub; repeatable (default: a generated corpus).",
    )
    add(
        "--perf-tokenizer",
        default="bytes",
        metavar="PATH|NAME",
        help="A tokenizer's folder, file or name on the hub (default: bytes, which needs no download).",
    )
    add(
        "--perf-warmup",
        type=_positive,
        metavar="N",
        help="Steps before the measured ones (default: by scale and sequence).",
    )
    add("--perf-steps", type=_positive, metavar="N", help="Measured steps (default: by scale and sequence).")
    add(
        "--perf-runs-per-case",
        type=_positive,
        metavar="N",
        help=f"Fresh runs a case (default: 1, up to 5 for a noisy device; {DEFAULT_REFRESH_RUNS} with --perf-refresh).",
    )
    add(
        "--perf-tolerance",
        type=_share,
        metavar="X",
        help="Judge within this share, 0.05 is 5 %% (default: from the noise between the baseline's runs).",
    )
    add(
        "--perf-baselines",
        metavar="DIR",
        help="Where baselines are read and refreshed (default: baselines/ beside the tests' root).",
    )
    add("--perf-runs", metavar="DIR", help="Keep every run as a file here.")
    add(
        "--perf-resume",
        action="store_true",
        help="Go on where a session was cut off: runs in --perf-runs that are the same in all that decides speed count "
        "as measured.",
    )
    add("--perf-report", metavar="DIR", help="Write the report here: summary.md and results.json.")
    add(
        "--perf-replay",
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="Judge recorded runs instead of measuring; repeatable.",
    )
    add("--perf-refresh", action="store_true", help="Record this device's baselines.")
    add(
        "--perf-max-spread",
        type=_share,
        default=0.10,
        metavar="X",
        help="Refuse to record runs that differ by more than this share (default: 0.10).",
    )
    add("--perf-accept-slower", metavar="REASON", help="With --perf-refresh: record slower values, and why.")
    add("--perf-accepted", metavar="REASON", help="Name the regressions of this session, without failing, and why.")
    add("--perf-require-verdict", action="store_true", help="A case that could not be judged fails.")
    add(
        "--perf-step-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="A run without a step for this long has hung (default: 300, on GPUs 1800).",
    )
    add(
        "--perf-max-minutes",
        type=_positive_number,
        metavar="M",
        help="Start nothing more after this long; cases go by perf-priorities.toml, and what did not fit is named.",
    )


def declare_nodes(parser: pytest.Parser) -> None:
    """Declare the options of runs on several nodes."""
    add = parser.getgroup("perf-nodes", "trainpace: more than one machine").addoption
    add(
        "--perf-launcher",
        choices=LAUNCHERS,
        default="local",
        help="What starts the ranks: local (this machine), slurm (each run is one srun step) or torchrun (this command "
        "runs under it on every node).",
    )
    add(
        "--perf-slurm",
        action="append",
        default=[],
        metavar="OPTIONS",
        help="Get an allocation for this session, with these options of salloc: partition=gpu,time=60; repeatable "
        "(default: the allocation that the suite runs in).",
    )
    add(
        "--perf-shared",
        metavar="DIR",
        help="A folder that all nodes see, for what ranks write (default: the cache folder, TRAINPACE_CACHE).",
    )
    add(
        "--perf-max-hours",
        type=_positive_number,
        metavar="H",
        help="Refuse a selection that is estimated to take longer, from baselines or predictions.",
    )


def declare_gate(parser: pytest.Parser) -> None:
    """Declare the options of the gate of a pull request."""
    add = parser.getgroup("perf-gate", "trainpace: head against base, side by side").addoption
    add("--perf-head", metavar="PATH|REV", help="Measure this head against the checkout that the command runs in.")
    add(
        "--perf-against",
        metavar="REV",
        help="Measure this working tree against its merge base with REV (runs --perf-head from a checkout of that).",
    )
    add(
        "--perf-against-runs",
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="Judge against recorded runs (--perf-runs) instead of stored baselines; repeatable.",
    )
    add("--perf-against-python", metavar="PATH", help="Measure the head with this interpreter (another torch, say).")
    add("--perf-build", metavar="COMMAND", help="Build each side in a copy of its own, with its own environment.")
    add(
        "--perf-detect",
        type=_share,
        default=0.05,
        metavar="D",
        help="The loss of TGS that must be found (default: 0.05; raised where the noise allows no less).",
    )
    add("--perf-max-pairs", type=_positive, default=8, metavar="N", help="Most pairs of runs a case (default: 8).")
    add("--perf-new-numerics", metavar="REASON", help="The head's losses may differ from the base's, and why.")
    add(
        "--perf-self-test",
        action="store_true",
        help="Prove on this machine that the gate finds a planted slowdown, and none where there is none.",
    )
    add("--perf-explain", action="store_true", help="Say where the time goes on both sides, also without a regression.")


def _gate(config: pytest.Config, folder: Path) -> Gate | None:
    option = config.getoption
    head, python = option("perf_head"), option("perf_against_python")
    if option("perf_self_test") and (head is not None or python is not None):
        raise pytest.UsageError(
            "--perf-self-test compares this checkout with itself: leave out --perf-head and the like"
        )
    if head is None and python is None and not option("perf_self_test"):
        for name in ("build", "new_numerics", "explain"):
            if option(f"perf_{name}"):
                shown = name.replace("_", "-")
                raise pytest.UsageError(f"--perf-{shown} compares two sides: name the other with --perf-head")
        return None
    for name in ("refresh", "replay", "against_runs"):
        if option(f"perf_{name}"):
            raise pytest.UsageError(
                f"--perf-{name.replace('_', '-')} has one side: leave out --perf-head and --perf-against"
            )
    return Gate(
        folder=folder,
        head=head,
        python=python,
        build=option("perf_build"),
        detect=option("perf_detect"),
        max_pairs=option("perf_max_pairs"),
        new_numerics=option("perf_new_numerics"),
        explain=option("perf_explain"),
        self_test=option("perf_self_test"),
    )


def _slurm(config: pytest.Config) -> tuple[str, ...]:
    asked = split_options(config.getoption("perf_slurm"))
    if asked and config.getoption("perf_launcher") != "slurm":
        raise pytest.UsageError("--perf-slurm asks Slurm for nodes: add --perf-launcher slurm")
    return asked


def _trainers(config: pytest.Config, folder: Path) -> tuple[str, ...]:
    wanted = config.getoption("perf_trainer") or [config.getini("perf_trainer")]
    found = tuple(_trainer(value, folder) for value in wanted)
    if len(set(found)) < len(found):
        raise pytest.UsageError(f"--perf-trainer: expected different trainers, got {', '.join(wanted)}")
    if config.getoption("perf_launcher") != "local" and any(map(is_described, found)):
        raise pytest.UsageError(
            "--perf-launcher: a described system starts its own ranks, on this machine: leave the option out"
        )
    if len(found) > 1:
        for name in ("refresh", "replay", "resume", "against_runs", "head", "self_test", "against_python"):
            if config.getoption(f"perf_{name}"):
                raise pytest.UsageError(f"--perf-{name.replace('_', '-')} takes one trainer: name --perf-trainer once")
    return found


def _trainer(value: str, folder: Path) -> str:
    if value.endswith(".toml"):
        path = folder / value
        if not path.is_file():
            raise pytest.UsageError(f"--perf-trainer: no description {path}")
        return str(path.resolve())
    if value != "native" and not is_described(value) and not re.fullmatch(r"[\w.]+:\w+", value):
        raise pytest.UsageError(
            f"--perf-trainer: expected native, package.module:object, {', '.join(names())} or a .toml file, "
            f"got {value!r}"
        )
    return value


def _pythons(values: Sequence[str], folder: Path) -> Mapping[str, str]:
    found = {}
    for value in values:
        name, equals, python = value.partition("=")
        if not (name and equals and python):
            raise pytest.UsageError(f"--perf-trainer-python: expected NAME=PYTHON, got {value!r}")
        # A link is kept: a virtual environment's interpreter is one, and knows its environment by it.
        path = shutil.which(folder / Path(python).expanduser()) or shutil.which(python)
        if path is None:
            raise pytest.UsageError(f"--perf-trainer-python {name}: no interpreter {python}")
        found[name] = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow the link
    return found


def _accepted(value: str | None, *, refresh: bool) -> str | None:
    if value is not None and not value.strip():
        raise pytest.UsageError("--perf-accepted: expected a reason, got none")
    if value is not None and refresh:
        raise pytest.UsageError("--perf-accepted belongs to judging: a refresh records with --perf-accept-slower")
    return value


def _resume(config: pytest.Config) -> bool:
    option = config.getoption
    if not option("perf_resume"):
        return False
    if option("perf_runs") is None:
        raise pytest.UsageError("--perf-resume: expected --perf-runs DIR, the folder of the session that was cut off")
    for name in ("replay", "head", "against", "against_python", "self_test"):
        if option(f"perf_{name}"):
            shown = name.replace("_", "-")
            raise pytest.UsageError(f"--perf-resume takes up measuring of one side: leave out --perf-{shown}")
    return True


def _refuse_unwritable(name: str, folder: Path) -> None:
    """Say now, and not after hours of training, that nothing can be written there."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise pytest.UsageError(f"{name}: expected a folder that can be written, got {folder}")


def _source(value: str, folder: Path) -> str:
    """A file as its whole path; anything else is a name on the hub."""
    path = folder / value
    if path.is_file():
        return str(path.resolve())
    if path.suffix in {".json", ".jsonl"} or value.startswith((".", "/", "~")):
        raise pytest.UsageError(f"--perf-data: no file {path}")
    return value


def _tokenizer(value: str, folder: Path) -> str:
    path = folder / value
    return str(path.resolve()) if path.exists() else value


def _number(convert: Callable[[str], Any], fits: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            # argparse words an ArgumentTypeError's text; pytest's parser turns it into a usage error.
            from argparse import ArgumentTypeError

            raise ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


def split_options(texts: Sequence[str]) -> tuple[str, ...]:
    """`partition=gpu,time=60` -> its parts; a comma in brackets is part of a list of nodes."""
    return tuple(part.strip() for text in texts for part in re.split(r",(?![^\[]*\])", text) if part.strip())


_positive = _number(int, lambda value: value >= 1, "a whole number of at least 1")
_share = _number(float, lambda value: 0 < value < 1, "a share between 0 and 1 (0.05 is 5 %)")
_seconds = _number(float, lambda value: 0 < value < float("inf"), "a positive number of seconds")
_positive_number = _number(float, lambda value: 0 < value < float("inf"), "a positive number")
