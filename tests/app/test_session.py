"""The suite as a user runs it, end to end: record, judge, replay; what a verdict does to the test and the exit status.

Sessions that measure train toys that sleep; what depends on exact speeds is judged on recorded runs.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from factories import make_run, make_runs
from repository import Repository
from trainpace.app.hours import Selected
from trainpace.cases import PUBLISHED
from trainpace.plugin import _SUITE
from trainpace.probe.device import present
from trainpace.runs.run import Health
from trainpace.store.baselines import refresh
from trainpace.store.runs import write_run

EASY = ("--perf-tolerance=0.2",)
"""On a busy machine a sleep takes a little longer."""
NOISY = (990.0, 1005.0, 995.0, 1012.0, 998.0)
"""Five runs at 1 % noise."""
CASE = "llama2_7b-8k-sp1"


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory):
    """A repository, and how its first refresh ended, which recorded two cases and kept their runs."""
    repository = Repository.create(tmp_path_factory.mktemp("refreshed") / "ours")
    return repository, repository.suite(
        "--perf-refresh", "--perf-runs-per-case=2", "--perf-max-spread=0.5", "--perf-runs=runs", "--junit-xml=junit.xml"
    )


@pytest.fixture
def recorded(refreshed, tmp_path, started):
    """A copy of that repository, to be changed."""
    return refreshed[0].copy(tmp_path / "ours")


@pytest.fixture
def published(tmp_path, monkeypatch, started):
    """A repository with one published case, and its baseline at 1000 TGS, recorded from runs at 1 % noise."""
    repository = Repository.create(tmp_path / "ours")
    (repository.path / "perf" / "test_ours.py").write_text(
        "import os\n"
        "import pytest\n"
        "from trainpace.cases import PUBLISHED\n"
        "@pytest.mark.parametrize('case', PUBLISHED, ids=str)\n"
        "def test_speed(case, judge_speed):\n"
        "    judge_speed(case)\n"
        "def test_ordinary():\n"
        "    assert 'BREAK' not in os.environ\n"
    )
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    refresh(repository.path / "baselines", make_runs(*NOISY))
    return repository


@pytest.fixture
def replay(pytester):
    """Judges runs in a repository."""

    def judged(repository, *arguments, runs, **options):
        folder = repository.path / "replayed"
        for run in runs:
            write_run(run, folder)
        return repository.inside(pytester, "--perf-replay=replayed", "--junit-xml=junit.xml", *arguments, **options)

    return judged


def baselines(repository):
    """The baselines that the one device's file holds, by case."""
    (file,) = (repository.path / "baselines").glob("*.json")
    return {each["workload"]["case"]: each for each in json.loads(file.read_text())["baselines"].values()}


# Measured


def test_without_a_baseline(repository, started):
    """A first session skips with its numbers and the command that records them, and passes."""
    done = repository.suite("-k", "8k", "--junit-xml=junit.xml")
    kind, text, properties = repository.cases()["test_ours[ours-8k-sp1]"]

    assert done.code == 0
    assert done.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"
    assert kind == "skipped"
    assert (
        "record it with:\npytest 'perf/test_ours.py::test_ours[ours-8k-sp1]' --perf-scale mini "
        "--perf-trainer training:Toy --perf-refresh" in text
    )
    assert properties["perf.verdict"] == "no baseline"
    assert float(properties["perf.tgs"]) > 0
    assert started.left() == []


RECORDING = {"CI": "", "PYTEST_ADDOPTS": ""}
"""Of a session of a user at a terminal."""


def test_missing_baselines_are_recorded(repository, started):
    """Outside CI a first session records and judges; the file, of the labelled device, holds its runs, and the next
    session judges by them."""
    options = ("-k", "8k", "--perf-max-spread=0.5", *EASY, "--perf-runs=runs", "--perf-device-label=rack-b")
    first = repository.suite(*options, environment=RECORDING)
    file = next((repository.path / "baselines").glob("*.json"))
    stored = file.read_text()
    second = repository.suite(*options, environment=RECORDING)

    assert (first.code, second.code) == (0, 0)
    assert first.last_line.startswith("1 case: 1 pass; 1 recorded in baselines/cpu-")
    assert first.last_line.endswith(".rack-b.json: commit it")
    assert re.search(
        r"^ours-8k-sp1 \(training:Toy\): pass, TGS [\d.]+, [\d.]+ % of [\d.]+ recorded now$", first.text, re.MULTILINE
    )
    assert second.last_line == "1 case: 1 pass"
    assert file.read_text() == stored
    assert len(baselines(repository)["ours-8k-sp1"]["sessions"][0]["tgs"]) == 3
    assert len(list((repository.path / "runs" / "recorded").glob("*.json"))) == 3


def test_nothing_is_recorded_of_noise(repository, started):
    """Runs that spread more than allowed are no baseline: said, not failed, and no file is written."""
    done = repository.suite("-k", "8k", "--perf-max-spread=0.000001", environment=RECORDING)

    assert done.code == 0
    assert done.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"
    assert "and none is recorded: expected a spread between runs of at most" in done.text
    assert not list((repository.path / "baselines").glob("*.json"))


@pytest.mark.slow
def test_recording_goes_on_where_it_was(repository, started):
    """Runs of a session that was cut off before it recorded are not made again."""
    options = ("-k", "8k", "--perf-missing=record", "--perf-max-spread=0.5", *EASY, "--perf-runs=runs")
    (repository.path / ".gitignore").write_text("baselines/\nruns/\n.state/\n.cache/\n.tmp/\n__pycache__/\n")
    who = ("-c", "user.name=a", "-c", "user.email=b")
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=repository.path, check=True)  # noqa: S607
    repository.suite(*options)
    next((repository.path / "baselines").glob("*.json")).unlink()
    for run in repository.path.glob("runs/*.json"):
        run.unlink()
    next(repository.path.glob("runs/recorded/*.json")).unlink()
    done = repository.suite(*options, "--perf-resume")

    assert done.code == 0
    assert "2 of 3 runs were there" in done.text
    assert done.text.count("recorded, run 3 of 3") == 1
    assert "recorded, run 2 of 3" not in done.text
    assert "1 recorded in baselines/cpu-" in done.last_line


def test_one_command_records_all_that_is_missing(repository, started):
    """In CI nothing is recorded, and the command that records all of it is said."""
    done = repository.suite()

    assert done.last_line.startswith("2 cases: 2 no baseline")
    assert "one command records all 2 baselines that are missing:" in done.text
    assert "pytest perf --perf-missing record" in done.text


def test_refresh_records(refreshed):
    """A refresh says from nothing to what, passes, and writes each case into the device's file, beside its reasons."""
    repository, done = refreshed
    stored = baselines(repository)

    assert done.code == 0
    assert done.last_line == "2 cases: 2 recorded"
    assert f"none -> {stored['ours-8k-sp1']['tgs']:.1f} TGS" in done.text
    assert {case: len(each["sessions"][0]["tgs"]) for case, each in stored.items()} == {
        "ours-8k-sp1": 2,
        "ours-32k-sp2": 2,
    }
    assert {kind for kind, *_ in repository.cases().values()} == {"passed"}


def test_refresh_leaves_no_lock_in_the_folder(refreshed):
    """Nothing but the device's file lies where a commit would take it."""
    repository, _ = refreshed

    assert len(list((repository.path / "baselines").iterdir())) == 1


def test_recorded_runs_are_the_baseline(refreshed):
    """The kept run files are those that the baseline was made of."""
    repository, _ = refreshed
    files = list((repository.path / "runs").iterdir())

    assert len(files) == 4
    assert {json.loads(file.read_text())["workload"]["case"] for file in files} == {"ours-8k-sp1", "ours-32k-sp2"}


def test_same_command_judges(recorded):
    """With a baseline the same command gives a verdict, and the table tells the baseline's origin."""
    done = recorded.suite(*EASY)

    assert done.code == 0
    assert done.last_line == "2 cases: 2 pass"
    assert "measured" in done.text
    assert "2 passed" in done.text


def test_slower_trainer_is_red(recorded):
    """A trainer slowed by 30 % fails its test: exit 1, and the JUnit file says which case and why."""
    slowed = {"seconds": 0.005 / 0.7, "optimizer": 0.001 / 0.7}
    done = recorded.suite("-k", "8k", "--junit-xml=junit.xml", "--perf-tolerance=0.1", **slowed)
    kind, text, properties = recorded.cases()["test_ours[ours-8k-sp1]"]

    assert done.code == 1
    assert done.last_line.startswith("1 case: 1 regression (ours-8k-sp1 (training:Toy) 0.")
    assert kind == "failure"
    assert "below the measured baseline's" in text
    assert "(tolerance --perf-tolerance: 10 %)" in text
    assert properties["perf.verdict"] == "regression"
    assert float(properties["perf.ratio"]) < 0.9
    assert properties["perf.tolerance"] == "0.1"
    assert "Traceback" not in done.text


@pytest.mark.slow
def test_faster_trainer_warns(recorded):
    """A faster trainer passes, with a warning: a stale baseline hides the next regression."""
    done = recorded.suite("-k", "8k", *EASY, seconds=0.002, optimizer=0.0)

    assert done.code == 0
    assert "1 passed, 1 deselected, 1 warning" in done.text
    assert "StaleBaseline: ours-8k-sp1: improvement" in done.text


def test_refresh_refuses_slower(recorded):
    """A slower trainer is not recorded: the case fails, names the option, and the baseline stays."""
    before = baselines(recorded)
    done = recorded.suite("--perf-refresh", "--perf-runs-per-case=1", "-k", "8k", seconds=0.02)

    assert done.code == 1
    assert 'find the slowdown, or say why with --perf-accept-slower "reason"' in done.text
    assert before == baselines(recorded)


def test_refresh_accepts_slower_with_a_reason(recorded):
    """With a reason it is recorded, and the reason stored; the other case is kept as it was."""
    before = baselines(recorded)
    refreshing = ("--perf-refresh", "--perf-runs-per-case=1", "-k", "8k", "--perf-accept-slower=safer")
    done = recorded.suite(*refreshing, seconds=0.02)
    after = baselines(recorded)

    assert done.code == 0
    assert "-> " in done.text
    assert after["ours-8k-sp1"]["accepted_slower"] == "safer"
    assert after["ours-8k-sp1"]["tgs"] < before["ours-8k-sp1"]["tgs"] / 2
    assert before["ours-32k-sp2"] == after["ours-32k-sp2"]


def test_refresh_of_a_broken_trainer(recorded):
    """A refresh whose run fails records nothing of that case and exits with 7."""
    before = baselines(recorded)
    done = recorded.suite("--perf-refresh", "--perf-runs-per-case=1", "-k", "8k", do="raise")

    assert done.code == 7
    assert before == baselines(recorded)


def test_broken_trainer_is_invalid(repository):
    """A run that ends without its steps is invalid: exit 7, the cause in the test's message, its traceback below.

    What else may end a run is tried where runs are made: tests/launch/test_distributed.py.
    """
    done = repository.suite("-k", "8k", "--junit-xml=junit.xml", do="raise")
    kind, text, properties = repository.cases()["test_ours[ours-8k-sp1]"]

    assert done.code == 7
    assert kind == "failure"
    assert "rank 1: ValueError: the toy broke (at step 2)" in text
    assert "Traceback (most recent call last):" in text
    assert properties["perf.verdict"] == "invalid"


def test_other_cases_run_after_a_broken_one(repository):
    """One case's failure is its own."""
    done = repository.suite(do="kill", case="ours-8k-sp1")

    assert done.code == 7
    assert done.last_line.startswith(
        "2 cases: 1 no baseline (ours-32k-sp2 (training:Toy)), 1 invalid (ours-8k-sp1 (training:Toy): expected a "
        "run of all its steps, got none: rank 1: killed by SIGKILL"
    )


def test_missing_trainer_is_invalid(repository):
    """A trainer that is not there is said once a case, with the interpreter's words, and no traceback of the suite."""
    done = repository.suite("-k", "8k", "--perf-trainer=nowhere:Toy")

    assert done.code == 7
    assert "the trainer could not be imported: ModuleNotFoundError: No module named 'nowhere'" in done.text
    assert "perf/trainpace/app/suite.py" not in done.text


def test_require_verdict(repository):
    """Where a verdict is required, a case without one fails with exit 6."""
    done = repository.suite("-k", "8k", "--perf-require-verdict", "--junit-xml=junit.xml")

    assert done.code == 6
    assert repository.cases()["test_ours[ours-8k-sp1]"][0] == "failure"


def test_scale_that_this_machine_cannot_run(repository):
    """It is said what is missing; nothing is measured at another scale instead."""
    done = repository.suite("-k", "8k", "--perf-scale=full", environment={"CUDA_VISIBLE_DEVICES": ""})

    assert done.code == 7
    assert "scale full needs CUDA GPUs, none is present; mini and auto need none" in done.text


def test_marker_chooses_the_trainer(repository):
    """A test may name its trainer itself, above what is typed, and its case no shape: what follows is not known."""
    test = repository.path / "perf" / "test_ours.py"
    test.write_text(
        "import pytest\n"
        "from trainpace.cases import Case\n"
        "CASES = [Case.of('ours', tokens='8k', gpus=8)]\n"
        "@pytest.mark.perf_trainer('training:toy')\n"
        "@pytest.mark.parametrize('case', CASES, ids=str)\n"
        "def test_ours(case, judge_speed):\n"
        "    judge_speed(case)\n"
        "@pytest.mark.parametrize('case', CASES, ids=str)\n"
        "def test_cost(case, judge_cost):\n"
        "    judge_cost(case)\n"
    )
    done = repository.suite("--perf-report=out", "-rs", "--perf-count-flops", "--perf-trainer=training:Toy")
    found = json.loads((repository.path / "out" / "results.json").read_text())["cases"][0]

    assert done.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:toy))"
    assert "ours-8k-sp1: GPUs 8 -> 2, tokens 8192 -> 512; its model is as small as its trainer makes it" in done.text
    assert "not counted: the case does not say its model's shape" in done.text
    assert found["tgs"] > 0
    assert [found[name] for name in ("tflops", "mfu", "hfu")] == [None, None, None]
    assert "ours-8k-sp1: measured with training:toy, by its own perf_trainer marker, which stands above" in done.text
    assert "FLOPs were not counted: the trainer uses no torch" in done.text
    assert "TFLOPs are not known: the case does not say its model's shape; --perf-count-flops counts" in done.text


@pytest.mark.alone
@pytest.mark.skipif(present().cpu.count != os.cpu_count(), reason="load by others cannot be told on these cores")
def test_load_by_others_is_invalid(repository, started):
    """A process that burns a core makes the first run invalid, and no other is made: exit 7; who did is named."""
    subprocess.Popen([sys.executable, "-c", "while True: pass"])
    done = repository.suite("-k", "8k", cores=os.sched_getaffinity(0))

    assert done.code == 7
    assert "attempt" not in done.text
    assert "other processes kept" in done.last_line
    assert "(pid " in done.last_line  # the burner, or whoever else is busier here
    assert "disturbed:" not in done.text


def test_steps_are_part_of_the_workload(recorded):
    """Other steps are another workload, which has no baseline; the command that records it names them."""
    done = recorded.suite("-k", "8k", "--perf-warmup=1", "--perf-steps=5")

    assert done.last_line == "1 case: 1 no baseline (ours-8k-sp1 (training:Toy))"
    assert "--perf-trainer training:Toy --perf-warmup 1 --perf-steps 5 --perf-refresh\n" in done.text


# Replayed


def test_replay_of_the_recorded_runs(recorded):
    """The runs that a baseline was made of are judged again without measuring: pass."""
    done = recorded.suite("--perf-replay=runs", *EASY)

    assert done.code == 0
    assert done.last_line == "2 cases: 2 pass"


@pytest.mark.parametrize(("speed", "code", "last_line"), [(900.0, 1, "1 regression ("), (990.0, 0, "1 pass")])
def test_replayed_slowdown(replay, published, speed, code, last_line):
    """At 1 % noise between runs 10 % slower is red, and 1 % slower is green."""
    done = replay(published, runs=[make_run(tgs=speed)])

    assert done.code == code
    assert done.last_line.startswith(f"1 case: {last_line}")


def test_replay_deselects_what_was_not_recorded(replay, published):
    """Cases without a run in the replayed files are left out."""
    done = replay(published, runs=[make_run()])

    assert "2 passed, 13 deselected" in done.text


def test_replay_of_several_files(replay, published):
    """Files and folders add up; runs of one case are judged together."""
    write_run(make_run(tgs=900.0, seed=1), published.path / "more")
    (file,) = (published.path / "more").iterdir()
    done = replay(published, f"--perf-replay={file}", "--junit-xml=junit.xml", runs=[make_run(tgs=1100.0)])

    assert done.code == 0
    assert float(published.cases()[f"test_speed[{CASE}]"][2]["perf.tgs"]) == pytest.approx((900 * 1100) ** 0.5)


def test_replay_of_one_of_several_workloads(replay, published):
    """Runs that were not measured alike are not averaged."""
    other = make_run(workload=make_run().workload.model_copy(update={"dtype": "fp32"}), seed=1)
    done = replay(published, runs=[make_run(), other])

    assert done.code == 7
    assert f"the replayed runs of {CASE} are of several workloads or devices" in done.text


def test_improvement_warns(replay, published):
    """Faster passes with a warning that names the refresh."""
    done = replay(published, runs=make_runs(1100.0, 1101.0, 1099.0))

    assert done.code == 0
    assert "1 improvement (" in done.last_line
    assert "--perf-scale mini --perf-refresh" in done.text
    assert "1 warning" in done.text


def test_tolerance_is_the_users(replay, published):
    """`--perf-tolerance` stands above the statistics, both ways."""
    runs = [make_run(tgs=900.0)]

    assert replay(published, "--perf-tolerance=0.15", runs=runs).code == 0
    assert replay(published, "--perf-tolerance=0.05", runs=runs).code == 1


@pytest.mark.parametrize(
    ("runs", "environment", "code"),
    [
        ([make_run()], {"BREAK": "1"}, 1),
        ([make_run(health=Health(faults=("thermal slowdown",)))], {}, 7),
        ([make_run(health=Health(faults=("thermal slowdown",)))], {"BREAK": "1"}, 1),
        ([make_run(health=Health(faults=("fault",))), make_run("llama2_7b-32k-sp1", 900.0)], {}, 1),
        ([make_run("llama2_7b-32k-sp1")], {}, 6),
        ([make_run("llama2_7b-32k-sp1"), make_run(health=Health(faults=("fault",)))], {}, 7),
        ([make_run()], {}, 0),
    ],
    ids=[
        "ordinary failure",
        "invalid",
        "invalid and ordinary",
        "invalid and regression",
        "unjudged",
        "unjudged and invalid",
        "pass",
    ],
)
def test_exit_status(replay, published, runs, environment, code):
    """1 a regression or an ordinary failing test, else 7 something invalid, else 6 something unjudged, else 0."""
    if code == 1 and not environment:
        refresh(published.path / "baselines", make_runs(1000.0, 1001.0, workload=runs[1].workload))

    assert replay(published, "--perf-require-verdict", runs=runs, environment=environment).code == code


def test_broken_baseline_file(replay, published):
    """A baseline that cannot be used is named with file and field, judges nothing, and is no crash."""
    file = published.path / "baselines" / "cpu-test-2c.json"
    file.write_text(file.read_text().replace('"tgs":', '"tsg":'))
    done = replay(published, runs=[make_run()])

    assert done.code == 4
    assert f"{file}: {make_run().workload.key}: tgs: Field required" in done.text
    assert "Traceback" not in done.text


@pytest.mark.parametrize(("speed", "code"), [(900.0, 1), (990.0, 0)])
def test_against_recorded_runs(replay, published, speed, code):
    """`--perf-against-runs` judges against those runs, whatever baselines say."""
    for run in make_runs(*NOISY):
        write_run(run, published.path / "then")
    done = replay(published, "--perf-against-runs=then", "--perf-baselines=none", runs=[make_run(tgs=speed)])

    assert done.code == code


def test_a_run_found_out_later_is_measured_again(pytester, monkeypatch):
    """A first run that later ones show to have had less of the machine is set aside, and replaced before recording."""
    arguments = ("--perf-refresh", "--perf-runs-per-case=2", "--perf-runs=runs", "--perf-baselines=baselines")
    suite = pytester.parseconfigure(*arguments, "--perf-scale=mini").stash[_SUITE]
    workload = suite.workloads.resolve(PUBLISHED[0], "native").workload
    given = iter([_beside(7e-4, workload, 0), _beside(5e-4, workload, 1), _beside(5.1e-4, workload, 2)])
    monkeypatch.setattr(suite.speed.driver, "train", lambda _: next(given))
    suite.select([Selected(test="test", case=PUBLISHED[0], trainer="native")], [])

    found = suite.find_speed("test")

    assert found.change.new.yardstick_seconds == pytest.approx(5.05e-4)
    assert len(list((pytester.path / "runs").glob("*.json"))) == 2
    assert len(list((pytester.path / "runs" / "disturbed").glob("*.json"))) == 1


def test_cases_of_one_id_are_two_cases(pytester):
    """Two tests may have made two models of one name: each is measured as it is."""
    suite = pytester.parseconfigure("--perf-scale=mini").stash[_SUITE]
    shape = PUBLISHED[0].model.mini.model_copy(update={"hidden": 128})
    wider = replace(PUBLISHED[0], model=replace(PUBLISHED[0].model, mini=shape))

    cut = [suite.workloads.resolve(case, "native").workload.shape for case in (PUBLISHED[0], wider, PUBLISHED[0])]

    assert cut == [PUBLISHED[0].model.mini, shape, PUBLISHED[0].model.mini]


def _beside(yardstick, workload, seed):
    """A run beside which the suite's fixed piece of work took `yardstick` seconds."""
    run = make_run(workload=workload, seed=seed, device=present().cpu, health=Health(foreign_cores=0.0))
    ranks = tuple(rank.model_copy(update={"yardstick_seconds": yardstick}) for rank in run.ranks)
    return run.model_copy(update={"ranks": ranks})
