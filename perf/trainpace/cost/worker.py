"""The process that traces, and the handle on it: torch is imported there, once for all cases, and never in pytest.

    python -m trainpace.cost.worker [--processes N] [--inputs-since SECONDS] < workloads.jsonl

reads a workload a line, counts them on N processes (forked after the imports, which they share), and writes a line a
workload as each is done: `{"case": .., "cost": ..}`, or `{"case": .., "error": .., "detail": ..}`. A line may also be
`{"workload": .., "own": ..}`, of a user's model (own_model.py). With --inputs-since, when it was started, a cost also
says what it was counted from: `"inputs": 0` is the first line `{"inputs": ..}` before it. A
checkout of another age may lie on either side: what it does not know it passes over.
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from trainpace.cases.workload import Workload
from trainpace.cost.cache import CostCache
from trainpace.cost.inputs import Recorder
from trainpace.cost.own_model import OwnModel
from trainpace.errors import SuiteError, what_to_install
from trainpace.launch.environment import given
from trainpace.rank.imports import Own, search_path
from trainpace.runs.cost import Cost

PACKAGE = Path(__file__).resolve().parents[1]
PROCESS_BYTES = 1 << 30
"""Memory that is there for each process at least, where several count: it takes 0.2 to 0.4 GiB."""
MOST_PROCESSES = 16


class CountFailed(SuiteError):
    """A workload that could not be counted, and why; `detail` is the traceback where the reason is not the model's."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def counted(
    workloads: Iterable[Workload],
    *,
    cache: Path | None = None,
    progress: Callable[[int, str], None] = lambda done, text: None,  # noqa: ARG005
    checkout: Path | None = None,
    apart: Sequence[Path] = (),
    python: str = sys.executable,
    added: Sequence[str] = (),
    own: OwnModel | None = None,
) -> Iterator[tuple[str, Cost | CountFailed]]:
    """Count `workloads` in processes of their own; (case, its cost or why there is none) as each is done.

    Counted is the native trainer, or the model of `own`.

    What the cache holds comes first, and takes no process. Every other cost is kept there as soon as it is counted, so
    that an iteration which is cut off goes on where it was. The processes are gone when it ends, however it ends.

    Args:
        workloads: to be counted.
        cache: the folder of all caches; None: all are counted, and nothing is kept.
        progress: called after each with the number of those done, the case, and how long the others take.
        checkout: whose trainer is counted, and with its own counting, which no cache is asked for; None: this one's.
        apart: the other side's folders, which PYTHONPATH does not name for it.
        python: the interpreter that counts.
        added: names of environment variables that it is given besides those of launch/environment.py.
        own: the model of all `workloads`; None: the native trainer's.

    Raises:
        CountFailed: where the process itself ends before its work is done; with what it said.
    """
    assert cache is None or (checkout is None and python == sys.executable)
    code = checkout or PACKAGE.parent
    environment = _environment(os.environ, checkout=code, apart=apart, added=added)
    wanted = list(workloads)
    missing = wanted
    kept = None
    if cache is not None:
        kept = CostCache(cache, package=PACKAGE, environment=environment, added=tuple(added))
        missing = []
        for workload in wanted:
            if (found := kept.find(workload, own)) is None:
                missing.append(workload)
            else:
                yield workload.case, found
    if not missing:
        return
    began, cached = time.monotonic(), len(wanted) - len(missing)
    progress(cached, f"{cached} from the cache" if cached else "importing torch")
    keep = partial(kept.keep, own=own) if kept else None
    with closing(_traced(missing, environment, checkout=code, python=python, keep=keep, own=own)) as traced:
        try:
            for done, result in enumerate(traced, start=1):
                left = (time.monotonic() - began) / done * (len(missing) - done)
                progress(cached + done, f"{result[0]}, {left:.0f} s left")
                yield result
        finally:
            if kept:
                kept.clean()


def _traced(
    workloads: list[Workload],
    environment: Mapping[str, str],
    *,
    checkout: Path,
    python: str,
    keep: Callable[[Cost, str], None] | None = None,
    own: OwnModel | None = None,
) -> Generator[tuple[str, Cost | CountFailed]]:
    """`keep` is called with each cost and what it was counted from."""
    arguments = ["--processes", str(_processes(len(workloads)))]
    if keep is not None:
        arguments += ["--inputs-since", repr(time.time())]
    inputs: list[str] = []
    with tempfile.TemporaryFile("w+") as said, _started(said, environment, checkout, python, arguments) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # a process that cannot start says why itself
            process.stdin.write("".join(f"{_line(workload, own)}\n" for workload in workloads))
            process.stdin.close()
        done = 0
        for line in process.stdout:
            result = json.loads(line)
            if "case" not in result:
                inputs.append(result["inputs"])
                continue
            done += 1
            found = _read(result)
            if keep is not None and isinstance(found, Cost) and result.get("inputs") is not None:
                keep(found, inputs[result["inputs"]])
            yield result["case"], found
        if process.wait() or done < len(workloads):
            said.seek(0)
            text = said.read()[-4000:]
            if missing := what_to_install(text.rstrip().rpartition("\n")[2]):
                raise CountFailed(f"counting traces the trainer: {missing}")
            raise CountFailed(f"the tracing process ended with status {process.returncode}", text)


def _read(result: Mapping[str, Any]) -> Cost | CountFailed:
    error = result.get("error")
    if not error:
        return Cost.model_validate(result["cost"])
    if missing := what_to_install(error):
        return CountFailed(missing)
    return CountFailed(error, result["detail"])


def _processes(workloads: int) -> int:
    """On how many processes so many workloads are counted: a core and enough memory for each."""
    import psutil

    from trainpace.probe.device import cgroup_memory_bytes, usable_cores

    room = psutil.virtual_memory().available
    if (limit := cgroup_memory_bytes()) is not None:
        room = min(room, limit)
    return max(1, min(workloads, usable_cores(), room // PROCESS_BYTES, MOST_PROCESSES))


def _environment(
    inherited: Mapping[str, str], *, checkout: Path, apart: Sequence[Path], added: Sequence[str]
) -> dict[str, str]:
    """The variables that the worker is given."""
    # Whatever made `perf` importable here (a checkout's conftest, say) is not passed on by itself.
    environment = Own(str(checkout), map(str, apart)).environment(given(inherited, added))
    path = os.pathsep.join(filter(None, (*search_path(checkout), environment.get("PYTHONPATH"))))
    return environment | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


class _started:  # noqa: N801 - a context manager, used as a function
    """The worker in a process group of its own, which is killed whole at the end."""

    def __init__(
        self, said: Any, environment: Mapping[str, str], checkout: Path, python: str, arguments: Sequence[str]
    ) -> None:
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", "trainpace.cost.worker", *arguments],
            cwd=checkout,  # the folder that -m searches first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def _line(workload: Workload, own: OwnModel | None) -> str:
    """A workload as the process is told of it: alone, or with the model that is counted."""
    if own is None:
        return workload.model_dump_json()
    return json.dumps({"workload": workload.model_dump(mode="json"), "own": own.model_dump(mode="json")})


def _told(line: str) -> tuple[Workload, OwnModel | None]:
    """What a line says."""
    told = json.loads(line)
    if "own" not in told:
        return Workload.model_validate(told), None
    return Workload.model_validate(told["workload"]), OwnModel.model_validate(told["own"])


def _count(line: str) -> dict[str, Any]:
    """One workload's line in, its result out."""
    import traceback

    from trainpace.cost.counter import CannotTrace
    from trainpace.cost.own_trace import count_own
    from trainpace.cost.trace import count

    workload, own = _told(line)
    try:
        cost = count(workload) if own is None else count_own(workload, own)
        return {"case": workload.case, "cost": cost.model_dump(mode="json")}
    except CannotTrace as error:
        return {"case": workload.case, "error": str(error), "detail": ""}
    except Exception as error:  # noqa: BLE001 - one case that fails must not keep the others from being counted
        message = f"the trace failed: {type(error).__name__}: {error}"
        return {"case": workload.case, "error": message, "detail": traceback.format_exc()}


def main() -> None:
    """Count what stands on the standard input."""
    import gc

    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--inputs-since", type=float)
    arguments, _ = parser.parse_known_args()
    recorder = None if arguments.inputs_since is None else Recorder(arguments.inputs_since)
    lines = [line for line in sys.stdin if line.strip()]
    # Results alone on the standard output, whatever an import prints.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import trainpace.cost.trace  # noqa: F401 - imported once, before the fork

    if recorder is not None:
        recorder.inputs()  # thousands of files are read once, before the fork
    gc.freeze()  # what was imported is never garbage: looking through it takes as long as a trace's fifth

    written: dict[str, int] = {}
    for result, inputs in _shared_out(lines, arguments.processes, recorder):
        if inputs is not None and inputs not in written:
            written[inputs] = len(written)
            results.write(json.dumps({"inputs": inputs}) + "\n")
        results.write(json.dumps(result | {"inputs": written.get(inputs or "")}) + "\n")
        results.flush()


Result = dict[str, Any]


def _shared_out(lines: list[str], processes: int, recorder: Recorder | None) -> Iterator[tuple[Result, str | None]]:
    """The result of each line, and what it was counted from, as each is done. A process that dies costs its line."""
    waiting = deque(lines)
    idle: list[_Child] = []
    busy: dict[Any, tuple[_Child, str]] = {}
    while waiting or busy:
        while waiting and len(busy) < processes:
            child = idle.pop() if idle else _Child(recorder)
            line = waiting.popleft()
            child.connection.send(line)
            busy[child.connection] = child, line
        for connection in wait(list(busy)):
            child, line = busy.pop(connection)
            try:
                yield child.connection.recv()
                idle.append(child)
            except (EOFError, OSError):
                yield child.died(line), None


class _Child:
    """A fork that counts line after line, so that what torch keeps of one trace serves the next."""

    def __init__(self, recorder: Recorder | None) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, recorder), daemon=True)
        self._process.start()
        other.close()  # or its end would not be seen here

    def died(self, line: str) -> Result:
        """What is said of the line that it was counting."""
        self._process.join()
        code = self._process.exitcode or 0
        how = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with status {code}"
        hint = ": the system ends what takes more memory than it has" if code == -signal.SIGKILL else ""
        error = f"the tracing process was ended {how}{hint}"
        return {"case": _told(line)[0].case, "error": error, "detail": ""}


def _serve(connection: Any, recorder: Recorder | None) -> None:
    while True:
        result = _count(connection.recv())
        connection.send((result, recorder.inputs() if recorder is not None else None))


if __name__ == "__main__":
    main()
