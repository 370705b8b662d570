"""The suite's options: a field is its declaration (declare.py). What excludes what stands in exclusions.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pytest

from trainpace.app import option_values as values
from trainpace.app.declare import (
    add_options,
    asked,
    option,
    positive,
    positive_number,
    read_options,
    seconds,
    several,
    share,
)
from trainpace.app.exclusions import EXTERNAL_SYSTEM, SECOND_SIDE, SEVERAL_TRAINERS, refuse
from trainpace.cases.tables import Table
from trainpace.cases.workload import Dtype, Scale
from trainpace.plan.paired import MinEffects
from trainpace.plan.stored import DEFAULT_REFRESH_RUNS
from trainpace.stats.sequential import FURTHER_PAIRS, PAIRS
from trainpace.trainers.external import is_external

LAUNCHERS = ("local", "slurm", "torchrun")

GROUPS = {
    "perf": "trainpace: speed of LLM training",
    "perf-nodes": "trainpace: more than one machine",
    "perf-gate": "trainpace: head against base, side by side",
}
"""The headings in `pytest --help`. Every option is prefixed, and repeatable instead of taking several values."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Head against base: which head, and what must be found."""

    folder: Path
    """What relative paths are relative to."""
    head: str | None = option(
        "--perf-head",
        group="perf-gate",
        metavar="PATH|REV",
        help="Measure this head against the checkout that the command runs in.",
    )
    """A folder or a revision; None: the same checkout."""
    python: str | None = option(
        "--perf-against-python",
        group="perf-gate",
        metavar="PATH",
        help="Measure the head with this interpreter (another torch, say).",
    )
    build: str | None = option(
        "--perf-build",
        group="perf-gate",
        read=values.some,
        metavar="COMMAND",
        help="Build each side in a copy of its own, with its own environment.",
    )
    detect: MinEffects = option(
        "--perf-detect",
        group="perf-gate",
        default=MinEffects(),
        repeatable=True,
        read=values.min_effects,
        metavar="D|CASE=D",
        help="The loss of TGS that must be found, or the case is inconclusive (default: 0.05); CASE=D for one case; "
        "repeatable, the last one counts.",
    )
    max_pairs: int | None = option(
        "--perf-max-pairs",
        group="perf-gate",
        type=several,
        metavar="N",
        help=f"Most pairs of runs a case, at least 2 (default: {PAIRS}, and up to {FURTHER_PAIRS} of a case that its "
        "own noise leaves undecided).",
    )
    """A single pair has no spread. None: not typed."""
    new_numerics: str | None = option(
        "--perf-new-numerics",
        group="perf-gate",
        read=values.some,
        metavar="REASON",
        help="The head's losses may differ from the base's, and why.",
    )
    self_test: bool = option(
        "--perf-self-test",
        group="perf-gate",
        default=False,
        help="Prove on this machine that the gate finds an injected slowdown, and none where there is none.",
    )
    explain: bool = option(
        "--perf-explain",
        group="perf-gate",
        default=False,
        help="Say where the time goes on both sides, also without a regression.",
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for, checked."""

    scale: Literal["auto"] | Scale = option(
        "--perf-scale",
        choices=("auto", "full", "proxy", "mini"),
        default="auto",
        help="How cases are cut to this machine (default: auto, the largest that it can run).",
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "--perf-device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="What ranks run on: cpu, whatever GPUs there are; cuda, the scale mini too (default: auto, mini on the "
        "CPU, unless nothing larger fits the GPUs).",
    )
    device_label: str | None = option(
        "--perf-device-label",
        ini=("The --perf-device-label where none is given.", ""),
        read=values.device_label,
        metavar="LABEL",
        help="Tell this machine from others of its kind of device: baselines, noise and histories are the label's own "
        "(default: ini option perf_device_label, else none).",
    )
    """None: what is recorded is that of every machine with such a device."""
    trainers: tuple[str, ...] = option(
        "--perf-trainer",
        default=("native",),
        repeatable=True,
        ini=("What is measured where no --perf-trainer is given.", "native"),
        read=values.trainers,
        metavar="NAME",
        help="What is measured: native, package.module:object, an external system (axolotl, hf, llamafactory, "
        "torchtitan, trl, xtuner) or the .toml file of one; two or more are compared side by side (default: ini option "
        "perf_trainer, else native).",
    )
    """At least one; several are compared side by side."""
    pythons: Mapping[str, str] = option(
        "--perf-trainer-python",
        default={},
        repeatable=True,
        read=values.pythons,
        metavar="NAME=PYTHON",
        help="The interpreter that an external system lives in; repeatable (default: this one).",
    )
    """Interpreters of external systems, by name."""
    table: Table | None = option(
        "--perf-table",
        read=values.table,
        metavar="NAME|FILE.csv",
        help="The published table whose rows are the cases: llm-foundry, torchtitan, xtuner, or your own "
        "(docs/tables.md; default: the 14 rows of XTuner's speed benchmark).",
    )
    """None: the cases of cases/published.py."""
    engine: str = option(
        "--perf-engine",
        choices=("deepspeed", "fsdp2"),
        help="What shards the native trainer (default: the table's, which is deepspeed, ZeRO-3, without --perf-table).",
    )
    dtype: Dtype = option(
        "--perf-dtype", choices=("bf16", "fp32"), default="bf16", help="What the model computes in (default: bf16)."
    )
    varlen: bool = option(
        "--perf-varlen",
        default=False,
        help="Mask attention at the documents' borders (default: plain causal, as published).",
    )
    compile: bool = option(
        "--perf-compile",
        default=False,
        help="Have the native trainer run its layers compiled by torch.compile (default: as the case says, which is "
        "eager).",
    )
    data: tuple[str, ...] = option(
        "--perf-data",
        default=(),
        repeatable=True,
        read=values.data,
        metavar="FILE|NAME",
        help="Records to train on (Alpaca, messages or text): a .json, .jsonl or .parquet file, or a name on the hub; "
        "repeatable (default: a generated corpus).",
    )
    skip_bad_records: bool = option(
        "--perf-skip-bad-records",
        default=False,
        help="Leave out records of --perf-data that cannot be used, counted in the report (default: refuse the file).",
    )
    tokenizer: str = option(
        "--perf-tokenizer",
        default="bytes",
        read=values.tokenizer,
        metavar="PATH|NAME",
        help="A tokenizer's folder, file or name on the hub (default: bytes, which needs no download).",
    )
    warmup: int | None = option(
        "--perf-warmup",
        type=positive,
        metavar="N",
        help="Steps before the measured ones (default: by scale and sequence).",
    )
    steps: int | None = option(
        "--perf-steps", type=positive, metavar="N", help="Measured steps (default: by scale and sequence)."
    )
    runs_per_case: int | None = option(
        "--perf-runs-per-case",
        type=positive,
        metavar="N",
        help=f"Fresh runs a case (default: 1, up to 5 for a noisy device; {DEFAULT_REFRESH_RUNS} with --perf-refresh).",
    )
    tolerance: float | None = option(
        "--perf-tolerance",
        type=share,
        metavar="X",
        help="Judge within this share, 0.05 is 5 %% (default: from the noise between the baseline's runs).",
    )
    baselines: Path | None = option(
        "--perf-baselines",
        read=values.baselines,
        metavar="DIR",
        help="Where baselines are read and refreshed (default: baselines/ beside the tests' root).",
    )
    environment: tuple[str, ...] = option(
        "--perf-env",
        default=(),
        repeatable=True,
        read=lambda names, _: values.variables(names),
        metavar="NAME",
        help="Give this environment variable to ranks, builds and programs too, which get a list of harmless ones "
        "(docs/gate.md); repeatable.",
    )
    """Names of variables."""
    runs: Path | None = option(
        "--perf-runs", read=values.output, metavar="DIR", again=False, help="Keep every run as a file here."
    )
    keep_logs: Path | None = option(
        "--perf-keep-logs",
        read=values.output,
        metavar="DIR",
        again=False,
        help="Keep what every rank and its host printed and wrote here, by case and run id, of failed runs too.",
    )
    resume: bool = option(
        "--perf-resume",
        default=False,
        again=False,
        help="Go on where a session was cut off: runs in --perf-runs that are the same in all that decides speed count "
        "as measured.",
    )
    report: Path | None = option(
        "--perf-report",
        read=values.output,
        metavar="DIR",
        again=False,
        help="Write the report here: summary.md and results.json.",
    )
    exports: tuple[values.Export, ...] = option(
        "--perf-export",
        default=(),
        repeatable=True,
        read=values.exports,
        metavar="FORMAT:WHERE",
        again=False,
        help="Write the session for another tool: bencher:FILE, csv:FILE, github-action-benchmark:FILE, "
        "openmetrics:FILE, mlflow:EXPERIMENT or wandb:PROJECT (docs/export.md); repeatable.",
    )
    replay: tuple[Path, ...] = option(
        "--perf-replay",
        default=(),
        repeatable=True,
        read=values.recorded,
        metavar="FILE|DIR",
        again=False,
        help="Judge recorded runs instead of measuring; repeatable.",
    )
    refresh: bool = option("--perf-refresh", default=False, help="Record this device's baselines.")
    missing: str | None = option(
        "--perf-missing",
        choices=("record", "skip"),
        help="What becomes of a case without a baseline: record makes the runs of one, stores them and judges fresh "
        "runs by them; skip measures once and says so (default: skip where CI is set, else record).",
    )
    """None: not typed."""
    recount: bool = option(
        "--perf-recount",
        default=False,
        again=False,
        help="Count costs anew, and keep none (default: those that the cache holds are not counted again).",
    )
    count_flops: bool = option(
        "--perf-count-flops",
        default=False,
        help="Train one more micro-step after the measured ones and count its FLOPs, for TFLOPs, MFU and HFU of a "
        "trainer that no formula holds for; the native one's are known without.",
    )
    max_spread: float = option(
        "--perf-max-spread",
        type=share,
        default=0.10,
        metavar="X",
        help="Refuse to record runs that differ by more than this share (default: 0.10).",
    )
    accept_slower: str | None = option(
        "--perf-accept-slower", metavar="REASON", help="With --perf-refresh: record slower values, and why."
    )
    accepted: str | None = option(
        "--perf-accepted",
        read=values.reason,
        metavar="REASON",
        again=False,
        help="Name the regressions of this session, without failing, and why.",
    )
    require_verdict: bool = option(
        "--perf-require-verdict", default=False, again=False, help="A case that could not be judged fails."
    )
    step_timeout: float | None = option(
        "--perf-step-timeout",
        type=seconds,
        metavar="SECONDS",
        help="A run without a step for this long has hung (default: 300, on GPUs 1800).",
    )
    max_minutes: float | None = option(
        "--perf-max-minutes",
        type=positive_number,
        metavar="M",
        again=False,
        help="Start nothing more after this long; cases go by perf-priorities.toml, and what did not fit is named.",
    )
    launcher: str = option(
        "--perf-launcher",
        group="perf-nodes",
        choices=LAUNCHERS,
        default="local",
        help="What starts the ranks: local (this machine), slurm (each run is one srun step) or torchrun (this command "
        "runs under it on every node).",
    )
    slurm: tuple[str, ...] = option(
        "--perf-slurm",
        group="perf-nodes",
        default=(),
        repeatable=True,
        read=lambda texts, _: values.split_options(texts),
        metavar="OPTIONS",
        help="Get an allocation for this session, with these options of salloc: partition=gpu,time=60; repeatable "
        "(default: the allocation that the suite runs in).",
    )
    """Options of an allocation of the session's own, as salloc takes them."""
    shared: Path | None = option(
        "--perf-shared",
        group="perf-nodes",
        read=lambda _, config: values.shared_folder(config),
        metavar="DIR",
        help="A folder that all nodes see, for what ranks write (default: the cache folder, TRAINPACE_CACHE).",
    )
    """None where there is only this machine."""
    max_hours: float | None = option(
        "--perf-max-hours",
        group="perf-nodes",
        type=positive_number,
        metavar="H",
        again=False,
        help="Refuse a selection that is estimated to take longer, from baselines or predictions.",
    )
    against: str | None = option(
        "--perf-against",
        group="perf-gate",
        metavar="REV",
        help="Measure this working tree against its merge base with REV (runs --perf-head from a checkout of that).",
    )
    """Always None where something is measured: the session is started anew, from the merge base."""
    against_runs: tuple[Path, ...] = option(
        "--perf-against-runs",
        group="perf-gate",
        default=(),
        repeatable=True,
        read=values.recorded,
        metavar="FILE|DIR",
        help="Judge against recorded runs (--perf-runs) instead of stored baselines; repeatable.",
    )
    """Recorded runs that take the place of stored baselines."""
    gate: Gate | None = None
    """None: judged against stored baselines."""

    @property
    def trainer(self) -> str:
        """What is measured; of several the first."""
        return self.trainers[0]

    @property
    def records_missing(self) -> bool:
        """Whether a case without a baseline is recorded."""
        return self.missing == "record" and self.can_record

    @property
    def can_record(self) -> bool:
        """Whether what this session measures is judged by stored baselines, which a missing one can be added to."""
        return not (self.replay or self.against_runs or self.table or self.gate or self.refresh)

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """Read and check the options of a session.

        Raises:
            pytest.UsageError: naming the option, what it takes and what it got.
        """
        given, pair = read_options(cls, config), read_options(Gate, config)
        facts = asked(cls, given) | asked(Gate, pair)
        if facts & {"--perf-head", "--perf-against-python", "--perf-self-test"}:
            facts.add(SECOND_SIDE)
        if len(given["trainers"]) > 1:
            facts.add(SEVERAL_TRAINERS)
        if any(map(is_external, given["trainers"])):
            facts.add(EXTERNAL_SYSTEM)
        refuse(facts)
        given["engine"] = given["engine"] or (given["table"].engine if given["table"] else "deepspeed")
        given["missing"] = given["missing"] or ("skip" if values.in_ci() else "record")
        if SECOND_SIDE not in facts:
            return cls(**given)
        return cls(**given, gate=Gate(folder=values.invocation_folder(config), **pair))


def declare_options(parser: pytest.Parser) -> None:
    """Tell pytest every option."""
    add_options(parser, GROUPS, Options, Gate)
