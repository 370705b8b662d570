"""Several nodes as one machine: what adds up, what must be equal, what is missing before anything runs."""

import pytest

from factories import CPU
from trainpace.cases.machine import Device
from trainpace.errors import RunFailed
from trainpace.launch.cluster import Node, counts, machine_of, shortages

GPU = Device(slug="a100-sxm4-80gb", name="NVIDIA A100", kind="cuda", count=8, memory_bytes=80 << 30)


def node(name="n1", **overrides):
    """One of many equal ones."""
    fields = {
        "name": name,
        "machine": name,
        "gpus": GPU,
        "gpu_uuids": tuple(f"GPU-{name}-{number}" for number in range(8)),
        "cpu": CPU,
        "cores_present": 2,
        "gpu_free_bytes": 79 << 30,
        "free_bytes": 64 << 30,
        "notes": (),
        "links": "nvlink",
        "network": "infiniband",
        "shared_memory_bytes": 32 << 30,
        "shared_folder_bytes": 1 << 40,
        "clock_ahead": 0.01,
    }
    return Node(**{**fields, **overrides})


def test_gpus_add_up():
    """GPUs are those of all nodes; memory is that of the node that has least."""
    machine = machine_of([node("n1"), node("n2", gpu_free_bytes=70 << 30), node("n3"), node("n4")])

    assert machine.gpus is not None
    assert (machine.gpus.count, machine.node_gpus, machine.nodes) == (32, 8, 4)
    assert machine.gpu_free_bytes == 70 << 30
    assert machine.network == "infiniband"


def test_a_single_node_has_no_network():
    """Where there is one node nothing joins it to others, and its key is that of the machine by itself."""
    assert machine_of([node()]).network == ""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"gpus": GPU.model_copy(update={"slug": "h100-sxm5-80gb"})}, "GPUs a100-sxm4-80gb and n2 h100-sxm5-80gb"),
        ({"gpus": None}, "GPUs a100-sxm4-80gb and n2 none"),
        ({"network": "ethernet"}, "network infiniband and n2 ethernet"),
        ({"links": "pcie"}, "links between GPUs nvlink and n2 pcie"),
    ],
)
def test_unequal_nodes_are_refused(other, said):
    """What decides speed must be the same on all nodes."""
    with pytest.raises(RunFailed, match=f"expected equal nodes, n1 has {said}"):
        machine_of([node("n1"), node("n2", **other)])


def test_ranks_are_placed_in_blocks():
    """Equal blocks: ranks of a sequence stand next to each other."""
    assert counts(32, 4) == [8, 8, 8, 8]


def test_nodes_with_everything_lack_nothing():
    """Neither forbidden nor worth a word."""
    assert shortages([node("n1"), node("n2")]) == ([], [])


@pytest.mark.parametrize(
    ("lack", "forbidden", "said"),
    [
        ({"shared_folder_bytes": None}, True, "n2 does not see the shared folder: name one that all nodes see"),
        ({"shared_folder_bytes": 5 << 20}, True, "n2: the shared folder has 5 MiB free, expected 1024"),
        ({"shared_memory_bytes": 64 << 20}, False, "n2: /dev/shm has 64 MiB free, expected 1024"),
        ({"clock_ahead": -90.0}, False, "n2: its clock differs from this one's by -90.0 s"),
    ],
)
def test_what_a_node_lacks(lack, forbidden, said):
    """What no run could do without forbids it; what may do harm is said."""
    forbid, know = shortages([node("n1"), node("n2", **lack)])

    assert [text.startswith(said) for text in (forbid if forbidden else know)] == [True]
    assert (know if forbidden else forbid) == []
