"""What makers promise of their GPUs, and the peak that follows for a dtype."""

from dataclasses import dataclass

from trainpace.cases.machine import Device
from trainpace.cases.workload import Dtype


@dataclass(frozen=True)
class Datasheet:
    """What a maker promises of one GPU. Dense figures: without structured sparsity."""

    bf16_tflops: float | None
    """None for a card whose tensor cores have no bf16."""
    tf32_tflops: float
    """Of a card without TF32: its fp32."""
    memory_bytes_per_second: float
    link_bytes_per_second: float
    """One direction, to the other GPUs of a node: NVLink, or PCIe for a card that no switch joins to all others."""
    source: str
    memory_bytes: float | None = None
    """None where no step was ever predicted for it; so are the two below."""
    node_bytes_per_second: float | None = None
    """One direction, one GPU's share of the network between nodes, in the maker's own system of eight."""
    node_source: str = ""


# By slug. A GPU that is missing here has no peak: add its line, with the source of its figures. Where the maker's own
# text could not be read at the time of writing, the source names who prints its table.
_BLACKWELL_ULTRA = "per GPU, dense, at https://verda.com/blog/gb300-nvl72-architecture; HBM 8 TB/s, NVLink 1.8 TB/s"
_GPUMAP = "github.com/lamonoai/gpumap, nvidia/GPU.md, accumulating in fp32, without sparsity"
_LIGHTNING = "as pytorch-lightning cites it (fabric/utilities/throughput.py): fp16 tensor cores, no bf16"
DATASHEETS = {
    "a100-sxm4-40gb": Datasheet(
        312,
        156,
        1.555e12,
        300e9,
        "NVIDIA A100 datasheet, 2020: SXM",
        memory_bytes=40 * 2**30,
        node_bytes_per_second=25e9,
        node_source="NVIDIA DGX A100 datasheet: eight ConnectX-6, 200 Gb/s each",
    ),
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
    "a800-pcie-80gb": Datasheet(
        312, 156, 1.935e12, 32e9, "as the A100's: only NVLink differs (https://aiwiki.ai/wiki/nvidia_a800)"
    ),
    "a30": Datasheet(165, 82.6, 0.933e12, 32e9, _GPUMAP),
    "a40": Datasheet(
        149.7, 74.8, 0.696e12, 32e9, "NVIDIA A40 datasheet, whose table ecer.com prints: 149.7 | 299.4 with sparsity"
    ),
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
    # A cluster's own kind, which no datasheet has; 500 W of 700 is a limit of clocks, and so of what is reached.
    "h100-sxm5-96gb-hbm2e": Datasheet(
        989.4,
        494.7,
        2.4e12,
        450e9,
        "memory as torchtitan states it (benchmarks/llama3_h100_202412_torchtitan.md: HBM2e, limited to 500 W), the "
        "other figures the H100 SXM5's",
        memory_bytes=96e9,
        node_bytes_per_second=50e9,
        node_source="torchtitan's benchmarks: 400 Gb/s RDMA a GPU",
    ),
    "h100-pcie-80gb": Datasheet(756, 378, 2.0e12, 64e9, "NVIDIA Hopper whitepaper: PCIe Gen5, 128 GB/s both ways"),
    "h100-nvl-94gb": Datasheet(835.5, 417.5, 3.9e12, 64e9, "NVIDIA H100 datasheet: NVL (sparse figures, halved)"),
    "h800": Datasheet(989.4, 494.7, 3.35e12, 200e9, "NVIDIA H800 datasheet: SXM5, NVLink 400 GB/s both ways"),
    "h20": Datasheet(148, 74, 4.0e12, 450e9, "NVIDIA H20 datasheet"),
    "h20-3e": Datasheet(
        148, 74, 4.8e12, 450e9, "H20's, with 4.8 TB/s: github.com/citsjtu2020/LLM-Prof, hardware_spec.md, H20 of 141 GB"
    ),
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
    "b300": Datasheet(2250, 1125, 8.0e12, 900e9, "NVIDIA HGX B300 (sparse figures of 8, halved); " + _BLACKWELL_ULTRA),
    "gb300": Datasheet(2500, 1250, 8.0e12, 900e9, "NVIDIA GB300 NVL72; " + _BLACKWELL_ULTRA),
    "l40s": Datasheet(362, 183, 0.864e12, 32e9, "NVIDIA L40S datasheet"),
    "l40": Datasheet(
        181.05, 90.5, 0.864e12, 32e9, "NVIDIA L40 datasheet, whose table mullet.se prints: 181.05 | 362.1 with sparsity"
    ),
    "l4": Datasheet(121, 60, 0.3e12, 32e9, "NVIDIA L4 datasheet (sparse figures, halved)"),
    "a10": Datasheet(125, 62.5, 0.6e12, 32e9, "NVIDIA A10 datasheet"),
    "geforce-rtx-4090": Datasheet(165.2, 82.6, 1.008e12, 32e9, "NVIDIA Ada whitepaper, accumulating in fp32"),
    "geforce-rtx-5090": Datasheet(210, 105, 1.792e12, 64e9, _GPUMAP),
    "rtx-6000-ada-generation": Datasheet(364, 182, 0.960e12, 32e9, _GPUMAP),
    "v100-sxm2-16gb": Datasheet(None, 15.7, 0.9e12, 16e9, "NVIDIA V100 datasheet, " + _LIGHTNING),
    "v100-sxm2-32gb": Datasheet(None, 15.7, 0.9e12, 16e9, "NVIDIA V100 datasheet, " + _LIGHTNING),
    "v100-pcie-16gb": Datasheet(None, 14, 0.9e12, 16e9, "NVIDIA V100 datasheet, " + _LIGHTNING),
    "v100-pcie-32gb": Datasheet(None, 14, 0.9e12, 16e9, "NVIDIA V100 datasheet, " + _LIGHTNING),
    "t4": Datasheet(None, 8.1, 0.3e12, 16e9, "NVIDIA T4 datasheet, " + _LIGHTNING),
}
OF_ONE_CLUSTER = ("h100-sxm5-96gb-hbm2e",)
"""Cards that no maker sells by these figures: nobody means them by the beginning of a name."""
UNKNOWN = (
    "A10G",
    "GB10",
    "GH200 120GB",
    "GeForce RTX 4090 D",
    "H100 96GB",
    "H800 PCIe",
    "RTX PRO 6000 Blackwell",
)
"""Cards that people rent and whose dense figures were looked for: nobody was found who prints the maker's, or two
sources contradict each other (A10G: 62.5 and 125 TFLOPs)."""


def peak_tflops(device: Device, dtype: Dtype) -> float | None:
    """Dense TFLOP/s that one device can do at most; None where that is not known or it lacks the dtype: never a guess.

    `fp32` gives the TF32 figure: a trainer may let its fp32 matrix products run so, and no fp32 step can be faster.
    """
    sheet = DATASHEETS.get(device.kind_slug)
    if sheet is None:
        return None
    return sheet.bf16_tflops if dtype == "bf16" else sheet.tf32_tflops
