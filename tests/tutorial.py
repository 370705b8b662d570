"""Runs docs/tutorial.md as it stands, in a fresh environment, and prints its seconds: install, red and green apart.

    python tests/tutorial.py        # or: tox run -e tutorial

This checkout stands for the URL. Files are written where their first line says, differences are applied, commands
typed: one that is marked `# red` must end with 1, one that is marked `# green` with 0. What ends with 7 (disturbed) is
typed up to three times.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BASH = shutil.which("bash") or "bash"
FENCED = re.compile(r"^```(sh|python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLS = ("python3 -m venv ", "pip install ")
"""How the lines begin that make an environment."""
BEGIN = r"""
set -uo pipefail
stamp() { printf '@@ %s %s\n' "$1" "$EPOCHREALTIME"; }
typed() {  # what it must end with, the command, whether it `may` be disturbed
  local status=0
  printf '\n$ %s\n' "$2"
  for again in 1 2 3; do
    status=0
    eval "$2" || status=$?
    [ "$status" = 7 ] || break
  done
  if [ "$status" = 7 ] && [ "$3" = may ]; then
    echo '@@@ disturbed three times: goes on'
    status=0
  fi
  [ "$status" = "$1" ] || { echo "expected exit status $1, got $status: $2"; exit 1; }
}
"""


def blocks():
    """The page's, in their order, as (language, text)."""
    return FENCED.findall(PAGE.read_text())


def lines_by_hand():
    """What a reader types into files: not the empty lines, and not the comment that names a file."""
    count = 0
    for language, text in blocks():
        if language == "python":
            count += sum(bool(line.strip()) for line in text.splitlines()[1:])
        if language == "diff":
            count += sum(line.startswith("+") and line[1:2] != "+" and line != "+" for line in text.splitlines())
    return count


def commands():
    """What a reader types into a shell, each with the exit status that it must have."""
    for language, text in blocks():
        if language == "sh":
            for line in text.splitlines():
                command, _, mark = line.partition("  # ")
                yield command, 1 if mark == "red" else 0


def script(*, install):
    """The page as a script of bash.

    Args:
        install: whether its environment is made, too; else what is on PATH is used.
    """
    steps = [BEGIN, "stamp begin"]
    for language, text in blocks():
        if language == "sh":
            for line in text.splitlines():
                command, _, mark = line.partition("  # ")
                if command.startswith(INSTALLS) and not install:
                    continue
                command = command.replace("git+URL", ROOT.as_uri())
                steps.append(f"typed {1 if mark == 'red' else 0} {shlex.quote(command)} {'must' if mark else 'may'}")
                name = mark or ("install" if command.startswith("pip install ") else "")
                steps += [f"stamp {name}"] if name else []
            continue
        named = re.match(r"# (\S+\.py)\n", text)
        write = f"cat > {named[1]}" if named else "git apply"
        steps.append(f"{write} <<'END OF BLOCK' || exit 1\n{text}END OF BLOCK")
        steps += ["stamp written"] if named else []
    return "\n".join([*steps, "stamp end", ""])


def run(folder, *, install, environment=()):
    """Run the page in `folder`; gives what it printed."""
    own = {f"GIT_{who}_{what}": "reader@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    process = subprocess.Popen(
        [BASH, "-c", script(install=install)],
        cwd=folder,
        env=inherited | own | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    assert process.stdout
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return process.wait(), "".join(lines)


def seconds(printed):
    """By step, how long after the step before it ended."""
    stamps = [(name, float(at)) for name, at in re.findall(r"^@@ (\w+) ([\d.]+)$", printed, re.MULTILINE)]
    found = {}
    for (_, before), (name, at) in pairwise(stamps):
        found[name] = found.get(name, 0.0) + at - before
    return found


def main():
    """Print the seconds; the exit status of the page."""
    with tempfile.TemporaryDirectory(prefix="trainpace-tutorial-") as folder:
        state = {"XDG_STATE_HOME": f"{folder}/state", "TRAINPACE_CACHE": f"{folder}/cache"}
        status, printed = run(folder, install=True, environment=state)
    took = seconds(printed)
    parts = [f"{name} {took[name]:.0f} s" for name in ("install", "red", "green") if name in took]
    print(f"tutorial: {', '.join(parts)}, in all {sum(took.values()):.0f} s, {lines_by_hand()} lines by hand")  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
