"""What a typed value becomes: paths of where the command was typed, systems that exist, folders that can be written."""

import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from trainpace.cases.tables import Table
from trainpace.errors import FileError
from trainpace.plan.paired import MinEffects
from trainpace.report.exports import TEXTS
from trainpace.store.tables import load_table
from trainpace.trainers.external import is_external, names

INVOCATION = "TRAINPACE_INVOCATION"
"""Names the folder that relative paths are relative to, where the suite was started from another."""


def invocation_folder(config: pytest.Config) -> Path:
    """What relative paths among our options are relative to: where the user typed the command."""
    return Path(os.environ.get(INVOCATION) or config.invocation_params.dir)


def cache_folder() -> Path:
    """Where packed tokens and counted costs are kept: TRAINPACE_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_path

    # Absolute: each side of a comparison has a working folder of its own.
    typed = os.environ.get(INVOCATION) or Path.cwd()
    return Path(typed, os.environ.get("TRAINPACE_CACHE") or user_cache_path("trainpace"))


def in_ci() -> bool:
    """Whether a CI service runs the command: all of them set CI."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def shared_folder(config: pytest.Config) -> Path | None:
    """What all nodes see, as --perf-shared says, else the cache folder; None where there is only this machine."""
    if config.getoption("perf_launcher") == "local":
        return None
    given = config.getoption("perf_shared")
    return Path(invocation_folder(config), given) if given else cache_folder()


def split_options(texts: Sequence[str]) -> tuple[str, ...]:
    """`partition=gpu,time=60` -> its parts; a comma in brackets is part of a list of nodes."""
    return tuple(part.strip() for text in texts for part in re.split(r",(?![^\[]*\])", text) if part.strip())


def folder(value: str | None, config: pytest.Config) -> Path | None:
    """A path of where the command was typed; None where none is given."""
    return Path(invocation_folder(config), value) if value else None


def table(value: str | None, config: pytest.Config) -> Table | None:
    """A published table by its name, or a user's own by the path of its .csv; None where none is given."""
    if value is None:
        return None
    try:
        return load_table(Path(invocation_folder(config), value) if value.endswith(".csv") else value)
    except FileError as error:
        raise ValueError(str(error)) from None


def output(value: str | None, config: pytest.Config) -> Path | None:
    """A folder that can be written: said now, and not after hours of training."""
    path = folder(value, config)
    if path:
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"expected a folder that can be written, got {path}")
    return path


SERVICES = {"mlflow": "EXPERIMENT", "wandb": "PROJECT"}
"""The exports that another library takes, and what it calls the place they go to."""


@dataclass(frozen=True)
class Export:
    """One `--perf-export FORMAT:WHERE`."""

    format: str
    """A key of report/exports.py's TEXTS, or of SERVICES."""
    where: Path | str
    """The file, or the name of a project or an experiment."""


def exports(values: Sequence[str], config: pytest.Config) -> tuple[Export, ...]:
    """Files that can be written, and libraries that are installed: said now, and not after hours of training."""
    found = tuple(_export(value, config) for value in values)
    if len(set(found)) < len(found):
        raise ValueError(f"expected each place once, got {', '.join(values)}")
    return found


def _export(value: str, config: pytest.Config) -> Export:
    name, _, where = value.partition(":")
    if not where or name not in {*TEXTS, *SERVICES}:
        kinds = [*(f"{each}:FILE" for each in TEXTS), *(f"{each}:{what}" for each, what in SERVICES.items())]
        raise ValueError(f"expected {', '.join(kinds)}, got {value!r}")
    if name in SERVICES:
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed here: run `pip install {name}`, or leave {value} out")
        return Export(name, where)
    path = Path(invocation_folder(config), where)
    if path.is_dir():
        raise ValueError(f"expected a file, got the folder {path}")
    output(str(path.parent), config)
    return Export(name, path)


def baselines(value: str | None, config: pytest.Config) -> Path | None:
    """A folder to read, and with --perf-refresh to write."""
    return (output if config.getoption("perf_refresh") else folder)(value, config)


def recorded(values: Sequence[str], config: pytest.Config) -> tuple[Path, ...]:
    """Files and folders of recorded runs, which exist."""
    found = tuple(Path(invocation_folder(config), value) for value in values)
    for each in found:
        if not each.exists():
            raise ValueError(f"{each} does not exist")
    return found


def trainers(values: Sequence[str], config: pytest.Config) -> tuple[str, ...]:
    """What is measured: at least one, each once; without the option, what the ini option says."""
    wanted = values or [config.getini("perf_trainer")]
    found = tuple(_trainer(value, invocation_folder(config)) for value in wanted)
    if len(set(found)) < len(found):
        raise ValueError(f"expected different trainers, got {', '.join(wanted)}")
    return found


def _trainer(value: str, base: Path) -> str:
    if value.endswith(".toml"):
        path = base / value
        if not path.is_file():
            raise ValueError(f"no description {path}")
        return str(path.resolve())
    if value != "native" and not is_external(value) and not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError(f"expected native, package.module:object, {', '.join(names())} or a .toml file, got {value!r}")
    return value


def pythons(values: Sequence[str], config: pytest.Config) -> Mapping[str, str]:
    """`NAME=PYTHON` -> interpreters, as whole paths, by name."""
    found = {}
    for value in values:
        name, equals, python = value.partition("=")
        if not (name and equals and python):
            raise ValueError(f"expected NAME=PYTHON, got {value!r}")
        # A link is kept: a virtual environment's interpreter is one, and knows its environment by it.
        path = shutil.which(invocation_folder(config) / Path(python).expanduser()) or shutil.which(python)
        if path is None:
            raise pytest.UsageError(f"--perf-trainer-python {name}: no interpreter {python}")
        found[name] = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow the link
    return found


def data(values: Sequence[str], config: pytest.Config) -> tuple[str, ...]:
    """Files as whole paths, and names on the hub."""
    return tuple(_source(value, invocation_folder(config)) for value in values)


def _source(value: str, base: Path) -> str:
    """A file as its whole path; anything else is a name on the hub."""
    path = base / value
    if path.is_file():
        return str(path.resolve())
    if path.suffix in {".json", ".jsonl", ".parquet"} or value.startswith((".", "/", "~")):
        raise ValueError(f"no file {path}")
    return value


def tokenizer(value: str, config: pytest.Config) -> str:
    """A whole path where there is such a file or folder; anything else is a name on the hub."""
    path = invocation_folder(config) / value
    return str(path.resolve()) if path.exists() else value


def min_effects(values: Sequence[str], _: pytest.Config) -> MinEffects:
    """Shares, and shares of single cases: `0.03`, `llama2_7b-8k-sp1=0.1`."""
    share, of_cases = MinEffects().share, {}
    for value in values:
        case, equals, number = value.rpartition("=")
        try:
            effect = float(number)
        except ValueError:
            effect = math.nan
        if not 0 < effect < 1 or (equals and not case):
            raise ValueError(f"expected a share between 0 and 1 (0.05 is 5 %), or CASE=SHARE, got {value!r}")
        if equals:
            of_cases[case] = effect
        else:
            share = effect
    return MinEffects(share, tuple(sorted(of_cases.items())))


def reason(value: str | None, _: pytest.Config) -> str | None:
    """A text that says something."""
    if value is not None and not value.strip():
        raise ValueError("expected a reason, got none")
    return value


def device_label(value: str | None, config: pytest.Config) -> str | None:
    """What tells a machine's baselines from those of others of its kind; without the option, what the ini option says.

    It is a part of a file's name on every system. Empty, as a workflow passes what it was not given, it is none.
    """
    given = value if value is not None else config.getini("perf_device_label")
    if given and not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", given):
        raise ValueError(f"expected at most 40 lower-case letters, digits and hyphens between them, got {given!r}")
    return given or None


def some(value: str | None, _: pytest.Config) -> str | None:
    """A workflow passes an empty text for what it was not given."""
    return value or None


def variables(names: Sequence[str]) -> tuple[str, ...]:
    """Names of environment variables, without their values."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"expected the name of an environment variable, got {name!r}")
    return tuple(names)
