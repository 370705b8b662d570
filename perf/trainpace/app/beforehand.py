"""Imports what judges and reports before any code of head runs: what head writes over it afterwards is run by nobody.

Python imports a module when it is needed first, from where it lies then. Head's user can write there, and what makes a
report is needed at a session's end.
"""

import importlib
import io
from pathlib import Path

import trainpace

# What runs in other processes, or needs what is not installed with the suite.
_ELSEWHERE = (
    "trainpace.__main__",
    "trainpace.rank.",
    "trainpace.trainers.native",
    "trainpace.trainers.systems",
    "trainpace.trainers.export",
    "trainpace.cost.trace",
    "trainpace.cost.counter",
    "trainpace.cost.memory",
    "trainpace.cost.own_trace",
    "trainpace.cost.zero3",
    "trainpace.simulate",
)


def import_all() -> None:
    """Import every module of the suite that this process may need, and what those import when they are called."""
    package = Path(trainpace.__file__).parent
    for file in sorted(package.rglob("*.py")):
        name = ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith(_ELSEWHERE):
            importlib.import_module(name)
    for name in ("filelock", "platformdirs", "scipy.optimize", "scipy.special"):
        importlib.import_module(name)
    _draw()


def _draw() -> None:
    """Draw a table and a bar, so that rich has what it imports meanwhile."""
    from rich import progress
    from rich.console import Console

    from trainpace.report.console import as_text
    from trainpace.report.table import Column, Table

    table = Table([Column("case", str)], ["é"])
    for colour in (False, True):
        as_text(table, [("one line", "red"), ("another", "")], 80, colour=colour)
    with progress.Progress(console=Console(file=io.StringIO(), force_terminal=True), auto_refresh=False) as bar:
        bar.add_task("one", total=1)
