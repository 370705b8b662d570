"""Install what extras of pyproject.toml name into this environment, without building the package again.

    python .ci/extra.py test

tox calls it for what its shared environment does not need: who measures waits for no test tools. Where all is there it
takes a second and asks no registry.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

extras = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
wanted = [requirement for name in sys.argv[1:] for requirement in extras[name]]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=False).returncode)
