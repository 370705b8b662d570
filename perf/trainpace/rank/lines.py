"""Writes the lines of a rank (protocol.py), whatever it runs."""

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Write(Protocol):
    """Appends a line to what a rank has said."""

    def __call__(self, event: str, **fields: Any) -> None:
        """One line, at once: the judging side follows the file."""


def write_lines(folder: str, rank: int, train: Callable[[Write], int]) -> int:
    """Run `train` between the first line of a rank and its last. Returns its exit code; 1 for an exception, which is
    written down.
    """
    with Path(folder, f"rank-{rank}.jsonl").open("a", buffering=1) as file:

        def write(event: str, **fields: Any) -> None:
            file.write(json.dumps({"event": event, **fields}) + "\n")

        write("begin")
        try:
            return train(write)
        except BaseException as error:  # noqa: BLE001 - whatever ends a rank is written down
            traceback.print_exc()
            write(
                "error",
                type=type(error).__name__,
                message=str(error),
                traceback=traceback.format_exc(),
                time=time.time(),
            )
            return 1
