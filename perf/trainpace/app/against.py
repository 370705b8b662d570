"""`--perf-against REV`: the convenient form, typed in a working tree, of `--perf-head` run from the base checkout.

It trusts the working tree, whose conftest.py has run by then. A gate that must not trust it runs `pytest perf
--perf-head PATH` from a checkout of the base, as the workflows do.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainpace.app.option_values import INVOCATION, shared_folder
from trainpace.app.revisions import RevisionError, checked_out, merge_base
from trainpace.app.typed import AGAINST
from trainpace.rank.imports import Own, search_path

LEAVE_SECONDS = 30.0
"""An interrupted session takes a second or two to end what it has started."""


def run_from_base(config: pytest.Config) -> int:
    """Run the same command from a checkout of the merge base, with this working tree as its head; its exit status.

    Raises:
        pytest.UsageError: where the revision cannot be had.
    """
    root, here = config.rootpath, Path(config.invocation_params.dir)
    revision = config.getoption("perf_against")
    try:
        base = merge_base(root, revision)
        within = shared_folder(config)
        if within is not None:
            within.mkdir(parents=True, exist_ok=True)
        with checked_out(root, base, within=within) as checkout:
            _refuse_before_the_move(checkout, revision)
            return _run(config, root, here, checkout)
    except RevisionError as error:
        raise pytest.UsageError(f"--perf-against {revision}: {error}") from None


def _refuse_before_the_move(checkout: Path, revision: str) -> None:
    """A base whose package is called `perf` cannot be run beside an installed trainpace: both declare the options."""
    if (checkout / "perf" / "trainers" / "native").is_dir() and not (checkout / "perf" / "trainpace").exists():
        raise pytest.UsageError(
            f"--perf-against {revision}: the base is from before the package moved to perf/trainpace, and does not run "
            "in this environment: name a later revision, or rebase on one"
        )


def _run(config: pytest.Config, root: Path, here: Path, checkout: Path) -> int:
    inside = checkout / here.relative_to(root) if here.is_relative_to(root) else checkout
    if not inside.is_dir():
        raise pytest.UsageError(f"--perf-against: the base has no folder {inside.relative_to(checkout)}")
    arguments = _without(config.invocation_params.args, "--perf-against")
    # Files that pytest itself and its plugins write belong where the command was typed.
    for option, value in (("--junitxml", config.getoption("xmlpath", None)),):
        if value:
            arguments += [option, str(here / value)]
    if exported := config.getoption("benchmark_json", None):
        arguments += ["--benchmark-json", str(here / exported.name)]
    # The cases are the base's, and so is what they import.
    environment = Own(str(checkout), [str(root)]).environment(os.environ)
    paths = [*search_path(checkout), environment.get("PYTHONPATH", "")]
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        INVOCATION: str(here),
        AGAINST: config.getoption("perf_against"),
    }
    command = [sys.executable, "-P", "-m", "pytest", *arguments, f"--perf-head={root}"]
    return _wait(subprocess.Popen(command, cwd=inside, env=environment))


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit status of the session; Ctrl-C, which reaches it too, leaves it time to end what it has started."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        for end in (process.terminate, process.kill):
            try:
                return process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                end()
        return process.wait()


def _without(arguments: tuple[str, ...], option: str) -> list[str]:
    """The arguments without `option VALUE` and `option=VALUE`."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept
