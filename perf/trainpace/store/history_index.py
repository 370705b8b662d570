"""Recorded runs by the hundred thousand: each reduced to the few numbers that a trend needs, read by all cores.

Of a file everything is parsed, and what is used is checked; a replay checks the rest.
"""

import hashlib
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from trainpace.cases.workload import Workload
from trainpace.errors import FileError
from trainpace.runs.metrics import micro_step_seconds
from trainpace.runs.run import SCHEMA, Run
from trainpace.runs.summary import RunSummary, SeriesKey
from trainpace.store.files import read_record, write_whole

CHUNK = 500
"""Files that a process reads at a time; fewer in all are read by this one."""

INDEX = ".history-index"
"""The index's file, beside the runs."""
INDEX_VERSION = 4
"""Another version is not read: raise it when what a RunSummary holds, or how it is computed, changes."""

Stamp = tuple[int, int]
"""Size and time of change of a file, bytes and nanoseconds."""


def read_summaries(folder: Path) -> dict[SeriesKey, list[RunSummary]]:
    """Every run file (`*.json`) of a folder, by kind, oldest first; kinds in the order of their names.

    What was read is kept in an index beside the files, so that the next time only new and changed ones are parsed.

    Raises:
        FileError: naming the first file that holds no run, its field and value; or a run that is there twice.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(each.name, each.stat()) for each in entries if each.name.endswith(".json")]
    except OSError as error:
        raise FileError(f"{folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise FileError(f"{folder}: no run file (*.json) in this folder")
    stamps = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in sorted(found)}
    known = _read_index(folder)
    points = {name: known[name, stamp] for name, stamp in stamps.items() if (name, stamp) in known}
    new = [name for name in stamps if name not in points]
    points.update(zip(new, _read(folder, new), strict=True))
    if new or len(known) > len(points):
        _write_index(folder, stamps, points)
    series: dict[SeriesKey, list[RunSummary]] = {}
    for point in points.values():
        series.setdefault(point.kind, []).append(point)
    for each in series.values():
        each.sort(key=lambda point: (point.started, point.id))
        _refuse_twice(folder, each)
    return dict(sorted(series.items()))


def _read(folder: Path, names: list[str]) -> Iterator[RunSummary]:
    chunks = [(str(folder), names[first : first + CHUNK]) for first in range(0, len(names), CHUNK)]
    processes = min(len(chunks), len(os.sched_getaffinity(0)))
    if processes <= 1:
        for chunk in chunks:
            yield from _read_chunk(chunk)
        return
    with ProcessPoolExecutor(processes) as pool:
        try:
            for points in pool.map(_read_chunk, chunks):
                yield from points
        except FileError:
            pool.shutdown(cancel_futures=True)  # what else is broken is said the next time
            raise


def _read_chunk(chunk: tuple[str, list[str]]) -> list[RunSummary]:
    folder, names = chunk
    shared: dict[object, Any] = {}  # equal parts once, in memory and on the way to the reading process
    return [_point(f"{folder}/{name}", shared) for name in names]


class _Rank(BaseModel):
    seconds: list[PositiveFloat]
    optimizer_seconds: list[PositiveFloat]
    peak_memory_bytes: PositiveInt


class _Device(BaseModel):
    slug: str


class _Health(BaseModel):
    faults: tuple[str, ...] = ()


class _Run(BaseModel):
    """The fields of a Run that a RunSummary is made of: a third less to do than for all of them."""

    model_config = ConfigDict(allow_inf_nan=False)

    schema_version: Annotated[int, Field(ge=SCHEMA, le=SCHEMA)]
    id: str
    started: str
    workload: dict[str, Any]
    device: _Device
    software: dict[str, str]
    revision: str | None = None
    startup_seconds: NonNegativeFloat
    ranks: Annotated[list[_Rank], Field(min_length=1)]
    health: _Health = _Health()


def _point(path: str, shared: dict[object, Any]) -> RunSummary:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half of pathlib's time, a hundred thousand times
            run = _Run.model_validate_json(file.read())
        text = repr((run.workload, run.device.slug))
        if text not in shared:
            workload = Workload.model_validate(run.workload)
            kind = SeriesKey(workload.case, workload.scale, workload.trainer, workload.hash, run.device.slug)
            shared[text] = kind, workload
        kind, workload = shared[text]
    except (OSError, ValueError) as error:
        read_record(Path(path), Run)  # names the line, the field and the value
        raise FileError(f"{path}: {error}") from None
    if [len(rank.seconds) for rank in run.ranks] != [workload.steps] * workload.ranks:
        read_record(Path(path), Run)  # names what is missing
        raise FileError(f"{path}: expected {workload.ranks} ranks with {workload.steps} steps each")
    try:
        started = datetime.fromisoformat(run.started)
    except ValueError:
        raise FileError(f"{path}: started: expected an ISO 8601 time, got {run.started!r}") from None
    if started.tzinfo is None:
        started = started.replace(tzinfo=UTC)
    software = tuple(sorted(run.software.items()))
    return RunSummary(
        kind,
        int(started.timestamp()),
        run.id,
        run.revision,
        shared.setdefault(software, software),
        _tgs(run.ranks, workload),
        max(rank.peak_memory_bytes for rank in run.ranks),
        run.startup_seconds,
        next(iter(run.health.faults), None),
    )


def _tgs(ranks: Sequence[_Rank], workload: Workload) -> float:
    """throughput.tgs to the last digit, without arrays: for a few ranks a tenth of its time."""
    seconds = max(
        micro_step_seconds(rank.seconds, workload)
        + statistics.median(rank.optimizer_seconds or [0.0]) / workload.accumulation
        for rank in ranks
    )
    return workload.rank_tokens / seconds


def _refuse_twice(folder: Path, points: list[RunSummary]) -> None:
    for before, after in pairwise(points):
        if (before.started, before.id) == (after.started, after.id):
            raise FileError(f"{folder}: the run {after.id} of {after.kind} is there twice: take one of its files out")


# The index: a cache, so whatever is odd about it is no error, only slower.


def _read_index(folder: Path) -> dict[tuple[str, Stamp], RunSummary]:
    """Points by file name and what tells whether the file was changed since; empty where there is no index."""
    try:
        digest, _, text = (folder / INDEX).read_bytes().partition(b"\n")
        if digest != _digest(text):
            return {}
        content = json.loads(text)
        if content["version"] != INDEX_VERSION:
            return {}
        kinds = [SeriesKey(*kind) for kind in content["kinds"]]
        software = [tuple((name, version) for name, version in each) for each in content["software"]]
        return {
            (name, (size, changed)): RunSummary(kinds[kind], started, run, revision, software[versions], *rest)
            for name, size, changed, kind, started, run, revision, versions, *rest in content["runs"]
        }
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def _write_index(folder: Path, stamps: dict[str, Stamp], points: dict[str, RunSummary]) -> None:
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(point.kind for point in points.values()))}
    software = {each: number for number, each in enumerate(dict.fromkeys(point.software for point in points.values()))}
    runs = [
        [name, *stamps[name], kinds[point.kind], *point[1:4], software[point.software], *point[5:]]
        for name, point in points.items()
    ]
    content = {"version": INDEX_VERSION, "kinds": list(kinds), "software": list(software), "runs": runs}
    with suppress(FileError):  # a folder that only can be read has no index
        text = json.dumps(content, separators=(",", ":")).encode()
        write_whole(folder / INDEX, _digest(text) + b"\n" + text)


def _digest(text: bytes) -> bytes:
    """Tells an index that was cut or edited, whose numbers would otherwise be believed."""
    return hashlib.sha256(text).hexdigest().encode()
