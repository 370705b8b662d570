"""The plans against sessions recorded before there were plans: the same measurements, labels and findings.

recorded/*.json hold a session a line: its script, what it asked for, and what was said. They were recorded at the last
revision whose gates had loops of their own, by the answers of `scripted.py`; those of the stored gate anew when it got
its second variance and judged gains as it does losses. Where a word was renamed since (accident,
planted), it was renamed there too. One thing differs on purpose: a case that failed is not measured again because one
of its earlier runs turns out to have been disturbed (no session here shows it).
"""

import json
from pathlib import Path

import pytest
from scripted import NOW, Scripted, fixed, prepare

from trainpace.store.quarantine import load_quarantine

RECORDED = {
    kind: json.loads((Path(__file__).parent / "recorded" / f"{kind}.json").read_text())
    for kind in ("stored", "paired", "systems")
}
SESSIONS = [(kind, name) for kind, sessions in RECORDED.items() for name in sessions]
RARE = {name for kind, name in SESSIONS if name.startswith("random_") and name[-1] != "0"}
"""All but a tenth of the drawn sessions: left to the environment gate."""
RESUMED = [
    (name, place) for name, session in RECORDED["stored"].items() for place in range(len(session.get("resumed", ())))
]


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Time stands still but for measurements; versions and dates are those of the recording; no session was before."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return fixed(monkeypatch)


def started(script, folder, clock, **options):
    """A session under a script, which no test has asked for anything yet."""
    if not (folder / "baselines").exists():
        prepare(script, folder)
    session = Scripted(script, folder, clock, **options)
    session.suite.speed.quarantine = load_quarantine(folder / "baselines", NOW.date())
    return session


def asked(session):
    """Case, side and label of every measurement, and the seconds at which it may end early."""
    found = []
    for each in session.asked:
        entry = [each["case"], each["side"], each["title"]]
        found.append([*entry, each["borders"]] if each["borders"] else entry)
    return found


def found(finding):
    """A finding as the record has it: what is empty or zero is left out."""
    if finding.judgement is None:
        return _of_systems(finding)
    judged = finding.judgement
    fields = {
        "verdict": str(judged.verdict),
        "reasons": list(judged.reasons),
        "notes": list(judged.notes),
        "ratio": judged.ratio,
        "tolerance_source": judged.tolerance_source,
        "set_aside": judged.set_aside,
        "waiver": judged.waiver,
        "runs": [run.id for run in finding.runs],
        "base_runs": [run.id for run in finding.base_runs],
        "change": str(finding.change) if finding.change else None,
    }
    return {name: value for name, value in fields.items() if value or name == "runs"}


def _of_systems(finding):
    if finding.systems is None:
        return {"raised": f"RunFailed: {finding.reasons[0]}"}
    names = ("trainer", "status", "reference", "reason", "tgs_of_runs", "ratio", "ratio_low", "footnotes")
    systems = [system.model_dump(mode="json", include=set(names)) for system in finding.systems.systems]
    return {"verdict": str(finding.verdict), "reasons": list(finding.reasons), "systems": systems}


def expected(finding):
    """A recorded finding, with the list of runs that an empty one left out."""
    return finding if "raised" in finding or "systems" in finding else {"runs": []} | finding


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind}-{name}", marks=pytest.mark.slow if name in RARE else ())
        for kind, name in SESSIONS
    ],
)
def test_session(kind, name, tmp_path, clock):
    """What is measured, kept and said of every case is what was recorded."""
    record = RECORDED[kind][name]
    session = started(record["script"], tmp_path, clock)
    session.measure()

    text = json.dumps({test: found(each) for test, each in session.findings.items()})
    assert record["asked"] == asked(session)
    assert record["kept"] == [[each["id"], "apart" if each["replaced"] else "counts"] for each in session.kept]
    assert (record.get("files") or []) == (session.files or [])
    assert {test: expected(each) for test, each in record["findings"].items()} == json.loads(
        text.replace(str(tmp_path), "FOLDER")
    )
    assert record["said"] == sorted(session.suite.messages.said)


@pytest.mark.parametrize(("name", "place"), RESUMED, ids=[f"{name}-{place}" for name, place in RESUMED])
def test_resumed_session(name, place, tmp_path, clock):
    """Cut off before any of its runs and resumed, a session measures what is missing and says what was recorded."""
    record = RECORDED["stored"][name]
    resumed = record["resumed"][place]
    before = started(record["script"], tmp_path, clock, cut_after=resumed["cut_after"])
    before.measure()
    session = started(record["script"], tmp_path, clock, answered=before.answered, resume=True)
    session.measure()

    whole = record["findings"]
    findings = {test: whole[test] if each == "same" else each for test, each in resumed["findings"].items()}
    assert resumed["asked"] == [each["title"] for each in session.asked]
    assert {test: expected(each) for test, each in findings.items()} == {
        test: found(each) for test, each in session.findings.items()
    }


def test_a_large_gain_is_warned_of(tmp_path, clock):
    """Of a head that is 1.85 times as fast summary.md, and so the comment, say so first, and their counts again."""
    script = json.loads(json.dumps(RECORDED["paired"]["improvement_without_noise"]["script"]))
    script["answers"]["llama2_7b-128k-sp8/head"] = [{"tgs": 1850.0}]
    session = started(script, tmp_path, clock)
    session.measure()
    session.suite.report(0)
    said = "llama2_7b-128k-sp8 is 1.85 times as fast as the base: see that it does the same work"

    assert session.suite.results.warnings == (said,)
    assert session.suite.results.summary.endswith(f"; warning: {said}")
