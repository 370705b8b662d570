"""What makers promise of their GPUs, and the peak that follows for a dtype."""

from dataclasses import dataclass

from trainpace.cases.machine import Device
from trainpace.cases.workload import Dtype


@dataclass(frozen=True)
class Datasheet:
    """What a maker promises of one GPU. Dense figures: without structured sparsity."""

    bf16_tflops: float
    tf32_tflops: float
    memory_bytes_per_second: float
    link_bytes_per_second: float
    """One direction, to the other GPUs of a node: NVLink, or PCIe for a card that no switch joins to all others."""
    source: str
    memory_bytes: float | None = None
    """None where no step was ever predicted for it; so are the two below."""
    node_bytes_per_second: float | None = None
    """One direction, one GPU's share of the network between nodes, in the maker's own system of eight."""
    node_source: str = ""


# By slug. A GPU that is missing here has no peak: add its line, with the source of its figures.
DATASHEETS = {
    "a100-sxm4-40gb": Datasheet(312, 156, 1.555e12, 300e9, "NVIDIA A100 datasheet, 2020: SXM"),
    "a100-sxm4-80gb": Datasheet(
        312,
        156,
        2.039e12,
        300e9,
        "NVIDIA A100 datasheet, 2021: SXM, NVLink 600 GB/s both ways",
        memory_bytes=80 * 2**30,
        node_bytes_per_second=25e9,
        node_source="NVIDIA DGX A100 datasheet: eight ConnectX-6, 200 Gb/s each",
    ),
    "a100-pcie-40gb": Datasheet(312, 156, 1.555e12, 32e9, "NVIDIA A100 datasheet, 2020: PCIe Gen4, 64 GB/s both ways"),
    "a100-pcie-80gb": Datasheet(312, 156, 1.935e12, 32e9, "NVIDIA A100 datasheet, 2021: PCIe"),
    "a800-sxm4-80gb": Datasheet(312, 156, 2.039e12, 200e9, "NVIDIA A800 datasheet: NVLink 400 GB/s both ways"),
    "h100-sxm5-80gb": Datasheet(
        989.4,
        494.7,
        3.35e12,
        450e9,
        "NVIDIA Hopper whitepaper: SXM5, NVLink 900 GB/s both ways",
        memory_bytes=80 * 2**30,
        node_bytes_per_second=50e9,
        node_source="NVIDIA DGX H100 datasheet: eight ConnectX-7, 400 Gb/s each",
    ),
    "h100-pcie-80gb": Datasheet(756, 378, 2.0e12, 64e9, "NVIDIA Hopper whitepaper: PCIe Gen5, 128 GB/s both ways"),
    "h100-nvl-94gb": Datasheet(835.5, 417.5, 3.9e12, 64e9, "NVIDIA H100 datasheet: NVL (sparse figures, halved)"),
    "h800": Datasheet(989.4, 494.7, 3.35e12, 200e9, "NVIDIA H800 datasheet: SXM5, NVLink 400 GB/s both ways"),
    "h20": Datasheet(148, 74, 4.0e12, 450e9, "NVIDIA H20 datasheet"),
    "h200-sxm5-141gb": Datasheet(
        989.4,
        494.7,
        4.8e12,
        450e9,
        "NVIDIA H200 datasheet: SXM (sparse figures, halved)",
        memory_bytes=141e9,
        node_bytes_per_second=50e9,
        node_source="NVIDIA DGX H200 datasheet: eight ConnectX-7, 400 Gb/s each",
    ),
    "h200-nvl-141gb": Datasheet(835.5, 417.5, 4.8e12, 64e9, "NVIDIA H200 datasheet: NVL (sparse figures, halved)"),
    "gh200-480gb": Datasheet(
        989.4, 494.7, 4.0e12, 450e9, "NVIDIA GH200 datasheet: 96 GB HBM3 (sparse figures, halved)"
    ),
    "gb200": Datasheet(2500, 1250, 8.0e12, 900e9, "NVIDIA GB200 NVL72 datasheet (sparse figures of 72, halved)"),
    "b200": Datasheet(
        2250,
        1125,
        8.0e12,
        900e9,
        "NVIDIA Blackwell brief: HGX B200 (sparse figures, halved)",
        memory_bytes=180e9,
        node_bytes_per_second=50e9,
        node_source="NVIDIA DGX B200 datasheet: eight ConnectX-7, 400 Gb/s each; 1,440 GB of GPU memory",
    ),
    "l40s": Datasheet(362, 183, 0.864e12, 32e9, "NVIDIA L40S datasheet"),
    "l4": Datasheet(121, 60, 0.3e12, 32e9, "NVIDIA L4 datasheet (sparse figures, halved)"),
    "a10": Datasheet(125, 62.5, 0.6e12, 32e9, "NVIDIA A10 datasheet"),
    "geforce-rtx-4090": Datasheet(165.2, 82.6, 1.008e12, 32e9, "NVIDIA Ada whitepaper, accumulating in fp32"),
}


def peak_tflops(device: Device, dtype: Dtype) -> float | None:
    """Dense TFLOP/s that one device can do at most; None where that is not known: never a guess.

    `fp32` gives the TF32 figure: a trainer may let its fp32 matrix products run so, and no fp32 step can be faster.
    """
    sheet = DATASHEETS.get(device.slug)
    if sheet is None:
        return None
    return sheet.bf16_tflops if dtype == "bf16" else sheet.tf32_tflops
