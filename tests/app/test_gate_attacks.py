"""What a head may try in order to look fast: each row of docs/gate.md's table, with a head that is half as fast.

The runs are real, as is what judges their pairs. The base is measured once for all rows: what is tried here is tried in
head's own processes. Rows that reach for the base or for the machine are sessions of their own.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from test_gate import Repository

from factories import make_workload
from repository import one_core
from trainpace.cases import Shape
from trainpace.errors import RunFailed
from trainpace.judge.finding import exit_status, speed_finding
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.plan.paired import PairedCase, PairedPlan
from trainpace.plan.task import drive
from trainpace.probe.device import present
from trainpace.runs.verdict import Verdict

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own-trainer"
TRAINER = "bigram/training.py"
STEP = "        now, following = batch[:-1], batch[1:]\n"
IMPORT = "import numpy as np\n"
SLOWER = ("sleep(0.03)", "sleep(0.06)")
WORKLOAD = make_workload(
    trainer="bigram.training:Trainer",
    ranks=1,
    warmup=2,
    steps=10,
    shape=Shape(hidden=64, layers=2, intermediate=172, heads=8, kv_heads=2, vocabulary=64),
)
MIN_EFFECT, MAX_PAIRS = 0.2, 4


def checkout(folder, *edits):
    """The example in a folder of its own, whose steps mostly sleep; `edits` are (file, old text, new text)."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "baselines"))
    for file, old, new in ((TRAINER, STEP, f"        __import__('time').sleep(0.03)\n{STEP}"), *edits):
        path = folder / file
        text = path.read_text() if path.exists() else ""
        assert old in text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(old, new, 1) if old else text + new)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base's checkout, and the one run of it that every row is compared with."""
    folder = checkout(tmp_path_factory.mktemp("base") / "example")
    with measuring({"base": folder}) as run:
        return folder, run("base")


class measuring:  # noqa: N801 - used as a function
    """A context that gives what trains a side, on one core: there load by others cannot be told, and slows no sleep."""

    def __init__(self, folders):
        self.folders = folders

    def __enter__(self):
        self.present = os.sched_getaffinity(0)
        os.sched_setaffinity(0, one_core())
        self.cache = tempfile.TemporaryDirectory()
        sides = {
            name: Side(checkout=folder, folder=folder, apart=tuple(set(self.folders.values()) - {folder}))
            for name, folder in self.folders.items()
        }
        self.distributed = Distributed(machine=present(), cache=Path(self.cache.name), step_timeout=30, sides=sides)
        self.distributed.__enter__()
        return lambda side: self.distributed.run(WORKLOAD, side=side)

    def __exit__(self, *_):
        self.distributed.__exit__()
        self.cache.cleanup()
        os.sched_setaffinity(0, self.present)


def judged(base, head):
    """The gate's judgement of the checkout `head`, and the exit status of a session that has no other case."""
    folder, run_of_base = base
    case = PairedCase(test="test", workload=WORKLOAD, min_effect=MIN_EFFECT)
    plan = PairedPlan([case], max_pairs=MAX_PAIRS)

    with measuring({"base": folder, "head": head}) as run:

        def measure(task):
            if task.side == "base":
                return run_of_base
            try:
                return run("head")
            except RunFailed as failure:
                return failure

        drive(plan, measure)
    found = plan.judgement(case, names=("main", "change"), peak_tflops=None)
    return found, exit_status([speed_finding(found)])


PATCHED_CLOCK = """import numpy as np
import time
_clocks = {name: getattr(time, name) for name in ("perf_counter", "monotonic", "time")}
for _name, _clock in _clocks.items():
    setattr(time, _name, lambda clock=_clock, zero=_clock(): zero + (clock() - zero) * 0.5)
"""
PATCHED_JSON = """import numpy as np
import json
_dumps = json.dumps
def dumps(value, *rest, **more):
    if isinstance(value, dict) and value.get("event") == "samples":
        value["seconds"] = [second * 0.5 for second in value["seconds"]]
    return _dumps(value, *rest, **more)
json.dumps = dumps
"""
PATCHED_LOOP = """import numpy as np
import sys, threading, time
def _patch():
    while not hasattr(sys.modules.get("trainpace_rank.loop"), "CpuClock"):
        time.sleep(0.001)
    sys.modules["trainpace_rank.loop"].CpuClock.seconds = lambda self, begin, end: (end - begin) * 0.5
threading.Thread(target=_patch, daemon=True).start()
"""
# Writes what a rank writes, with the losses that are compared, before any measured step was made.
OWN_LINES = """        self.gradient[:] = 0
        import json, os, time
        from pathlib import Path
        from types import SimpleNamespace
        for descriptor in Path("/proc/self/fd").iterdir():
            path = os.readlink(descriptor) if descriptor.is_symlink() else ""
            if not path.endswith(".jsonl"):
                continue
            time.sleep = lambda _: None
            again, losses = Trainer(), []
            again.setup(SimpleNamespace(rank=0, workload=self.context.workload))
            for step in range(12):
                losses.append(again.forward_backward(again.load(step)))
                if step in (1, 11):
                    again.weights -= 0.1 * again.gradient
                    again.gradient[:] = 0
            samples = dict(
                event="samples", rank=0, place="x/cpu 0", losses=losses, data=None, trained_on=(),
                mean_attended=None,
                compile_seconds=0.0, warmup_seconds=[0.03] * 2, seconds=[0.03] * 10, data_seconds=[0.0] * 10,
                optimizer_seconds=[0.001], yardstick_seconds=None, peak_memory_bytes=30 * 10**6, window_seconds=0.3,
                busy_cpu_seconds=0.3, own_cpu_seconds=0.3, others=[], imported=[__file__],
                tokens=dict(
                    counted=dict(least=129, least_step=2, most=129, most_step=2, sequences=1), said=None
                ),
            )
            with open(path, "a") as lines:
                for step in range(12):
                    lines.write(json.dumps(dict(event="step", step=step)) + "\\n")
                lines.write(json.dumps(dict(event="measured")) + "\\n" + json.dumps(samples) + "\\n")
            os._exit(0)
"""
LATER = """    def forward_backward(self, batch):
        from concurrent.futures import ThreadPoolExecutor
        self.pool = getattr(self, "pool", None) or ThreadPoolExecutor(1)
        work = self.pool.submit(self.train, batch)
        return type("Later", (), {"__float__": lambda _: work.result()})()

    def train(self, batch: np.ndarray) -> float:
"""
FIVE = """    def forward_backward(self, batch: np.ndarray) -> float:
        self.made = getattr(self, "made", 0) + 1
        if self.made > 5:
            return 99.0
"""
DEFINITION = "    def forward_backward(self, batch: np.ndarray) -> float:\n"
SHADOW = """import importlib, os, sys, time
_place = [each for each in sys.path if "site-packages" in each and os.path.isfile(f"{each}/numpy/__init__.py")][0]
sys.modules.pop("numpy")
sys.path.insert(0, _place)
importlib.import_module("numpy")
sys.path.pop(0)
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(2 * seconds)
"""
HALF = (
    (TRAINER, "self.vocabulary, self.tokens + 1)", "self.vocabulary, self.tokens // 2 + 1)"),
    (TRAINER, "rows = np.arange(self.tokens)", "rows = np.arange(len(now))"),
    (TRAINER, "sleep(0.03)", "sleep(0.015)"),
)
CONTEXT = (
    TRAINER,
    "        self.vocabulary = context",
    "        self.context = context\n        self.vocabulary = context",
)
CLEARED = "        self.gradient[:] = 0\n"
CLOCK = "that the judging side's clock saw"

INVALID = {
    "perf_counter": ([(TRAINER, *SLOWER), (TRAINER, IMPORT, PATCHED_CLOCK)], CLOCK),
    "json_dumps": ([(TRAINER, *SLOWER), (TRAINER, IMPORT, PATCHED_JSON)], CLOCK),
    "patch_loop": ([(TRAINER, *SLOWER), (TRAINER, IMPORT, PATCHED_LOOP)], CLOCK),
    "lazy_loss": ([(TRAINER, *SLOWER), (TRAINER, DEFINITION, LATER)], "by the judging side's clock the window"),
    "fake_line": (
        [CONTEXT, (TRAINER, "        self.gradient[:] = 0\n", OWN_LINES)],
        "by the judging side's clock the window",
    ),
    "wrong after five losses": ([(TRAINER, DEFINITION, FIVE)], "expected the base's loss"),
    "half the rows": (
        HALF,
        "expected 128 tokens in a batch, as the workload declares",
    ),
}


@pytest.mark.parametrize("attack", INVALID)
def test_what_is_not_measured_is_invalid(base, tmp_path, attack):
    """A head that lies about its clock or its lines, works outside of its steps, or does less of the work: exit 7."""
    edits, said = INVALID[attack]

    found, status = judged(base, checkout(tmp_path / "head", *edits))

    assert found.verdict is Verdict.INVALID
    assert said in found.reasons[0]
    assert status == 7


RED = {
    "control": [(TRAINER, *SLOWER)],
    "numpy_shadow": [("numpy/__init__.py", "", SHADOW)],
}


@pytest.mark.parametrize("attack", RED)
def test_what_is_slower_is_red(base, tmp_path, attack):
    """A head that is slower and hides nothing, or whose slowdown lies in a package of another's name: exit 1."""
    found, status = judged(base, checkout(tmp_path / "head", *RED[attack]))

    assert found.verdict is Verdict.REGRESSION
    assert status == 1


def test_unchanged_code_passes(base, tmp_path):
    """The same trainer in another folder: what is compared above is what makes the difference."""
    found, status = judged(base, checkout(tmp_path / "head"))

    assert found.verdict is Verdict.PASS
    assert status == 0


SESSIONS = {
    "half the rows": (HALF, "as the workload declares (micro-batch x sequence / sp), got"),
    "perf_counter": ([(TRAINER, *SLOWER), (TRAINER, IMPORT, PATCHED_CLOCK)], CLOCK),
}


@pytest.mark.parametrize("attack", ["half the rows", pytest.param("perf_counter", marks=pytest.mark.slow)])
def test_a_session_ends_with_7(tmp_path, started, attack):
    """The same by the command that users type, in a repository whose branch does it."""
    edits, said = SESSIONS[attack]
    repository = Repository(tmp_path / "example")
    for edit in edits:
        repository.change(*edit)

    done = repository.suite(f"--perf-head={repository.folder}", folder=repository.base(tmp_path / "base"))

    assert done.code == 7
    assert said in " ".join(done.text.split())
