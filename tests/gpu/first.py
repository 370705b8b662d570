"""The first minutes on a GPU: what the suite needs of one, in the order in which a fault costs least.

python tests/gpu/first.py [FOLDER]        # or: tox run -e gpu

The steps are STEPS: each is a command with a time limit of its own. The first that fails ends the call; the next call
with the same FOLDER goes on there. FOLDER/page.md says what passed and what was measured. It needs no network, and no
more than the standard library and what the suite itself needs.

Exit status: 0 all passed, 1 a step failed, 4 something is missing here.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import exp, log
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "perf"
for _place in (PACKAGE, Path(__file__).resolve().parent):  # a checkout that is not installed; the page, beside this
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

from first_page import Figures, render  # noqa: E402 - from there

OLDEST_TORCH = "2.11"
"""Images have it. pyproject.toml asks for what the suite is tested with."""
TRAINED_WITH = ("deepspeed", "torch", "transformers")
"""Of the extra `train`; the rest is for data that is not generated."""
SAME_LOSS = 0.005
"""How far the first losses of the two engines may lie apart, relative."""
GRACE_SECONDS = 20.0
"""A step that is interrupted has this long to end what it started."""
LAST_LINES = 15
"""Of a failed step's output that are printed."""
SIZE = 8192
"""Rows and columns of the matrices that keep a GPU busy."""
BURN_PRODUCTS = 3000
"""Some 5 s of an H100."""


class Lacking(Exception):
    """Something is missing here, in one line."""


class Wrong(Exception):
    """What a step left is not what was expected."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One of the steps."""

    name: str
    shows: str
    """What is known when it has passed."""
    command: tuple[str, ...]
    """{python}, {root} and {out}, the step's own folder, stand for themselves."""
    minutes: float
    """Its limit; then it is ended, with all that it started."""
    read: Callable[[Path], Figures]
    """Reads the step's folder; raises Wrong where the step did not do what it should."""

    def words(self, out: Path) -> list[str]:
        """The command, with the places that it names."""
        places = {"{python}": sys.executable, "{root}": str(ROOT), "{out}": str(out)}
        return [re.sub(r"\{\w+\}", lambda name: places.get(name[0], name[0]), word) for word in self.command]


# What steps read


def read_facts(out: Path) -> Figures:
    """What this file's own --facts wrote."""
    found: Figures = json.loads((out / "facts.json").read_text(encoding="utf-8"))
    if found["faults"]:
        raise Wrong(f"the GPU was not in order while it was busy: {'; '.join(found['faults'])}")
    return found


def read_tests(out: Path) -> Figures:
    """JUnit's file: all ran and passed."""
    suite = next(ElementTree.parse(out / "junit.xml").getroot().iter("testsuite"))  # noqa: S314 - our own file
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    if failed:
        bad = [case.get("name", "") for case in suite.iter("testcase") if len(case) and case[0].tag != "skipped"]
        raise Wrong(f"{failed} of {total} tests failed: {', '.join(bad[:3])}{' ..' if len(bad) > 3 else ''}")
    if skipped or not total:
        raise Wrong(f"expected all tests to run, {skipped} of {total} were skipped")
    return {"passed": total}


def read_training(out: Path) -> Figures:
    """A session of one case: its results and its runs, beside what was predicted."""
    from trainpace.cost.estimate import counted_memory
    from trainpace.store.costs import load_costs
    from trainpace.store.reports import read_results
    from trainpace.store.runs import read_runs

    case = _only_case(read_results(out))
    run = read_runs(out / "runs")[0]
    if run.workload.scale == "mini":
        raise Wrong(f"expected a step at full width, got scale mini: {run.workload.shape}")
    if not run.ranks[0].losses:
        raise Wrong("expected the losses of all steps, got none")
    return {
        "case": case.case,
        "engine": run.workload.engine,
        "layers": run.workload.shape.layers,
        "ranks": run.workload.ranks,
        "tgs": case.tgs,
        "tgs_of_runs": list(case.tgs_of_runs),
        "tflops": case.tflops,
        "hfu": case.hfu,
        "hfu_predicted": _predicted_hfu(run.device.slug, case.case),
        "memory": case.peak_memory_bytes,
        "memory_predicted": counted_memory(load_costs(ROOT / "baselines").values())(run.workload),
        "loss": run.ranks[0].losses[0],
        "notes": list(case.notes),
    }


def read_beside(out: Path) -> Figures:
    """As `read_training`; the first loss, which lies before any update, is that of the other engine."""
    found = read_training(out)
    other = read_training(out.parent / "deepspeed")
    if abs(found["loss"] / other["loss"] - 1) > SAME_LOSS:
        raise Wrong(
            f"expected the engines' first losses to agree within {SAME_LOSS:.1%}, got {found['loss']:.5f} under "
            f"{found['engine']} and {other['loss']:.5f} under {other['engine']}"
        )
    return found


def read_noise(out: Path) -> Figures:
    """A refresh: how far its runs lie apart."""
    from trainpace.store.reports import read_results

    refreshed = _only_case(read_results(out))
    if refreshed.refresh != "recorded":
        raise Wrong(f"expected a baseline to be recorded, got: {refreshed.change or refreshed.label}")
    found = read_training(out)
    runs = [log(tgs) for tgs in found["tgs_of_runs"]]
    if len(runs) < 2:
        raise Wrong(f"expected several runs, got {len(runs)}")
    return found | {"mean": exp(fmean(runs)), "spread": stdev(runs)}


def read_self_test(out: Path) -> Figures:
    """The gate's proof of itself."""
    from trainpace.store.reports import read_results

    case = _only_case(read_results(out))
    found = [note for note in case.notes if note.startswith("self-test: ")]
    if not found:
        raise Wrong(f"expected the injected slowdown to be found, got {case.label}: {'; '.join(case.reasons)}")
    versus = case.versus
    return {
        "ratio": case.ratio,
        "low": versus.low if versus else None,
        "high": versus.high if versus else None,
        "pairs": versus.pairs if versus else None,
        "found": found[0].removeprefix("self-test: "),
    }


def _only_case(results: Any) -> Any:
    if len(results.cases) != 1:
        raise Wrong(f"expected one case, got {len(results.cases)}: {results.summary}")
    case = results.cases[0]
    if case.outcome in {"failed", "excused"}:  # a case without a baseline is a skipped test
        raise Wrong(f"{case.case}: {case.label}: {'; '.join(case.reasons) or results.summary}")
    return case


def _predicted_hfu(slug: str, case: str) -> float | None:
    """Of the published row as a whole, on its number of GPUs; None for a device that nothing is predicted for."""
    from trainpace.cost.predict import devices, forecasts

    if slug not in devices():
        return None
    found = {each.workload.case: each for each in forecasts(slug)}
    return found[case].of_peak(found[case].hardware_flops) if case in found else None


# The steps


def _session(case: str, engine: str, *options: str) -> tuple[str, ...]:
    """A session of one case at proxy scale, which writes into the step's folder alone."""
    kept = ("--perf-report", "{out}", "--perf-baselines", "{out}/baselines")
    chosen = ("-k", case, "--perf-scale", "proxy", "--perf-engine", engine)
    return ("{python}", "-m", "pytest", "{root}/perf/test_speed.py", "-p", "no:cacheprovider", *chosen, *kept, *options)


_ONE_RUN = ("--perf-missing", "skip", "--perf-runs-per-case", "1", "--perf-runs", "{out}/runs")

STEPS = (
    Step(
        name="facts",
        shows="driver, versions, the GPU's health while it is busy",
        command=("{python}", "{root}/tests/gpu/first.py", "--facts", "{out}"),
        minutes=3,
        read=read_facts,
    ),
    Step(
        name="operators",
        shows="operators against float64, both engines' mini step against the CPU, nothing waits for the GPU",
        # Without the other tests' conftest.py, which needs what only tests need.
        command=(
            *("{python}", "-m", "pytest", "{root}/tests/gpu/test_on_device.py", "--confcutdir", "{root}/tests/gpu"),
            *("-x", "-q", "-p", "no:cacheprovider", "--junit-xml", "{out}/junit.xml"),
        ),
        minutes=8,
        read=read_tests,
    ),
    Step(
        name="deepspeed",
        shows="a full-width step under ZeRO-3: memory, HFU",
        command=_session("llama2_7b-8k", "deepspeed", *_ONE_RUN, "--perf-warmup", "5", "--perf-steps", "8"),
        minutes=5,
        read=read_training,
    ),
    Step(
        name="fsdp2",
        shows="the same under FSDP2; the same first loss",
        command=_session("llama2_7b-8k", "fsdp2", *_ONE_RUN, "--perf-warmup", "5", "--perf-steps", "8"),
        minutes=5,
        read=read_beside,
    ),
    Step(
        name="noise",
        shows="five fresh runs, stored as a baseline",
        command=_session("llama2_7b-8k", "deepspeed", "--perf-refresh", "--perf-runs", "{out}/runs"),
        minutes=10,
        read=read_noise,
    ),
    Step(
        name="self-test",
        shows="the gate finds an injected slowdown, and none where there is none",
        command=_session("llama2_7b-8k", "fsdp2", "--perf-self-test", "--perf-warmup", "5", "--perf-steps", "8"),
        minutes=10,
        read=read_self_test,
    ),
    Step(
        name="attention",
        shows="128k tokens: long attention, memory",
        command=_session("llama2_7b-128k", "fsdp2", *_ONE_RUN, "--perf-warmup", "1", "--perf-steps", "3"),
        minutes=8,
        read=read_training,
    ),
)


# Facts


def burn() -> float:
    """Keep the first GPU busy for seconds; TFLOP/s of its products.

    Raises:
        Lacking: where torch cannot use it.
    """
    import torch

    if not torch.accelerator.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise Lacking(f"needs a torch that sees the driver's GPU: torch {torch.__version__} is built for {built}")
    factor = torch.randn(SIZE, SIZE, device=torch.accelerator.current_accelerator()).bfloat16()
    return burnt(torch, lambda: factor @ factor)


def burnt(torch: Any, product: Callable[[], Any]) -> float:
    """TFLOP/s of BURN_PRODUCTS products that are issued one after the other, by the accelerator's own clock."""
    begin, end = torch.Event(enable_timing=True), torch.Event(enable_timing=True)
    first = BURN_PRODUCTS // 10
    for number in range(BURN_PRODUCTS):
        if number == first:  # those before it choose a kernel and raise the clock
            begin.record()
        product()
    end.record()
    end.synchronize()
    return 2 * SIZE**3 * (BURN_PRODUCTS - first) / (begin.elapsed_time(end) / 1e3) / 1e12


def write_facts(out: Path, busy: Callable[[], float] = burn) -> None:
    """Write facts.json: the device, versions, what the driver said of the time in which `busy` ran."""
    from trainpace.probe.device import GpuWindow, present
    from trainpace.rank.host import versions
    from trainpace.runs.run import SOFTWARE

    window = GpuWindow(1)
    window.open()
    reached = busy()
    health = window.close()
    machine = present()
    assert machine.gpus is not None, "looked for before the first step"
    found = {
        "device": machine.gpus.name,
        "slug": machine.gpus.slug,
        "count": machine.gpus.count,
        "memory": machine.gpus.memory_bytes,
        "burn_tflops": reached,
        "faults": list(health.faults),
        "notes": [*machine.notes, *health.notes],
        "versions": versions(list(SOFTWARE)),
    }
    (out / "facts.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def look() -> str:
    """The slug of this machine's GPUs.

    Raises:
        Lacking: naming what is missing.
    """
    wanted = _wanted()
    lacks = [f"{name}>={least} (got {_version(name) or 'none'})" for name, least in wanted if not _has(name, least)]
    if lacks:
        raise Lacking(f"needs {', '.join(lacks)}: pip install -c constraints.txt -e '.[train,test]'")

    from trainpace.cases.scaling import FLASH_CAPABILITY
    from trainpace.errors import UsageError
    from trainpace.probe.device import present

    try:
        machine = present()
    except UsageError as error:
        raise Lacking(f"needs all GPUs that are visible: {error}") from None
    if machine.gpus is None:
        raise Lacking("needs a CUDA GPU that the driver shows (`nvidia-smi -L` lists them), found none")
    if machine.gpu_capability is not None and machine.gpu_capability < FLASH_CAPABILITY:
        least, found = (".".join(map(str, each)) for each in (FLASH_CAPABILITY, machine.gpu_capability))
        raise Lacking(f"needs a GPU of compute capability {least} (A100) or newer, {machine.gpus.name} has {found}")
    return machine.gpus.slug


def _wanted() -> list[tuple[str, str]]:
    """Distributions that the steps need, each with its oldest version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    split = [text.split(">=") for text in (*project["dependencies"], *project["optional-dependencies"]["train"])]
    named = dict(split)
    for_data = {text.split(">=")[0] for text in project["optional-dependencies"]["train"]} - set(TRAINED_WITH)
    return [(name, least) for name, least in (named | {"torch": OLDEST_TORCH}).items() if name not in for_data]


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _has(name: str, least: str) -> bool:
    found = _version(name)
    return found is not None and _numbers(found) >= _numbers(least)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3]]


# One step after the other


def perform(step: Step, out: Path) -> tuple[Figures, str]:
    """Run a step in its empty folder `out`: what it found, and why it failed; empty where it passed."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    path = os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH"))))
    status: int | None = None
    process: subprocess.Popen[bytes] | None = None
    with (out / "log.txt").open("w", encoding="utf-8") as said:
        try:
            with _told_afterwards(signal.SIGTERM):  # else a step that has begun is not known yet, and goes on
                process = subprocess.Popen(
                    step.words(out),
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(step.minutes * 60)
        finally:
            if process is not None:
                _end(process)
    if status is None:
        return {}, f"took longer than its limit of {step.minutes:g} min"
    figures, wrong, unread = _read(step, out)
    if wrong:
        return {}, wrong
    ended = [f"exit status {status}", *_last_lines(out, 1)] if status else []
    return figures, "; ".join(filter(None, (*ended, unread)))


@contextmanager
def _told_afterwards(number: signal.Signals) -> Iterator[None]:
    """A signal that comes within is acted upon at the end."""
    came: list[int] = []
    before = signal.signal(number, lambda *_: came.append(number))
    try:
        yield
    finally:
        signal.signal(number, before)
    if came:
        signal.raise_signal(number)


def _read(step: Step, out: Path) -> tuple[Figures, str, str]:
    """What the step found, what it did wrong, and why it cannot be read."""
    from trainpace.errors import SuiteError

    try:
        return step.read(out), "", ""
    except Wrong as error:
        return {}, str(error), ""
    except (SuiteError, OSError, ValueError, LookupError, TypeError, ElementTree.ParseError) as error:
        return {}, "", f"{type(error).__name__}: {' '.join(str(error).split())}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a step with its whole process group; a session that is interrupted ends its own hosts."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_lines(out: Path, number: int) -> list[str]:
    lines = (out / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-number:]


def main(
    arguments: Sequence[str] | None = None, *, steps: Sequence[Step] = STEPS, looking: Callable[[], str] = look
) -> int:
    """Do the steps that have not passed yet, up to the first that fails; the exit status."""
    parser = argparse.ArgumentParser(prog="first.py", description="The first minutes on a GPU (docs/measuring.md).")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("first-gpu"), metavar="FOLDER")
    parser.add_argument("--facts", action="store_true", help=argparse.SUPPRESS)  # what the first step runs
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    try:
        if options.facts:
            write_facts(folder)
            return 0
        slug = looking()
        state = _state(folder, slug)
    except Lacking as error:
        print(f"first.py: {error}")
        return 4
    # Told to end, it ends the step that runs.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return _all_in_turn(steps, folder, state)
    finally:
        signal.signal(signal.SIGTERM, before)


def _all_in_turn(steps: Sequence[Step], folder: Path, state: dict[str, Any]) -> int:
    from trainpace.probe.device import revision
    from trainpace.store.files import write_whole

    done: dict[str, Any] = state["steps"]
    commit = revision(ROOT)
    page = folder / "page.md"
    shown = {step.name: step.shows for step in steps}
    failed = None
    for number, step in enumerate(steps, 1):
        if done.get(step.name, {}).get("passed"):
            print(f"{number}/{len(steps)} {step.name}: passed before")
            continue
        print(f"{number}/{len(steps)} {step.name}: {step.shows} (at most {step.minutes:g} min)", flush=True)
        started = time.monotonic()
        figures, reason = perform(step, folder / step.name)
        done[step.name] = {
            "passed": not reason,
            "reason": reason,
            "figures": figures,
            "seconds": time.monotonic() - started,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "revision": commit,
        }
        write_whole(folder / "state.json", json.dumps(state, indent=1) + "\n")
        write_whole(page, render(shown, done, folder))
        if reason:
            failed = step
            break
    if failed is not None:
        print("\n".join(f"    {line}" for line in _last_lines(folder / failed.name, LAST_LINES)))
        print(f"stopped at {failed.name}: {done[failed.name]['reason']}")
    else:
        write_whole(page, render(shown, done, folder))
        print(page.read_text(encoding="utf-8"))
    print(f"the page: {page}")
    return 1 if failed else 0


def _state(folder: Path, slug: str) -> dict[str, Any]:
    """What is known of earlier calls with this folder.

    Raises:
        Lacking: where they were on another device, or the file is none of ours.
    """
    file = folder / "state.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        return {"device": slug, "steps": {}}
    try:
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        before = state["device"]
        state["steps"].items()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Lacking(f"needs a folder of its own: {file} is not what an earlier call wrote") from None
    if before != slug:
        raise Lacking(f"needs a folder for each device: {folder} holds the steps of {before}, this is {slug}")
    return state


if __name__ == "__main__":
    sys.exit(main())
