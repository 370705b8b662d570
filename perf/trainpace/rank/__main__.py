"""Starts a run host (host.py) in the measured side's interpreter, by path from the judging checkout.

    python perf/trainpace/rank/__main__.py '{"parent": 4711, "checkout": ".", "preload": ["torch"], ...}'

or one rank of a kept run without a host (by_hand.py).

The package is loaded under a name of its own: `import trainpace` in the host and its ranks gives the measured side's.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NAME = "trainpace_rank"
_HERE = Path(__file__).resolve().parent


def load(module: str) -> ModuleType:
    """A module of this package, as `trainpace_rank.<module>`."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, _HERE / "__init__.py", submodule_search_locations=[str(_HERE)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return importlib.import_module(f"{NAME}.{module}")


if __name__ == "__main__":
    # The script's own folder would make its neighbours importable by bare names.
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != _HERE]
    if sys.argv[1] == "by-hand":
        sys.exit(load("by_hand").main(sys.argv[2], *map(int, sys.argv[3:])))
    load("host").main()
