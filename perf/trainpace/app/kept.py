"""What a session that was cut off left behind, and what this one would train on."""

from collections.abc import Iterable
from pathlib import Path

from trainpace.app.options import Options
from trainpace.errors import DataError, RunFailed
from trainpace.runs.run import Run
from trainpace.store.runs import read_runs
from trainpace.trainers.external import is_external


def data_names(options: Options, trainer: str) -> tuple[tuple[str, ...], str] | None:
    """What runs of this session train on; None where a trainer that brings its own was told nothing else.

    Raises:
        RunFailed: where there is no such data.
    """
    from trainpace.data.packing import sources_named
    from trainpace.data.tokenizer import BYTES, tokenizer_named

    own = trainer != "native" and not is_external(trainer)
    if own and not options.data and options.tokenizer == BYTES:
        return None
    try:
        sources = sources_named(options.data, skip_bad=options.skip_bad_records)
        names = tuple(each.whole_name() if options.skip_bad_records else each.name for each in sources)
        return names, tokenizer_named(options.tokenizer).name
    except DataError as error:
        raise RunFailed(str(error)) from None


def kept_runs(folder: Path, cases: Iterable[str]) -> dict[str, list[Run]]:
    """The runs in `folder` by the key of their workload, oldest first; of other cases than `cases` none is read.

    Raises:
        FileError: for a file that holds no run.
    """
    found: dict[str, list[Run]] = {}
    for path in {path for case in cases for path in folder.glob(f"{case}-*.json")}:
        for run in read_runs(path):
            found.setdefault(run.workload.key, []).append(run)
    return {key: sorted(runs, key=lambda run: (run.started, run.id)) for key, runs in found.items()}
