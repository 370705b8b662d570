"""Pairs: what is measured again, what is believed, and what is known of their noise before a session."""

import pytest
from scripted import Scripted, fixed, prepare, workload_of

import factories
from factories import make_run, make_workload
from trainpace.judge.noise import SessionNoise
from trainpace.plan.paired import PairedCase, PairedPlan
from trainpace.plan.task import drive
from trainpace.runs.run import Health, OtherProcess
from trainpace.runs.verdict import Verdict
from trainpace.stats.sequential import FURTHER_PAIRS, PAIRS
from trainpace.stats.tolerance import Spread
from trainpace.store.noise import keep_noise, load_noise, noise_path

WORKLOAD = make_workload("llama2_7b-8k-sp1")


def run(yardstick, *, told=True):
    """A run beside which the suite's fixed piece of work took `yardstick` seconds."""
    found = make_run(workload=WORKLOAD, health=Health(foreign_cores=0.0 if told else None))
    ranks = tuple(rank.model_copy(update={"yardstick_seconds": yardstick}) for rank in found.ranks)
    return found.model_copy(update={"ranks": ranks})


@pytest.mark.parametrize(
    ("runs", "repeated", "failed"),
    [
        ([run(5e-4), run(5.2e-4)], 0, False),
        ([run(5e-4), run(7e-4), run(7e-4), run(7.1e-4)], 1, False),
        ([run(5e-4), run(7e-4)] * 3, 3, True),
        ([run(5e-4, told=False), run(7e-4, told=False)], 0, False),
        ([run(None), run(None)], 0, False),
    ],
    ids=["equal", "once unequal", "always unequal", "cannot be told", "on a GPU"],
)
def test_a_pair_on_unequal_machines_is_measured_again(runs, repeated, failed):
    """Both sides of a pair must have had the same machine; how fast that is does not matter."""
    given = iter(runs)
    case = PairedCase(test="test", workload=WORKLOAD, min_effect=0.05)

    drive(PairedPlan([case]), lambda _: next(given), out_of_time=lambda: bool(case.base))

    assert case.repeated == repeated
    assert (case.failure is not None) == failed
    assert next(given, None) is None


def test_a_burnt_core_ends_a_case_at_once():
    """A process that keeps a core busy from end to end disturbs every attempt at a pair: only one is made."""
    burnt = Health(foreign_cores=0.9, others=(OtherProcess(pid=42, name="firefox", cores=0.9),), faults=("firefox",))
    case = PairedCase(test="test", workload=WORKLOAD, min_effect=0.05)
    given = iter([run(5e-4), run(5e-4).model_copy(update={"health": burnt})])

    drive(PairedPlan([case]), lambda _: next(given))

    assert case.failure is not None
    assert "pair 1 was disturbed: head: firefox" in case.failure.reasons[0]


def wavering(spread):
    """Makes runs of which head's are faster and slower than the base's by the share `spread`, in turn."""
    number = 0

    def measure(task):
        nonlocal number
        number += 1
        off = 0 if task.side == "base" else spread if (number - 1) // 2 % 2 else -spread
        return make_run(tgs=1000.0 * (1 + off), workload=WORKLOAD)

    return measure


@pytest.mark.parametrize(
    ("prior", "max_pairs", "pairs", "said"),
    [
        (None, None, PAIRS, "too far for 8 pairs: up to 40"),
        (None, 8, PAIRS, None),
        (Spread(0.05, 24), None, PAIRS, "its runs spread 3.5 %, too far for 8 pairs: up to 18"),
    ],
    ids=["unknown", "typed", "known"],
)
def test_noisy_case_gets_further_pairs(prior, max_pairs, pairs, said):
    """Beyond eight where its noise leaves it undecided, said in one message; never beyond what was typed."""
    case = PairedCase(test="test", workload=WORKLOAD, min_effect=0.05, prior=prior)
    plan = PairedPlan([case], max_pairs=max_pairs)
    drive(plan, wavering(0.06))

    assert (len(case.base) > pairs) == (said is not None)
    assert len(case.base) <= FURTHER_PAIRS
    assert len(plan.messages) == (said is not None)
    assert said is None or plan.messages[0].endswith(said)


CASE = "llama2_7b-8k-sp1"
SCRIPT = {"kind": "paired", "machine": "cpu", "trainers": ["native"], "cases": [{"case": CASE}], "answers": {}}


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Makes sessions of one unchanged case in one folder, with one folder of state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    clock = fixed(monkeypatch)

    def start(**options):
        script = SCRIPT | {"options": options}
        if not (tmp_path / "baselines").exists():
            prepare(script, tmp_path)
        found = Scripted(script, tmp_path, clock)
        found.measure()
        return found

    return start


def test_noise_of_a_session_is_known_to_the_next(session):
    """Its pairs' spread is kept under the workload's key; where enough is known a case passes after two pairs."""
    path, key = noise_path(factories.CPU.slug), workload_of(CASE).key
    first = session()
    kept = load_noise(path)[key]
    for day in range(6):
        keep_noise(path, {key: SessionNoise(recorded=f"2026-11-2{day}", sd=0.01, dof=4)})
    second = session()

    assert (len(first.asked), len(kept), kept[0].dof) == (6, 1, 2)
    assert len(second.asked) == 4
    assert second.findings[CASE].verdict is Verdict.PASS
    assert len(load_noise(path)[key]) == 8


def test_noise_that_cannot_be_read_is_said_and_not_used(session):
    """The session judges without it, and leaves the file as it is."""
    path = noise_path(factories.CPU.slug)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    found = session()

    assert found.findings[CASE].verdict is Verdict.PASS
    assert [text for text in found.suite.messages.said if f"{path}, line 1: not JSON" in text]
    assert path.read_text() == "{"


def test_case_has_a_minimum_effect_of_its_own(session):
    """It is judged by that, which is said; the report's tolerance is it."""
    found = session(detect_of={CASE: 0.2})

    assert found.findings[CASE].judgement.tolerance == pytest.approx(0.2)
    assert f"{CASE}: judged by a minimum effect of its own, 20 %" in found.suite.messages.said


@pytest.mark.parametrize(("uneven", "pairs", "verdict"), [(False, 2, Verdict.PASS), (True, 4, Verdict.REGRESSION)])
def test_steps_that_the_median_does_not_see_take_four_pairs(uneven, pairs, verdict):
    """A case of known noise passes on two pairs; not where head's every third step takes three times as long."""
    workload = make_workload("llama2_7b-8k-sp1", steps=6)

    def measure(task):
        made = make_run(tgs=1000.0, workload=workload, noise=0.001, seed=task.side == "head")
        if task.side == "base" or not uneven:
            return made
        seconds = [each * (3 if step % 3 == 2 else 1) for step, each in enumerate(made.ranks[0].seconds)]
        ranks = tuple(rank.model_copy(update={"seconds": seconds}) for rank in made.ranks)
        return made.model_copy(update={"ranks": ranks})

    case = PairedCase(test="test", workload=workload, min_effect=0.05, prior=Spread(0.01, 40))
    plan = PairedPlan([case])

    drive(plan, measure)

    assert len(case.head) == pairs
    assert plan.judgement(case, names=("b", "h"), peak_tflops=None).verdict is verdict
