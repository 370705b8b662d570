"""Descriptions of other systems: how they are read, what they refuse, and what their real logs say."""

import json
import re
from pathlib import Path

import pytest

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.errors import FileError
from trainpace.trainers import external as described
from trainpace.trainers.external import (
    Reading,
    ReportedSteps,
    Trains,
    as_trained,
    cannot,
    digest,
    filled,
    has_own_steps,
    load,
    names,
    newest,
    read_claims,
    uses,
)

LOGS = Path(__file__).resolve().parent / "logs"
HUGGING_FACE = ("axolotl", "hf", "llamafactory", "trl")
TOKENS, STEPS = 128, 43
TEXT = Reading(
    format="regex",
    path="output.log",
    pattern=r"'loss': '?(?P<loss>[\d.e+-]+)'?.*'num_input_tokens_seen': '?(?P<tokens>\d+)'?, "
    r"'train_runtime': '?(?P<runtime>[\d.e+]+)'?",
    seconds={"key": "runtime", "cumulative": True},
    tokens={"key": "tokens", "cumulative": True, "summed": True},
    loss={"key": "loss"},
)


@pytest.mark.parametrize("name", names())
def test_descriptions_that_come_along_are_whole(name):
    """Each is read, names what installs it, and fills in with the placeholders that there are."""
    found = load(name)

    assert found.name == name
    assert found.install
    assert found.footnotes


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_a_real_log_gives_every_step(name):
    """Of a recorded run: a record a step, tokens of one rank, finite losses, times that add up to the last one."""
    path = LOGS / name / "trainer_state.json"

    claimed = read_claims(load(name).reading, path, ranks=2)

    assert claimed.tokens == (TOKENS,) * STEPS
    assert len(claimed.losses) == STEPS
    assert all(5 < loss < 7 for loss in claimed.losses)
    assert sum(claimed.seconds) == pytest.approx(
        json.loads(path.read_text())["log_history"][STEPS - 1]["train_runtime"]
    )


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_what_was_printed_says_the_same(name):
    """Text read by a regular expression gives the same steps, as far as it is rounded."""
    state = read_claims(load(name).reading, LOGS / name / "trainer_state.json", ranks=2)

    printed = read_claims(TEXT, LOGS / name / "output.log", ranks=2)

    assert printed.tokens == state.tokens
    assert printed.losses == pytest.approx(state.losses, rel=1e-3)
    assert sum(printed.seconds) == pytest.approx(sum(state.seconds), rel=1e-3)


def test_xtuner_gives_every_iteration():
    """Of a recorded run of one rank: unrounded times of an iteration, and the losses of the other systems' rows."""
    claimed = read_claims(load("xtuner").reading, LOGS / "xtuner" / "iterations.json", ranks=1)

    assert len(claimed.seconds) == len(claimed.losses) == STEPS
    assert claimed.seconds[0] == 0.05060076713562012
    assert claimed.losses[0] == pytest.approx(6.2811, rel=1e-4)


def test_xtuner_shows_each_iteration():
    """Its progress pattern matches each line that it printed of an iteration, and nothing twice."""
    printed = (LOGS / "xtuner" / "output.log").read_text()

    assert len(re.findall(load("xtuner").progress, printed)) == STEPS


def test_micro_steps_are_grouped_into_optimizer_steps():
    """Seconds and tokens add up, losses are averaged, and a last step that is not whole is left out."""
    claims = ReportedSteps(seconds=(1.0, 2.0, 3.0, 4.0, 5.0), tokens=(8.0,) * 5, losses=(2.0, 4.0, 6.0, 8.0, 9.0))

    grouped = claims.grouped(2)

    assert (grouped.seconds, grouped.tokens, grouped.losses) == ((3.0, 7.0), (16.0, 16.0), (3.0, 7.0))


def test_colours_do_not_hide_a_step(tmp_path):
    """Text with terminal colours around and within its lines is read as without."""
    plain = LOGS / "hf" / "output.log"
    coloured = tmp_path / "output.log"
    coloured.write_text(
        "".join(
            f"\x1b[32m{line.replace('loss', chr(27) + '[1mloss' + chr(27) + '[0m')}\x1b[0m\n"
            for line in plain.read_text().splitlines()
        )
    )

    assert read_claims(TEXT, coloured, ranks=2) == read_claims(TEXT, plain, ranks=2)


def test_other_lines_between_do_no_harm(tmp_path):
    """Warnings of other ranks and progress bars between the lines are passed over."""
    plain = LOGS / "hf" / "output.log"
    mixed = tmp_path / "output.log"
    noise = "warn: 'loss' is deprecated\r 12%|#2  | 5/43 [00:01<00:07]\x1b[A\n"
    mixed.write_text(noise + noise.join(plain.read_text().splitlines(keepends=True)))

    assert read_claims(TEXT, mixed, ranks=2) == read_claims(TEXT, plain, ranks=2)


def test_a_torn_line_is_a_missing_step(tmp_path):
    """A record that another process wrote into is no step: one is missing, which is seen where steps are counted."""
    lines = [json.dumps({"time": 0.5, "loss": 6.0}) for _ in range(5)]
    lines[2] = lines[2][:9] + lines[2]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines))
    reading = Reading(format="jsonl", path="log.jsonl", seconds={"key": "time"}, loss={"key": "loss"})

    assert len(read_claims(reading, path, ranks=1).seconds) == 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_refused(tmp_path, share):
    """A JSON file that is cut off is named, and nothing is taken from it."""
    whole = (LOGS / "hf" / "trainer_state.json").read_bytes()
    path = tmp_path / "trainer_state.json"
    path.write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(FileError, match=r"trainer_state.json: expected JSON, whole"):
        read_claims(load("hf").reading, path, ranks=2)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"time": -0.5}, "step 1: expected time above 0, got -0.5"),
        ({"time": 0}, "step 1: expected time above 0, got 0"),
        ({"time": "soon"}, "step 1: expected a number as time, got 'soon'"),
        ({"time": True}, "step 1: expected a number as time, got True"),
        ({"time": float("nan")}, "step 1: expected a number as time, got nan"),
        ({"time": float("inf")}, "step 1: expected a number as time, got inf"),
        ({"time": 10**400}, "step 1: expected a number as time, got 1000"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, record, said):
    """The step, the key and the value are named."""
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in ({"time": 0.5}, record)))

    with pytest.raises(FileError) as refused:
        read_claims(Reading(format="jsonl", path="x", seconds={"key": "time"}), path, ranks=1)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([1, 2, 2, 4], "record 2: expected step 3 after 2, got 2: a step was repeated or skipped"),
        ([1, 2, 4, 5], "record 2: expected step 3 after 2, got 4"),
        ([3, 2, 1, 0], "record 1: expected step 4 after 3, got 2"),
    ],
    ids=["repeated", "skipped", "backwards"],
)
def test_steps_follow_one_another(tmp_path, steps, said):
    """A step that is logged twice in the place of another is seen by its number, though the count is right."""
    log = tmp_path / "log"
    log.write_text("".join(json.dumps({"s": 0.5, "step": step}) + "\n" for step in steps))
    reading = Reading(format="jsonl", path="log", seconds={"key": "s"}, step={"key": "step"})

    with pytest.raises(FileError, match=re.escape(said)):
        read_claims(reading, log, ranks=1)


def test_a_log_without_steps_is_refused(tmp_path):
    """What was looked for is named."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch": 1}\n')

    with pytest.raises(FileError, match="expected a record a step with time, got none"):
        read_claims(Reading(format="jsonl", path="x", seconds={"key": "time"}), path, ranks=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "expected a description in TOML"),
        ('title = "X"', "module: Field required"),
        ("", "title: Field required"),
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path, text, said):
    """File, field and problem are named."""
    path = tmp_path / "mine.toml"
    path.write_text(text)

    with pytest.raises(FileError, match=said):
        load(str(path))


MINE = """
title = "Mine"
module = "json"
install = "pip install mine"
command = ["$python", "mine.py"]
progress = "{progress}"
reading = {{ format = "regex", path = "x", pattern = "{pattern}", seconds = {{ key = "seconds" }} }}
"""


@pytest.mark.parametrize(
    ("progress", "pattern", "said"),
    [
        ("step (", "(?P<seconds>.)", "is no regular expression"),
        ("step", "(?P<seconds>", "is no regular expression"),
        ("step", "(?P<time>.)", "a named group for each number, seconds missing"),
    ],
)
def test_patterns_are_checked_when_they_are_read(tmp_path, progress, pattern, said):
    """A pattern that does not compile, or lacks a number's group, is refused before anything is started."""
    path = tmp_path / "mine.toml"
    path.write_text(MINE.format(progress=progress, pattern=pattern))

    with pytest.raises(FileError, match=said):
        load(str(path))


def test_an_unknown_system_names_the_known():
    """A path that is not there says which systems come along."""
    with pytest.raises(FileError, match="no such description; those that come along: axolotl, hf"):
        load("nowhere.toml")


def test_placeholders():
    """Filled in; one that is none is named with those that are; a dollar is doubled."""
    assert filled("$ranks of $$5", {"ranks": "2"}, where="x") == "2 of $5"
    with pytest.raises(FileError, match=r"x: no placeholder \$rank; there are \$ranks"):
        filled("$rank", {"ranks": "2"}, where="x")
    with pytest.raises(FileError, match="a dollar is written"):
        filled("5$", {"ranks": "2"}, where="x")


def test_what_is_used_is_known():
    """A description that never asks for the workload's model gets none written."""
    assert uses(load("hf"), "model", "tokens")
    assert not uses(load("hf"), "tokens")


def test_what_a_system_cannot_do_is_said():
    """A case with sequence parallelism is refused with the reason; one without is not."""
    plain, parallel = (full_workload(PUBLISHED[index]) for index in (0, 2))

    assert cannot(load("llamafactory"), plain, device="cuda") is None
    assert "shares no sequence" in cannot(load("llamafactory"), parallel, device="cuda")


def test_a_case_without_a_shape_is_for_systems_with_a_model_of_their_own():
    """What is given a model of the case's shape is refused; what never asks for one is not."""
    own = full_workload(PUBLISHED[0]).model_copy(update={"shape": None})
    theirs = load("llamafactory").model_copy(update={"command": ("train", "$sequence"), "files": {}})

    assert "the case does not say one: measure it with the trainer" in cannot(load("llamafactory"), own, device="cuda")
    assert cannot(theirs, own, device="cuda") is None


def test_a_program_may_have_steps_of_its_own():
    """At most half of them are warm-up, a step is of as many micro-steps as the case says; the rest is unchanged."""
    workload = full_workload(PUBLISHED[0]).model_copy(update={"accumulation": 2, "warmup": 5, "shape": None})
    own = load("hf").model_copy(update={"trains": Trains(optimizer_steps=3, sequence=4096)})
    trained = as_trained(own, workload)

    assert (trained.warmup, trained.steps, trained.sequence, trained.ranks) == (3, 3, 4096, workload.ranks)
    assert as_trained(load("hf"), workload) is workload
    with pytest.raises(ValueError, match="ranks must be a multiple of sp"):
        as_trained(own.model_copy(update={"trains": Trains(ranks=1)}), workload.model_copy(update={"sp": 2}))


def test_a_digest_is_of_what_is_started(tmp_path):
    """Its place, its words and the reading of its log change nothing; another command does. Some have own steps."""
    text = 'title = "A"\ncommand = ["a"]\nmodule = "json"\ninstall = "none"\nprogress = "p"\n'
    text += "[trains]\noptimizer_steps = 3\n"
    text += '[reading]\nformat = "jsonl"\npath = "log"\nseconds = { key = "s" }\nstep = { key = "n" }\n'
    texts = (text, "# said\n" + text.replace('"A"', '"B"').replace('"log"', '"other"'), text.replace('["a"]', '["b"]'))
    paths = [tmp_path / f"{number}.toml" for number in range(3)]
    for path, each in zip(paths, texts, strict=True):
        path.write_text(each)
    first, same, other = (digest(str(path)) for path in paths)

    assert first == same != other
    assert [has_own_steps(trainer) for trainer in (str(paths[0]), "hf", "native", "ours:t")] == [
        True,
        False,
        False,
        False,
    ]


def test_of_a_program_that_is_told_nothing_the_case_says_what_it_does():
    """A micro-batch needs no placeholder there."""
    workload = full_workload(PUBLISHED[0]).model_copy(update={"micro_batch": 4, "shape": None})
    told = load("hf").model_copy(update={"command": ("train",), "files": {}})

    assert "no placeholder for micro_batch=4" in cannot(told, workload, device="cuda")
    assert cannot(told.model_copy(update={"trains": Trains()}), workload, device="cuda") is None


@pytest.mark.parametrize(
    ("own", "changes", "why"),
    [
        (Trains(), {"shape": None}, None),
        (Trains(), {}, "it trains a model of its own, and the case has a shape"),
        (Trains(model="llama2_7b"), {}, None),
        (Trains(model="llama2_7b"), {"scale": "proxy"}, "the scale proxy is a cut of the case's"),
        (Trains(model="llama3_8b"), {"shape": None}, "it trains llama3_8b, and the case is of llama2_7b"),
    ],
)
def test_a_model_of_its_own_is_of_a_case_of_its_own(own, changes, why):
    """What is trained is never shown as something else: another model, or a cut of one, is refused."""
    workload = full_workload(PUBLISHED[0]).model_copy(update=changes)
    told = load("hf").model_copy(update={"command": ("train",), "files": {}, "trains": own})
    said = cannot(told, workload, device="cuda")

    assert (said or "").partition(":")[0].endswith(why or "")
    assert (said is None) == (why is None)


@pytest.mark.parametrize(("line", "seconds"), [("512 at 1,024.0", 0.5), ("1,024 at 2048", 0.5), ("64 at 128", 0.5)])
def test_tokens_a_second_are_seconds(tmp_path, line, seconds):
    """Of the step's own tokens, with thousands set apart or not; of the workload's where the program says none."""
    path = tmp_path / "output.log"
    path.write_text(line)
    pattern = r"(?P<tokens>\S+) at (?P<speed>\S+)"
    speed = {"key": "speed", "rate": True}
    reading = Reading(format="regex", path="", pattern=pattern, seconds=speed, tokens={"key": "tokens"})

    assert read_claims(reading, path, ranks=1).seconds == (seconds,)
    without = reading.model_copy(update={"tokens": None})
    assert read_claims(without, path, ranks=1, tokens=int(line.split()[0].replace(",", ""))).seconds == (seconds,)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"seconds": {"key": "a"}, "loss": {"key": "b", "rate": True}}, "got it of b"),
        ({"seconds": {"key": "a", "rate": True, "cumulative": True}}, "cannot be a `rate` and `cumulative`"),
    ],
)
def test_a_rate_is_of_seconds(numbers, said):
    """What else is given as a rate is refused."""
    with pytest.raises(ValueError, match=said):
        Reading(format="jsonl", path="", **numbers)


def test_a_decimal_comma_is_no_number(tmp_path):
    """Only thousands are set apart by commas: `1,5` is not read as fifteen."""
    path = tmp_path / "log"
    path.write_text("1,5")
    reading = Reading(format="regex", path="", pattern="(?P<a>.+)", seconds={"key": "a"})

    with pytest.raises(FileError, match="expected a number as a, got '1,5'"):
        read_claims(reading, path, ranks=1)


def test_the_newest_of_several_is_read(tmp_path):
    """A path with a star stands for the file that was written last."""
    for number in (1, 2):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        (folder / "state.json").write_text("{}")
    assert newest(str(tmp_path / "checkpoint-*" / "state.json")).parent.name == "checkpoint-2"
    with pytest.raises(FileError, match="no such file"):
        newest(str(tmp_path / "run-*" / "state.json"))


def test_only_files_and_our_names_are_described():
    """A name of ours or a TOML file; anything else is an object to be imported."""
    assert described.is_external("hf")
    assert described.is_external("mine.toml")
    assert not described.is_external("native")
    assert not described.is_external("ours.training:Trainer")
