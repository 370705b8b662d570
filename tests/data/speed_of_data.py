"""How fast data is made: tokens per second, and peak memory.

python tests/data/speed_of_data.py [tokenizer]
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trainpace.data.corpus import ENGLISH, records
from trainpace.data.packing import pack, packed
from trainpace.data.sources import source
from trainpace.data.tokenized import tokenized
from trainpace.data.tokenizer import BYTES, tokenizer_named

RECORDS = 100_000
LENGTHS = {"8k": 8 << 10, "1M": 1 << 20}
TOKENS = 64 << 20
"""Tokens that packing alone is timed on: more than one pass over the records."""


def main(tokenizer: str = BYTES) -> None:
    """Tokenise and pack 100,000 records in one pass; then time packing alone, from the tokenised lists."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        file = place / "records.json"
        # Written by a process of its own: what that takes is not this one's peak memory.
        writer = multiprocessing.get_context("spawn").Process(target=_write, args=(file,))
        writer.start()
        writer.join()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=100)
            own = [_own_mib()]

            def progress(fraction: float, doing: str) -> None:
                bar.update(task, completed=int(100 * fraction), description=doing)
                own.append(_own_mib())

            start = time.perf_counter()
            whole = packed(
                sources=[str(file)],
                tokenizer=tokenizer,
                sequence=LENGTHS["8k"],
                count=2048,
                seed=0,
                cache=place / "cache",
                progress=progress,
            )
            seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        console.print(
            f"{RECORDS:,} records ({file.stat().st_size / 2**20:.0f} MiB) -> {whole.ids.size:,} tokens"
            f" in {seconds:.2f} s: {whole.ids.size / seconds / 1e6:.1f} million tokens/s\n"
            f"peak memory {peak:.0f} MiB with mapped files, {max(own):.0f} MiB without ({own[0]:.0f} MiB at the start)"
        )
        tokens = tokenized(source(str(file)), tokenizer_named(tokenizer), place / "cache")
        for name, sequence in LENGTHS.items():
            into = place / name
            into.mkdir()
            start, cpu = time.perf_counter(), time.process_time()
            pack([tokens], into, sequence=sequence, count=TOKENS // sequence, seed=0)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            console.print(
                f"packing {TOKENS:,} tokens into {name}: {TOKENS / seconds / 1e6:.0f} million tokens/s"
                f" ({TOKENS / cpu / 1e6:.0f} per CPU second)"
            )


def _write(file: Path) -> None:
    file.write_text(json.dumps(records(ENGLISH, RECORDS), indent=1), encoding="utf-8")


def _own_mib() -> float:
    """Resident memory without mapped files, which the kernel takes back when it needs them."""
    memory = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:2])
