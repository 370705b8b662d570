"""The environment of whatever runs the code that is measured: made from a list of what may be in it, not inherited.

A workflow's step holds secrets, and the names of files that speak to the workflow (GITHUB_ENV and the like). A trainer,
its build and the program of an external system are given none of them. `--perf-env NAME` adds a variable.

This keeps what a change to a trainer comes across by itself. It is no wall: a process can read the environment of
another one of its user in /proc (docs/gate.md).
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping

# Names, or their beginnings with a `*`: (what is given, why). Not here: a workflow's (GITHUB_*, ACTIONS_*, RUNNER_*,
# CI_*); ways to other programs of the user (SSH_AUTH_SOCK, DBUS_*); a place in a job of MPI's that ranks are not in
# (OMPI_*, PMI*).
ALLOWED: tuple[tuple[str, str], ...] = (
    ("PATH", "programs are found"),
    ("HOME", "caches and settings of libraries"),
    ("USER LOGNAME", "torch names its cache folder by them"),
    ("PWD", "the folder that a process works in"),
    ("LANG LANGUAGE LC_* TZ", "how text and time are read"),
    ("TMPDIR TEMP TMP XDG_* MPLCONFIGDIR", "where temporary files, caches and settings lie"),
    ("LD_LIBRARY_PATH LD_PRELOAD", "libraries, and an allocator that is put in their place"),
    ("MALLOC_* GLIBC_TUNABLES TCMALLOC_*", "allocators decide speed and memory"),
    (
        "CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS LIBRARY_PATH CPATH MAX_JOBS CMAKE_* MAKEFLAGS",
        "kernels that are built",
    ),
    ("PYTHON* VIRTUAL_ENV CONDA_* PIP_* UV_*", "the interpreter, its packages, and how a build installs them"),
    ("CUDA_* CUDNN_* CUBLAS_* NVIDIA_* NVTE_* NVSHMEM_*", "NVIDIA's GPUs: which, and how they compute"),
    ("ROCM_* ROCR_* HIP_* HSA_* RCCL_* MIOPEN_* GPU_*", "AMD's GPUs: which, and how they compute"),
    ("NCCL_* GLOO_* UCX_* FI_* RDMAV_* MLX5_*", "how ranks reach each other"),
    ("OMP_* MKL_* KMP_* GOMP_* OPENBLAS_* NUMEXPR_*", "threads of a rank"),
    ("TORCH* PYTORCH_* TRITON_* XFORMERS_* FLASH_*", "torch, its compilers and its kernels"),
    ("DS_* DEEPSPEED_* ACCELERATE_*", "engines"),
    (
        "HF_* HUGGINGFACE_* TRANSFORMERS_* TOKENIZERS_* MODELSCOPE_* WANDB_*",
        "models, data, what is logged",
    ),
    ("http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY", "the way out"),
    ("SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE", "whom to believe on that way"),
    ("SLURM_* SLURMD_* SRUN_* SALLOC_*", "a step's nodes, and how Slurm's own commands are configured"),
    ("MASTER_ADDR MASTER_PORT", "where ranks meet; the step loop sets both, an address that was named is kept"),
    ("TRAINPACE_*", "the suite's own"),
)
_SECRET = re.compile(r"TOKEN|SECRET|KEY|PASSW|PASSPHRASE|CREDENTIAL|JWT|COOKIE", re.IGNORECASE)
# They look like the above and are none: a library's setting, the number of an InfiniBand partition.
_NO_SECRET = re.compile(r"TOKENIZERS_\w+|\w+_IB_PKEY")
_WITH_USER = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]*@", re.IGNORECASE)
"""An address with a user, and so mostly with a password: a proxy's, an index's."""
# What shells and pytest tell themselves: nobody misses it.
_UNMISSED = re.compile(r"_|SHLVL|OLDPWD|SHELL|TERM|COLORTERM|LS_COLORS|COLUMNS|LINES|PS1|PAGER|EDITOR|PYTEST_\w+")
_MOST_NAMES = 40


def _pattern() -> re.Pattern[str]:
    names = " ".join(names for names, _ in ALLOWED).split()
    return re.compile("|".join(re.escape(name).replace(r"\*", r"\w*") for name in names))


_ALLOWED = _pattern()


def given(inherited: Mapping[str, str], added: Iterable[str] = ()) -> dict[str, str]:
    """Those of the `inherited` variables that measured code is given; `added` are names that the user asked for."""
    wanted = set(added)
    return {name: value for name, value in inherited.items() if name in wanted or _is_given(name, value)}


def withheld(inherited: Mapping[str, str], added: Iterable[str] = ()) -> list[str]:
    """Names of the variables that measured code is not given, sorted; without those that nobody misses."""
    kept = given(inherited, added)
    return sorted(name for name in inherited if name not in kept and not _UNMISSED.fullmatch(name))


def say_withheld(names: list[str]) -> str:
    """What the user of a failed run is told of them; empty where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    listed = ", ".join(names[:_MOST_NAMES])
    return f"variables that it was not given (--perf-env NAME, added to the command, gives one): {listed}{more}"


def compiler_missing(device: str) -> str | None:
    """Why torch.compile cannot work on this machine for `device`, `cpu` or `cuda`; None where it can.

    torch's compiler writes C++ for a CPU. For a GPU it writes Triton, which builds a starter of each kernel in C.
    """
    variable, usual = ("CXX", ("g++",)) if device == "cpu" else ("CC", ("gcc", "clang"))
    named = os.environ.get(variable)
    if any(shutil.which(each) for each in (usual if named is None else (named,))):
        return None
    got = f"{variable}={named}, which is not there" if named else "none"
    return (
        f"to compile the layers torch needs {' or '.join(usual)}, or what {variable} names, got {got}: install one "
        "(apt-get install g++), or leave the layers eager (no --perf-compile, no `compile` of the case)"
    )


def _is_given(name: str, value: str) -> bool:
    if not _ALLOWED.fullmatch(name) or _WITH_USER.search(value):
        return False
    return bool(_NO_SECRET.fullmatch(name)) or not _SECRET.search(name)
