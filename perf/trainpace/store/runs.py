"""The files of runs: one JSON file a run, named after its case."""

from collections.abc import Iterable
from pathlib import Path

from trainpace.errors import FileError
from trainpace.runs.run import Run
from trainpace.store.files import read_record, write_whole, writing


def write_run(run: Run, folder: Path) -> Path:
    """Write `run` into `folder` as `<case>-<id>.json`, whole or not at all; the file's path.

    Raises:
        FileError: naming the file, where it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = run_path(run, folder)
    write_whole(path, run.model_dump_json(indent=1) + "\n")
    return path


def run_path(run: Run, folder: Path) -> Path:
    """The file that `write_run` makes of `run`."""
    return folder / f"{run.workload.case}-{run.id}.json"


def read_runs(path: Path) -> list[Run]:
    """Read one run file, or every `*.json` of a folder, oldest first.

    Raises:
        FileError: naming the file, the field and the value, where a file is no run.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FileError(f"{path}: no run file (*.json) in this folder")
    return sorted((read_record(file, Run) for file in files), key=lambda run: (run.started, run.id))


def runs_in(paths: Iterable[Path]) -> list[Run]:
    """The runs of files and folders; one that stands in several of them, or several times in one, counts once.

    Raises:
        FileError: as `read_runs`, and for two different runs of one id.
    """
    found: dict[tuple[str, str], Run] = {}
    for path in paths:
        for run in read_runs(path):
            if found.setdefault((run.workload.key, run.id), run) != run:
                name = f"{run.workload.case} with the id {run.id}"
                raise FileError(f"{path}: expected one run of {name}, got two that differ")
    return list(found.values())
