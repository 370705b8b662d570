"""Fresh process groups on demand: asks run hosts for them, follows their lines, makes runs of what they wrote.

Behind the fixture `distributed`. Where a launcher lets hosts last, one serves every run of one interpreter, checkout
and kind of device, so that torch is imported once a session and not once a run.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import trainpace
from trainpace.cases.machine import Machine
from trainpace.cases.workload import Workload
from trainpace.data.base import Data
from trainpace.errors import RunFailed
from trainpace.judge.claims import claim_faults
from trainpace.launch.cluster import Node, counts
from trainpace.launch.follow import Progress, follow
from trainpace.launch.health import NodesWindow, health_of, nodes_health
from trainpace.launch.host_client import Side, host_command
from trainpace.launch.launcher import Launcher, Local
from trainpace.launch.pool import Pool
from trainpace.launch.rank_log import RankLog
from trainpace.probe.device import GpuWindow, gpu_cores, revision
from trainpace.rank.imports import Own
from trainpace.runs.flops import RankFlops, StepFlops, step_flops
from trainpace.runs.run import Health, Preflight, RankSamples, Run, RunNode
from trainpace.stats.tolerance import mean_if_known

_WRITTEN = (RankSamples.model_fields.keys() - {"observed"}) | {
    "data",
    "trained_on",
    "mean_attended",
    "compile_seconds",
    "imported",
    "window_seconds",
    "busy_cpu_seconds",
    "own_cpu_seconds",
    "others",
}
"""What the samples of a rank hold."""


def trainer_object(trainer: str) -> str:
    """`native` or `package.module:object` as the object that a rank imports.

    Raises:
        ValueError: where it is neither.
    """
    if trainer == "native":
        return "trainpace.trainers.native:trainer"
    module, colon, name = trainer.partition(":")
    if not (colon and module and name):
        raise ValueError(f"--perf-trainer must be 'native' or 'package.module:object', got {trainer!r}")
    return trainer


@dataclass(kw_only=True)
class Distributed:
    """Fresh process groups on demand; the object behind the fixture of the same name."""

    machine: Machine
    data: Data = field(default_factory=Data)
    cache: Path
    step_timeout: float
    """Seconds without a line from any rank after which a run has hung."""
    sides: dict[str, Side] = field(default_factory=lambda: {"here": Side()})
    launcher: Launcher = field(default_factory=Local)
    preflight: Preflight | None = None
    """Written into every run, once it is known."""
    keep_logs: Path | None = None
    """Where the folder of every run is kept, by case and run id; None: nowhere."""
    added: Sequence[str] = ()
    """Names of environment variables that ranks are given besides those of environment.py."""
    count_flops: bool = False
    """Whether trainers but the native one train one more micro-step, whose FLOPs are counted."""
    pool: Pool = field(init=False)
    _own_trainers: dict[str, dict[str, bool]] = field(init=False, default_factory=dict)
    """By trainer and side, whether it was imported from the side's checkout."""

    def __post_init__(self) -> None:
        self.pool = Pool(self.launcher, self.keep_logs)

    def __enter__(self) -> Self:
        self.pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.__exit__()

    def run(
        self,
        workload: Workload,
        *,
        side: str = "here",
        progress: Progress = lambda *_: None,
        borders: Sequence[float] = (),
    ) -> Run:
        """Train `workload` once in a fresh process group.

        Args:
            workload: what to train.
            side: whose trainer.
            progress: is told how far it came.
            borders: seconds of a micro-step at which the verdict changes: the run ends as soon as it is certain on
                which side of each it is. Empty: it makes all its steps.

        Raises:
            RunFailed: where the run ended without its steps (killed, hung, out of memory, an exception, a lost node):
                every process of it is gone, `cause` names what happened, `rank` whose fault it was, `detail` its
                traceback.
        """
        return self._run(workload, side, progress, profile=None, borders=borders)[0]

    def _check_trainer(self, trainer: str, samples: dict[str, Any], side: str) -> None:
        """Refuse an installed trainer beside one of the other side's own checkout: it is no side's.

        Raises:
            RunFailed: naming the file.
        """
        if not self.sides[side].apart or not samples["imported"]:
            return
        file, checkout = Path(samples["imported"][0]).resolve(), self.sides[side].checkout
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        own = self._own_trainers.setdefault(trainer, {})
        own[side] = checkout is not None and file.is_relative_to(checkout.resolve()) and not installed
        if not own[side] and any(own.values()):
            raise RunFailed(
                f"expected the trainer of {checkout}, as the other side's is of its checkout, got {file}, which is "
                "installed and no side's own"
            )

    def profile(self, workload: Workload, *, side: str, folder: Path) -> dict[str, dict[str, float]]:
        """Train `workload` once, then a few steps more under a profiler; traces are kept in `folder`.

        Returns:
            What rank/profile.py gives of rank 0.

        Raises:
            RunFailed: as `run`.
        """
        _, lines = self._run(workload, side, lambda *_: None, profile=folder)
        found = lines[0].profile or {}
        return {name: found.get(name, {}) for name in ("parts", "operators", "calls")}

    def _run(
        self,
        workload: Workload,
        side: str,
        progress: Progress,
        *,
        profile: Path | None,
        borders: Sequence[float] = (),
    ) -> tuple[Run, list[RankLog]]:
        device = self.machine.kind_for(workload)
        preload = [trainer_object(workload.trainer).partition(":")[0]]
        if workload.trainer == "native" and workload.engine == "deepspeed":
            preload.append("deepspeed")
        many = bool(self.launcher.nodes)
        command = host_command(self.sides[side], preload, device, many=many, added=self.added)
        placed = counts(workload.ranks, workload.nodes)
        with self.pool.run(command, case=workload.case, nodes=workload.nodes, ranks=workload.ranks) as begun:
            begun.start(
                trainer=trainer_object(workload.trainer),
                workload=workload.model_dump(),
                counts=placed,
                device=device,
                pin=device == "cpu",
                gpu_cores=gpu_cores(workload.ranks) if device == "cuda" and not many else [],
                data=asdict(self.data),
                cache=str(self.cache),
                watch=[os.getpid()],
                injected=self.sides[side].injected,
                own=_own(self.sides[side]),
                borders=list(borders),
                count_flops=self.count_flops and workload.trainer != "native",
                profile=None if profile is None else {"folder": str(profile)},
            )
            lines = [
                RankLog(begun.folder / f"rank-{rank}.jsonl", rank, workload.warmup) for rank in range(workload.ranks)
            ]
            window: NodesWindow | GpuWindow
            window = NodesWindow(begun.hosts) if many else GpuWindow(workload.ranks if device == "cuda" else 0)
            first_step = follow(begun.hosts, lines, workload, window, progress=progress, step_timeout=self.step_timeout)
            samples = [_samples_of(rank) for rank in lines]
            _check_imports(samples, self.sides[side])
            self._check_trainer(workload.trainer, samples[0], side)
            nodes = [Node(**begun.hosts.facts[number]) for number in sorted(begun.hosts.facts)]
            if many:
                health = nodes_health(
                    nodes,
                    device,
                    [samples[sum(placed[:node]) : sum(placed[: node + 1])] for node in range(len(nodes))],
                    window.close(),
                )
            else:
                health = health_of(self.machine, device, samples, window.close())
            counted = _counted(lines)
            if isinstance(counted, str):
                health = health.model_copy(update={"notes": (*health.notes, counted)})
            health = _with_notes(health, samples[0])
        run = _claims_checked(
            begun.record(
                workload,
                device=self.machine.device_for(workload),
                first_step=first_step,
                ranks=[{key: rank[key] for key in RankSamples.model_fields} for rank in samples],
                health=health,
                **_facts(samples, workload),
                step_flops=None if isinstance(counted, str) else counted,
                software=begun.hosts.software,
                revision=revision(self.sides[side].checkout or Path(trainpace.__file__).resolve().parent),
                nodes=[
                    RunNode(
                        name=node.name, ranks=count, gpu_uuids=node.gpu_uuids, links=node.links, network=node.network
                    )
                    for node, count in zip(nodes, placed, strict=False)
                ],
                preflight=self.preflight,
            )
        )
        return run, lines


def _samples_of(log: RankLog) -> dict[str, Any]:
    """What a rank measured, and what was seen of it from here.

    Raises:
        RunFailed: where it wrote something else than the step loop writes.
    """
    assert log.samples is not None
    if missing := _WRITTEN - log.samples.keys():
        raise RunFailed(f"expected the samples of the step loop, got none of {sorted(missing)}", rank=log.rank)
    if (observed := log.observed()) is None:
        raise RunFailed("never said that its measured window opened, or that it closed", rank=log.rank)
    return {**log.samples, "rank": log.rank, "observed": observed}


def _with_notes(health: Health, samples: dict[str, Any]) -> Health:
    """`health`, with what the trainer says of itself."""
    if not (said := samples.get("notes")):
        return health
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise RunFailed(f"expected the trainer's notes, a list of sentences, got {said!r:.80}", rank=0)
    return health.model_copy(update={"notes": (*health.notes, *said)})


def _claims_checked(run: Run) -> Run:
    """`run`, with the fault of claims that the judging side's clock denies."""
    if not (found := claim_faults(run)):
        return run
    return run.model_copy(update={"health": run.health.model_copy(update={"faults": (*run.health.faults, *found)})})


def _own(side: Side) -> dict[str, Any] | None:
    """What a rank needs to tell which of its modules are the other side's; None where there is no other side."""
    if not side.apart:
        return None
    return {"checkout": str(side.checkout), "apart": list(map(str, side.apart))}


def _check_imports(samples: list[dict[str, Any]], side: Side) -> None:
    """Refuse a run in which a rank trained with code of the other side's.

    Raises:
        RunFailed: naming the file, and both checkouts.
    """
    if not side.apart:
        return
    own = Own(str(side.checkout), map(str, side.apart))
    for rank in samples:
        if not isinstance(files := rank.get("imported"), list):
            raise RunFailed(f"expected the files of what it imported, got {files!r:.80}", rank=rank["rank"])
        for file in files:
            if other := own.root(file):
                raise RunFailed(
                    f"expected what it imports from its own checkout {side.checkout}, got {file}, which lies in the "
                    f"other side's {other}: take out what names that folder (a line that changes sys.path, a link), or "
                    "give each side an environment of its own with --perf-build",
                    rank=rank["rank"],
                )


def _counted(lines: Sequence[RankLog]) -> StepFlops | str | None:
    """FLOPs of a micro-step, or why they are not known; None where nobody asked.

    Raises:
        RunFailed: where a rank wrote something else than the step loop writes.
    """
    found = [rank.counted for rank in lines if rank.counted is not None]
    if len(found) < len(lines):
        return None
    try:
        ranks = [RankFlops.model_validate(each) for each in found]
    except ValueError as error:
        raise RunFailed(f"expected the FLOPs of a step, got {error}") from None
    counted = step_flops(ranks)
    return f"FLOPs were not counted: {counted}" if isinstance(counted, str) else counted


def _facts(samples: list[dict[str, Any]], workload: Workload) -> dict[str, Any]:
    """Fields of a Run that its ranks tell, besides their samples."""
    first = samples[0]
    made = len(first["seconds"])
    return {
        "stopped_after": made if made < workload.steps else None,
        "data": first["data"],
        "trained_on": first["trained_on"],
        "mean_attended": first["mean_attended"],
        "flops_per_step": mean_if_known(rank.get("flops_per_step") for rank in samples),
        "kernels": first.get("kernels", {}),
        "compile_seconds": max(rank["compile_seconds"] for rank in samples),
    }
