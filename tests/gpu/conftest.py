"""What a GPU runs, on a GPU where there is one; what is not CUDA's own also on the CPU, so that it is known to work."""

from pathlib import Path

import pytest
import torch

NO_GPU = "no GPU here: what only a GPU can tell is not tested"


def pytest_collection_modifyitems(config, items):
    """Without a GPU the first test that needs one is skipped, which says so in one line; the others are left out."""
    if torch.accelerator.is_available():
        return
    first, *others = [item for item in items if _needs_gpu(item)] or [None]
    if first is not None:
        first.add_marker(pytest.mark.skip(reason=NO_GPU))
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)


def _needs_gpu(item):
    if not item.path.is_relative_to(Path(__file__).parent):
        return False
    parameters = getattr(item, "callspec", None)
    return "gpu" in item.fixturenames or (parameters is not None and parameters.params.get("device") == "cuda")


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """What a test runs on, one after the other."""
    return request.param


@pytest.fixture
def gpu():
    """For what is CUDA's own."""
    return "cuda"


@pytest.fixture(autouse=True)
def one_thread():
    """As a rank has on a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
