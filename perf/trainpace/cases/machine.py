"""What a case is cut to and measured on: records of a device and of a machine. probe/device.py fills them in."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt

from trainpace.cases.workload import Workload
from trainpace.records import Record


class Device(Record):
    """The GPUs, or the CPU, of a machine. `slug` names the device's baseline file."""

    slug: str
    """`a100-sxm4-80gb`, `cpu-amd-epyc-2c`; with the label of --perf-device-label `cpu-amd-epyc-2c.rack-b`."""
    name: str
    """As the driver or the kernel gives it."""
    kind: str
    """`cuda` or `cpu`."""
    count: PositiveInt
    """GPUs (or CPU cores) present on a node."""
    memory_bytes: PositiveInt
    """Of one GPU, or of the machine where the device is its CPU."""
    power_limit_watts: PositiveFloat | None = None
    """Of one GPU, as the driver enforces it; None for a CPU, or where the driver does not say it."""

    @property
    def kind_slug(self) -> str:
        """`slug` without a label: what datasheets, published rows and locks know the device by."""
        return without_label(self.slug)

    def labelled(self, label: str | None) -> Self:
        """The device as one of a fleet: what is recorded on it is `label`'s. None: as it is."""
        return self if label is None else self.model_copy(update={"slug": f"{self.kind_slug}{_BEFORE_LABEL}{label}"})


_BEFORE_LABEL = "."
"""No slug of a card or a CPU has a dot."""


def without_label(slug: str) -> str:
    """The slug of a device without the label that it may have."""
    return slug.partition(_BEFORE_LABEL)[0]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The devices and the memory that a session may use, of one machine or of several equal ones."""

    gpus: Device | None
    """All of one kind; None without a driver or with none visible."""
    cpu: Device
    """`count` is the cores that affinity and cgroup allow, `memory_bytes` what the cgroup allows."""
    gpu_free_bytes: int | None = None
    """Free memory of the GPU that has least; None without GPUs."""
    gpu_capability: tuple[int, int] | None = None
    """CUDA's compute capability of the GPUs, (8, 0) for an A100; None without GPUs, or where it is not told."""
    free_bytes: int
    """Memory of the machine, in bytes, that new processes can take without swapping."""
    nodes: int = 1
    """Number of machines; `gpus.count` is over all of them, `cpu` is one machine's."""
    network: str = ""
    """Network between the nodes: `infiniband`, `roce` or `ethernet`; empty for a single machine."""
    notes: tuple[str, ...] = ()
    """Sentences for the report on how devices were chosen."""

    @property
    def node_gpus(self) -> int:
        """GPUs of one node; 0 without any."""
        return self.gpus.count // self.nodes if self.gpus else 0

    def kind_for(self, workload: Workload) -> Literal["cpu", "cuda"]:
        """What the ranks of a workload run on here."""
        small = workload.scale == "mini" and workload.mini_on == "cpu"
        return "cpu" if small or self.gpus is None else "cuda"

    def device_for(self, workload: Workload) -> Device:
        """The device that a workload is measured on."""
        return self.gpus if self.gpus and self.kind_for(workload) == "cuda" else self.cpu

    def labelled(self, label: str | None) -> Self:
        """The machine with devices that bear `label`; None: as it is."""
        return replace(self, gpus=self.gpus and self.gpus.labelled(label), cpu=self.cpu.labelled(label))

    @property
    def device(self) -> Device:
        """The device of the largest scale: the GPUs where there are any, else the CPU."""
        return self.gpus or self.cpu
