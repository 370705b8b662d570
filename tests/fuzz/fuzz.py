"""Feeds every reader of outside files with what it does not expect; exits with 1 where one answers with a crash.

python tests/fuzz/fuzz.py                      # or: tox run -e fuzz; ten minutes in all
python tests/fuzz/fuzz.py --minutes 1 --reader baselines
python tests/fuzz/fuzz.py --engine atheris     # guided by coverage; needs the package atheris

A crash is printed with the input, as short as hypothesis can make it. Not part of the suite's own tests: what it finds
becomes one.
"""

import argparse
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from readers import READERS, Reader

ODD = [
    b"NaN",
    b"1e999",
    b"-0",
    b"null",
    b"true",
    b"[" * 2000,
    b'{"":' * 2000,
    b"9" * 5000,
    b"\xff",
    b'"\\ud800"',
    b"\n",
]
ODD += [b"\x00", b"\\", b"${", b"(?P<", b"(a+)+", b"1_0", b"inf", b"-1", b"\xef\xbb\xbf", b"9999-99-99", b"''''", b"\r"]
BYTES = st.binary(max_size=12) | st.sampled_from(ODD)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**64), 10**400, 1e308, 5e-324, 0, -1, True])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


class Turn:
    """One reader's turn: feeds until its time is up, counts what it fed."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        self.fed = self.accepted = 0
        self.slowest = 0.0
        reader.prepare(folder)
        assert reader.feed(folder, reader.seed), f"{reader.name} does not read its seed"

    def feed(self, content: bytes) -> None:
        """Feed once; raises what the reader raises and must not."""
        begin = time.monotonic()
        self.accepted += self.reader.feed(self.folder, content)
        self.fed += 1
        self.slowest = max(self.slowest, time.monotonic() - begin)

    def __str__(self) -> str:
        return (
            f"{self.reader.name}: {self.fed} inputs, {self.accepted} accepted, the slowest {1000 * self.slowest:.0f} ms"
        )


def changed_bytes(draw: Any, seed: bytes) -> bytes:
    """`seed` with a few stretches replaced."""
    content = seed
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(content)))
        last = min(len(content), first + draw(st.integers(0, 40)))
        content = content[:first] + draw(BYTES) + content[last:]
    return content


def changed_json(draw: Any, seed: Any) -> Any:
    """`seed` with a value replaced, taken out or put in, somewhere."""
    content = copy.deepcopy(seed)
    for _ in range(draw(st.integers(1, 3))):
        at = content
        while isinstance(at, dict | list) and at:
            keys = sorted(at) if isinstance(at, dict) else range(len(at))
            key = keys[draw(st.integers(0, len(keys) - 1))]
            inner = at[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 5)):
                at = inner
                continue
            action = draw(st.sampled_from(["replace", "take out", "double", "put in"]))
            if action == "take out":
                del at[key]
            elif action == "double" and isinstance(at, list):
                at.append(copy.deepcopy(inner))
            elif action == "put in" and isinstance(at, dict):
                at[draw(st.text(max_size=6))] = draw(VALUES)
            else:
                at[key] = draw(VALUES)
            break
    return content


def inputs(seed: bytes) -> st.SearchStrategy[bytes]:
    """Files near `seed`: changed as bytes, and where it is JSON (or lines of it) as values too."""

    @st.composite
    def as_bytes(draw: Any) -> bytes:
        return changed_bytes(draw, seed)

    @st.composite
    def as_json(draw: Any) -> bytes:
        return json.dumps(changed_json(draw, json.loads(seed))).encode()

    @st.composite
    def as_lines(draw: Any) -> bytes:
        rows = changed_json(draw, [json.loads(line) for line in seed.splitlines()])
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    ways = [as_bytes(), st.binary(max_size=100)]
    for way, parse in ((as_json(), lambda: json.loads(seed)), (as_lines(), lambda: json.loads(seed.splitlines()[0]))):
        try:
            parse()
        except ValueError:
            continue
        ways.append(way)
    return st.one_of(*reversed(ways))


def by_hypothesis(reader: Reader, folder: Path, seconds: float) -> str | None:
    """Feed `reader` for so long; the traceback of the shortest input that crashes it, None where none does."""
    turn, deadline = Turn(reader, folder), time.monotonic() + seconds
    chance = random.Random()  # noqa: S311 - no secret

    def feed(content: bytes) -> None:
        turn.feed(content)

    limits = settings(
        max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    crash = None
    while crash is None and time.monotonic() < deadline:
        try:
            seed(chance.getrandbits(64))(limits(given(inputs(reader.seed))(feed)))()
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            crash = traceback.format_exc()
    show(str(turn))
    return crash


def by_atheris(reader: Reader, folder: Path, seconds: float) -> str | None:
    """The same, guided by coverage, in a process of its own: libFuzzer ends the one that it runs in."""
    for name in ("corpus", "file"):
        (folder / name).mkdir()
    (folder / "corpus" / "seed").write_bytes(reader.seed)
    guided = Path(__file__).with_name("guided.py")
    command = [sys.executable, str(guided), reader.name, str(max(1, round(seconds))), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    show(f"{reader.name}, guided: {lines[-1] if lines else f'exit status {done.returncode}'}")
    return None if done.returncode == 0 else (done.stdout + done.stderr)[-4000:]


def show(text: str) -> None:
    """One line."""
    print(text, flush=True)  # noqa: T201 - what a command prints


def main() -> int:
    """Feed the readers in turn; the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz every reader of outside files.")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all (default: 10)")
    parser.add_argument("--reader", action="append", default=[], help=", ".join(each.name for each in READERS))
    parser.add_argument(
        "--engine", choices=("hypothesis", "atheris", "both"), help="default: both, where both are there"
    )
    options = parser.parse_args()
    chosen = [each for each in READERS if each.name in options.reader or not options.reader]
    guided = find_spec("atheris") is not None
    engine = options.engine or ("both" if guided else "hypothesis")
    if not guided:
        show("atheris is not installed: hypothesis alone")
    ways = {"hypothesis": [by_hypothesis], "atheris": [by_atheris], "both": [by_hypothesis, by_atheris]}[engine]
    crashes = 0
    for reader in chosen:
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                crash = way(reader, Path(folder), 60 * options.minutes / len(chosen) / len(ways))
            if crash:
                crashes += 1
                show(f"CRASH in {reader.name}\n{crash}")
    show(f"{crashes} of {len(chosen)} readers crashed")
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
