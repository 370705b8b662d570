"""What measured code finds in its environment: what it needs, no secret, and nothing that speaks to a workflow."""

import os

import pytest

from trainpace.launch.environment import compiler_missing, given, say_withheld, withheld
from trainpace.launch.host_client import Side, host_command


@pytest.mark.parametrize(
    "name",
    ["PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "NCCL_IB_PKEY", "TOKENIZERS_PARALLELISM", "SLURM_JOB_ID", "no_proxy"],
)
def test_what_training_needs_is_given(name):
    """Variables that decide how training runs, where its files lie and whom it reaches are there."""
    assert given({name: "1"}) == {name: "1"}


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_ENV",
        "ACTIONS_RUNTIME_URL",
        "RUNNER_TEMP",
        "CI_JOB_NAME",
        "SSH_AUTH_SOCK",
        "DBUS_SESSION_BUS_ADDRESS",
        "HF_TOKEN",
        "WANDB_API_KEY",
        "UV_PUBLISH_PASSWORD",
        "TORCH_SECRET",
        "SLURM_JWT",
        "MY_PATH",
        "path",
    ],
)
def test_what_training_does_not_need_is_withheld(name):
    """A workflow's files, a user's agents and whatever is called a secret are not, also below an allowed beginning."""
    assert given({name: "1"}) == {}
    assert withheld({name: "1"}) == [name]


@pytest.mark.parametrize("address", ["http://me:word@proxy:3128", "https://word@index/simple"])
def test_an_address_with_a_user_is_withheld(address):
    """A proxy or an index that is named with its password is a secret; one without is none."""
    variables = {"HTTPS_PROXY": address, "PIP_INDEX_URL": address, "http_proxy": "http://proxy:3128"}

    assert given(variables) == {"http_proxy": "http://proxy:3128"}


def test_a_name_that_the_user_adds_is_given():
    """--perf-env gives what is named, a secret too."""
    variables = {"HF_TOKEN": "word", "OURS": "1", "OTHER": "2"}

    assert given(variables, ["HF_TOKEN", "OURS", "ABSENT"]) == {"HF_TOKEN": "word", "OURS": "1"}
    assert withheld(variables, ["HF_TOKEN", "OURS"]) == ["OTHER"]


def test_names_are_said_and_no_values():
    """Names are sorted, of very many the first are said; what a shell tells itself is not."""
    names = withheld({f"OURS_{number:03}": "value" for number in range(50)} | {"SHLVL": "1", "_": "x"})
    said = say_withheld(names)

    assert "OURS_000, OURS_001" in said
    assert said.endswith("OURS_039 and 10 more")
    assert "value" not in said
    assert say_withheld([]) == ""


def test_a_host_is_started_with_it():
    """Hosts, and the ranks that they fork, have what is given, what is added, and what the suite chose for them."""
    command = host_command(Side(), [], "cpu", added=["OURS"])
    found = command.variables({"PATH": os.defpath, "OURS": "1", "GITHUB_ENV": "file"})

    assert found == {"PATH": os.defpath, "OURS": "1", **command.environment}


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"])
def test_own_allocator(monkeypatch, name):
    """How torch's allocator works on a GPU is the user's to say, by each name that torch reads; else it is chosen."""
    for each in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
        monkeypatch.delenv(each, raising=False)
    chosen = host_command(Side(), [], "cuda").variables(os.environ)
    monkeypatch.setenv(name, "max_split_size_mb:512")
    own = host_command(Side(), [], "cuda").variables(os.environ)

    assert chosen["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert {key: value for key, value in own.items() if "ALLOC_CONF" in key} == {name: "max_split_size_mb:512"}


def test_asking_for_a_gpu_spoils_no_rank():
    """A trainer's module may ask whether there is one: torch is told to ask the driver's library, not CUDA."""
    assert host_command(Side(), [], "cuda").environment["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"


@pytest.mark.parametrize(
    ("device", "there", "named", "said"),
    [
        ("cpu", ["g++"], {}, None),
        ("cpu", ["gcc"], {}, "torch needs g++, or what CXX names, got none: install one (apt-get install g++)"),
        ("cpu", ["g++"], {"CXX": "mine"}, "got CXX=mine, which is not there"),
        ("cpu", ["mine"], {"CXX": "mine"}, None),
        ("cuda", ["clang"], {}, None),
        ("cuda", ["g++"], {}, "torch needs gcc or clang, or what CC names, got none"),
    ],
)
def test_compiling_needs_a_compiler(tmp_path, monkeypatch, device, there, named, said):
    """A C++ compiler for a CPU, a C compiler for a GPU; the one that a variable names, where it names one."""
    for name in there:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)

    found = compiler_missing(device)

    assert found == said or said in found
