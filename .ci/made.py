"""Say how the suite's own environment is made, where it is not there yet.

    python .ci/made.py .tox/perf perf

tox calls it for the systems that pin other versions than ours: they live in their own environment, the suite in its.
"""

import sys
from pathlib import Path

place, name = sys.argv[1:]
if not Path(__file__).resolve().parents[1].joinpath(place, "bin", "pytest").is_file():
    sys.exit(f"{place}: expected the suite's own environment, found none. Make it: tox run --notest -e {name}")
