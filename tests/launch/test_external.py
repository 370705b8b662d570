"""Described programs: run as processes, read by their logs, checked by the wall clock."""

import json
import math
import os
import subprocess

import pytest

from factories import make_workload
from trainpace.errors import RunFailed
from trainpace.launch.external import claim_faults, samples_of
from trainpace.trainers.external import ReportedSteps

PROGRAM = '''
"""Sleeps instead of training, and says so; the first argument is what it claims of a step."""
import json, os, sys, time
claim, tokens, do = sys.argv[1], int(sys.argv[3]), os.environ.get("DO", "")
steps = json.load(open(sys.argv[2]))["steps"]
with open("log.jsonl", "a") as log:
    for step in range(steps):
        if do == "hang" and step == 3:
            time.sleep(600)
        if do == "killed" and step == 3:
            os.kill(os.getpid(), 9)
        if do == "short" and step == 3:
            break
        time.sleep(0.05)
        loss = float("nan") if do == "nan" and step == 3 else 2.0
        log.write(json.dumps({"seconds": float(claim), "tokens": tokens, "loss": loss}) + "\\n")
        log.flush()
        print("step", step, flush=True)
if do == "child":
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
if do == "fails":
    print("out of luck")
    sys.exit(3)
'''

DESCRIPTION = """
title = "Fake"
module = "{module}"
install = "pip install fake"
command = ["$python", "{program}", "{claim}", "$work/settings.json", "{tokens}"]
environment = {{ DO = "{do}" }}
progress = "^step "
footnotes = ["sleeps"]

[files]
"settings.json" = '{{"steps": $optimizer_steps}}'

[reading]
format = "jsonl"
path = "$work/log.jsonl"
seconds = {{ key = "seconds" }}
tokens = {{ key = "tokens" }}
"""
LOSS = 'loss = { key = "loss" }\n'


@pytest.fixture
def fake(repository):
    """Writes a description of the sleeping program into the repository; returns its name for --perf-trainer."""

    (repository.path / "perf" / "test_side_by_side.py").write_text(COMPARE)

    def describe(*, claim=0.0505, tokens=128, do="", module="json", name="fake", loss=True):
        program = repository.path / "program.py"
        program.write_text(PROGRAM)
        text = DESCRIPTION.format(module=module, program=program, claim=claim, tokens=tokens, do=do)
        (repository.path / f"{name}.toml").write_text(text + LOSS * loss)
        return f"--perf-trainer={name}.toml"

    return describe


SCRIPT = """
import time
for step in range(20):
    time.sleep(0.03)
    print(f"it {step} | {512 / 0.031:,.0f} tok/s", flush=True)
"""
OWN = """
title = "Production"
module = "json"
install = "none"
command = ["$python", "$described/train.py"]
progress = "^it "

[trains]
optimizer_steps = 20
sequence = 512
ranks = 1

[reading]
format = "regex"
path = "$work/output.log"
pattern = 'it (?P<step>\\d+) \\| (?P<speed>[\\d,]+) tok/s'
seconds = { key = "speed", rate = true }
step = { key = "step" }
"""
OWN_CASES = """
import pytest
from trainpace.cases import Case
from test_ours import CASES

@pytest.mark.parametrize("case", [Case.of("production", tokens="8k", micro_batch=1, gpus=8), CASES[0]], ids=str)
def test_production(case, judge_speed):
    judge_speed(case)
"""


def test_a_production_script_trains_what_it_trains(repository, started):
    """Its own 20 steps of 512 tokens on one rank, told nothing and logging tokens a second alone, are a run of its
    case; a cut case of another model is not measured by it."""
    (repository.path / "train.py").write_text(SCRIPT)
    (repository.path / "production.toml").write_text(OWN)
    (repository.path / "perf" / "test_production.py").write_text(OWN_CASES)

    done = repository.suite(
        "-rs", "--perf-trainer=production.toml", "--perf-runs=runs", paths=("perf/test_production.py",)
    )
    (file,) = (repository.path / "runs").glob("*.json")
    run = json.loads(file.read_text())
    workload, seconds = run["workload"], run["ranks"][0]["seconds"]

    assert done.code == 0, done.text
    assert (workload["sequence"], workload["ranks"], workload["warmup"] + workload["steps"]) == (512, 1, 20)
    assert len(seconds) == workload["steps"] >= 10
    assert seconds == [pytest.approx(0.031, rel=1e-3)] * len(seconds)
    assert "Production has its own steps" in done.text
    assert "it trains a model of its own, and the case has a shape: give it a case of its own" in done.text
    assert started.left() == []


LIKE_XDIST = """
def pytest_addoption(parser):
    parser.addoption("--workers", dest="numprocesses", type=int)
"""
COMPARE = """
import pytest
from test_ours import CASES

@pytest.mark.parametrize("case", CASES, ids=str)
def test_side_by_side(case, compare_trainers):
    compare_trainers(case)
"""


def judged(repository, *arguments, **options):
    """The suite on the 8k case, 10 steps of 128 tokens: what it said."""
    return repository.suite("-k", "8k", "--perf-warmup=2", "--perf-steps=8", *arguments, **options)


def test_a_program_is_measured(repository, fake, started):
    """Its steps become a run of the case, marked as reported; nothing of it is left."""
    done = judged(repository, fake(), "--perf-runs=runs")

    assert done.code == 0, done.text
    (file,) = (repository.path / "runs").glob("*.json")
    run = json.loads(file.read_text())
    assert run["source"] == "reported"
    assert run["ranks"][0]["seconds"] == [0.0505] * 8
    assert run["ranks"][0]["optimizer_seconds"] == []
    assert started.left() == []


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"claim": 0.0005}, "claims 256000.0 tokens per GPU per second, and the wall clock allows"),
        pytest.param({"claim": 60}, "claims 2.1 tokens per GPU per second, and the wall", marks=pytest.mark.slow),
        pytest.param({"claim": -1}, "step 0: expected seconds above 0, got -1", marks=pytest.mark.slow),
        ({"tokens": 64}, "expected 128 tokens a rank in optimizer step 0, got 64: another job was trained"),
        pytest.param({"do": "nan"}, "step 3: expected a number as loss, got nan", marks=pytest.mark.slow),
        pytest.param({"do": "short"}, "expected a record of each of 10 optimizer steps, got 3", marks=pytest.mark.slow),
        pytest.param({"do": "killed"}, "exit status 137", marks=pytest.mark.slow),
        pytest.param({"do": "fails"}, "exit status 3", marks=pytest.mark.slow),
        ({"do": "fails"}, "out of luck"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_trusted_is_invalid(repository, fake, started, wishes, said):
    """A claim that the wall clock denies, another job, a program that fails: exit 7, the cause, nothing left."""
    done = judged(repository, fake(**wishes))

    assert done.code == 7, done.text
    assert said in done.text.replace("\n    ", " ")
    assert started.left() == []


@pytest.mark.slow
def test_a_program_that_hangs_is_ended(repository, fake, started):
    """Without a step for the limit's time the run has hung; every process of it is gone."""
    done = judged(repository, fake(do="hang"), "--perf-step-timeout=3")

    assert done.code == 7
    assert "hung: no step from any rank for 3 s; the run stands at step 3 of 10" in done.text
    assert started.left() == []


def test_what_a_program_leaves_behind_is_ended(repository, fake, started):
    """A process that it started in a session of its own does not outlive the run, nor a compiler's lock the next."""
    lock = repository.path / ".cache" / "systems" / "fake" / "torch-extensions" / "shm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    done = judged(repository, fake(do="child"))

    assert done.code == 0, done.text
    assert not lock.exists()
    assert started.left() == []


def typed(command):
    """What a person does who copies a command from a report, in a folder and with a PATH of their own."""
    subprocess.run(["bash", "-c", command], check=True, cwd="/", env={"PATH": os.defpath}, capture_output=True)  # noqa: S607


def test_two_are_compared(repository, fake, started):
    """Two systems, three rounds: a table with ratios, no verdict on who is slower, and a report whose commands can be
    typed, because the files that they name lie beside it."""
    pair = fake(), fake(name="other", claim=0.0515)

    done = judged(repository, *pair, "--perf-report=out")

    assert done.code == 0, done.text
    found = json.loads((repository.path / "out" / "compare.json").read_text())
    assert started.left() == []
    assert "Fake" in done.text
    for system in found["cases"][0]["systems"]:
        (file,) = system["files"]
        log = (repository.path / "out" / file).with_name("log.jsonl")
        assert not log.exists()
        typed(system["command"])
        assert len(log.read_text().splitlines()) == 10


def test_an_absent_system_is_skipped(repository, fake, started):
    """What is not installed is named with the command that installs it; one alone is no comparison."""
    pair = fake(), fake(name="absent", module="no_such_module")

    done = judged(repository, *pair, "-rs")

    assert done.code == 0, done.text
    assert "pip install fake" in done.text
    assert "1 skipped" in done.text


@pytest.mark.parametrize(
    ("options", "code"),
    [((), 0), (("--perf-require-verdict",), 6), (("--perf-refresh",), 0)],
    ids=["plain", "required", "refresh"],
)
def test_an_absent_system_is_not_judged(repository, fake, started, options, code):
    """Measured alone it is skipped with what installs it, and named; where a verdict is required it fails."""
    done = judged(repository, fake(module="no_such_module"), "-rs", *options)

    assert done.code == code, done.text
    assert "pip install fake" in done.text
    assert done.last_line.startswith("1 case: 1 inconclusive (ours-8k-sp1: Fake is not installed for /")
    assert "Traceback" not in done.text
    assert started.left() == []


@pytest.mark.slow
def test_a_program_without_losses_is_measured(repository, fake, started):
    """No loss and no loading time is made up, and its baseline has none: that is said, also of the next run."""
    recorded = judged(repository, fake(loss=False), "--perf-refresh", "--perf-runs=runs", "--perf-runs-per-case=2")
    again = judged(repository, fake(loss=False))
    samples = json.loads(next((repository.path / "runs").glob("*.json")).read_text())["ranks"][0]
    logging = judged(repository, fake())

    assert recorded.code == again.code == logging.code == 0
    assert (samples["losses"], samples["data_seconds"]) == (None, None)
    assert "losses not logged: not compared" in again.text
    assert "losses not compared: the baseline was recorded from a program that logged none" in logging.text


@pytest.mark.slow
def test_an_invalid_comparison(repository, fake, started):
    """Exit 7, as of every measurement that cannot be believed; the summary's first line says it, and results.json."""
    pair = fake(), fake(name="other", claim=60)
    page = repository.path / "page.md"

    done = judged(repository, *pair, "--perf-report=out", environment={"GITHUB_STEP_SUMMARY": str(page)})
    results = json.loads((repository.path / "out" / "results.json").read_text())

    assert done.code == results["exit_status"] == 7, done.text
    assert [(each["verdict"], each["outcome"]) for each in results["comparisons"]] == [("invalid", "failed")]
    for text in (page.read_text(), (repository.path / "out" / "summary.md").read_text()):
        assert text.startswith("## ❌ No valid measurement: 1 of 1 case\n")
        assert "| ours-8k-sp1 | Fake" in text
        assert "| - | invalid |\n" in text
    assert started.left() == []


def test_nothing_to_compare_where_a_verdict_is_required(repository, fake, started):
    """One system alone is no comparison: it fails, and is counted as unjudged."""
    pair = fake(), fake(name="absent", module="no_such_module")

    done = judged(repository, *pair, "--perf-require-verdict")

    assert done.code == 6, done.text
    assert "not measured: no other system is there to be compared with" in done.text.replace("\n    ", " ")


def test_a_comparison_is_not_run_side_by_side_with_others(repository, fake):
    """-n is refused, before anything is measured."""
    (repository.path / "like_xdist.py").write_text(LIKE_XDIST)
    pair = fake(), fake(name="other")
    paths = {"PYTHONPATH": str(repository.path)}

    done = judged(repository, *pair, "-p", "no:xdist", "-p", "like_xdist", "--workers=2", environment=paths)

    assert done.code == 4
    assert "-n runs cases side by side, where they measure each other" in done.text


@pytest.mark.slow
def test_a_workflow_obeys_nothing_that_a_comparison_prints(repository, fake, started):
    """Its commands are stopped before, and heard again at the end, with what failed as an annotation."""
    pair = fake(), fake(name="other", claim=60)

    done = judged(repository, *pair, environment={"GITHUB_ACTIONS": "true"})
    word = done.text.partition("::stop-commands::")[2].partition("\n")[0]

    assert done.code == 7
    assert f"\n::{word}::\n::error title=ours-8k-sp1 side by side%3A invalid::invalid: Fake" in done.text


@pytest.mark.slow
def test_the_report_of_a_comparison_cannot_be_written(repository, fake, started):
    """It is said, the exit status is not 0, and what can be written says so too."""
    pair = fake(), fake(name="other")
    (repository.path / "out" / "compare.html").mkdir(parents=True)

    done = judged(repository, *pair, "--perf-report=out")
    results = json.loads((repository.path / "out" / "results.json").read_text())

    assert done.code == results["exit_status"] == 4, done.text
    assert f"the report was not written: {repository.path}/out/compare.html" in done.text
    assert "INTERNALERROR" not in done.text
    assert started.left() == []


@pytest.mark.slow
def test_the_worked_example_runs(repository, started, checkout):
    """The system that the docs describe trains the native trainer's tokens, and claims what the clock allows."""
    system = checkout / "examples" / "own-system" / "plain.toml"

    done = judged(repository, f"--perf-trainer={system}", "--perf-runs=runs")

    assert done.code == 0, done.text
    (file,) = (repository.path / "runs").glob("*.json")
    run = json.loads(file.read_text())
    assert run["data"]["tokenizer"] == "bytes"
    assert 5 < run["ranks"][0]["losses"][0] < 7
    assert started.left() == []


def claimed(*seconds, tokens=None):
    """What a program says of steps."""
    return ReportedSteps(seconds=seconds, tokens=None if tokens is None else (tokens,) * len(seconds), losses=None)


def test_a_claim_within_the_clock_is_believed():
    """Between all tokens over the whole process, and the tokens of the shown steps over their time."""
    workload = make_workload("llama2_7b-8k-sp1")

    assert (
        claim_faults(claimed(*[0.1] * 20, tokens=128), workload, wall=10.0, seen=[5 + 0.1 * n for n in range(20)]) == []
    )


def test_a_program_that_prints_at_its_end_is_bounded_from_below_alone():
    """Where all steps are shown at once the output says nothing of their time."""
    workload = make_workload("llama2_7b-8k-sp1")

    assert claim_faults(claimed(*[0.001] * 20), workload, wall=10.0, seen=[9.9] * 20) == []
    assert claim_faults(claimed(*[1.0] * 20), workload, wall=10.0, seen=[9.9] * 20)


def test_an_optimizer_step_is_shared_by_its_micro_steps():
    """With accumulation a record is several steps: each takes its part of the time, and has the record's loss."""
    workload = make_workload("llama2_7b-128k-sp8").model_copy(update={"warmup": 4, "steps": 8})
    assert workload.accumulation == 4

    samples = samples_of(
        ReportedSteps(seconds=(4.0, 2.0, 2.0), tokens=None, losses=(3.0, 2.0, 1.0)),
        workload,
        place="here",
        peak_memory_bytes=1,
    )

    assert samples.warmup_seconds == [1.0] * 4
    assert samples.seconds == [0.5] * 8
    assert samples.losses == [3.0] * 4 + [2.0] * 4 + [1.0] * 4


def test_what_a_program_does_not_say_is_not_made_up():
    """Without losses there are none; nobody is told how long loading took."""
    workload = make_workload("llama2_7b-8k-sp1")

    samples = samples_of(claimed(*[1.0] * 43), workload, place="here", peak_memory_bytes=1)

    assert (samples.losses, samples.data_seconds) == (None, None)


def test_missing_steps_are_no_run():
    """Fewer or more records than optimizer steps fail the run."""
    workload = make_workload("llama2_7b-8k-sp1")
    wanted = math.ceil((workload.warmup + workload.steps) / workload.accumulation)

    for count in (wanted - 1, wanted + 1):
        with pytest.raises(RunFailed, match=f"of {wanted} optimizer steps, got {count}"):
            samples_of(claimed(*[1.0] * count), workload, place="here", peak_memory_bytes=1)
