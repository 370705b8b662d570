"""The step loop: the suite's own code in a rank. Calls the trainer's parts, times them, writes what it saw.

Inside a rank, loaded by path from the judging checkout; imports nothing else of `trainpace`. The trainer comes from the
measured checkout and has no clock. What a rank writes, whatever launched it, stands in protocol.py.
"""

import gc
import importlib
import math
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from . import load
from .batch import Tokens
from .imports import Own
from .lines import Write, write_lines
from .protocol import Own as Sides
from .protocol import RunRequest

_keep: list[Any] = []  # the rendezvous store lives as long as rank 0


class Clock(Protocol):
    """Marks points on the timeline that the step's work runs on."""

    behind: int
    """Steps that may be issued and not done yet when the next one is issued."""

    def mark(self) -> Any:
        """A point behind the work issued so far."""

    def wait(self, mark: Any) -> None:
        """Wait for what was issued before `mark`, and not for what was issued since."""

    def synchronize(self) -> None:
        """Wait for everything issued."""

    def seconds(self, begin: Any, end: Any) -> float:
        """From one mark to another, both of which have happened."""

    def reset_peak(self) -> None:
        """Start the peak of memory anew."""

    def peak_bytes(self) -> int:
        """Largest memory since `reset_peak`."""


class CpuClock:
    """Host time: on a CPU, a call that returned is done."""

    behind = 0

    def mark(self) -> float:
        """Now, in seconds."""
        return time.perf_counter()

    def wait(self, mark: float) -> None:
        """It has happened."""

    def synchronize(self) -> None:
        """Nothing is outstanding on a CPU."""

    def seconds(self, begin: float, end: float) -> float:
        """From one mark to another."""
        return end - begin

    def reset_peak(self) -> None:
        """Start the peak of resident memory anew."""
        with suppress(OSError):  # where it is refused, the peak includes the start-up
            Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Largest resident memory since `reset_peak`."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("/proc/self/status has no VmHWM line")


class AcceleratorClock:
    """Events on the current stream: one synchronisation at a window's end, none inside to hide host time."""

    behind = 1

    def __init__(self, torch: Any) -> None:
        """`torch` is the module: it knows which accelerator this rank has."""
        self._torch = torch

    def mark(self) -> Any:
        """An event recorded behind the work issued so far."""
        event = self._torch.Event(enable_timing=True)
        event.record()
        return event

    def wait(self, mark: Any) -> None:
        """Wait for an event; the queue behind it goes on."""
        mark.synchronize()

    def synchronize(self) -> None:
        """Wait for everything issued."""
        self._torch.accelerator.synchronize()

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two events, both of which have happened."""
        return float(begin.elapsed_time(end)) / 1e3

    def reset_peak(self) -> None:
        """Start the peak of allocated memory anew."""
        self._torch.accelerator.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """Largest memory allocated since `reset_peak`."""
        return int(self._torch.accelerator.max_memory_allocated())


def main(request: RunRequest, rank: int, local_rank: int) -> int:
    """Run one rank of `request` to its end. Returns the exit code; an exception is written to the rank's lines."""

    def train(write: Write) -> int:
        _train(request, rank, local_rank, write)
        return 0

    return write_lines(request["folder"], rank, train)


def _train(request: RunRequest, rank: int, local_rank: int, write: Write) -> None:
    workload = namespace(request["workload"])
    uses_torch = "torch" in sys.modules
    if uses_torch:
        _rendezvous(Path(request["folder"]), rank, workload.ranks)
    clock: Clock = CpuClock()
    if request["device"] != "cpu":
        import torch

        torch.accelerator.set_device_index(local_rank)
        clock = AcceleratorClock(torch)
    elif uses_torch:
        import torch

        torch.set_num_threads(max(1, len(os.sched_getaffinity(0))) if request["pin"] else 1)
    module, _, name = request["trainer"].partition(":")
    found = getattr(importlib.import_module(module), name)
    trainer = found() if isinstance(found, type) else found
    context = SimpleNamespace(
        workload=workload,
        rank=rank,
        local_rank=local_rank,
        world_size=workload.ranks,
        device=request["device"],
        data=namespace(request["data"]),
        cache=Path(request["cache"]),
        note=lambda text: write("note", text=text),
    )
    trainer.setup(context)
    write("set-up")
    if request.get("injected"):
        trainer = _Slowed(trainer, clock, request["injected"])
    window = measure(trainer, workload, clock, write, watch=request["watch"], enough=Enough.of(request, workload))
    for step, loss in enumerate(window["losses"]):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step} (0 is the first of the warm-up)")
    write(
        "samples",
        rank=rank,
        place=_place(request["device"], local_rank),
        data=getattr(trainer, "data_identity", None),
        trained_on=getattr(trainer, "trained_on", ()),
        mean_attended=getattr(trainer, "mean_attended", None),
        flops_per_step=_flops_per_step(trainer),
        kernels=getattr(trainer, "kernels", {}),
        notes=getattr(trainer, "notes", ()),
        compile_seconds=_compile_seconds(),
        imported=_imported(module, request.get("own")),
        **window,
    )
    if request.get("count_flops"):
        counter = importlib.import_module(".counted", __package__)
        write("counted", **counter.count(trainer, workload.warmup + workload.steps))
    if (wanted := request.get("profile")) is not None:
        profiler = importlib.import_module(".profile", __package__)
        first = workload.warmup + workload.steps
        trace = Path(wanted["folder"]) / f"trace-rank-{rank}.json.gz"
        write("profile", **profiler.profile(trainer, workload, first, trace, request["device"]))
    if uses_torch and sys.modules["torch"].distributed.is_initialized():
        sys.modules["torch"].distributed.barrier()
        sys.modules["torch"].distributed.destroy_process_group()


def _flops_per_step(trainer: Any) -> float | None:
    """What a trainer says of its micro-steps; None where it says nothing.

    Raises:
        TypeError: where that is no number above 0.
    """
    said = getattr(trainer, "flops_per_step", None)
    said = said() if callable(said) else said
    if said is None:
        return None
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise TypeError(f"flops_per_step must be the FLOPs of a micro-step, a number above 0, got {said!r:.80}")
    return number


class Enough:
    """Ends a run of long steps as soon as no further step can change what is said of it.

    A run's value is a median, and of a median of N numbers k known ones leave a range: what is still unknown may lie
    below all of them, or above. Where the range of the slowest rank, the optimizer's share included, lies on one side
    of every border between two verdicts, more steps decide nothing.
    """

    def __init__(
        self,
        borders: list[float],
        steps: int,
        accumulation: int,
        agree: Callable[[list[float]], list[float]],
        *,
        own: bool = False,
    ) -> None:
        """
        Args:
            borders: seconds of a micro-step, its share of the optimizer included, at which the verdict changes.
            steps: measured steps in all.
            accumulation: micro-steps that share an optimizer step.
            agree: gives the largest of each number over all ranks, to all of them.
            own: whether it is a user's trainer, of whose groups the last micro-step has a median apart
                (trainpace.runs.metrics).
        """
        self._borders, self._steps, self._accumulation, self._agree = borders, steps, accumulation, agree
        self._apart = own and accumulation > 1 and steps >= accumulation

    @classmethod
    def of(cls, request: RunRequest, workload: Any) -> "Enough | None":
        """As the request asks; None where it does not, or a rank cannot hear of the others."""
        torch = sys.modules.get("torch")
        if not request.get("borders") or torch is None or not torch.distributed.is_initialized():
            return None
        # Ranks agree through the host: on the device it would stand in the queue behind the step that was just issued.
        group = torch.distributed.new_group(backend="gloo") if request["device"] != "cpu" else None

        def agree(numbers: list[float]) -> list[float]:
            found = torch.tensor(numbers, dtype=torch.float64)
            torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX, group=group)
            return [float(number) for number in found.tolist()]

        own = ":" in workload.trainer and not workload.trainer.endswith(".toml")
        return cls(request["borders"], workload.steps, workload.accumulation, agree, own=own)

    def reached(self, seconds: list[float], optimizer: float) -> bool:
        """Whether the verdict is certain after these steps; the same on every rank, which all must ask.

        Args:
            seconds: of the steps measured so far on this rank.
            optimizer: seconds of an optimizer step, at most.
        """
        low, high = self._range(seconds)
        low, high = self._agree([low, high + optimizer / self._accumulation])
        return not any(low <= border <= high for border in self._borders)

    def _range(self, seconds: list[float]) -> tuple[float, float]:
        """Between what the seconds of a micro-step lie that the whole run will be said to have."""
        if not self._apart:
            return median_range(seconds, self._steps)
        of_group = self._accumulation
        ends, share, groups = slice(of_group - 1, None, of_group), 1 / of_group, self._steps // of_group
        last, others = seconds[ends], list(seconds)
        del others[ends]
        low, high = median_range(others, self._steps - groups)
        low_last, high_last = median_range(last, groups)
        return share * low_last + (1 - share) * low, share * high_last + (1 - share) * high


def median_range(known: list[float], total: int) -> tuple[float, float]:
    """Between what the median of `total` positive numbers lies, of which some are known."""
    ordered, unknown = sorted(known), total - len(known)
    below, above = [0.0] * unknown + ordered, ordered + [math.inf] * unknown
    return statistics.median(below), statistics.median(above)


def measure(
    trainer: Any,
    workload: Any,
    clock: Clock,
    write: Write,
    *,
    watch: list[int],
    enough: Enough | None = None,
) -> dict[str, Any]:
    """Warm up, then time `workload.steps` steps, or as many as are `enough`.

    The optimizer steps after every `accumulation`-th measured step, and besides after the last step of the warm-up (its
    first step allocates its states) and the last measured one (so that every run times at least one).

    Whether it is enough is asked when a step was issued, of the steps that are done by then: on an accelerator those
    before it. Nothing waits for the step itself: a run that ends early is timed as one that does not. Of a trainer with
    `whole_groups` it is asked where its optimizer can step.

    Losses are read inside the window: work that somebody does only when its loss is asked for is done there.

    Returns:
        Seconds of each part and step, losses, tokens, peak bytes; on a CPU the load of its cores over the window.

    Raises:
        TypeError: where a loss is no number.
    """
    losses: list[Any] = []
    tokens = Tokens(trainer)
    on_cpu = isinstance(clock, CpuClock)  # elsewhere the driver tells who else used the device
    whole_groups = getattr(trainer, "whole_groups", False)
    warmup: list[Step] = []
    first_optimizer: tuple[Any, Any] | None = None
    for step in range(workload.warmup):
        warmup.append(_step(trainer, clock, losses, step))
        last = step == workload.warmup - 1
        if last:  # its line opens the window on the judging side's clock: what is not measured comes before
            first_optimizer = _optimize(trainer, clock)
            gc.collect()
            _barrier(clock)
            clock.reset_peak()
            begin = load.look(processes=on_cpu)
        _stepped(clock, write, step)
    measured: list[Step] = []
    optimizer: list[tuple[Any, Any]] = []
    yardsticks = []
    for step in range(workload.steps):
        measured.append(_step(trainer, clock, losses, workload.warmup + step, tokens))
        last = step == workload.steps - 1
        done = measured[: len(measured) - clock.behind]
        ends = (step + 1) % workload.accumulation == 0
        if enough is not None and done and not last and (ends or not whole_groups):
            assert first_optimizer is not None
            clock.wait(done[-1].end)
            # The warm-up's optimizer step, which allocates, is slower than any other.
            last = enough.reached([clock.seconds(*each.marks) for each in done], clock.seconds(*first_optimizer))
        if ends or last:
            optimizer.append(_optimize(trainer, clock))
        _stepped(clock, write, workload.warmup + step)
        if on_cpu:  # between steps, outside of what is timed
            yardsticks.append(yardstick())
        if last:
            break
    clock.synchronize()
    numbers = _numbers(losses)
    write("measured")  # and this one closes it
    end = load.look(processes=on_cpu)
    return {
        "warmup_seconds": [clock.seconds(*each.marks) for each in warmup],
        "seconds": [clock.seconds(*each.marks) for each in measured],
        "data_seconds": [each.data_seconds for each in measured],
        "optimizer_seconds": [clock.seconds(*marks) for marks in optimizer],
        "losses": numbers,
        "tokens": tokens.seen(),
        "yardstick_seconds": statistics.median(yardsticks) if yardsticks else None,
        "peak_memory_bytes": clock.peak_bytes(),
        **load.between(begin, end, watch),
    }


def yardstick() -> float:
    """Seconds that a fixed piece of work takes: what a core gives at this moment.

    A plain loop of the interpreter notices at once when somebody else's work shares the core from outside this machine
    (the other thread of the core, given to another guest of the same host), which no counter here shows.
    """
    begin, total = time.perf_counter(), 0
    for value in range(10_000):
        total += value * value
    return time.perf_counter() - begin


def _numbers(losses: list[Any]) -> list[float]:
    """Losses as the trainer returned them, read."""
    numbers = []
    for step, loss in enumerate(losses):
        try:
            numbers.append(float(loss))
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"forward_backward must return the loss, one number, got {loss!r:.80} at step {step}"
            ) from None
    return numbers


class Step(NamedTuple):
    """One micro-step without its optimizer."""

    begin: Any
    """A mark before it."""
    end: Any
    """A mark behind its backward."""
    data_seconds: float
    """That loading took."""

    @property
    def marks(self) -> tuple[Any, Any]:
        """At its two ends."""
        return self.begin, self.end


def _step(trainer: Any, clock: Clock, losses: list[Any], step: int, tokens: Tokens | None = None) -> Step:
    """Issue one micro-step without its optimizer.

    What `tokens` looks at is shapes, and takes microseconds; after the forward the batch may have been taken apart.
    """
    begin = clock.mark()
    loading = time.perf_counter()
    batch = trainer.load(step)
    loaded = time.perf_counter()
    if tokens is not None:
        tokens.look(step, batch)
    losses.append(trainer.forward_backward(batch))
    return Step(begin, clock.mark(), loaded - loading)


def _optimize(trainer: Any, clock: Clock) -> tuple[Any, Any]:
    """An optimizer step; marks at its two ends: between it and the backward the ranks may have agreed on an end."""
    begin = clock.mark()
    trainer.optimizer_step()
    return begin, clock.mark()


def _stepped(clock: Clock, write: Write, step: int) -> None:
    """Say that a step was issued."""
    if step == 0:
        clock.synchronize()  # the judging side ends the start-up here
    write("step", step=step)


class _Slowed:
    """A trainer slowed by a share of each step: what a self-test must find."""

    def __init__(self, trainer: Any, clock: Clock, share: float) -> None:
        self._trainer, self._clock, self._share = trainer, clock, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)  # the other parts, and what it says of its data

    def forward_backward(self, batch: Any) -> Any:
        self._clock.synchronize()  # on a GPU, sleeping while work is queued would slow nothing
        begin = time.perf_counter()
        loss = self._trainer.forward_backward(batch)
        self._clock.synchronize()
        time.sleep(self._share * (time.perf_counter() - begin))
        return loss


MAPPINGS = ("config", "thresholds")
"""Fields whose names are no fields of ours: they stay mappings, `**shape.config`."""


class _Mapping(dict[str, Any]):
    """A mapping whose values are attributes too, as older trainers read them."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.__dict__ = self


def namespace(value: Any) -> Any:
    """Nested JSON objects as attributes; a newer judging side's extra fields do no harm."""
    if not isinstance(value, dict):
        return value
    return SimpleNamespace(
        **{
            key: _Mapping(inner) if key in MAPPINGS and isinstance(inner, dict) else namespace(inner)
            for key, inner in value.items()
        }
    )


def _rendezvous(folder: Path, rank: int, ranks: int) -> None:
    """Make `torch.distributed.init_process_group()` work as under torchrun, without a port that another could take.

    Rank 0 opens torch's store on a port that the kernel chooses and publishes it in the run's folder, where an empty
    file waits for it; every rank then connects as a client, which is how torchrun's own agent store is used.
    """
    from torch.distributed import TCPStore

    published = folder / "rendezvous"
    if rank == 0:
        address = os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        store = TCPStore(address, 0, None, is_master=True, wait_for_workers=False)
        _keep.append(store)
        # Written and not moved there: another machine sees the new content of a file sooner than a new file.
        published.write_text(f"{address} {store.port}\n")
    while not (said := published.read_text()).endswith("\n"):
        time.sleep(0.005)
    address, port = said.split()
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=port,
        WORLD_SIZE=str(ranks),
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT="0",
        TORCHELASTIC_RUN_ID=folder.name,
    )


def _barrier(clock: Clock) -> None:
    """All ranks enter the measured window together, with nothing outstanding."""
    clock.synchronize()
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.barrier()
        clock.synchronize()


def _imported(module: str, own: Sides | None) -> list[str]:
    """The file of the trainer's module, if it has one, and files of others that lie in the other side's checkout."""
    found = getattr(sys.modules[module], "__file__", None)
    if module.partition(".")[0] == __package__:  # the preflight's: no side's
        return []
    strays = Own(own["checkout"], own["apart"]).strays() if own else []
    return [*([found] if isinstance(found, str) else []), *strays]


def _compile_seconds() -> float:
    dynamo = sys.modules.get("torch._dynamo.utils")
    return float(dynamo.calculate_time_spent().get("total_wall_time", 0.0)) if dynamo is not None else 0.0


def _place(device: str, local_rank: int) -> str:
    if device != "cpu":
        import torch

        uuid = torch.get_device_module(device).get_device_properties(local_rank).uuid
        return f"{_node()}/GPU-{uuid}, cpu {ranges(os.sched_getaffinity(0))}"
    return f"{_node()}/cpu {','.join(map(str, sorted(os.sched_getaffinity(0))))}"


def ranges(numbers: Iterable[int]) -> str:
    """`0-3,8` of 0, 1, 2, 3 and 8."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in found)


def _node() -> str:
    return os.environ.get("TRAINPACE_NODE") or socket.gethostname()
