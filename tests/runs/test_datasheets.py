"""What makers promise, by the names that this suite gives their GPUs."""

import pytest

from trainpace.cases.machine import Device
from trainpace.probe.device import GPU_ALIASES
from trainpace.runs.datasheets import DATASHEETS, peak_tflops


def device(slug: str) -> Device:
    return Device(slug=slug, name=slug, kind="cuda", count=8, memory_bytes=1)


@pytest.mark.parametrize(
    ("slug", "dtype", "expected"),
    [
        ("a100-sxm4-80gb", "bf16", 312),
        ("a100-sxm4-80gb", "fp32", 156),
        ("h100-sxm5-80gb", "bf16", 989.4),
        ("h100-pcie-80gb", "bf16", 756),
        ("b200", "bf16", 2250),
        ("a100-sxm4-80gb-mig-3g-40gb", "bf16", None),
        ("cpu-amd-epyc-2c", "bf16", None),
        ("rubin-9000", "bf16", None),
    ],
)
def test_peak_tflops(slug, dtype, expected):
    """A listed GPU has the peak of its datasheet; what is not listed has none, never a guess."""
    assert expected == peak_tflops(device(slug), dtype)


def test_aliases_lead_to_datasheets():
    """Every alias names a GPU that has a datasheet."""
    assert set() == set(GPU_ALIASES.values()) - DATASHEETS.keys()
