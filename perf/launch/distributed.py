"""The judging side's handle on run hosts: asks for fresh process groups, follows their lines, ends what hangs.

Behind the fixture `distributed`. One host serves every run of one interpreter, checkout and kind of device, so that
torch is imported once a session and not once a run.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import perf
from perf.cases.workload import Workload
from perf.files import FileError, check_record, writing
from perf.launch import left
from perf.launch.lines import Lines
from perf.measure.device import SOFTWARE, GpuWindow, Machine, cpu_faults, revision
from perf.measure.run import Device, Health, RankSamples, Run, RunFailed

_HERE = Path(__file__).resolve().parent
_HOST = _HERE / "host.py"
_LOOP = _HERE.parent / "measure" / "loop.py"
_PROFILE = _HERE.parent / "measure" / "profile.py"
_PROTOCOL = 1
_PRELOAD_SECONDS = 300.0
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.05
_LATE_SECONDS = 5.0
"""How much later than a rank's end a shared file system may show its last lines."""
_FULL_BYTES = 1 << 12
"""Less free space than this is none: a line of a rank does not fit."""

Progress = Callable[[int, str], None]
"""Called with the number of steps done and what is being done."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Whose trainer is measured: an interpreter, and the checkout that its imports come from first."""

    python: str = sys.executable
    checkout: Path | None = None
    planted: float = 0.0
    """A slowdown of every step that the step loop adds, a share: what a self-test must find."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the ranks train on."""

    sources: tuple[str, ...] = ()
    """Local files or hub names; none: the generated corpus."""
    tokenizer: str = "bytes"
    seed: int = 0


def trainer_object(trainer: str) -> str:
    """`native` or `package.module:object` as the object that a rank imports.

    Raises:
        ValueError: where it is neither.
    """
    if trainer == "native":
        return "perf.trainers.native:trainer"
    module, colon, name = trainer.partition(":")
    if not (colon and module and name):
        raise ValueError(f"--perf-trainer must be 'native' or 'package.module:object', got {trainer!r}")
    return trainer


class RunHost:
    """One run host process, in a process session of its own. Killed whole, with every rank in it."""

    def __init__(self, side: Side, preload: list[str], device: str, folder: Path, loop: Path = _LOOP) -> None:
        settings = {
            "parent": os.getpid(),
            "launcher": str(_HERE / "local.py"),
            "loop": str(loop),
            "checkout": str(side.checkout) if side.checkout else None,
            "preload": preload,
            "software": list(SOFTWARE),
        }
        name = uuid.uuid4().hex[:8]
        self._mark = left.mark(name)
        self._log = folder / f"host-{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [side.python, str(_HOST), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=_environment(device) | {left.VARIABLE: self._mark},
            )
        assert self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._pending = b""
        self._run_pids: list[int] = []
        self._idle = True
        self.software: dict[str, str] = {}

    @property
    def pid(self) -> int:
        """Of the host; also its process session."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait until the host has preloaded.

        Raises:
            RunFailed: with the host's own words where it could not, or does not speak this protocol.
        """
        answer = self._expect(_PRELOAD_SECONDS)
        if answer["event"] == "refused":
            raise RunFailed(f"the trainer could not be imported: {answer['cause']}", detail=answer["detail"])
        if answer["protocol"] != _PROTOCOL:
            raise RunFailed(f"the run host speaks protocol {answer['protocol']}, expected {_PROTOCOL}")
        self.software = answer["software"]

    def start_run(self, **request: Any) -> None:
        """Ask for a fresh process group."""
        self._idle = False
        self._send(op="run", **request)

    def end_run(self) -> bool:
        """End the run under way, if there is one; False where the host does not say that it ended."""
        if self._idle:
            return True
        try:
            self._send(op="kill")
            deadline = time.monotonic() + _KILL_SECONDS
            while not self._idle and time.monotonic() < deadline:
                self.answers(_POLL_SECONDS)
        except RunFailed:
            return False
        return self._idle

    def _send(self, **request: Any) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def answers(self, wait: float) -> list[dict[str, Any]]:
        """Answers that came within `wait` seconds; as soon as there is one, no more is waited for."""
        if not self._selector.select(wait):
            return []
        assert self._process.stdout
        chunk = os.read(self._process.stdout.fileno(), 1 << 16)
        if not chunk:
            raise self._died()
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        answers = [json.loads(line) for line in lines]
        for answer in answers:
            if answer["event"] == "started":
                self._run_pids = answer["pids"]
            elif answer["event"] == "ended":
                self._run_pids, self._idle = [], True
        return answers

    def kill(self) -> None:
        """End the host and every rank, whatever state they are in."""
        groups = [self._process.pid, *self._run_pids[:1]]
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._process.wait()
        left.end_marked(self._mark)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._selector.close()

    def _expect(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for answer in self.answers(_POLL_SECONDS):
                return answer
        raise RunFailed(f"the run host did not get ready within {seconds:.0f} s", detail=_tail(self._log))

    def _died(self) -> RunFailed:
        code = self._process.wait()
        return RunFailed(f"the run host ended ({describe_exit(code)})", detail=_tail(self._log))


@dataclass(kw_only=True)
class Distributed:
    """Fresh process groups on demand; the object behind the fixture of the same name."""

    machine: Machine
    data: Data = field(default_factory=Data)
    cache: Path
    step_timeout: float
    """Seconds without a line from any rank after which a run has hung."""
    sides: dict[str, Side] = field(default_factory=lambda: {"here": Side()})
    _hosts: dict[tuple[str, str, str], RunHost] = field(default_factory=dict)
    _folder: Path | None = None

    def __enter__(self) -> Self:
        left.sweep()
        self._folder = work_folder()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts.values():
            host.kill()
        self._hosts.clear()
        assert self._folder
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, workload: Workload, *, side: str = "here", progress: Progress = lambda *_: None) -> Run:
        """Train `workload` once in a fresh process group.

        Raises:
            RunFailed: where the run ended without its steps (killed, hung, out of memory, an exception): every process
                of it is gone, `cause` names what happened, `rank` whose fault it was, `detail` its traceback.
        """
        return self._run(workload, side, progress, profile=None)[0]

    def profile(self, workload: Workload, *, side: str, folder: Path) -> dict[str, dict[str, float]]:
        """Train `workload` once, then a few steps more under a profiler; traces are kept in `folder`.

        Returns:
            What perf/measure/profile.py gives of rank 0.

        Raises:
            RunFailed: as `run`.
        """
        _, lines = self._run(workload, side, lambda *_: None, profile=folder)
        found = lines[0].profile or {}
        return {name: found.get(name, {}) for name in ("parts", "operators", "calls")}

    def _run(
        self, workload: Workload, side: str, progress: Progress, *, profile: Path | None
    ) -> tuple[Run, list[Lines]]:
        assert self._folder, "used outside its `with`"
        device = "cpu" if workload.scale == "mini" or self.machine.gpus is None else "cuda"
        host, key = self._host(workload, side, device)
        run_id = uuid.uuid4().hex[:12]
        folder = run_folder(self._folder, run_id)
        began = time.monotonic()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            host.start_run(
                id=run_id,
                folder=str(folder),
                trainer=trainer_object(workload.trainer),
                workload=workload.model_dump(),
                device=device,
                pin=device == "cpu",
                data={"sources": self.data.sources, "tokenizer": self.data.tokenizer, "seed": self.data.seed},
                cache=str(self.cache),
                watch=[os.getpid()],
                planted=self.sides[side].planted,
                profile=None if profile is None else {"module": str(_PROFILE), "folder": str(profile)},
            )
            lines = [Lines(folder / f"rank-{rank}.jsonl", rank) for rank in range(workload.ranks)]
            window = GpuWindow(workload.ranks if device == "cuda" else 0)
            first_step = follow(host, lines, workload, window, progress=progress, step_timeout=self.step_timeout)
            health = health_of(self.machine, device, lines[0].samples or {}, window)
        except RunFailed as error:
            raise explained(error, folder) from None
        finally:
            if not host.end_run():
                host.kill()
                del self._hosts[key]
            shutil.rmtree(folder, ignore_errors=True)
        samples = [rank.samples for rank in lines if rank.samples is not None]
        run = _record(
            run_id,
            started,
            workload,
            samples,
            device=self.machine.gpus if device == "cuda" and self.machine.gpus else self.machine.cpu,
            software=host.software,
            revision=revision(self.sides[side].checkout or Path(perf.__file__).resolve().parent),
            startup_seconds=first_step - began,
            health=health,
        )
        return run, lines

    def _host(self, workload: Workload, side: str, device: str) -> tuple[RunHost, tuple[str, str, str]]:
        preload = [trainer_object(workload.trainer).partition(":")[0]]
        if workload.trainer == "native" and workload.engine == "deepspeed":
            preload.append("deepspeed")
        key = (side, device, ",".join(preload))
        if key not in self._hosts:
            assert self._folder
            host = RunHost(self.sides[side], preload, device, self._folder)
            try:
                host.wait_ready()
            except BaseException:
                host.kill()
                raise
            self._hosts[key] = host
        return self._hosts[key], key


def health_of(machine: Machine, device: str, samples: dict[str, Any], window: GpuWindow) -> Health:
    """Of the measured window: what the GPUs' driver says, or on a CPU who else kept it busy."""
    if device == "cuda":
        return window.close()
    foreign = None
    # Where /proc/stat speaks of more cores than we may use, others' work on those would be called foreign.
    if machine.cpu.count == os.cpu_count() and samples["window_seconds"]:
        foreign = (samples["busy_cpu_seconds"] - samples["own_cpu_seconds"]) / samples["window_seconds"]
    faults, notes = cpu_faults(foreign)
    return Health(foreign_cores=foreign, faults=faults, notes=notes)


def follow(
    host: RunHost,
    lines: list[Lines],
    workload: Workload,
    window: GpuWindow,
    *,
    progress: Progress,
    step_timeout: float,
) -> float:
    """Follow the ranks' lines until all have ended. Returns when the first step was done, monotonic seconds."""
    first_step, last_line = 0.0, time.monotonic()
    while True:
        answers = host.answers(_POLL_SECONDS)
        if sum(rank.read() for rank in lines):
            last_line = time.monotonic()
            step = min(rank.steps for rank in lines)
            if step and not first_step:
                first_step = last_line
            if step <= workload.warmup:
                window.open()  # again with every step of the warm-up: the last one opens the measured window
            progress(step, lines[0].note)
        for answer in answers:
            if answer["event"] == "ended":
                _read_to_the_end(lines, wait=not any(exit_["code"] for exit_ in answer["exits"]))
                _check_exits(answer["exits"], lines)
                return first_step or time.monotonic()
        if time.monotonic() - last_line > step_timeout:
            least = min(rank.progress for rank in lines)
            behind = [rank for rank in lines if rank.progress == least]
            raise RunFailed(
                f"hung: no step from any rank for {step_timeout:.0f} s; the run stands at {behind[0].where()} "
                f"of {workload.warmup + workload.steps} steps (--perf-step-timeout sets the limit)",
                # Ranks at one step wait for each other: which of them is at fault cannot be told.
                rank=behind[0].rank if len(behind) == 1 else None,
            )


def _read_to_the_end(lines: list[Lines], *, wait: bool) -> None:
    """Read what ranks that have ended wrote; where all ended well, `wait` for what a file system shows later."""
    deadline = time.monotonic() + _LATE_SECONDS
    while True:
        for rank in lines:
            rank.read()
        late = any(rank.samples is None and rank.error is None for rank in lines)
        if not (wait and late and time.monotonic() < deadline):
            return
        time.sleep(_POLL_SECONDS)


def _check_exits(exits: list[dict[str, Any]], lines: list[Lines]) -> None:
    """Raise RunFailed for the rank whose fault it was: what dies of the clean-up is nobody's."""
    failed = [exit_ for exit_ in exits if exit_["code"] != 0 and not exit_["killed"]]
    by_signal = [exit_ for exit_ in failed if exit_["code"] < 0]
    errors = sorted((rank.error["time"], rank.rank) for rank in lines if rank.error)
    if by_signal:
        culprit = by_signal[0]
        raise RunFailed(f"{describe_exit(culprit['code'])} at {lines[culprit['rank']].where()}", rank=culprit["rank"])
    if errors:
        rank = lines[errors[0][1]]
        assert rank.error
        kind, message = rank.error["type"], rank.error["message"].strip().partition("\n")[0]
        cause = f"out of memory: {message}" if "OutOfMemory" in kind or kind == "MemoryError" else f"{kind}: {message}"
        raise RunFailed(f"{cause} (at {rank.where()})", rank=rank.rank, detail=rank.error["traceback"])
    if failed:
        raise RunFailed(
            f"{describe_exit(failed[0]['code'])} at {lines[failed[0]['rank']].where()}", rank=failed[0]["rank"]
        )
    for rank in lines:
        if rank.samples is None:
            raise RunFailed(f"ended without its samples at {rank.where()}", rank=rank.rank)


def work_folder() -> Path:
    """A new folder for what runs write; perf/launch/left.py removes it where its suite cannot.

    Raises:
        FileError: where there is no room for it.
    """
    with writing(Path(tempfile.gettempdir())):
        return Path(tempfile.mkdtemp(prefix=f"trainpace-{os.getpid()}-"))


def run_folder(parent: Path, run_id: str) -> Path:
    """A new folder for one run.

    Raises:
        RunFailed: where there is no room for it.
    """
    folder = parent / run_id
    try:
        folder.mkdir()
    except OSError as error:
        raise RunFailed(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


def explained(error: RunFailed, folder: Path) -> RunFailed:
    """`error` with what the ranks printed, and with what they could not even write."""
    cause, disk = error.cause, folder.parent.parent
    if shutil.disk_usage(disk).free < _FULL_BYTES:
        cause += f"; no space is left under {disk}"
    return RunFailed(cause, rank=error.rank, detail=error.detail or rank_logs(folder))


def describe_exit(code: int) -> str:
    """A process's exit code in words."""
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (the kernel's out-of-memory killer, or somebody)"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _record(
    run_id: str,
    started: str,
    workload: Workload,
    samples: list[dict[str, Any]],
    *,
    device: Device,
    software: dict[str, str],
    revision: str | None,
    startup_seconds: float,
    health: Health,
) -> Run:
    """Make the run of what its ranks wrote; a rank whose samples are no samples fails it."""
    first = samples[0]
    fields = {
        "id": run_id,
        "started": started,
        "workload": workload,
        "device": device,
        "software": software,
        "revision": revision,
        "data": first["data"],
        "mean_attended": first["mean_attended"],
        "startup_seconds": startup_seconds,
        "compile_seconds": max(rank["compile_seconds"] for rank in samples),
        "ranks": [{key: rank[key] for key in RankSamples.model_fields} for rank in samples],
        "health": health,
    }
    try:
        return check_record(fields, Run, where="the samples cannot be used")
    except FileError as error:
        cause, _, more = str(error).partition("\n")
        raise RunFailed(cause, detail=more) from None


def _environment(device: str) -> dict[str, str]:
    """The environment of a host; fixed when it starts, before anything is imported."""
    chosen = {
        # One rank a core, pinned; the step loop gives a rank more threads where it has more cores.
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DS_ACCELERATOR": device,
        "DEEPSPEED_LOG_LEVEL": "error",
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML numbers them
    }
    if device == "cpu":
        chosen |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    else:
        # A long sequence's blocks fragment the heap; a user's own setting wins.
        chosen |= {"PYTORCH_ALLOC_CONF": os.environ.get("PYTORCH_ALLOC_CONF", "expandable_segments:True")}
    return os.environ | chosen


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def rank_logs(folder: Path) -> str:
    """The ends of what the ranks of a run printed."""
    return "\n".join(
        f"--- {path.name}\n{_tail(path)}" for path in sorted(folder.glob("rank-*.log")) if path.stat().st_size
    )
