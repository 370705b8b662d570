"""Every reader of a file that comes from outside, with a file that it can read: what is fuzzed.

A reader takes a folder in which its file lies, and either reads it or raises one of its own errors. Anything else (a
traceback, endless work, no memory) is a bug.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from factories import make_results, make_run, make_runs
from trainpace.data.sources import Seen, source
from trainpace.data.tokenizer import tokenizer_named
from trainpace.errors import DataError, FileError, RunFailed
from trainpace.launch.rank_log import RankLog
from trainpace.runs.cost import Cost
from trainpace.store.baselines import load_file, refresh
from trainpace.store.costs import load_costs, refresh_costs
from trainpace.store.history_index import INDEX, read_summaries
from trainpace.store.priorities import load_priorities
from trainpace.store.quarantine import load_quarantine
from trainpace.store.reports import read_results, write_results
from trainpace.store.runs import read_runs, write_run
from trainpace.trainers.external import Reading, load, read_claims

SEQUENCE = 128


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One reader."""

    name: str
    file: str
    """The file's name in the folder."""
    seed: bytes
    """What it can read."""
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...] = (FileError,)
    others: dict[str, bytes] = field(default_factory=dict)
    """Files beside it that stay as they are."""

    def feed(self, folder: Path, content: bytes) -> bool:
        """Read `content`; whether it was accepted."""
        (folder / self.file).write_bytes(content)
        try:
            self.read(folder)
        except self.errors:
            return False
        return True

    def prepare(self, folder: Path) -> None:
        """Put what lies beside the file into `folder`."""
        for name, content in self.others.items():
            (folder / name).write_bytes(content)
            os.utime(folder / name, (0, 0))  # the index knows a file by its time


def _made(write: Callable[[Path], object], name: str = "*") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        (path,) = Path(folder).glob(name)
        return path.read_bytes()


def _cost() -> Cost:
    return Cost(
        workload=make_run().workload,
        traced_layers=2,
        counters={"step.flops.matmul": 5, "deepspeed.memory.peak": 7},
        operators={"aten::mm": (1, 2, 3)},
        unknown={},
        software={"torch": "2.13.0"},
    )


RUN = make_run(workload=make_run().workload.model_copy(update={"warmup": 1, "steps": 3}))
NUMBERS = {
    "seconds": {"key": "s", "cumulative": True},
    "tokens": {"key": "t", "summed": True},
    "loss": {"key": "loss"},
}
STEPS = [{"s": 0.5, "t": 256, "loss": 6.1}, {"s": 1.1, "t": 256, "loss": 6.0}, {"eval": 1}]
RECORDS = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Say ä.", "input": "", "output": "ä"},
]
CHATS: list[dict[str, object]] = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "b"},
        ]
    },
]
LINES = [
    {"event": "begin"},
    {"event": "note", "text": "loading"},
    {"event": "step", "step": 0},
    {"event": "samples", "rank": 0, "seconds": [0.5]},
]
QUARANTINE = b'[[case]]\ncase = "a"\nreason = "noisy"\nuntil = 2026-12-31\nwho = "jane"\n'
PRIORITIES = b'[[priority]]\npaths = ["ours/*.py"]\ncases = ["llama2_7b-*"]\n'
DESCRIPTION = b"""
title = "Fake"
module = "json"
install = "pip install fake"
command = ["$python", "fake.py", "$ranks"]
environment = { A = "b" }
progress = "^step (\\\\d+)"
footnotes = ["sleeps"]
[reading]
format = "regex"
path = "$work/log*"
pattern = "s=(?P<s>\\\\S+)"
seconds = { key = "s", cumulative = true }
[cannot]
cpu = "no"
[files]
"a.json" = '{"x": $ranks}'
"""


def _claims(**reading: object) -> Callable[[Path], object]:
    chosen = Reading.model_validate({"path": "log", **NUMBERS, **reading})
    return lambda folder: read_claims(chosen, folder / "log", ranks=2)


def _rank_lines(folder: Path) -> object:
    lines = RankLog(folder / "rank-0.jsonl", 0)
    while lines.read():
        pass
    return lines.where(), lines.progress


def _index(folder: Path) -> None:
    write_run(RUN, folder).rename(folder / "run.json")
    os.utime(folder / "run.json", (0, 0))
    read_summaries(folder)


def _parquet(rows: list[Any]) -> bytes:
    def write(folder: Path) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow.parquet import write_table  # type: ignore[import-untyped]

        write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")

    return _made(write)


def _jsonl(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


READERS = (
    Reader(
        name="baselines",
        file="cpu-test-2c.json",
        seed=_made(lambda folder: refresh(folder, make_runs(1000.0, 1010.0))),
        read=lambda folder: load_file(folder / "cpu-test-2c.json"),
    ),
    Reader(
        name="run",
        file="run.json",
        seed=_made(lambda folder: write_run(RUN, folder)),
        read=lambda folder: read_runs(folder / "run.json"),
    ),
    Reader(
        name="history",
        file="run.json",
        seed=_made(lambda folder: write_run(RUN, folder)),
        read=read_summaries,
    ),
    Reader(
        name="history's index",
        file=INDEX,
        seed=_made(_index, INDEX),
        read=read_summaries,
        others={"run.json": _made(lambda folder: write_run(RUN, folder))},
    ),
    Reader(
        name="results",
        file="results.json",
        seed=_made(lambda folder: write_results(make_results(), folder)),
        read=read_results,
    ),
    Reader(
        name="costs",
        file="cost.json",
        seed=_made(lambda folder: refresh_costs(folder, [_cost()])),
        read=load_costs,
    ),
    Reader(
        name="quarantine",
        file="quarantine.toml",
        seed=QUARANTINE,
        read=lambda folder: load_quarantine(folder, date(2026, 11, 25)),
    ),
    Reader(name="priorities", file="perf-priorities.toml", seed=PRIORITIES, read=load_priorities),
    Reader(
        name="description",
        file="fake.toml",
        seed=DESCRIPTION,
        read=lambda folder: load(str(folder / "fake.toml")),
    ),
    Reader(
        name="log as JSON",
        file="log",
        seed=json.dumps({"log_history": STEPS}).encode(),
        read=_claims(format="json", records="log_history"),
    ),
    Reader(name="log as JSON lines", file="log", seed=_jsonl(STEPS), read=_claims(format="jsonl")),
    Reader(
        name="log as text",
        file="log",
        seed=b"\x1b[32mstep\x1b[0m s=0.5 t=256 loss=6.1\nother\ns=1.1 t=256 loss=6.0\n",
        read=_claims(format="regex", pattern=r"s=(?P<s>\S+) t=(?P<t>\S+) loss=(?P<loss>\S+)"),
    ),
    Reader(name="lines of a rank", file="rank-0.jsonl", seed=_jsonl(LINES), read=_rank_lines, errors=(RunFailed,)),
    Reader(
        name="records as JSON",
        file="data.json",
        seed=json.dumps(RECORDS, indent=1).encode(),
        read=lambda folder: list(source(str(folder / "data.json")).dialogues(Seen())),
        errors=(DataError,),
    ),
    Reader(
        name="records as JSON lines",
        file="data.jsonl",
        seed=_jsonl(RECORDS),
        read=lambda folder: list(source(str(folder / "data.jsonl")).dialogues(Seen())),
        errors=(DataError,),
    ),
    *(
        Reader(
            name=f"{name} as {path.suffix[1:]}",
            file=str(path),
            seed=seed,
            read=lambda folder, file=str(path), skip=skip: list(  # type: ignore[misc]
                source(str(folder / file), skip_bad=skip).dialogues(Seen())
            ),
            errors=(DataError,),
        )
        for name, skip, path, seed in (
            ("conversations", False, Path("chats.json"), json.dumps(CHATS).encode()),
            ("conversations with skipped ones", True, Path("chats.jsonl"), _jsonl(CHATS)),
            ("texts", False, Path("texts.jsonl"), _jsonl([{"text": "a"}, {"text": "ä b"}])),
            ("rows", False, Path("rows.parquet"), _parquet(CHATS[:1])),
            ("rows with skipped ones", True, Path("rows.parquet"), _parquet(RECORDS)),
        )
    ),
    Reader(
        name="tokenizer's config",
        file="tokenizer_config.json",
        seed=b'{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}',
        read=lambda folder: (tokenizer_named.cache_clear(), tokenizer_named(str(folder)).eos),
        errors=(DataError,),
        others={
            "tokenizer.json": json.dumps(
                {
                    "version": "1.0",
                    "truncation": None,
                    "padding": None,
                    "added_tokens": [],
                    "normalizer": None,
                    "pre_tokenizer": None,
                    "post_processor": None,
                    "decoder": None,
                    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2}, "unk_token": "<unk>"},
                }
            ).encode()
        },
    ),
)
