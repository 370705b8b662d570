"""Excuses: which verdicts they cover, and which files of them are refused."""

from datetime import date

import pytest

import factories
from trainpace.errors import FileError
from trainpace.judge.verdict import judge
from trainpace.judge.waivers import Quarantined, waive
from trainpace.runs.verdict import Verdict
from trainpace.store.quarantine import load_quarantine

TODAY = date(2026, 11, 25)
ENTRY = """
[[case]]
case = "llama2_7b-8k-sp1"
reason = "two speeds since the driver update"
until = 2026-11-25
who = "jane"
"""
QUARANTINED = Quarantined(case="llama2_7b-8k-sp1", reason="two speeds since the driver update", until=TODAY, who="jane")


@pytest.fixture
def load(tmp_path):
    """Reads a quarantine of this text."""

    def read(text):
        (tmp_path / "quarantine.toml").write_text(text, encoding="latin-1")
        return load_quarantine(tmp_path, TODAY)

    return read


def judgement(verdict, case="llama2_7b-8k-sp1"):
    return judge(factories.make_runs(1000.0, case=case), None).model_copy(update={"verdict": verdict})


def test_no_file(tmp_path):
    """Without a file nothing is quarantined."""
    assert load_quarantine(tmp_path, TODAY) == []


def test_last_day_counts(load):
    """An entry counts up to its last day, and says everything about itself."""
    (entry,) = load(ENTRY)

    assert entry == QUARANTINED
    assert str(entry) == (
        "llama2_7b-8k-sp1 is quarantined until 2026-11-25 by jane: two speeds since the driver update"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENTRY.replace("11-25", "11-24"), "the quarantine of llama2_7b-8k-sp1 expired on 2026-11-24 (jane: two speeds"),
        (ENTRY + ENTRY, "llama2_7b-8k-sp1 stands there twice"),
        (ENTRY.replace("until = 2026-11-25", ""), "entry 1: until: Field required"),
        (ENTRY.replace("2026-11-25", '"soon"'), "entry 1: until: Input should be a valid date"),
        (ENTRY.replace("jane", " "), "entry 1: who: String should have at least 1 character"),
        (ENTRY.replace("who", "whom"), "entry 1: who: Field required"),
        (ENTRY + "ever = true", "entry 1: ever: Extra inputs are not permitted, got True"),
        ('case = "llama2_7b-8k-sp1"', "expected [[case]] entries and nothing else, got case"),
        ("[[cases]]", "expected [[case]] entries and nothing else, got cases"),
        ("case = [1]", "entry 1: the record: Input should be a valid dictionary"),
        ("[[case", "not TOML"),
        ("# \xff", "not TOML"),
    ],
)
def test_refusals(load, tmp_path, text, words):
    """What has expired or cannot be used is an error that names the file, the entry and the field."""
    with pytest.raises(FileError) as error:
        load(text)

    assert str(error.value).startswith(f"{tmp_path / 'quarantine.toml'}: {words}")


@pytest.mark.parametrize(
    ("verdict", "excused"),
    [
        (Verdict.REGRESSION, str(QUARANTINED)),
        (Verdict.INCONCLUSIVE, str(QUARANTINED)),
        (Verdict.INVALID, None),
        (Verdict.NO_BASELINE, None),
        (Verdict.IMPROVEMENT, None),
        (Verdict.PASS, None),
    ],
)
def test_quarantine_excuses_noise(verdict, excused):
    """A quarantine excuses what noise can look like, and leaves the verdict what it is."""
    found = waive(judgement(verdict), [QUARANTINED], None)

    assert (verdict, excused) == (found.verdict, found.waiver)


@pytest.mark.parametrize(
    ("facts", "excused"),
    [
        ({"ratio": 0.85}, True),
        ({"ratio": 0.75}, False),
        ({"ratio": 1.0, "more_memory": True}, False),
    ],
    ids=["a loss as of noise", "no noise is that large", "memory"],
)
def test_quarantine_excuses_what_noise_can_look_like(facts, excused):
    """A quarantined case that takes more memory, or lost a quarter of its speed, is red."""
    red = judgement(Verdict.REGRESSION).model_copy(update=facts)

    assert (waive(red, [QUARANTINED], None).waiver is not None) is excused


def test_quarantine_is_of_its_case():
    """Another case has no part in it, also where its name begins alike."""
    assert waive(judgement(Verdict.REGRESSION, "llama2_7b-8k-sp16"), [QUARANTINED], None).waiver is None


@pytest.mark.parametrize(
    ("verdict", "excused"),
    [(Verdict.REGRESSION, "accepted: exact softmax"), (Verdict.INCONCLUSIVE, None), (Verdict.INVALID, None)],
)
def test_accepted_slowdown(verdict, excused):
    """An accepted slowdown excuses a regression of any case, and nothing else."""
    assert excused == waive(judgement(verdict), [], "exact softmax").waiver
