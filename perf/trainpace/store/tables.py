"""Published tables as files: NAME.csv with the rows, NAME.toml with what holds for all of them.

Those that travel with the package lie in baselines/tables/; a user's own lies anywhere, and needs no NAME.toml where
its models are known ones.
"""

import csv
import io
from pathlib import Path

from trainpace.cases.tables import Header, Table, make_table
from trainpace.errors import FileError
from trainpace.store.baselines import published_folder
from trainpace.store.files import check_record, read_toml

FIRST = "xtuner"
"""The table whose first 14 rows are the cases where none is named."""
MAX_BYTES = 16 << 20
"""Of a CSV file: some 100,000 rows."""


def tables_folder() -> Path:
    """The folder of the tables that travel with the package."""
    return published_folder() / "tables"


def table_names() -> list[str]:
    """Names of the tables that travel with the package, the default's first."""
    return sorted((path.stem for path in tables_folder().glob("*.csv")), key=lambda name: (name != FIRST, name))


def load_table(name: str | Path) -> Table:
    """The table of that name, or of that path of a .csv file.

    Raises:
        FileError: for a name that is none, or with file, line, column and value.
    """
    path = (Path(name) if str(name).endswith(".csv") else _shipped(str(name))).resolve()
    toml = path.with_suffix(".toml")
    header = check_record(read_toml(toml), Header, where=str(toml)) if toml.exists() else Header()
    lines = _lines(path)
    return make_table(path.stem, header, lines[0][1], lines[1:], path=str(path))


def _shipped(name: str) -> Path:
    if name not in table_names():
        raise FileError(f"expected a table, {', '.join(table_names())}, or the path of a .csv file, got {name!r}")
    return tables_folder() / f"{name}.csv"


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Each line's number and its cells; the first names the columns. Empty lines and lines of # are left out."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path}: expected at most {MAX_BYTES >> 20} MiB, got {path.stat().st_size >> 20}")
        # Spreadsheets begin a file with a mark of its byte order.
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 (byte {error.start}: {error.reason})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise FileError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
    found = [(line, cells) for line, cells in lines if any(map(str.strip, cells)) and not cells[0].startswith("#")]
    if not found:
        raise FileError(f"{path}: expected a first line with columns, got an empty file")
    return found
