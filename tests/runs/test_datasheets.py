"""What makers promise, by the names that this suite gives their GPUs."""

from pathlib import Path

import pytest

from trainpace.cases.machine import Device
from trainpace.probe.device import GPU_ALIASES
from trainpace.runs.datasheets import DATASHEETS, UNKNOWN, peak_tflops


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
        ("l40", "bf16", 181.05),
        ("v100-sxm2-16gb", "bf16", None),
        ("v100-sxm2-16gb", "fp32", 15.7),
        ("a100-sxm4-80gb-mig-3g-40gb", "bf16", None),
        ("cpu-amd-epyc-2c", "bf16", None),
        ("rubin-9000", "bf16", None),
    ],
)
def test_peak_tflops(slug, dtype, expected):
    """A listed GPU has the peak of its datasheet; what is not listed has none, never a guess."""
    assert expected == peak_tflops(device(slug), dtype)


def test_figures_are_dense():
    """Tensor cores do twice as much in bf16 as in TF32: a sparse figure beside a dense one would be four times it."""
    sheets = [sheet for sheet in DATASHEETS.values() if sheet.bf16_tflops is not None]

    assert [sheet for sheet in sheets if not 1.9 < sheet.bf16_tflops / sheet.tf32_tflops < 2.1] == []
    assert [sheet for sheet in DATASHEETS.values() if not sheet.source] == []


def test_documented():
    """The page on measuring lists every GPU that has a peak, and those that were looked for in vain."""
    text = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()

    assert [slug for slug in DATASHEETS if f"`{slug}`" not in text] == []
    assert [name for name in UNKNOWN if name not in text] == []


def test_aliases_lead_to_datasheets():
    """Every alias names a GPU that has a datasheet."""
    assert set() == set(GPU_ALIASES.values()) - DATASHEETS.keys()
