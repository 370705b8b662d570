"""`python -m trainpace.simulate [--quick] [--part NAME] [--out DIR]`: docs/statistics-tables.md, about 15 minutes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainpace.simulate.plot import write_svg
from trainpace.simulate.results import PARTS, QUICK, Plan, bounds, part_of, simulate, tables
from trainpace.simulate.rows import read_csv, write_csv

SEED = 20261125
NAME = "statistics-simulation"
TABLES = "statistics-tables.md"
HEADING = f"""# Error rates, simulated

Written by `python -m trainpace.simulate --out docs`, as {NAME}.csv is, which holds the same and more. What the words
mean, and what follows: [statistics.md](statistics.md#words-of-the-tables).

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print the tables, write the files; 1 where a bound is missed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m trainpace.simulate", description=__doc__)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"write {TABLES}, {NAME}.csv and .svg there (default: print only)"
    )
    parser.add_argument(
        "--part",
        action="append",
        choices=PARTS,
        help=f"simulate this part; those that are not named are read from {NAME}.csv in DIR (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="few sessions on few machines, in seconds: a smoke test")
    parser.add_argument("--seed", type=int, default=SEED, help="of every draw (default: the committed result's)")
    options = parser.parse_args(arguments)
    parts = options.part or PARTS
    found = []
    if len(parts) < len(PARTS) and options.out:
        found = [row for row in read_csv(options.out / f"{NAME}.csv") if part_of(row.gate) not in parts]
    for row in simulate(QUICK if options.quick else Plan(), options.seed, parts):
        found.append(row)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(found)} rows: {row.gate}, {row.machine}\x1b[K")
    sys.stdout.write(tables(found))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_csv(found, options.out / f"{NAME}.csv")
        (options.out / TABLES).write_text(HEADING + tables(found))
        try:
            write_svg(found, options.out / f"{NAME}.svg")
        except ModuleNotFoundError as error:
            sys.stderr.write(f"no picture: {error}; `pip install matplotlib` and run again\n")
    return 0 if all(bound.held for bound in bounds(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
