"""The first minutes on a GPU, rehearsed without one: the commands are stand-ins that leave what real ones would."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from factories import make_case_result, make_results, make_run, make_workload
from trainpace.app.options import Gate, Options
from trainpace.cases import LLAMA2_7B, PUBLISHED
from trainpace.cases.architectures import with_layers
from trainpace.cases.machine import Device
from trainpace.cost.estimate import counted_memory
from trainpace.cost.predict import forecasts
from trainpace.report.record import Reference
from trainpace.store.costs import load_costs
from trainpace.store.reports import write_results
from trainpace.store.runs import write_run

HERE = Path(__file__).parent
ROOT = HERE.parent

_spec = importlib.util.spec_from_file_location("first", HERE / "gpu" / "first.py")
assert _spec is not None
assert _spec.loader is not None
first = importlib.util.module_from_spec(_spec)
sys.modules["first"] = first
_spec.loader.exec_module(first)

SLUG = "a100-sxm4-80gb"
A100 = Device(slug=SLUG, name="NVIDIA A100-SXM4-80GB", kind="cuda", count=1, memory_bytes=80 << 30)
FACTS = {
    "device": A100.name,
    "slug": SLUG,
    "count": 1,
    "memory": A100.memory_bytes,
    "burn_tflops": 250.0,
    "faults": [],
    "notes": ["GPU 0: software power cap in 23 % of the time"],
    "versions": {"python": "3.12.3", "torch": "2.11.0+cu130"},
}
JUNIT = '<t><testsuite errors="0" failures="{failed}" skipped="{skipped}" tests="38">{cases}</testsuite></t>'
FOUND = "self-test: an injected slowdown of 30 % was found (3 pairs)"
NAMES = [step.name for step in first.STEPS]


def trained(out, case="llama2_7b-8k-sp1", *, engine="fsdp2", layers=20, tgs=(3000.0,), loss=10.9467, hfu=0.6, **fields):
    """Leave what a session of one case at proxy scale leaves."""
    workload = make_workload(
        case,
        scale="proxy",
        shape=with_layers(LLAMA2_7B.shape, layers),
        sequence=131072 if "128k" in case else 8192,
        ranks=1,
        sp=1,
        accumulation=1,
        warmup=5,
        steps=8,
        engine=engine,
    )
    peak = 70 << 30
    for number, value in enumerate(tgs):
        run = make_run(
            tgs=value, seed=number, workload=workload, device=A100, peak_memory_bytes=peak, losses=(loss, 9.0)
        )
        write_run(run, out / "runs")
    result = {"verdict": "no baseline", "outcome": "skipped", "versus": None, "ratio": None, "scale": "proxy"}
    result |= {"tgs": tgs[0], "tgs_of_runs": tgs, "tflops": 187.2, "hfu": hfu, "peak_memory_bytes": peak}
    write_results(make_results(make_case_result(case, **(result | fields))), out)
    return workload


def leave(name, out, **wrong):
    """Leave what the step of that name leaves, but for what is `wrong`."""
    out.mkdir(parents=True)
    if name == "facts":
        (out / "facts.json").write_text(json.dumps(FACTS | wrong))
    elif name == "operators":
        said = {"failed": 0, "skipped": 0, "cases": ""} | wrong
        (out / "junit.xml").write_text(JUNIT.format(**said))
    elif name == "noise":
        tgs = (2990.0, 3000.0, 3010.0, 2995.0, 3005.0)
        trained(out, **({"engine": "deepspeed", "tgs": tgs, "refresh": "recorded", "outcome": "passed"} | wrong))
    elif name == "self-test":
        versus = Reference(kind="base", name="HEAD", tgs=3000.0, pairs=3, low=0.984, high=1.036)
        case = {"notes": (FOUND,), "ratio": 1.0, "versus": versus, "scale": "proxy"}
        write_results(make_results(make_case_result(**(case | wrong))), out)
    elif name == "attention":
        trained(out, **({"case": "llama2_7b-128k-sp8", "layers": 8, "hfu": 0.528} | wrong))
    else:
        trained(out, **({"engine": name, "hfu": 0.6 if name == "fsdp2" else 0.55} | wrong))


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A folder with what each step leaves, by its name."""
    folder = tmp_path_factory.mktemp("left")
    for name in NAMES:
        leave(name, folder / name)
    return folder


def rehearsed(left, order=None, **instead):
    """The steps, each writing its name to `order` and leaving what lies in `left`, or doing what `instead` says."""
    noted, usual = f"echo $1 >> {order};" if order else "", f"cp -r {left}/$1/. $2"

    def command(name):
        return ("sh", "-c", f"{noted} {instead.get(name, usual)}", "sh", name, "{out}")

    return [replace(step, command=command(step.name)) for step in first.STEPS]


def run(folder, steps):
    return first.main([str(folder)], steps=steps, looking=lambda: SLUG)


def page_of(folder):
    return (folder / "page.md").read_text()


def test_every_step_in_order_and_a_page_of_known_numbers(left, tmp_path, capfd):
    """All steps run in the order of the list, once; the page holds what they found, and stands on the screen too."""
    order = tmp_path / "order"
    steps = rehearsed(left, order)

    assert run(tmp_path / "gpu", steps) == 0
    assert order.read_text().split() == NAMES
    page = page_of(tmp_path / "gpu")
    assert page in capfd.readouterr().out
    assert page.startswith(f"# First minutes on {A100.name}\n\nAll 7 steps passed.\n")
    assert page.count("| passed |") == 7
    eight = next(each for each in forecasts(SLUG) if each.workload.case == "llama2_7b-8k-sp1")
    cut = trained(tmp_path / "again", engine="deepspeed")
    estimate = counted_memory(load_costs(ROOT / "baselines").values())(cut) / 2**30
    predicted = eight.of_peak(eight.hardware_flops)
    assert 60 < estimate < 75
    assert 0.5 < predicted < 0.7
    assert (
        f"| deepspeed | llama2_7b-8k-sp1 | deepspeed | 20 | 1 | 3000 | 187 | 55.0% | {predicted:.1%} | 70.00 GiB | "
        f"{estimate:.2f} GiB |" in page
    )
    assert "| fsdp2 | llama2_7b-8k-sp1 | fsdp2 | 20 | 1 | 3000 | 187 | 60.0% |" in page
    assert "| attention | llama2_7b-128k-sp8 | fsdp2 | 8 | 1 | 3000 | 187 | 52.8% |" in page
    assert "2990 to 3010 TGS, geometric mean 3000.0, coefficient of variation 0.26%." in page
    assert "Unchanged code in 3 pairs: ratio 1.000 (0.984 .. 1.036); an injected slowdown of 30 % was found" in page
    assert "software power cap in 23 %" in page

    assert run(tmp_path / "gpu", steps) == 0
    assert order.read_text().split() == NAMES, "what has passed is not done again"


PLANTED = {
    "facts": ({"faults": ["GPU 0: thermal slowdown"]}, "not in order while it was busy: GPU 0: thermal slowdown"),
    "operators": ({"failed": 1, "cases": '<testcase name="test_loss"><failure/></testcase>'}, "failed: test_loss"),
    "deepspeed": ({"verdict": "invalid", "outcome": "failed", "reasons": ("out of memory",)}, "out of memory"),
    "fsdp2": ({"loss": 10.5}, "first losses to agree within 0.5%, got 10.50000 under fsdp2 and 10.94670"),
    "noise": ({"refresh": "refused", "outcome": "failed", "reasons": ("runs differ by 12 %",)}, "runs differ by 12 %"),
    "self-test": ({"notes": (), "reasons": ("the slowdown was not seen",)}, "the slowdown was not seen"),
    "attention": ({"verdict": "invalid", "outcome": "failed", "reasons": ("hot",)}, "128k-sp8: invalid: hot"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_stops_there_and_the_next_call_goes_on(name, left, tmp_path, capfd):
    """A step that fails is the last one, is named on the page, and is where the next call begins."""
    wrong, reason = PLANTED[name]
    leave(name, tmp_path / "wrong", **wrong)
    before, after = NAMES[: NAMES.index(name)], NAMES[NAMES.index(name) :]
    folder, order = tmp_path / "gpu", tmp_path / "order"

    assert run(folder, rehearsed(left, order, **{name: f"cp -r {tmp_path}/wrong/. $2"})) == 1
    assert order.read_text().split() == [*before, name]
    page, printed = page_of(folder), capfd.readouterr().out
    assert f"**Stopped at `{name}`**" in page
    assert reason in page
    assert reason in printed
    assert (page.count("| passed |"), page.count("| not begun |")) == (len(before), len(after) - 1)

    order.unlink()
    assert run(folder, rehearsed(left, order)) == 0
    assert order.read_text().split() == after
    assert "All 7 steps passed." in page_of(folder)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("echo no kernel image; exit 3", "exit status 3; no kernel image; FileError"),
        ("cp -r LEFT/$1/. $2; echo torn; exit 139", "exit status 139; torn"),
        ("echo '{' > $2/results.json", "results.json"),
    ],
)
def test_what_a_command_leaves_undone(does, reason, left, tmp_path):
    """An exit status, a file that is missing and a file of any content fail a step in words."""
    assert run(tmp_path, rehearsed(left, deepspeed=does.replace("LEFT", str(left)))) == 1
    assert "**Stopped at `deepspeed`**" in page_of(tmp_path)
    assert reason in page_of(tmp_path)


def test_a_step_that_takes_too_long_is_ended_whole(left, tmp_path, started):
    """At its limit a step is ended with what it started, also where that does not hear an interrupt."""
    steps = rehearsed(left, facts="sleep 600 & sleep 600")
    steps[0] = replace(steps[0], minutes=0.005)

    assert run(tmp_path, steps) == 1
    assert "took longer than its limit of 0.005 min" in page_of(tmp_path)
    assert started.left() == []


def test_a_call_that_is_ended_ends_its_step(left, tmp_path, started):
    """Told to end, it leaves no process behind; the step that ran is begun anew by the next call."""
    steps = rehearsed(left, operators=f"touch {tmp_path}/begun; sleep 600")
    commands = {step.name: step.command for step in steps}
    code = f"""
import sys
from dataclasses import replace
sys.path.append({str(HERE / "gpu")!r})
import first
commands = {commands!r}
steps = [replace(step, command=commands[step.name]) for step in first.STEPS]
sys.exit(first.main([{str(tmp_path / "gpu")!r}], steps=steps, looking=lambda: {SLUG!r}))
"""
    call = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    while not (tmp_path / "begun").exists():
        assert call.poll() is None
        time.sleep(0.02)
    call.terminate()

    assert call.wait() == 128 + signal.SIGTERM
    assert started.left() == []
    assert list(json.loads((tmp_path / "gpu" / "state.json").read_text())["steps"]) == ["facts"]


def test_no_step_is_longer_than_ten_minutes():
    """Each step has its own limit, its own name, and writes into its own folder."""
    assert all(0 < step.minutes <= 10 for step in first.STEPS)
    assert len(set(NAMES)) == len(NAMES)
    assert all(any("{out}" in word for word in step.command) for step in first.STEPS)


def test_facts_of_a_driver(tmp_path, monkeypatch):
    """The step asks the driver before and after the GPU was busy; speed is by the accelerator's own clock."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in driver with")
    source, library = HERE / "probe" / "fake_nvml.c", tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("FAKE_GPUS", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code = f"""
import sys, time
from pathlib import Path
sys.path += [{str(HERE)!r}, {str(HERE / "gpu")!r}]
import first
from accelerator import Accelerator
stand_in = Accelerator()
def busy():
    time.sleep(0.05)
    return first.burnt(stand_in.torch, lambda: stand_in.issue(4e-3))
first.write_facts(Path(sys.argv[1]), busy)
"""
    step = replace(first.STEPS[0], command=("{python}", "-c", code, "{out}"))

    monkeypatch.setenv("FAKE_COOL", "1")
    figures, reason = first.perform(step, tmp_path / "cool")
    assert reason == ""
    assert (figures["slug"], figures["count"], figures["faults"]) == (SLUG, 1, [])
    assert figures["burn_tflops"] == pytest.approx(2 * 8192**3 / 4e-3 / 1e12, rel=0.01)
    assert "torch" in figures["versions"]

    monkeypatch.delenv("FAKE_COOL")
    _, reason = first.perform(step, tmp_path / "hot")
    assert re.search("not in order while it was busy: GPU 0.*thermal", reason)


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch, capfd):
    """Versions that are too old, no GPU, the folder of another one: a line, exit status 4, and nothing is begun."""
    installed = {name: f"{least}.9" for name, least in first._wanted()}
    monkeypatch.setattr(first, "_version", (installed | {"torch": "2.9.1+cu128", "deepspeed": None}).get)
    assert first.main([str(tmp_path)]) == 4
    torch = "needs deepspeed>=0.19 (got none), torch>=2.11 (got 2.9.1+cu128): pip install"

    monkeypatch.setattr(first, "_version", (installed | {"torch": "2.11.0+cu130"}).get)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert first.main([str(tmp_path)]) == 4
    assert not list(tmp_path.iterdir())

    (tmp_path / "state.json").write_text('{"device": "h100-sxm5-80gb", "steps": {}}')
    assert run(tmp_path, first.STEPS) == 4
    (tmp_path / "state.json").write_text("[]")
    assert run(tmp_path, first.STEPS) == 4

    old, no_gpu, other, torn = capfd.readouterr().out.splitlines()
    assert torch in old.replace(f"deepspeed>={dict(first._wanted())['deepspeed']}", "deepspeed>=0.19")
    assert "needs a CUDA GPU that the driver shows" in no_gpu
    assert f"holds the steps of h100-sxm5-80gb, this is {SLUG}" in other
    assert "state.json is not what an earlier call wrote" in torn


def test_sessions_are_of_one_case_and_known_options():
    """What the steps type is what the suite takes: one case each, options that there are."""
    declared = (*fields(Options), *fields(Gate))
    flags = {each.metadata["flag"] for each in declared if "flag" in each.metadata}
    sessions = [step.command for step in first.STEPS if "-k" in step.command]

    assert len(sessions) == 5
    for command in sessions:
        chosen = command[command.index("-k") + 1]
        assert len([case for case in PUBLISHED if chosen in case.id]) == 1
        assert {word for word in command if word.startswith("--perf-")} <= flags
