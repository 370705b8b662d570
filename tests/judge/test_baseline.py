"""Baseline files: what is read, what is refused and how, which baseline is found."""

import copy
import json
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories import make_full_workload, make_runs, make_workload
from trainpace.cases import PUBLISHED
from trainpace.errors import FileError
from trainpace.judge import baseline as stored
from trainpace.judge.refresh import baseline_of
from trainpace.stats.tolerance import CaseNoise, NoiseModel, Spread, tolerance_for
from trainpace.store.baselines import load_baselines, load_file, published_folder, refresh

KEY = make_workload().key
SESSION = {
    "recorded": "2026-11-25T00:00:00+00:00",
    "revision": None,
    "level": 1,
    "tgs": [990.0, 1000.0, 1010.0],
    "ids": [],
    "peak_memory_bytes": [],
}
ROW = "llama2_7b-8k-sp1/full/published"
A100 = published_folder() / "a100-sxm4-80gb.json"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A device's file with one measured baseline, written by a refresh."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    refresh(tmp_path / "baselines", make_runs(990.0, 1000.0, 1010.0))
    return tmp_path / "baselines" / "cpu-test-2c.json"


def test_published_table_is_whole():
    """Every published case has its row, under its own key, with GPUs, sp and sequence of the case."""
    rows = load_file(A100).baselines

    assert {case.id: (case.gpus, case.sp, case.sequence) for case in PUBLISHED} == {
        row.case: (row.gpus, row.sp, row.sequence) for row in rows.values()
    }


def test_published_file_is_written_as_a_refresh_writes():
    """The first refresh on an A100 shows as the lines that it adds, and no other."""
    assert A100.read_text() == load_file(A100).text()


def test_measured_baseline_survives_its_file(path):
    """What is read back is what the runs gave."""
    baseline = load_file(path).baselines[KEY]

    assert baseline.workload == make_workload()
    (session,) = baseline.sessions
    assert session.tgs == [990.0, 1000.0, 1010.0]
    assert session.peak_memory_bytes == [1 << 30] * 3
    assert (session.level, session.revision, baseline.num_runs) == (1, None, 3)
    assert pytest.approx(999.967, abs=1e-3) == baseline.tgs
    assert baseline.tgs == baseline.reference_tgs
    assert path.read_text() == load_file(path).text()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tgs", float("nan"), "expected finite numbers, got NaN"),
        ("tgs", float("inf"), "expected finite numbers, got Infinity"),
        ("tgs", 0, f"{KEY}: tgs: Input should be greater than 0, got 0"),
        ("tgs", -3.5, f"{KEY}: tgs: Input should be greater than 0, got -3.5"),
        ("tgs", "1000", f"{KEY}: tgs: Input should be a valid number, got '1000'"),
        ("tgs", True, f"{KEY}: tgs: Input should be a valid number, got True"),
        ("tgs", 1100.0, f"{KEY}: .*tgs must be the geometric mean of the newest level's sessions, 999.967, got 1100"),
        ("sessions", [], f"{KEY}: sessions: List should have at least 1 item"),
        ("sessions", [SESSION | {"tgs": [9.0, 0.0]}], "sessions.0.tgs.1: Input should be greater than 0, got 0.0"),
        ("sessions", [SESSION | {"tgs": []}], "sessions.0.tgs: List should have at least 1 item"),
        ("sessions", [SESSION | {"level": 0}], "sessions.0.level: Input should be greater than 0, got 0"),
        ("sessions", [SESSION | {"level": 2}, SESSION], r"levels of the sessions must not fall, got \[2, 1\]"),
        ("sessions", [SESSION | {"ids": ["a"]}], "ids must have 3 entries, got 1"),
        ("sessions", [SESSION | {"peak_memory_bytes": [1]}], "peak_memory_bytes must have 3 entries, got 1"),
        ("tflops", None, f"{KEY}: .*tflops must be given in the convention xtuner, got None"),
        ("tflops", "1", f"{KEY}: tflops: Input should be a valid number, got '1'"),
        ("peak_memory_bytes", 1.5, f"{KEY}: peak_memory_bytes: .*valid integer"),
        ("convention", "mfu", f"{KEY}: convention: expected one of xtuner, megatron, .*stated, got 'mfu'"),
        ("origin", "guessed", f"{KEY}: origin: expected one of published, measured, got 'guessed'"),
        ("origin", ["measured"], f"{KEY}: origin: expected one of"),
        ("unheard", 1, f"{KEY}: unheard: Extra inputs are not permitted, got 1"),
    ],
)
def test_wrong_value_is_refused(path, field, value, said):
    """File, case, field and value stand in the message."""
    content = json.loads(path.read_text())
    content["baselines"][KEY][field] = value
    path.write_text(json.dumps(content))

    with pytest.raises(FileError, match=f"cpu-test-2c.json.*{said}"):
        load_file(path)


def of_version_1(content):
    """The same file as version 1 had it: the runs of a baseline's only session among its own fields."""
    for baseline in content["baselines"].values():
        (session,) = baseline.pop("sessions")
        baseline |= {"tgs_of_runs": session["tgs"], "recorded": session["recorded"], "revision": session["revision"]}
    return content | {"schema_version": 1}


def test_version_1_is_read_as_one_session(path):
    """Nothing is lost but ids and peaks of its runs, which it did not hold; the next refresh writes version 2."""
    new = load_file(path)
    path.write_text(json.dumps(of_version_1(json.loads(path.read_text()))))
    old = load_file(path)
    (session,) = old.baselines[KEY].sessions
    refresh(path.parent, make_runs(1000.0, 1005.0))
    told = {"ids": ["run0", "run1", "run2"], "peak_memory_bytes": [1 << 30] * 3}

    assert new.baselines[KEY].sessions == [session.model_copy(update=told)]
    assert old.baselines[KEY].model_copy(update={"sessions": []}) == new.baselines[KEY].model_copy(
        update={"sessions": []}
    )
    assert json.loads(path.read_text())["schema_version"] == 2
    assert load_file(path).baselines[KEY].sessions[0] == session


@pytest.mark.parametrize("field", ["tgs_of_runs", "recorded", "revision"])
def test_missing_field_of_version_1_is_refused(path, field):
    """A field that became a session's is named as the file has it."""
    content = of_version_1(json.loads(path.read_text()))
    del content["baselines"][KEY][field]
    path.write_text(json.dumps(content))

    with pytest.raises(FileError, match=f"{KEY}: {field}: Field required in a file of version 1"):
        load_file(path)


@pytest.mark.parametrize("field", sorted(stored.Measured.model_fields))
def test_missing_field_is_refused(path, field):
    """Nothing is filled in: a field that is gone is named."""
    content = json.loads(path.read_text())
    del content["baselines"][KEY][field]
    path.write_text(json.dumps(content))

    with pytest.raises(FileError, match=f"{KEY}: {field}: "):
        load_file(path)


def test_number_too_large_for_a_float_is_refused(path):
    """1e999 is an infinity that no constant announces."""
    path.write_text(path.read_text().replace('"tgs": 999.967', '"tgs": 1e999'))

    with pytest.raises(FileError, match=r"tgs: .*finite number"):
        load_file(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"schema_version": 2',
            '"schema_version": 3',
            "expected schema_version 1 or 2, got 3: use the trainpace that wrote it",
        ),
        ('"schema_version": 2', '"schema_version": true', "expected schema_version 1 or 2, got True"),
        ('"schema_version": 2', '"version": 2', "expected schema_version 1 or 2, got None"),
        ('"device": "cpu-test-2c",', "", r"missing=\['device'\]"),
        ('"device": "cpu-test-2c",', '"device": "cpu-test-2c", "x": 1,', r"unknown=\['x'\]"),
        (
            '"device": "cpu-test-2c",',
            '"device": "other",',
            "device: expected 'cpu-test-2c' as the file is named, got 'other'",
        ),
        ('"sequence": 128', '"sequence": 256', "expected the key .* of what it holds"),
        ('"scale": "mini"', '"scale": "huge"', "workload.scale: .*got 'huge'"),
        ('"tgs": 999.967', '"tgs": 999.967, "tgs": 1.0', "key 'tgs' stands there twice"),
    ],
)
def test_wrong_file_is_refused(path, old, new, said):
    """What is wrong with the file as a whole is said with what to do."""
    path.write_text(path.read_text().replace(old, new, 1))

    with pytest.raises(FileError, match=said):
        load_file(path)


@pytest.mark.parametrize("length", [0, 1, 300, -3])
def test_truncated_file_is_refused(path, length):
    """A file that ends early holds no baselines, whatever could be read of it."""
    path.write_text(path.read_text()[:length])

    with pytest.raises(FileError, match="not JSON, or cut off"):
        load_file(path)


@pytest.mark.parametrize(("content", "said"), [("[]", "expected an object .* got list"), ("3", "got int")])
def test_other_json_is_refused(path, content, said):
    """JSON that is no baseline file is refused."""
    path.write_text(content)

    with pytest.raises(FileError, match=said):
        load_file(path)


def test_baselines_that_are_no_object_are_refused(path):
    """A list of baselines has no keys."""
    path.write_text('{"schema_version": 2, "device": "cpu-test-2c", "baselines": []}')

    with pytest.raises(FileError, match="baselines: expected an object, got list"):
        load_file(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _places(value, place=()):
    yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*place, key))


def _with(value, place, new):
    if not place:
        return new
    changed = copy.copy(value)
    changed[place[0]] = _with(value[place[0]], place[1:], new)
    return changed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_any_change_is_read_or_refused(path, data):
    """Whatever stands in a field, loading gives baselines or a FileError that names the file: nothing else."""
    content = json.loads(path.read_text())
    place = data.draw(st.sampled_from(list(_places(content))))
    changed = path.parent / "changed" / path.name
    changed.parent.mkdir(exist_ok=True)
    changed.write_text(json.dumps(_with(content, place, data.draw(json_values))))

    assert _read_or_refused(changed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(path, data):
    """A byte changed, added or lost anywhere gives baselines or a FileError."""
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    changed = path.parent / "changed" / path.name
    changed.parent.mkdir(exist_ok=True)
    changed.write_bytes(content[:at] + data.draw(st.binary(max_size=3)) + content[at + data.draw(st.integers(0, 2)) :])

    assert _read_or_refused(changed)


def _read_or_refused(path):
    try:
        return load_file(path)
    except FileError as error:
        return path.name in str(error)


def test_own_folder_comes_before_the_package(path):
    """A user's baselines are found first, the package's published rows last."""
    own = path.parent / "a100-sxm4-80gb.json"
    own.write_text(stored.BaselineFile("a100-sxm4-80gb", load_file(path).baselines).text())
    found = load_baselines([path.parent], "a100-sxm4-80gb")

    assert found[0].key == KEY
    assert len(found) == 1 + len(PUBLISHED)


def test_package_folder_is_read_once():
    """A checkout's own baselines/ given as the user's folder does not double its rows."""
    assert len(load_baselines([A100.parent], "a100-sxm4-80gb")) == len(PUBLISHED)


def test_unknown_device_has_no_baselines(tmp_path):
    """A folder without the device's file is how a device starts."""
    assert load_baselines([tmp_path, tmp_path / "absent"], "cpu-test-2c") == []


def test_measured_is_found_by_its_workload(path):
    """A measured baseline matches its whole workload, and no other one."""
    baselines = load_baselines([path.parent], "cpu-test-2c")

    assert stored.find(baselines, make_workload()).key == KEY
    assert stored.find(baselines, make_workload(engine="fsdp2")) is None


def test_published_is_found_by_case_and_gpus():
    """A row matches on case, GPUs and full scale alone, whatever trains."""
    rows = load_baselines([], "a100-sxm4-80gb")

    assert stored.find(rows, make_full_workload()).key == ROW
    assert stored.find(rows, make_full_workload(engine="fsdp2")).key == ROW
    assert stored.find(rows, make_full_workload(ranks=4)) is None
    assert stored.find(rows, make_full_workload(scale="proxy")) is None
    assert stored.find(rows, make_workload()) is None


def test_measured_is_preferred_to_published(path):
    """A row is used only where nothing was measured for the workload."""
    own = refresh(path.parent, make_runs(3000.0, 3010.0, workload=make_full_workload()))[0].new

    assert stored.find([*load_baselines([], "a100-sxm4-80gb"), own], make_full_workload()) == own


def test_noise_is_of_what_is_alike(path):
    """The variances of a case's own scale moderate it; a published row has none, nor has what nothing is known of."""
    full = make_full_workload()
    refresh(path.parent, make_runs(2000.0, 3000.0, workload=full), max_spread=0.5)
    baselines = load_baselines([path.parent], "cpu-test-2c")
    mini, other = (stored.find(baselines, workload) for workload in (make_workload(), full))
    noise = stored.case_noise(mini, baselines, shared=False)

    assert CaseNoise(within=Spread(pytest.approx(0.01, abs=1e-4), 2), runs=pytest.approx(3)) == noise
    assert stored.case_noise(other, baselines, shared=False).within.dof == 1
    assert stored.case_noise(load_file(A100).baselines[ROW], baselines, shared=False) is None


def test_noise_of_another_engine_is_not_alike(path):
    """Eight noisy cases of another engine do not make the quiet ones of this noisy, where these tell enough by
    themselves; with few runs of its own a case is judged by all of them."""
    quiet, noisy = (
        [
            baseline_of(make_runs(*[1000 * (1 + sd * each) for each in (-1.2, -0.4, 0, 0.4, 1.2)], workload=workload))
            for workload in (make_workload(f"case{number}", engine=engine) for number in range(8))
        ]
        for sd, engine in ((0.01, "deepspeed"), (0.09, "fsdp2"))
    )

    assert pytest.approx(0.009, abs=1e-3) == stored.case_noise(quiet[0], quiet + noisy, shared=False).within.sd
    assert stored.case_noise(quiet[0], quiet[:1] + noisy, shared=False).within.sd > 0.012


def test_proxy_cuts_are_read_back(path):
    """The cut that a proxy's baseline was measured with is found by its case."""
    cut = make_full_workload(scale="proxy", ranks=1)
    refresh(path.parent, make_runs(3000.0, 3010.0, workload=cut))
    baselines = load_baselines([path.parent], "cpu-test-2c")

    assert [cut] == stored.proxy_cuts(baselines, "llama2_7b-8k-sp1")
    assert stored.proxy_cuts(baselines, "llama2_7b-32k-sp1") == []


def test_noise_of_a_case_is_that_of_its_own_runs(path):
    """Between the runs of its sessions; nothing is known from one run, a published row, or where there is none."""
    three = load_file(path).baselines[KEY]
    (session,) = three.sessions
    single = session.model_copy(update={"tgs": [1000.0], "ids": [], "peak_memory_bytes": []})
    one, two = (three.model_copy(update={"sessions": sessions}) for sessions in ([single], [session, session]))

    assert (stored.run_noise(three).dof, stored.run_noise(two).dof) == (2, 4)
    assert pytest.approx(0.0100, abs=1e-4) == stored.run_noise(three).sd
    assert [stored.run_noise(each) for each in (one, load_file(A100).baselines[ROW], None)] == [None] * 3


def test_noisy_cases_of_a_file_do_not_blunt_the_quiet_ones():
    """Eight cases of 9 % noise beside six of 1 %, alike but for that: five runs of a quiet one find a loss of 7 %."""
    chance = random.Random(3)  # noqa: S311 - noise, no secret
    measured = [
        baseline_of(make_runs(*[1000 * math.exp(chance.gauss(0, sd)) for _ in range(5)], workload=make_workload(case)))
        for case, sd in [(f"noisy{number}", 0.09) for number in range(8)] + [(f"quiet{n}", 0.01) for n in range(6)]
    ]
    quiet = [NoiseModel(stored.case_noise(each, measured, shared=True), 6) for each in measured[8:]]

    assert all(tolerance_for(noise, now=5).value < 0.07 for noise in quiet)
