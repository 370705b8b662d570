"""The workflow files of this repository and of its example, and how a runner runs their scripts."""

import os
import stat
import subprocess
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / ".github" / "workflows"
EXAMPLE = ROOT / "examples" / "own-trainer" / ".github" / "workflows" / "perf.yml"
NIGHTLY = EXAMPLE.with_name("nightly.yml")
GITLAB = ROOT / ".gitlab-ci.yml"
GITLAB_EXAMPLE = EXAMPLE.parents[2] / ".gitlab-ci.yml"
GITLABS = [GITLAB, GITLAB_EXAMPLE]
DEPENDABOT = ROOT / ".github" / "dependabot.yml"
WORKFLOWS = [*sorted(OURS.glob("*.yml")), *sorted(EXAMPLE.parent.glob("*.yml"))]
GATES = [OURS / "gpu-gate.yml", EXAMPLE]


def named(path):
    """A file's test id."""
    return path.name


@cache
def load(path):
    """A workflow's content, which nobody changes. YAML 1.2, in which `on` is no boolean."""
    return YAML(typ="safe", pure=True).load(path)


def jobs(paths):
    """Every job of these workflows, with an id for its test."""
    return [pytest.param(job, id=f"{path.name}-{name}") for path in paths for name, job in load(path)["jobs"].items()]


def scripts(paths):
    """Every script of these workflows."""
    return [
        pytest.param(step["run"], id=f"{path.name}-{name}-{number}")
        for path in paths
        for name, job in load(path)["jobs"].items()
        for number, step in enumerate(job["steps"])
        if "run" in step
    ]


def step_of(path, job, containing):
    """The script of the one step of a job that contains this text."""
    (found,) = [step for step in load(path)["jobs"][job]["steps"] if containing in step.get("run", "")]
    return found["run"]


def run_as_a_runner(tmp_path, script, commands=(), folder=None, **environment):
    """Run a script as the runner does; `commands` are programs that it finds, as shell scripts."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in dict(commands).items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(stat.S_IRWXU)
    (tmp_path / "output").write_text("")
    chosen = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_REPOSITORY": "our/repo",
        "CALLS": str(tmp_path / "calls"),
        **environment,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder or tmp_path, env=chosen, capture_output=True, text=True, check=False)


def outputs(tmp_path):
    """What a step left for others."""
    return dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
