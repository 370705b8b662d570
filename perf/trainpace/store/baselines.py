"""The files of baselines: one a device, `<slug>.json`, sorted, one baseline a block.

Reading is strict, because a baseline that was quietly misread lets every regression pass. The published rows travel
with the package.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainpace.cases.machine import without_label
from trainpace.errors import FileError
from trainpace.judge.baseline import SCHEMA, BaselineFile, Measured, Published
from trainpace.judge.refresh import MAX_SPREAD, Change, changes
from trainpace.runs import flops
from trainpace.runs.run import Run
from trainpace.store.files import check_record, read_json, write_whole, writing
from trainpace.store.locks import file_lock

MAX_BYTES = 64 << 20
"""Of a device's file: some 45,000 cases, which take seven seconds and 600 MB to read. More is refused at once."""
READABLE = (1, SCHEMA)
"""Versions of the file that can be read; it is written in the last one."""
IN_SESSIONS = {"tgs_of_runs": "tgs", "recorded": "recorded", "revision": "revision"}
"""Fields of a baseline of version 1 that are a session's in version 2."""
ORIGINS: dict[Any, type[Published] | type[Measured]] = {"published": Published, "measured": Measured}


def load_file(path: Path) -> BaselineFile:
    """Read one device's file, believing nothing: every field, no other, finite and positive, keys as they must be.

    Raises:
        FileError: naming the file, the case, the field, what was expected and what came.
    """
    if path.exists() and path.stat().st_size > MAX_BYTES:
        raise FileError(
            f"{path}: expected at most {MAX_BYTES >> 20} MiB, got {path.stat().st_size >> 20}: no device has that many "
            "cases; something else wrote it"
        )
    content = read_json(path)
    fields = {"schema_version", "device", "baselines"}
    if not isinstance(content, dict):
        raise FileError(f"{path}: expected an object with {', '.join(sorted(fields))}, got {type(content).__name__}")
    # The version first: a file of another version has other fields, and saying so of each of them helps nobody.
    version = content.get("schema_version")
    if version not in READABLE or isinstance(version, bool):
        raise FileError(
            f"{path}: expected schema_version {' or '.join(map(str, READABLE))}, got {version!r}: use the trainpace "
            "that wrote it, or move the file away and record it again: the same command with --perf-refresh"
        )
    if content.keys() != fields:
        missing, unknown = sorted(fields - content.keys()), sorted(content.keys() - fields)
        raise FileError(f"{path}: expected the fields {', '.join(sorted(fields))}: {missing=}, {unknown=}")
    if content["device"] != path.stem:
        raise FileError(f"{path}: device: expected {path.stem!r} as the file is named, got {content['device']!r}")
    if not isinstance(content["baselines"], dict):
        raise FileError(f"{path}: baselines: expected an object, got {type(content['baselines']).__name__}")
    return BaselineFile(
        device=path.stem,
        baselines={
            key: _baseline(
                _by_session(value, where=f"{path}: {key}") if version == 1 else value, key, where=f"{path}: {key}"
            )
            for key, value in content["baselines"].items()
        },
    )


def _by_session(value: Any, *, where: str) -> Any:
    """A measured baseline of a file of version 1, whose runs are of one session, as version 2 has it."""
    if not isinstance(value, dict) or value.get("origin") != "measured":
        return value
    if missing := sorted(IN_SESSIONS.keys() - value.keys()):
        raise FileError(f"{where}: {missing[0]}: Field required in a file of version 1")
    session = {name: value[field] for field, name in IN_SESSIONS.items()} | {
        "level": 1,
        "ids": [],
        "peak_memory_bytes": [],
    }
    return {field: each for field, each in value.items() if field not in IN_SESSIONS} | {"sessions": [session]}


def _baseline(value: Any, key: str, *, where: str) -> Published | Measured:
    origin = value.get("origin") if isinstance(value, dict) else None
    if not isinstance(origin, str) or origin not in ORIGINS:
        raise FileError(f"{where}: origin: expected one of {', '.join(ORIGINS)}, got {origin!r}")
    baseline = check_record(value, ORIGINS[origin], where=where, strict=True)
    if baseline.key != key:
        raise FileError(
            f"{where}: expected the key {baseline.key!r} of what it holds, got {key!r}: a workload was edited by "
            "hand, or written by another trainpace; take the entry out and record it again: the same command with "
            "--perf-refresh"
        )
    if baseline.convention not in flops.CONVENTIONS:
        raise FileError(
            f"{where}: convention: expected one of {', '.join(flops.CONVENTIONS)}, got {baseline.convention!r}"
        )
    return baseline


def published_folder() -> Path:
    """The folder of the published rows: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "baselines"
    return inside if inside.is_dir() else package.parents[1] / "baselines"


def load_baselines(folders: Iterable[Path], device: str) -> list[Published | Measured]:
    """Every baseline of `device`, first those of `folders` in their order, last the package's own.

    Of a device with a label: what was measured under that label, and rows that were published for its kind.

    A folder or a file that does not exist holds none: that is how a new device and a new repository start.

    Raises:
        FileError: for a file that is there and cannot be used.
    """
    found: list[Published | Measured] = []
    for folder in dict.fromkeys([folder.resolve() for folder in folders] + [published_folder()]):
        for slug in dict.fromkeys((device, without_label(device))):
            path = folder / f"{slug}.json"
            if path.exists():
                stored = load_file(path).baselines.values()
                found += [each for each in stored if slug == device or each.origin == "published"]
    return found


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def refresh(
    folder: Path,
    runs: Sequence[Run],
    *,
    recorded: str | None = None,
    num_cases: int = 1,
    max_spread: float = MAX_SPREAD,
    accept_slower: str | None = None,
    peak_tflops: float | None = None,
    missing_only: bool = False,
) -> list[Change]:
    """Record `runs` of one device in `folder`'s file of that device: what judge.refresh.changes lets be recorded.
    `recorded` is `now()` unless given: a session that records its cases one by one gives all of them the same, and how
    many they are. With `missing_only` a baseline that the file holds is left as it is, by whomever it was recorded.

    Raises:
        ValueError: where the runs are of more than one device, or none is given.
        FileError: where the device's file is there and cannot be used, or cannot be written; it is left as it is.
    """
    devices = sorted({run.device.slug for run in runs})
    if len(devices) != 1:
        raise ValueError(f"a refresh records runs of one device, got {', '.join(devices) or 'no run'}")
    path = folder / f"{devices[0]}.json"
    with writing(path), file_lock(path):
        folder.mkdir(parents=True, exist_ok=True)
        # What a writer that was killed left behind; nobody else writes while the lock is held.
        for leftover in folder.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        stored = load_file(path) if path.exists() else BaselineFile(device=devices[0], baselines={})
        made = changes(
            stored,
            runs,
            recorded=recorded or now(),
            num_cases=num_cases,
            max_spread=max_spread,
            accept_slower=accept_slower,
            peak_tflops=peak_tflops,
            missing_only=missing_only,
        )
        changed = {change.key: change.new for change in made if change.new is not None}
        if changed:
            write_whole(path, BaselineFile(device=stored.device, baselines={**stored.baselines, **changed}).text())
    return made
