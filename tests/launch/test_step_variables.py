"""What a job asked for its own tasks is not asked for our steps."""

import pytest

from trainpace.launch.slurm import for_step

KEPT = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/slurm.conf", "SLURM_GPUS_PER_NODE": "8", "PATH": "/bin"}


@pytest.mark.parametrize(
    "name",
    [
        "SLURM_GPUS",
        "SLURM_GPUS_PER_SOCKET",
        "SLURM_GPUS_PER_TASK",
        "SLURM_TRES_BIND",
        "SLURM_TRES_PER_TASK",
        "SLURM_GPU_BIND",
        "SLURM_HINT",
        "SLURM_THREADS_PER_CORE",
        "SLURM_CORE_SPEC",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_CPUS_PER_TASK",
        "SLURM_MEM_PER_GPU",
    ],
)
def test_no_part_of_a_node(name):
    """`sbatch --gpus=32` would ask 32 GPUs of the one node of a step, a binding would leave it a part of its own."""
    assert for_step({**KEPT, name: "32"}) == KEPT
