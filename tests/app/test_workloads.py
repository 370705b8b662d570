"""Cases on this machine: GPUs that no rank could run on are refused before anything starts."""

from dataclasses import replace

import pytest

from factories import make_gpus
from trainpace.errors import UsageError
from trainpace.launch import launcher

HERE = make_gpus("a100-sxm4-80gb", gpu_free_bytes=79 << 30, gpu_capability=(8, 0))


@pytest.mark.parametrize(
    ("here", "options", "said"),
    [
        (HERE, ["--perf-dtype", "fp32"], "attention on a GPU needs --perf-dtype bf16, got fp32"),
        (
            replace(HERE, gpu_capability=(7, 0)),
            [],
            "capability 8.0 (A100), NVIDIA a100-sxm4-80gb has 7.0",
        ),
        (replace(HERE, gpu_free_bytes=9 << 30), [], "one has 9 GiB free of 80 GiB: end what uses it (nvidia-smi"),
    ],
)
def test_gpus_that_no_rank_could_run_on(repository, pytester, monkeypatch, here, options, said):
    """A wrong option, an old card, a full one: exit status 4 and what to do, and no case is invalid."""
    monkeypatch.setattr(launcher, "present", lambda: here)
    done = repository.inside(pytester, "--perf-trainer", "native", *options)

    assert done.code == 4, done.text
    assert said in done.text
    assert "invalid" not in done.text


def test_a_machine_that_cannot_be_used(repository, pytester, monkeypatch):
    """A lost GPU ends the session before anything starts, with exit status 4 and the driver's word."""

    def present():
        raise UsageError("GPU 1 of 3 is lost")

    monkeypatch.setattr(launcher, "present", present)
    done = repository.inside(pytester)

    assert done.code == 4, done.text
    assert "GPU 1 of 3 is lost" in done.text
    assert "Error" not in done.text
