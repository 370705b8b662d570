"""Runs external systems (trainers/external.py) on a workload, and checks what they claim by the wall clock.

A program is started by a run host, as ranks are: it is watched, hangs are ended, and nothing of it is left behind.
"""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trainpace.cases.machine import Machine
from trainpace.cases.workload import Workload
from trainpace.data.base import Data
from trainpace.errors import FileError, RunFailed, Skipped
from trainpace.launch.environment import given
from trainpace.launch.folders import rank_logs
from trainpace.launch.follow import Progress, follow
from trainpace.launch.health import health_of
from trainpace.launch.host_client import Side, host_command
from trainpace.launch.launcher import Local
from trainpace.launch.pool import Pool
from trainpace.launch.rank_log import RankLog
from trainpace.probe.device import GpuWindow
from trainpace.runs.run import SOFTWARE, RankSamples, Run
from trainpace.store.files import write_whole
from trainpace.text import harmless_values
from trainpace.trainers import external as systems
from trainpace.trainers.export import Exported, exported
from trainpace.trainers.external import Description, ReportedSteps, Typed
from trainpace.trainers.recipe import LEARNING_RATE, deepspeed_config, warmup_steps

_ASK = """
import importlib.metadata as metadata, importlib.util, json, platform, sys
found = {"python": platform.python_version()}
for name in json.loads(sys.argv[2]):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found if importlib.util.find_spec(sys.argv[1]) else None))
"""
CLOCK_SHARE, CLOCK_SECONDS = 0.1, 0.3
"""How much faster a program may claim to be than its output showed: lines are buffered, and seen some time later."""
ZERO3 = "zero3"
"""Placeholder of the DeepSpeed configuration that every program finds in its work folder."""


@dataclass(kw_only=True)
class Programs:
    """External systems, on demand. Used as a context: its processes and files are gone at the end."""

    machine: Machine
    data: Data
    cache: Path
    step_timeout: float
    pythons: Mapping[str, str] = field(default_factory=dict)
    """Interpreters of systems that do not live in this one's environment, by name."""
    keep_logs: Path | None = None
    """Where the folder of every run is kept, by case and run id; None: nowhere."""
    added: Sequence[str] = ()
    """Names of environment variables that programs are given besides those of environment.py."""
    report: Path | None = None
    """The report's folder, in which the files of a command will lie; None: there is no report."""
    pool: Pool = field(init=False)
    _software: dict[str, dict[str, str] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = Pool(Local(), self.keep_logs)

    def __enter__(self) -> Self:
        self.pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.__exit__()

    def check(self, description: Description, workload: Workload) -> None:
        """See whether the program can be run on `workload`.

        Raises:
            Skipped: where it is not installed, or cannot do what the workload asks for.
        """
        if reason := systems.cannot(description, workload, device=self._device(workload)):
            raise Skipped(f"{description.title} cannot train {workload.case} as it is: {reason}")
        if self.versions(description) is None:
            where = self._python(description)
            raise Skipped(
                f"{description.title} is not installed for {where}: `{description.install}`, then name its interpreter "
                f"with --perf-trainer-python {description.name}=VENV/bin/python"
            )

    def run(
        self, workload: Workload, description: Description, *, progress: Progress = lambda *_: None
    ) -> tuple[Run, Typed]:
        """Train `workload` once with the program; the run, and the command for whoever wants to repeat it.

        Raises:
            Skipped: as `check`.
            RunFailed: where the program ended without its steps, or what it wrote cannot be read.
            FileError: for a description that cannot be used.
        """
        self.check(description, workload)
        device = self._device(workload)
        given = None
        if systems.uses(description, *systems.EXPORTED):
            progress(0, "writing the workload")
            given = exported(workload, self.data, self.cache)
        kept = self.cache / "systems" / description.name
        kept.mkdir(parents=True, exist_ok=True)
        # A run that was ended while torch compiled an extension leaves a lock, for which the next would wait for ever.
        for lock in kept.glob("torch-extensions/*/lock"):
            lock.unlink(missing_ok=True)
        where, micro = f"the description of {description.name}", description.reading.record == "micro_step"
        command = host_command(Side(python=sys.executable), [], device, loop="program", added=self.added)
        with self.pool.run(command, case=workload.case, ranks=1) as begun:
            values = placeholders(
                workload,
                given,
                folder=description.folder,
                work=begun.folder,
                cache=kept,
                python=self._python(description),
                device=device,
                cores=self.machine.cpu.count,
            )
            try:
                for name, text in _files(description, workload, values).items():
                    (begun.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    write_whole(begun.folder / name, text)
                program = self._program(description, workload, values)
                begun.start(
                    workload={"ranks": 1},
                    pin=False,
                    watch=[os.getpid()],
                    program=program,
                )
                lines = RankLog(begun.folder / "rank-0.jsonl", 0)
                window = GpuWindow(workload.ranks if device == "cuda" else 0)
                first_step = follow(
                    begun.hosts, [lines], workload, window, progress=progress, step_timeout=self.step_timeout
                )
                seen = lines.samples or {}
                log = systems.newest(systems.filled(description.reading.path, values, where=where))
                claimed = systems.read_claims(
                    description.reading,
                    log,
                    ranks=workload.ranks,
                    tokens=workload.rank_tokens * (1 if micro else workload.accumulation),
                )
                if micro:
                    claimed = claimed.grouped(workload.accumulation)
                samples = samples_of(
                    claimed, workload, place=seen["place"], peak_memory_bytes=seen["peak_memory_bytes"]
                )
                health = health_of(self.machine, device, [seen], window.close())
                faults = claim_faults(
                    claimed,
                    workload,
                    wall=seen["wall_seconds"],
                    seen=seen["seen_seconds"][:: workload.accumulation] if micro else seen["seen_seconds"],
                )
            except FileError as error:
                raise RunFailed(
                    f"what {description.title} wrote cannot be used: {error}", detail=rank_logs(begun.folder)
                ) from None
        run = begun.record(
            workload,
            device=self.machine.gpus if device == "cuda" and self.machine.gpus else self.machine.cpu,
            first_step=first_step,
            ranks=[samples],
            health=health.model_copy(update={"faults": (*health.faults, *faults)}),
            source="reported",
            software=self.versions(description),
            data=given.identity if given else None,
            trained_on=given.trained_on if given else (),
        )
        return run, self._typed(description, workload, values)

    def _typed(self, description: Description, workload: Workload, values: Mapping[str, str]) -> Typed:
        """The command with its files in the report's folder: those of the run are gone when it is read."""
        trainer = re.sub(r"[^A-Za-z0-9_.-]+", "-", workload.trainer.removesuffix(".toml")).strip("-.")
        below = f"commands/{workload.case}-{trainer}"
        if self.report is not None:
            there = self.report / below
            values = {**values, "work": str(there), ZERO3: str(there / f"{ZERO3}.json")}
        files = _files(description, workload, values) if self.report is not None else {}
        if not systems.uses(description, ZERO3):
            files.pop(f"{ZERO3}.json", None)
        program = self._program(description, workload, values)
        told = [f"{name}={shlex.quote(text)}" for name, text in program["environment"].items() if name != "PATH"]
        words = [f'PATH={shlex.quote(values["bin"])}:"$PATH"', *told, shlex.join(program["command"])]
        if self.report is not None:
            work = shlex.quote(values["work"])
            words.insert(0, f"mkdir -p {work} && cd {work} &&")
        return Typed(" ".join(words), {f"{below}/{name}": text for name, text in files.items()})

    @staticmethod
    def _program(description: Description, workload: Workload, values: Mapping[str, str]) -> dict[str, Any]:
        """What is to be run, and how it is watched."""
        where = f"the description of {description.name}"
        # As in its activated environment: programs start others by their bare names.
        path = os.pathsep.join([values["bin"], os.environ.get("PATH", os.defpath)])
        chosen = {name: systems.filled(text, values, where=where) for name, text in description.environment.items()}
        return {
            "command": [systems.filled(part, values, where=where) for part in description.command],
            "environment": {"PATH": path, **chosen},
            "progress": description.progress,
            "accumulation": 1 if description.reading.record == "micro_step" else workload.accumulation,
            "warmup": workload.warmup,
        }

    def _device(self, workload: Workload) -> str:
        return self.machine.kind_for(workload)

    def _python(self, description: Description) -> str:
        return self.pythons.get(description.name, sys.executable)

    def versions(self, description: Description) -> dict[str, str] | None:
        """Versions in the program's interpreter; None where the program is not there."""
        if description.name not in self._software:
            names = json.dumps(sorted({*SOFTWARE, *description.software}))
            command = [self._python(description), "-c", _ASK, description.module, names]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    check=True,
                    stdin=subprocess.DEVNULL,
                    env=given(os.environ, self.added),
                )
                self._software[description.name] = harmless_values(json.loads(done.stdout))
            except (OSError, subprocess.CalledProcessError, ValueError):
                self._software[description.name] = None
        return self._software[description.name]


def _files(description: Description, workload: Workload, values: Mapping[str, str]) -> dict[str, str]:
    """Texts of the files that a program finds in its work folder, by name."""
    where = f"the description of {description.name}"
    # Their optimizers are made from what the program asks for, and need not be one that DeepSpeed knows.
    engine = {**deepspeed_config(workload), "zero_allow_untested_optimizer": True}
    own = {name: systems.filled(text, values, where=f"{where}, {name}") for name, text in description.files.items()}
    return {**own, f"{ZERO3}.json": json.dumps(engine, indent=1)}


def placeholders(
    workload: Workload,
    given: Exported | None,
    *,
    folder: Path,
    work: Path,
    cache: Path,
    python: str,
    device: str,
    cores: int,
) -> dict[str, str]:
    """What a description's placeholders stand for."""
    micro_steps = workload.warmup + workload.steps
    steps = math.ceil(micro_steps / workload.accumulation)

    def said(truth: bool) -> str:
        return "true" if truth else "false"

    places = dict(zip(systems.EXPORTED, ("model", "tokens", "parquet/train.parquet", "parquet"), strict=True))
    return {
        "python": python,
        "bin": str(Path(python).parent),
        "described": str(folder),
        "work": str(work),
        "cache": str(cache),
        **({name: str(given.folder / place) for name, place in places.items()} if given else {}),
        ZERO3: str(work / f"{ZERO3}.json"),
        "case": workload.case,
        "model_name": workload.model,
        "sequence": str(workload.sequence),
        "ranks": str(workload.ranks),
        "sp": str(workload.sp),
        "accumulation": str(workload.accumulation),
        "optimizer_steps": str(steps),
        "micro_steps": str(steps * workload.accumulation),
        "learning_rate": repr(LEARNING_RATE),
        "warmup_steps": str(warmup_steps(steps)),
        "bf16": said(workload.dtype == "bf16"),
        "use_cpu": said(device == "cpu"),
        "device": device,
        "backend": "nccl" if device == "cuda" else "gloo",
        # As a rank of the native trainer, which has one core on a CPU.
        "threads": "1" if device == "cpu" else str(max(1, cores // workload.ranks)),
    }


def samples_of(claimed: ReportedSteps, workload: Workload, *, place: str, peak_memory_bytes: int) -> RankSamples:
    """What a program claims, in this suite's steps: an optimizer step's time, its optimizer included, is shared by its
    micro-steps.

    Raises:
        RunFailed: where it logged other steps than were asked for.
    """
    wanted = math.ceil((workload.warmup + workload.steps) / workload.accumulation)
    if len(claimed.seconds) != wanted:
        raise RunFailed(f"expected a record of each of {wanted} optimizer steps, got {len(claimed.seconds)}")
    count = workload.warmup + workload.steps

    def spread(values: Sequence[float], share: int) -> list[float]:
        return [value / share for value in values for _ in range(workload.accumulation)][:count]

    seconds = spread(claimed.seconds, workload.accumulation)
    return RankSamples(
        rank=0,
        place=place,
        warmup_seconds=seconds[: workload.warmup],
        seconds=seconds[workload.warmup :],
        data_seconds=None,
        optimizer_seconds=[],
        losses=None if claimed.losses is None else spread(claimed.losses, 1),
        peak_memory_bytes=max(1, peak_memory_bytes),
    )


def claim_faults(claimed: ReportedSteps, workload: Workload, *, wall: float, seen: Sequence[float]) -> list[str]:
    """Why what a program claims cannot be true: another number of tokens, or a speed that the wall clock denies.

    All its tokens over the whole life of the process are the least that it can have reached; the tokens of the steps
    that its output showed one after the other, over that time, the most.

    Args:
        claimed: seconds and tokens of each optimizer step.
        workload: what it was asked to train.
        wall: seconds that the process lived.
        seen: seconds after its start at which its output showed each step.
    """
    tokens = workload.rank_tokens * workload.accumulation
    for step, got in enumerate(claimed.tokens or ()):
        if abs(got - tokens) > 0.01 * tokens:
            return [f"expected {tokens} tokens a rank in optimizer step {step}, got {got:g}: another job was trained"]
    least = tokens * len(claimed.seconds) / wall
    later = claimed.seconds[1:]
    most = math.inf
    shown = seen[-1] - seen[0] if len(seen) > 1 else 0.0
    if later and shown > CLOCK_SECONDS:
        most = tokens * (len(seen) - 1) / max(shown * (1 - CLOCK_SHARE) - CLOCK_SECONDS, 1e-9)
    reached = tokens * len(later) / sum(later) if later else tokens / claimed.seconds[0]
    if least <= reached <= most:
        return []
    return [
        f"claims {reached:.1f} tokens per GPU per second, and the wall clock allows {least:.1f} (all tokens over "
        f"{wall:.1f} s of the process) to {most:.1f} (between its first and its last step's line)"
    ]
