"""Reads the JSON lines that one rank appends, as they come."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from trainpace.errors import RunFailed
from trainpace.text import harmless_values

_STEP = b'{"event": "step", "step": '
_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 64 << 20
"""A longer line is none of the step loop's: the samples of a million steps take less."""


def _parsed(line: bytes) -> Any:
    """A line of JSON, its text harmless. Pydantic's parser takes a third of the time, and refuses half a character."""
    try:
        return harmless_values(from_json(line))
    except ValueError:
        return harmless_values(json.loads(line))


@dataclass(frozen=True)
class Sight:
    """When a line came, monotonic seconds of the judging side: `after` the last look without it, `by` the one with it.

    What a rank says of its times is the rank's; these are not.
    """

    after: float
    by: float


class RankLog:
    """What a rank has said so far."""

    def __init__(self, path: Path, rank: int, warmup: int = 0) -> None:
        """
        Args:
            path: the rank's lines.
            rank: number of the rank.
            warmup: steps after which the measured window opens; 0: nobody asks when.
        """
        self.rank = rank
        self.warmup = warmup
        self.steps = 0
        """Steps done, warm-up included."""
        self.note = "starting"
        self.samples: dict[str, Any] | None = None
        self.counted: dict[str, Any] | None = None
        """FLOPs of a micro-step more, where asked for."""
        self.profile: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self._begun = self._ready = False
        self.opened: Sight | None = None
        """The line of the warm-up's last step, the first such."""
        self.closed: Sight | None = None
        """The line that closes the window, the last such."""
        self._looked = time.monotonic()
        self._now = Sight(self._looked, self._looked)
        self._path = path
        self._offset = 0
        self._half = bytearray()
        """The beginning of the line that is being written."""

    def read(self) -> bool:
        """Take the lines that have come since the last call; True if there were any. A half-written line waits."""
        any_came, begun = False, time.monotonic()
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while chunk := file.read(_CHUNK_BYTES):
                    self._offset += len(chunk)
                    self._now = Sight(self._looked, time.monotonic())
                    any_came |= self._take_lines(chunk)
        except FileNotFoundError:
            return False
        finally:
            self._looked = begun
        return any_came

    def _take_lines(self, chunk: bytes) -> bool:
        """Take the lines that `chunk` ends; True if there were any."""
        whole, newline, half = chunk.rpartition(b"\n")
        lines = bytes(self._half + whole).split(b"\n") if newline else []
        if newline:
            self._half.clear()
        self._half += half
        if len(self._half) > _LINE_BYTES:
            raise RunFailed(
                f"wrote a line that is none of the step loop's, above {_LINE_BYTES >> 20} MiB: "
                f"{bytes(self._half[:80])!r}",
                rank=self.rank,
            )
        for line in lines:
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

    def observed(self) -> dict[str, float] | None:
        """As trainpace.runs.run.Observed has it; None where one of the two lines never came."""
        if self.opened is None or self.closed is None:
            return None
        return {"least": self.closed.after - self.opened.by, "most": self.closed.by - self.opened.after}

    def where(self) -> str:
        """How far the rank has come, in words."""
        if self.steps or self._ready:
            return f"step {self.steps}"
        return "set-up" if self._begun else "start"

    def _stepped(self, step: int) -> None:
        self._begun = True
        self.steps = step + 1
        if self.steps == self.warmup and self.opened is None:
            self.opened = self._now
        self.note = "training"

    def _take(self, line: dict[str, Any]) -> None:
        self._begun = True
        match line["event"]:
            case "step":
                self._stepped(line["step"])
            case "set-up":
                self._ready = True
            case "note":
                self.note = line["text"]
            case "samples":
                self.samples = line
            case "measured":
                self.closed = self._now
            case "counted":
                self.counted = line
            case "profile":
                self.profile = line
            case "error":
                self.error = line
