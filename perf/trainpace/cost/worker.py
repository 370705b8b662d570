"""The process that traces, and the handle on it: torch is imported there, once for all cases, and never in pytest.

    python -m trainpace.cost.worker < workloads.jsonl

reads a workload a line, counts them on two processes (forked after the imports, which they share), and writes a line a
workload as each is done: `{"case": .., "cost": ..}`, or `{"case": .., "error": .., "detail": ..}`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from trainpace.cases.workload import Workload
from trainpace.errors import SuiteError, what_to_install
from trainpace.launch.environment import given
from trainpace.rank.imports import Own, search_path
from trainpace.runs.cost import Cost

PACKAGE = Path(__file__).resolve().parents[1]
PROCESSES = 2
"""Each takes a few hundred MiB and a core."""


class CountFailed(SuiteError):
    """A workload that could not be counted, and why; `detail` is the traceback where the reason is not the model's."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def counted(
    workloads: Iterable[Workload],
    *,
    checkout: Path | None = None,
    apart: Sequence[Path] = (),
    python: str = sys.executable,
    added: Sequence[str] = (),
) -> Iterator[tuple[str, Cost | CountFailed]]:
    """Count `workloads` in a process of their own; (case, its cost or why there is none) as each is done.

    The process is gone when the iteration ends, however it ends.

    Args:
        workloads: to be counted.
        checkout: whose trainer is counted, and with its own counting; None: this one's.
        apart: the other side's folders, which PYTHONPATH does not name for it.
        python: the interpreter that counts.
        added: names of environment variables that it is given besides those of launch/environment.py.

    Raises:
        CountFailed: where the process itself ends before its work is done; with what it said.
    """
    wanted = [workload.model_dump_json() for workload in workloads]
    environment = given(os.environ, added)
    counting = partial(_started, checkout=checkout or PACKAGE.parent, apart=apart, python=python)
    with tempfile.TemporaryFile("w+") as said, counting(said, environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # a process that cannot start says why itself
            process.stdin.write("\n".join(wanted) + "\n")
            process.stdin.close()
        done = 0
        for line in process.stdout:
            result = json.loads(line)
            done += 1
            error = result.get("error")
            if not error:
                yield result["case"], Cost.model_validate(result["cost"])
            elif missing := what_to_install(error):
                yield result["case"], CountFailed(missing)
            else:
                yield result["case"], CountFailed(error, result["detail"])
        if process.wait() or done < len(wanted):
            said.seek(0)
            text = said.read()[-4000:]
            if missing := what_to_install(text.rstrip().rpartition("\n")[2]):
                raise CountFailed(f"counting traces the trainer: {missing}")
            raise CountFailed(f"the tracing process ended with status {process.returncode}", text)


class _started:  # noqa: N801 - a context manager, used as a function
    """The worker in a process group of its own, which is killed whole at the end."""

    def __init__(
        self, said: Any, inherited: Mapping[str, str], *, checkout: Path, apart: Sequence[Path], python: str
    ) -> None:
        # Whatever made `perf` importable here (a checkout's conftest, say) is not passed on by itself.
        environment = Own(str(checkout), map(str, apart)).environment(inherited)
        path = os.pathsep.join(filter(None, (*search_path(checkout), environment.get("PYTHONPATH"))))
        environment |= {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", "trainpace.cost.worker"],
            cwd=checkout,  # the folder that -m searches first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
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


def _count(line: str) -> str:
    """One workload's line in, one result's line out."""
    import traceback

    from trainpace.cost.counter import CannotTrace
    from trainpace.cost.trace import count

    workload = Workload.model_validate_json(line)
    try:
        return json.dumps({"case": workload.case, "cost": count(workload).model_dump(mode="json")})
    except CannotTrace as error:
        return json.dumps({"case": workload.case, "error": str(error), "detail": ""})
    except Exception as error:  # noqa: BLE001 - one case that fails must not keep the others from being counted
        message = f"the trace failed: {type(error).__name__}: {error}"
        return json.dumps({"case": workload.case, "error": message, "detail": traceback.format_exc()})


def main() -> None:
    """Count what stands on the standard input."""
    import gc
    import multiprocessing

    lines = [line for line in sys.stdin if line.strip()]
    # Results alone on the standard output, whatever an import prints.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import trainpace.cost.trace  # noqa: F401 - imported once, before the fork

    gc.freeze()  # what was imported is never garbage: looking through it takes as long as a trace's fifth

    processes = min(PROCESSES, len(lines), len(os.sched_getaffinity(0)))
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for result in pool.imap_unordered(_count, lines):
            results.write(result + "\n")
            results.flush()


if __name__ == "__main__":
    main()
