"""What is measured on, and whether it can be trusted: identity and health of GPUs and CPUs. Needs no torch.

The reader of NVML hands plain numbers to small pure functions, which alone decide what makes a run invalid.
"""

import math
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pynvml  # type: ignore[import-untyped]

from trainpace.cases.machine import Device, Machine
from trainpace.errors import UsageError
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.run import Health, OtherProcess
from trainpace.text import gib

Findings = tuple[tuple[str, ...], tuple[str, ...]]
"""(faults, notes): sentences that make a run invalid, and sentences that only deserve to be read."""


# Identity

# What a driver calls a card -> what people call it, where the two differ in more than punctuation.
GPU_ALIASES = {
    "a100-sxm-80gb": "a100-sxm4-80gb",
    "a100-80gb-pcie": "a100-pcie-80gb",
    "a800-80gb-pcie": "a800-pcie-80gb",
    "b300-sxm6-ac": "b300",
    "h100-80gb-hbm3": "h100-sxm5-80gb",
    "h100-pcie": "h100-pcie-80gb",
    "h100-nvl": "h100-nvl-94gb",
    "h200": "h200-sxm5-141gb",
    "h200-nvl": "h200-nvl-141gb",
}
_GIT_VARIABLES = ("PATH", "HOME", "USER", "XDG_CONFIG_HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")


def present() -> Machine:
    """Look at the machine: GPUs through NVML (those that CUDA_VISIBLE_DEVICES leaves), the rest through the kernel.

    Raises:
        UsageError: where the driver does not reach a GPU that CUDA would use.
    """
    memory = psutil.virtual_memory()
    total = min(memory.total, cgroup_memory_bytes() or memory.total)
    model, cores = cpu_model(), usable_cores()
    cpu = Device(slug=cpu_slug(model, cores), name=model, kind="cpu", count=cores, memory_bytes=total)
    with _nvml() as available:
        unified = total, min(memory.available, total)
        handles = _visible_handles() if available else []
        gpus, free, notes = _gpus(handles, unified) if available else (None, None, ())
        capability = _asked(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handles[0])) if handles else None
    return Machine(
        gpus=gpus,
        cpu=cpu,
        gpu_free_bytes=free,
        gpu_capability=(capability[0], capability[1]) if capability else None,
        free_bytes=min(memory.available, total),
        notes=notes,
    )


def gpu_uuids() -> tuple[str, ...]:
    """UUIDs of the visible GPUs, in CUDA's order, `lost` of what the driver does not reach; none without a driver."""
    with _nvml() as available:
        return tuple(map(_uuid, _visible_handles())) if available else ()


def gpu_cores(count: int) -> list[list[int]]:
    """Cores beside the memory that each of the first `count` visible GPUs hangs on; empty where that is not told."""
    words = -(-max(os.sched_getaffinity(0)) // 64) + 1
    with _nvml() as available:
        handles = _visible_handles()[:count] if available else []
        cards = [_card_of(handle) or handle for handle in handles]
        masks = [_asked(lambda card=card: pynvml.nvmlDeviceGetCpuAffinity(card, words)) for card in cards]
    return [[bit for bit in range(64 * words) if mask[bit // 64] >> bit % 64 & 1] if mask else [] for mask in masks]


def gpu_links() -> str:
    """What joins the visible GPUs: `nvlink` where the first has a link that is up, else `pcie`; nothing for one."""
    with _nvml() as available:
        handles = _visible_handles() if available else []
        if len(handles) < 2:
            return ""
        links = range(pynvml.NVML_NVLINK_MAX_LINKS)
        up = [_asked(lambda link=link: pynvml.nvmlDeviceGetNvLinkState(handles[0], link)) for link in links]
        return "nvlink" if pynvml.NVML_FEATURE_ENABLED in up else "pcie"


def gpu_slug(name: str) -> str:
    """`NVIDIA A100-SXM4-80GB` -> `a100-sxm4-80gb`; a name that no alias knows keeps its own words.

    A MIG instance is a device of its own: `NVIDIA A100 80GB PCIe MIG 1g.10gb` -> `a100-pcie-80gb-mig-1g-10gb`.
    """
    slug = _slug(re.sub(r"\b(nvidia|tesla)\b", " ", name, flags=re.IGNORECASE))
    card, mig, profile = slug.partition("-mig-")
    return GPU_ALIASES.get(card, card) + mig + profile


def cpu_slug(model: str, cores: int) -> str:
    """`Intel(R) Xeon(R) Gold 6348 CPU @ 2.60GHz`, 2 cores -> `cpu-intel-xeon-gold-6348-2c`."""
    text = re.sub(r"@.*|\((r|tm)\)|\b\d+-core\b|\b(cpu|processor)\b", " ", model, flags=re.IGNORECASE)
    return f"cpu-{_slug(text)}-{cores}c"


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model as the kernel names it; the architecture (`aarch64`) where it names none."""
    with suppress(OSError):
        if named := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE):
            return named[1].strip()
    return platform.machine()


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy: its affinity, and whole cores of the tightest cgroup quota over it."""
    quotas = [float("inf")]
    for text in _cgroup_texts(root, "cpu", "cpu.max"):  # v2: "200000 100000", or "max 100000"
        limit, period = text.split()
        quotas += [] if limit == "max" else [int(limit) / int(period)]
    periods = _cgroup_texts(root, "cpu", "cpu.cfs_period_us")  # v1
    for limit, period in zip(_cgroup_texts(root, "cpu", "cpu.cfs_quota_us"), periods, strict=False):
        quotas += [int(limit) / int(period)] if int(limit) > 0 else []
    return max(1, int(min(len(os.sched_getaffinity(0)), *quotas)))


def cgroup_memory_bytes(root: Path = Path("/")) -> int | None:
    """The tightest memory limit of the cgroups over this process; None without one."""
    texts = _cgroup_texts(root, "memory", "memory.max") + _cgroup_texts(root, "memory", "memory.limit_in_bytes")
    limits = [int(text) for text in texts if text != "max"]
    return min(limits) if limits else None


def revision(folder: Path) -> str | None:
    """The commit of the checkout that holds `folder`, and `+dirty` where tracked files differ; None outside one.

    Baselines are no difference: a refresh changes them from case to case, and trains with none of them.
    """
    git = shutil.which("git")
    if git is None:
        return None
    # Within a git hook the environment names the hook's repository, whichever folder is asked about. And what is
    # measured may have told its repository to start programs (fsmonitor, filters): none is to find a secret there.
    environment = {name: os.environ[name] for name in _GIT_VARIABLES if name in os.environ}

    def said(*arguments: str) -> str | None:
        command = [git, "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = said("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = said(
        "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude,glob)**/baselines/*.json"
    )
    return commit + ("+dirty" if changed else "")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cgroup_texts(root: Path, controller: str, name: str) -> list[str]:
    """Contents of the file `name` in this process's cgroup and in those above it, v2 and v1, innermost first."""
    texts = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number != "0" and controller not in controllers.split(","):
                continue
            mount = root / "sys/fs/cgroup" / controllers
            inner = mount / path.lstrip("/")
            for folder in (inner, *(above for above in inner.parents if above.is_relative_to(mount))):
                with suppress(OSError):
                    texts.append((folder / name).read_text().strip())
    return texts


_opened_by: set[int] = set()


@contextmanager
def _nvml() -> Iterator[bool]:
    """NVML, ready to be asked; False where no driver is installed.

    It stays open until this process ends: without persistence mode each opening of it takes seconds.
    """
    if os.getpid() not in _opened_by:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            yield False
            return
        _opened_by.add(os.getpid())
    yield True


def _visible_handles() -> list[Any]:
    """NVML's handles of the devices that CUDA would show this process, in its order; LOST for what the driver has lost.

    Where a MIG instance is among them it is the only one: CUDA shows a process one instance, the first, and beside it
    no whole GPU (NVIDIA's MIG user guide, "CUDA device enumeration").
    """
    cards = [_card(index) for index in range(pynvml.nvmlDeviceGetCount())]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        named = cards
    else:
        uuids = {_uuid(handle): handle for handle in cards}
        named = []
        for entry in (part.strip() for part in setting.split(",")):
            if entry.isdecimal() and int(entry) < len(cards):
                named.append(cards[int(entry)])
            elif entry.startswith("MIG-") and (found := _asked(lambda: pynvml.nvmlDeviceGetHandleByUUID(entry))):  # noqa: B023
                named.append(found)
            elif entry.startswith("GPU-") and len(known := [uuid for uuid in uuids if uuid.startswith(entry)]) == 1:
                named.append(uuids[known[0]])
            else:  # as CUDA does: an entry that is none hides itself and all that follow
                break
    shown = [device for handle in named for device in _instances(handle)]
    return next(([handle] for handle in shown if _card_of(handle) is not None), shown)


LOST = None
"""In the place of a handle: a GPU that has fallen off the bus, which no question is answered of."""


def _card(index: int) -> Any:
    """The handle of a whole GPU, or LOST.

    Raises:
        pynvml.NVMLError: where the driver fails otherwise.
    """
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        pynvml.nvmlDeviceGetUUID(handle)
    except pynvml.NVMLError_GpuIsLost:
        return LOST
    return handle


def _uuid(handle: Any) -> str:
    return "lost" if handle is LOST else str(pynvml.nvmlDeviceGetUUID(handle))


def _instances(handle: Any) -> list[Any]:
    """The MIG instances of a GPU that is in MIG mode, which may be none; of any other GPU or instance, itself."""
    mode = None if handle is LOST else _asked(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if _card_of(handle) is not None or mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return [handle]
    places = range(_asked(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0)
    found = [_asked(lambda place=place: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)) for place in places]
    return [instance for instance in found if instance is not None]


def _card_of(handle: Any) -> Any:
    """The GPU that a MIG instance is part of; None for a whole GPU."""
    if handle is LOST or not _asked(lambda: pynvml.nvmlDeviceIsMigDeviceHandle(handle)):
        return None
    return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)


def _name(handle: Any) -> str:
    """As the driver gives it; of a MIG instance always with its profile: `NVIDIA A100-SXM4-80GB MIG 1g.10gb`."""
    name = str(pynvml.nvmlDeviceGetName(handle))
    if _card_of(handle) is None or " MIG " in name:
        return name
    parts = _asked(lambda: pynvml.nvmlDeviceGetAttributes(handle))
    profile = f"{parts.gpuInstanceSliceCount}g.{math.ceil(parts.memorySizeMB / 1024)}gb" if parts else "instance"
    return f"{name} MIG {profile}"


def _gpus(handles: Sequence[Any], unified: tuple[int, int]) -> tuple[Device | None, int | None, tuple[str, ...]]:
    """The GPUs up to the first of another kind, the least free memory among them, and what to say about the choice.

    Ranks take devices 0, 1, .. in order, so a GPU behind one of another kind could not be used by itself.

    Args:
        handles: of the GPUs that CUDA shows.
        unified: total and free memory of the machine, bytes: that of a GPU which has none of its own.
    """
    if not handles:
        return None, None, tuple(filter(None, map(_mig_without_instance, range(pynvml.nvmlDeviceGetCount()))))
    if LOST in handles:
        raise UsageError(
            f"GPU {handles.index(LOST)} of {len(handles)} is lost: the driver does not reach it any more (`dmesg` has "
            "its Xid). Restart the machine, or leave that GPU out with CUDA_VISIBLE_DEVICES"
        )
    names = [_name(handle) for handle in handles]
    equal = len(list(takewhile(lambda name: name == names[0], names)))
    memory = [_memory(handle) for handle in handles[:equal]]
    device = Device(
        slug=gpu_slug(names[0]),
        name=names[0],
        kind="cuda",
        count=equal,
        memory_bytes=min((each or unified)[0] for each in memory),
        power_limit_watts=_asked(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handles[0]) / 1000),
    )
    notes = []
    if equal < len(names):
        left = ", ".join(names[equal:])
        notes.append(f"the GPUs are not equal: using {equal} x {names[0]}, leaving {left}; see CUDA_VISIBLE_DEVICES")
    if None in memory:
        notes.append(
            f"the driver tells no memory of {device.name}: it is taken to share the machine's {gib(unified[0], 0)}"
        )
    if _card_of(handles[0]) is not None:
        notes.append(
            f"{device.name} is a MIG instance, and a device of its own: what is known of the whole GPU is not applied"
        )
    elif device.slug not in DATASHEETS:
        notes.append(f"no datasheet for {device.name} ({device.slug}): % of peak and impossible TFLOPs cannot be told")
    elif DATASHEETS[device.slug].bf16_tflops is None:
        notes.append(
            f"{device.name} has no bf16 tensor cores: what computes in bf16 has no peak here, and cannot be fast"
        )
    return device, min((each or unified)[1] for each in memory), tuple(notes)


def _memory(handle: Any) -> tuple[int, int] | None:
    """Total and free memory, bytes; None where the GPU has none of its own and shares the machine's."""
    try:
        info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        return None
    return int(info.total), int(info.free)


def _mig_without_instance(index: int) -> str | None:
    if _instances(_card(index)):
        return None
    return f"GPU {index} is in MIG mode and has no instance: none is used (nvidia-smi mig -lgi lists them)"


def _asked(question: Any) -> Any:
    """The answer of NVML, or None where this card or driver does not know it."""
    try:
        return question()
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        return None


def _first_of(newer: Any, older: Any, handle: Any) -> Any:
    """The answer under a function's name today, else under that which older drivers know it by."""
    answer = _asked(lambda: newer(handle))
    return answer if answer is not None else _asked(lambda: older(handle))


# Health

FOREIGN_CORES_LIMIT = 0.05
"""Of a rank's cores, kept busy by others, above which a CPU run is disturbed: it finds loads of 0.3 (27 of 27)."""

SLOWED_SHARE_LIMIT = 0.01
"""Share of the window that a GPU may be slowed: less cannot move a median by more than the least tolerance, 1 %."""

# NVML's cumulative counters, ns: they see what samples of the event reasons miss between two looks.
_SLOWED_FIELDS = {
    "software power cap": (pynvml.NVML_FI_DEV_PERF_POLICY_POWER,),
    "thermal slowdown": (
        pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
        pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
        pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    ),
    "power brake": (pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,),
    # Not the reliability policy: its voltage limit is what stops a healthy card's boost.
    "hardware slowdown": (pynvml.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT,),
}
_REASON_BITS = {
    "software power cap": pynvml.nvmlClocksThrottleReasonSwPowerCap,
    "thermal slowdown": (
        pynvml.nvmlClocksThrottleReasonSwThermalSlowdown | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
    ),
    "power brake": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    "hardware slowdown": pynvml.nvmlClocksThrottleReasonHwSlowdown,
}
_NO_PID = 2**32 - 1
NORMAL = "software power cap"
"""The one reason for lower clocks that training under load shows on a healthy card."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """What NVML says of one GPU at one moment; None where the card does not say it."""

    name: str
    """`GPU 0`, as CUDA numbers it here."""
    slowed_ns: dict[str, int] = field(default_factory=dict)
    """How long the clock was held down since the driver was loaded, by reason; without what the card does not count."""
    reasons: int = 0
    """Clock event reasons at this moment, NVML's bits."""
    ecc_errors: int | None = None
    """Uncorrected, since the driver was loaded."""
    own: int = 0
    """Number of this session's processes on the GPU."""
    foreign: tuple[int, ...] = ()
    """Processes on the GPU that are not this session's."""
    lost: bool = False
    """The driver does not reach it any more, and says nothing else of it."""
    tells_processes: bool = True
    """Whether the driver says which processes are on it."""
    unnamed: tuple[int, ...] = ()
    """Numbers that the driver gives to processes on the GPU, and that are none here: those of another namespace."""
    clock_mhz: int | None = None
    celsius: int | None = None
    watts: float | None = None

    @property
    def figures(self) -> str:
        """What the sensors read, for a sentence: `1410 MHz, 62 C, 398 W`."""
        known = ((self.clock_mhz, "MHz"), (self.celsius, "C"), (self.watts, "W"))
        return ", ".join(f"{value:.0f} {unit}" for value, unit in known if value is not None) or "no sensors"


def gpu_faults(before: Sequence[GpuState], after: Sequence[GpuState], seconds: float) -> Findings:
    """Judge the GPUs of one window from what was read at its two ends, `seconds` apart, in one order."""
    faults: list[str] = []
    notes: list[str] = []
    for first, last in zip(before, after, strict=True):
        if first.lost or last.lost:
            faults.append(f"{last.name}: lost: the driver does not reach it any more (`dmesg` has its Xid)")
            continue
        if not last.tells_processes:
            notes.append(f"{last.name}: whether another process used it cannot be told: the driver does not say")
        for reason, bit in _REASON_BITS.items():
            said = notes if reason == NORMAL else faults
            if reason in first.slowed_ns and reason in last.slowed_ns:
                share = (last.slowed_ns[reason] - first.slowed_ns[reason]) / 1e9 / seconds
                if share > SLOWED_SHARE_LIMIT:
                    share = min(share, 1)
                    said.append(f"{last.name}: {reason} during {share:.0%} of the window ({last.figures} at its end)")
            elif last.reasons & bit:
                said.append(f"{last.name}: {reason} at the window's end ({last.figures})")
        if first.ecc_errors is not None and last.ecc_errors is not None and last.ecc_errors > first.ecc_errors:
            faults.append(f"{last.name}: {last.ecc_errors - first.ecc_errors} new uncorrected ECC errors")
        if strangers := sorted({*first.foreign, *last.foreign}):
            faults.append(f"{last.name}: used by other processes too (pid {', '.join(map(str, strangers))})")
        elif crowded := next((state for state in (first, last) if len(state.unnamed) > (not state.own)), None):
            # One that has no number here may be this session's rank; more than that are more than were started.
            faults.append(
                f"{last.name}: used by other processes too ({crowded.own + len(crowded.unnamed)} run on it, this "
                "session started one)"
            )
        elif unnamed := first.unnamed or last.unnamed:
            notes.append(
                f"{last.name}: whether another process used it cannot be told: the driver calls its one process "
                f"{unnamed[0]}, which is none in this container (docker run --pid=host, on Kubernetes hostPID)"
            )
    return tuple(faults), tuple(notes)


def cpu_faults(foreign_cores: float | None, others: Sequence[OtherProcess] = ()) -> Findings:
    """Judge the load by other processes over a window.

    Args:
        foreign_cores: cores that they kept busy, of those that a rank ran on; None where it cannot be told.
        others: the processes that kept the most busy, as far as they could be read.
    """
    if foreign_cores is None:
        return (), ("whether other processes disturbed the run cannot be told on this machine",)
    if foreign_cores <= FOREIGN_CORES_LIMIT:
        return (), ()
    named = ", ".join(f"{each.name} (pid {each.pid}) {each.cores:.2f}" for each in others)
    who = f"{named}; end them, or keep them off these cores" if named else "none that still runs and can be seen here"
    said = f"other processes kept {foreign_cores:.2f} of a rank's cores busy (limit {FOREIGN_CORES_LIMIT}): {who}"
    return (said,), ()


class GpuWindow:
    """Watches the first `count` visible GPUs from `open()` to `close()`; without a driver it sees and says nothing.

    Open it before the ranks start or while they run, and close it while the run host still lives: whose
    processes are on a GPU is told by their descent from this one.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._started = 0.0
        self._before: tuple[GpuState, ...] = ()
        self._own: set[int] = set()  # of all looks: a rank that has ended may still stand in the driver's list

    def open(self) -> None:
        """Start the window now; once more, and it starts anew."""
        self._started = time.monotonic()
        self._before = _gpu_states(self.count, self._own)

    def close(self) -> Health:
        """End the window and judge it."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        faults, notes = gpu_faults(self._before, _gpu_states(len(self._before), self._own), seconds)
        return Health(faults=faults, notes=notes)


def _gpu_states(count: int, own: set[int]) -> tuple[GpuState, ...]:
    """Of the first `count` visible GPUs; adds this session's processes to `own`."""
    if not count:  # where there is no GPU to watch, the driver's library is not looked for either
        return ()
    with _nvml() as available:
        if not available:
            return ()
        own |= {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        return tuple(_gpu_state(f"GPU {index}", handle, own) for index, handle in enumerate(_visible_handles()[:count]))


def _gpu_state(name: str, handle: Any, own: set[int]) -> GpuState:
    if handle is LOST:
        return GpuState(name=name, lost=True)
    told = _first_of(
        pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetComputeRunningProcesses_v2, handle
    )
    processes = told or ()
    others = sorted(process.pid for process in processes if process.pid not in own)
    # 0 and 2**32 - 1: what drivers say of a process that the asking namespace does not hold.
    here = [pid for pid in others if 0 < pid < _NO_PID and psutil.pid_exists(pid)]
    card = _card_of(handle) or handle  # clocks and sensors are the whole GPU's
    watts = _asked(lambda: pynvml.nvmlDeviceGetPowerUsage(card))
    return GpuState(
        name=name,
        slowed_ns=_slowed_ns(card),
        reasons=_first_of(
            pynvml.nvmlDeviceGetCurrentClocksEventReasons, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, card
        )
        or 0,
        ecc_errors=_asked(
            lambda: pynvml.nvmlDeviceGetTotalEccErrors(
                card, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            )
        ),
        own=len(processes) - len(others),
        tells_processes=told is not None,
        foreign=tuple(here),
        unnamed=tuple(pid for pid in others if pid not in here),
        clock_mhz=_asked(lambda: pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM)),
        celsius=_asked(lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU)),
        watts=None if watts is None else watts / 1000,
    )


def _slowed_ns(handle: Any) -> dict[str, int]:
    ids = [number for numbers in _SLOWED_FIELDS.values() for number in numbers]
    values = _asked(lambda: pynvml.nvmlDeviceGetFieldValues(handle, ids)) or ()
    known = {value.fieldId: int(value.value.ullVal) for value in values if value.nvmlReturn == pynvml.NVML_SUCCESS}
    # Counters of one reason overlap (the thermal policy counts what either slowdown did): the largest, not the sum.
    return {
        reason: max(known[number] for number in numbers if number in known)
        for reason, numbers in _SLOWED_FIELDS.items()
        if any(number in known for number in numbers)
    }
