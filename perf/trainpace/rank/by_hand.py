"""Runs one rank of a kept run in this process, where a debugger or a profiler can look at it (docs/debugging.md).

    python perf/trainpace/rank/__main__.py by-hand LOGS/CASE/RUN/request.json [RANK]

It writes to `by-hand/` beside the request. Of several ranks each is started by itself, rank 0 first; they wait for each
other.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from .imports import Own


def main(path: str, rank: int = 0) -> int:
    """Run one rank as a host would have run it, without a host. Returns its exit status."""
    kept = json.loads(Path(path).read_text())
    settings, request = kept["host"]["settings"], kept["run"]
    folder = Path(path).resolve().with_name("by-hand")
    folder.mkdir(exist_ok=True)
    (folder / f"rank-{rank}.jsonl").write_text("")
    if rank == 0:
        (folder / "rendezvous").write_text("")
    ranks = request["workload"]["ranks"]
    os.environ.update(
        kept["host"]["environment"],
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
        GROUP_RANK="0",
    )
    if settings["folder"]:
        os.chdir(settings["folder"])
    Own(settings["checkout"], settings["apart"]).apply()
    for name in settings["preload"]:
        importlib.import_module(name)
    loop = importlib.import_module(f".{settings['loop']}", __package__)
    sys.stderr.write(f"rank {rank} of {ranks}, process {os.getpid()}: writes {folder}/rank-{rank}.jsonl\n")
    return int(loop.main(request | {"folder": str(folder)}, rank, rank))
