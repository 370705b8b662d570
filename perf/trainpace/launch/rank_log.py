"""Reads the JSON lines that one rank appends, as they come."""

import json
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from trainpace.errors import RunFailed

_STEP = b'{"event": "step", "step": '


def _parsed(line: bytes) -> Any:
    """A line of JSON. Pydantic's parser takes a third of the time, and refuses half of a surrogate pair."""
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


class RankLog:
    """What a rank has said so far."""

    def __init__(self, path: Path, rank: int) -> None:
        self.rank = rank
        self.steps = 0
        """Steps done, warm-up included."""
        self.note = "starting"
        self.samples: dict[str, Any] | None = None
        self.profile: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self._begun = False
        self._path = path
        self._offset = 0

    def read(self) -> bool:
        """Take the lines that have come since the last call; True if there were any. A half-written line waits."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return False
        self._offset += len(whole) + len(newline)
        for line in whole.split(b"\n") if newline else ():
            try:
                # Of a thousand ranks these are a million, and say no more than a number.
                if line.startswith(_STEP) and line.endswith(b"}") and line[len(_STEP) : -1].isdigit():
                    self._stepped(int(line[len(_STEP) : -1]))
                else:
                    self._take(_parsed(line))
            except (ValueError, TypeError, KeyError, RecursionError):
                raise RunFailed(
                    f"wrote a line that is none of the step loop's: {line[:80]!r}", rank=self.rank
                ) from None
        return bool(newline)

    @property
    def progress(self) -> tuple[bool, int]:
        """Orders ranks by how far they have come."""
        return self._begun, self.steps

    def where(self) -> str:
        """How far the rank has come, in words."""
        if self.steps:
            return f"step {self.steps}"
        return "set-up" if self._begun else "start"

    def _stepped(self, step: int) -> None:
        self._begun = True
        self.steps = step + 1
        self.note = "training"

    def _take(self, line: dict[str, Any]) -> None:
        self._begun = True
        match line["event"]:
            case "step":
                self._stepped(line["step"])
            case "note":
                self.note = line["text"]
            case "samples":
                self.samples = line
            case "profile":
                self.profile = line
            case "error":
                self.error = line
