"""The stored gate over a session: looking again, beside the others, in rounds; and a replay says the same."""

from contextlib import nullcontext

import pytest

from factories import make_run, make_runs, make_workload
from trainpace.app.hours import Selected
from trainpace.app.messages import Messages
from trainpace.app.options import Options
from trainpace.app.suite import Suite
from trainpace.cases import PUBLISHED
from trainpace.errors import RunFailed
from trainpace.judge.refresh import baseline_of
from trainpace.plan.stored import StoredPlan, stored_case
from trainpace.probe.device import present
from trainpace.runs.run import Health, OtherProcess
from trainpace.runs.verdict import Verdict
from trainpace.stats.tolerance import NoiseModel
from trainpace.store.baselines import refresh

NOISY = (990.0, 1005.0, 995.0, 1012.0, 998.0)
"""Five runs at 1 % noise, of every case's baseline."""
CASES = PUBLISHED[:6]
SLOW, NEXT = CASES[0].id, CASES[1].id


class Measuring:
    """A session whose runs have the speeds that a test gives, by case; the last one stays."""

    def __init__(self, suite, speeds):
        self.suite, self.speeds, self.made, self.borders = suite, speeds, [], []
        suite.select([Selected(test=case.id, case=case, trainer="native") for case in CASES], [])
        suite.speed.driver.train = self.train

    def train(self, task):
        self.borders.append(task.stop_at)
        workload = task.workload
        number = self.made.count(workload.case)
        self.made.append(workload.case)
        speeds = self.speeds.get(workload.case, [1000.0])
        speed = speeds[min(number, len(speeds) - 1)]
        if isinstance(speed, Exception):
            raise speed
        faults = () if isinstance(speed, float) else ("thermal slowdown",)
        run = make_run(tgs=float(speed), workload=workload, seed=len(self.made), device=present().cpu)
        return run.model_copy(update={"health": Health(faults=faults)})

    def results(self):
        """Every case, as its test asks for it."""
        return {each.case.id: self.suite.find_speed(each.test) for each in self.suite.speed.selection}


@pytest.fixture
def started_session(tmp_path, monkeypatch):
    """Makes sessions in one folder, whose baselines hold NOISY, or `stored`, for every case."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def start(speeds=(), stored=NOISY, **options):
        suite = Suite(
            options=Options(scale="mini", engine="deepspeed", trainers=("native",), **options),
            root=tmp_path,
            show=lambda *_: nullcontext(lambda *_: None),
            messages=Messages(),
        )
        for case in CASES if stored else ():
            workload = suite.workloads.resolve(case, "native").workload
            refresh(suite.workloads.baselines_folder, make_runs(*stored, workload=workload, device=present().cpu))
        return Measuring(suite, dict(speeds))

    return start


def verdicts(results):
    return {case: measured.verdict for case, measured in results.items()}


def test_usual_speed_is_measured_once(started_session):
    """Nothing looks slow: a run a case, each in its own test."""
    measuring = started_session()

    assert set(verdicts(measuring.results()).values()) == {Verdict.PASS}
    assert measuring.made == [case.id for case in CASES]


def test_accident_is_measured_again_and_named(started_session):
    """A slow run among quick ones is no regression; it is set aside, counted and noted, and the choice is said."""
    measuring = started_session(speeds={SLOW: [800.0, 1001.0, 1002.0]})
    judged = measuring.results()[SLOW].judgement

    assert judged.verdict is Verdict.PASS
    assert (judged.set_aside, len(judged.tgs_of_runs)) == (1, 3)
    assert pytest.approx((1001 * 1002) ** 0.5) == judged.tgs
    assert judged.notes[-1] == "run run1 is set aside as an outlier: TGS 800.0, 20.1 % below the others"
    assert f"{SLOW}: looks slow, and is measured again" in measuring.suite.messages.said


def test_what_no_number_of_runs_decides_is_measured_once(started_session):
    """Against two stored runs that lie apart a usual run says all; what is slower than their noise is found."""
    measuring = started_session({SLOW: [730.0]}, stored=(1000.0, 1100.0))
    results = measuring.results()

    assert measuring.made == [*(case.id for case in CASES), *[SLOW] * 4]
    assert results[NEXT].judgement.what_decides == "no number of runs would decide"
    assert verdicts(results) == {case.id: Verdict.INCONCLUSIVE for case in CASES} | {SLOW: Verdict.REGRESSION}


def test_regression_takes_five_runs(started_session):
    """It is red once five runs say so; the others were measured ahead, and not again by their own tests."""
    measuring = started_session(speeds={SLOW: [950.0]})
    found = verdicts(measuring.results())

    assert found.pop(SLOW) is Verdict.REGRESSION
    assert set(found.values()) == {Verdict.PASS}
    assert measuring.made == [*[case.id for case in CASES], *[SLOW] * 4]


def test_asked_for_runs_are_doubled(started_session):
    """With three runs a case to begin with, a slow one gets three more."""
    measuring = started_session(runs_per_case=3, speeds={SLOW: [950.0]})

    assert verdicts(measuring.results())[SLOW] is Verdict.REGRESSION
    assert {case.id: measuring.made.count(case.id) for case in CASES} == dict.fromkeys([c.id for c in CASES], 3) | {
        SLOW: 6
    }


def test_slow_machine_is_no_regression(started_session):
    """Every case 8 % slower: inconclusive after one run each, with the command that tells machine from change."""
    measuring = started_session(speeds={case.id: [920.0] for case in CASES})
    results = measuring.results()

    assert set(verdicts(results).values()) == {Verdict.INCONCLUSIVE}
    assert len(measuring.made) == len(CASES)
    (reason,) = results[SLOW].judgement.reasons
    assert "8 % below the measured baseline's 1000.0" in reason
    assert "most of the 6 cases lost about 8 %: the machine did, or a change that meets every case" in reason
    assert "--perf-against with the one that the baseline was recorded of" in reason


def test_regression_on_a_slow_machine(started_session):
    """One case lost 10 % besides what all lost: it alone is red."""
    measuring = started_session(speeds={case.id: [920.0] for case in CASES} | {NEXT: [830.0]})
    found = verdicts(measuring.results())

    assert found.pop(NEXT) is Verdict.REGRESSION
    assert set(found.values()) == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize(
    "speeds",
    [
        {SLOW: [800.0, 1001.0, 1002.0]},
        {SLOW: [950.0]},
        {NEXT: [960.0, 950.0], CASES[5].id: [970.0, 1000.0]},
        {case.id: [920.0] for case in CASES} | {NEXT: [830.0]},
        {SLOW: [930.0, 1010.0, 940.0, 1000.0, 930.0]},
    ],
    ids=["outlier", "regression", "two slow", "slow machine", "uneven"],
)
def test_replay_says_what_the_session_said(started_session, tmp_path, speeds):
    """The kept runs, judged again without measuring, have the same verdicts, figures and reasons."""
    session = started_session(runs=tmp_path / "runs", speeds=speeds)
    then = session.results()
    replay = started_session(replay=(tmp_path / "runs",), stored=None)
    now = replay.results()

    assert {case: each.judgement for case, each in then.items()} == {case: each.judgement for case, each in now.items()}
    assert replay.made == []


@pytest.mark.parametrize(("cores", "attempts"), [(0.9, 1), (0.1, 3)])
def test_a_burnt_core_is_not_tried_again(started_session, monkeypatch, cores, attempts):
    """Where one process kept a core busy from end to end, further attempts would meet it: the first says invalid."""
    session = started_session()
    others = (OtherProcess(pid=42, name="firefox", cores=cores),)
    disturbed = Health(foreign_cores=cores, others=others, faults=("other processes: firefox",))
    train = session.train
    monkeypatch.setattr(
        session.suite.speed.driver, "train", lambda task: train(task).model_copy(update={"health": disturbed})
    )
    found = session.suite.find_speed(SLOW)

    assert found.verdict is Verdict.INVALID
    assert session.made == [SLOW] * attempts


def test_disturbed_look_is_invalid(started_session):
    """A second look that something disturbs, three times, ends the case as any disturbed run does."""
    measuring = started_session(speeds={SLOW: [900.0, 900]})

    assert verdicts(measuring.results())[SLOW] is Verdict.INVALID
    assert measuring.made.count(SLOW) == 4


def test_failing_look_is_invalid(started_session):
    """So does one that ends without its steps."""
    measuring = started_session(speeds={SLOW: [900.0, RunFailed("out of memory")]})

    assert verdicts(measuring.results())[SLOW] is Verdict.INVALID


def test_failure_ahead_is_told_by_its_own_test(started_session):
    """A case that fails while another asks for it is invalid itself, and takes no other with it."""
    measuring = started_session(speeds={SLOW: [950.0], NEXT: [RunFailed("out of memory", detail="the log")]})
    results = measuring.results()

    assert verdicts(results)[SLOW] is Verdict.REGRESSION
    assert verdicts(results)[NEXT] is Verdict.INVALID
    assert results[NEXT].detail == "the log"
    assert measuring.made.count(NEXT) == 1


def test_no_case_begins_after_the_time(started_session):
    """A case that has begun is looked at again; those that did not fit are not measured for its sake."""
    measuring = started_session(max_minutes=60.0, speeds={SLOW: [950.0]})
    train = measuring.train

    def late(task):
        measuring.suite.speed.driver._began -= 3600
        return train(task)

    measuring.suite.speed.driver.train = late

    assert measuring.suite.find_speed(SLOW).verdict is Verdict.REGRESSION
    assert measuring.made == [SLOW] * 5
    assert measuring.suite.find_speed(NEXT).verdict is Verdict.INCONCLUSIVE


def test_accident_in_the_baseline(started_session):
    """One of the baseline's runs was an outlier: it is no noise of the others, and the judgement names it."""
    measuring = started_session()
    workload = measuring.suite.workloads.resolve(CASES[0], "native").workload
    runs = make_runs(990.0, 1005.0, 800.0, 1012.0, 998.0, workload=workload, device=present().cpu)
    refresh(measuring.suite.workloads.baselines_folder, runs, accept_slower="for the test")
    judged = measuring.results()[SLOW].judgement

    assert judged.verdict is Verdict.PASS
    assert judged.tolerance_source.startswith("4 runs, 1 now: 3.")
    assert pytest.approx(1001.2, abs=0.1) == judged.baseline.tgs
    assert "of the baseline's 5 runs, set aside as outliers: TGS 800.0" in judged.notes


def test_refresh_goes_in_rounds(started_session):
    """The runs of a case lie a round apart; each test then records its own."""
    measuring = started_session(refresh=True, runs_per_case=2, stored=None)
    first = measuring.suite.find_speed(SLOW)

    assert measuring.made == [case.id for case in CASES] * 2
    assert first.change.new.num_runs == 2
    recorded = [each.change.new for each in measuring.results().values()]
    assert {each.num_runs for each in recorded} == {2}
    assert len({each.recorded for each in recorded}) == 1


@pytest.mark.parametrize(("speeds", "said"), [([1000.0, 1400.0], len(CASES)), ([1000.0, 1010.0], 0)])
def test_a_refresh_that_can_decide_nothing_says_so(started_session, speeds, said):
    """At its end, when the noise of all its cases is known, with the command that records enough."""
    every = {case.id: speeds for case in CASES}
    measuring = started_session(every, refresh=True, runs_per_case=2, max_spread=0.5, stored=None)
    measuring.results()
    measuring.suite.speed.say_undecidable()
    told = [text for text in measuring.suite.messages.said if "nothing can be judged by it yet" in text]

    assert len(told) == said
    assert all("no number of runs would decide against 2 stored" in text for text in told)
    assert all(text.endswith("--perf-refresh --perf-runs-per-case 4`") for text in told)


def test_bounded_refresh_goes_case_by_case(started_session):
    """Where time may run out, the first cases are recorded rather than none."""
    measuring = started_session(refresh=True, runs_per_case=2, max_minutes=60.0, stored=None)
    measuring.suite.find_speed(SLOW)

    assert measuring.made == [SLOW] * 2


def test_long_steps_may_end_early(started_session):
    """Where a step takes ten seconds its only run is given the borders between verdicts; a user's are all made."""
    slow = [each / 1000 for each in NOISY]  # 128 tokens take two minutes
    long, own = (started_session(stored=slow, **options) for options in ({}, {"steps": 40}))
    for each in (long, own):
        each.speeds = {case.id: [1.0] for case in CASES}
        each.results()
    (border, *_), short = max(map(tuple, long.borders)), started_session()
    short.results()

    assert all(len(each) == 3 for each in long.borders)
    assert border > 128.0
    assert set(map(tuple, own.borders)) == {()}
    assert set(map(tuple, short.borders)) == {()}


@pytest.mark.parametrize(("accumulation", "borders"), [(1, 3), (2, 0)])
def test_zero2_makes_all_its_steps(accumulation, borders):
    """An optimizer step that comes sooner than DeepSpeed's ZeRO-2 was told would have no gradients."""
    workload = make_workload(sharding="zero2", accumulation=accumulation)
    runs = [make_run(workload=workload, tgs=tgs / 1000, seed=seed) for seed, tgs in enumerate(NOISY)]
    noise = NoiseModel()
    case = stored_case("test", workload, runs[0].device, [baseline_of(runs)], noise=noise)
    plan = StoredPlan([case], tests=[("test", workload.case)], noise=noise)

    assert len(plan.next("test").stop_at) == borders


def test_a_users_tolerance_asks_for_no_more_runs(started_session):
    """However much the baseline's runs differ, one run is judged within the share that the user gave."""
    noisy = (960.0, 1000.0, 1040.0, 985.0, 1015.0)
    by_noise, by_user = (started_session(stored=noisy, **options) for options in ({}, {"tolerance": 0.2}))
    for each in (by_noise, by_user):
        each.suite.find_speed(SLOW)

    assert len(by_noise.made) > 1
    assert by_user.made == [SLOW]


@pytest.mark.parametrize(
    ("factors", "verdict", "runs"),
    [([1.2, 1.0], Verdict.PASS, 2), ([1.2], Verdict.REGRESSION, 3), ([1.02], Verdict.PASS, 1)],
    ids=["one run", "all runs", "within"],
)
def test_more_resident_memory_is_measured_again(started_session, factors, verdict, runs):
    """One run in a dozen keeps more than the others: it takes three runs to be red, or one that is not alike."""
    measuring = started_session()
    train = measuring.train

    def larger(task):
        run = train(task)
        factor = factors[min(measuring.made.count(SLOW), len(factors)) - 1] if run.workload.case == SLOW else 1.0
        ranks = tuple(
            each.model_copy(update={"peak_memory_bytes": int(factor * each.peak_memory_bytes)}) for each in run.ranks
        )
        return run.model_copy(update={"ranks": ranks})

    measuring.suite.speed.driver.train = larger

    assert measuring.suite.find_speed(SLOW).verdict is verdict
    assert measuring.made.count(SLOW) == runs
