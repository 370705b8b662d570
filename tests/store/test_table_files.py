"""Published tables as files: those that travel with the package, and what is refused of a user's own."""

import pytest

from trainpace.cases import PUBLISHED
from trainpace.errors import FileError
from trainpace.store.tables import load_table, table_names

HEADER = """
title = "Ours"
[defaults]
device = "a100-sxm4-80gb"
[devices.a100-sxm4-80gb]
[devices.h100-sxm5-80gb]
[models.ours_1b]
title = "Ours"
architecture = "gpt2"
hidden = 2048
layers = 24
heads = 16
intermediate = 8192
vocabulary = 50368
tied = true
"""


@pytest.fixture
def table(tmp_path):
    """Writes a table and loads it: `table("model,length,gpus,tgs", "ours_1b,2k,8,1000")`."""

    def load(*lines: str, header: str = HEADER):
        (tmp_path / "ours.csv").write_text("\n".join(lines) + "\n")
        (tmp_path / "ours.toml").write_text(header)
        return load_table(tmp_path / "ours.csv")

    return load


@pytest.mark.parametrize(
    ("name", "rows", "cases", "executable"),
    [("xtuner", 41, 37, 27), ("llm-foundry", 216, 182, 209), ("torchtitan", 49, 49, 13)],
)
def test_every_row_of_a_shipped_table_is_loaded(name, rows, cases, executable):
    """306 rows; those that the native trainer can run, and those that cannot say why."""
    found = load_table(name)

    assert (len(found.rows), len(found.cases)) == (rows, cases)
    assert sum(row.executable for row in found.rows) == executable
    assert [row.id for row in found.rows if not row.executable and not row.lacks] == []


def test_what_a_row_does_not_say_is_said():
    """Rows without a figure, without GPUs and without a device."""
    rows = load_table("xtuner").rows

    assert [(row.id, row.why_no_tgs) for row in rows if row.tgs is None] == [("deepseek_v2-16k-sp1-g128-hf", "OOM")]
    assert {row.lacks[0] for row in rows if row.case is None} == {"GPUs not stated"}
    assert sum(row.device is None for row in rows) == 12


def test_the_first_section_is_what_is_run_by_default():
    """The 14 cases to the letter, models and all."""
    assert tuple(row.case for row in load_table("xtuner").rows[:14]) == PUBLISHED
    assert table_names() == ["xtuner", "llm-foundry", "torchtitan"]


def test_a_case_with_figures_on_two_devices():
    """Rows that differ in device alone are one case."""
    found = load_table("llm-foundry")
    case = next(each for each in found.cases if each.id == "mpt_30b-8k-sp1-g8-ga21")

    assert {row.device: row.tgs for row in found.rows_of(case)} == {"h100-sxm5-80gb": 1384.0, "a100-sxm4-80gb": 574.0}


def test_a_row_has_its_section_then_the_defaults(table):
    """A cell stands before its section's value, that before the table's; a dash takes it back."""
    header = HEADER.replace("[defaults]", '[sections.b]\ndevice = "h100-sxm5-80gb"\n[sections.a]\n[defaults]')
    rows = table(
        "section,model,length,gpus,tgs,device",
        "a,ours_1b,2k,8,1000,",
        "b,ours_1b,2k,8,1000,",
        "b,ours_1b,2k,16,1000,-",
        "b,ours_1b,4k,8,1000,a100-sxm4-80gb",
        header=header,
    ).rows

    assert [row.device for row in rows] == ["a100-sxm4-80gb", "h100-sxm5-80gb", None, "a100-sxm4-80gb"]


def test_features_that_are_lacking_stand_in_the_id(table):
    """So that rows that differ in them alone stay apart."""
    row = table("model,length,gpus,tgs,tp,cp,pp,matmul_dtype", "ours_1b,2k,64,10,8,1,2,fp8-rowwise").rows[0]

    assert row.id == "ours_1b-2k-sp1-g64-fp8-rowwise-tp8-pp2"
    assert row.lacks == ("fp8", "tp=8", "pp=2")


def test_a_table_needs_no_header(tmp_path):
    """Where its models are known; spreadsheets' mark at a file's begin is passed over."""
    (tmp_path / "mine.csv").write_text("﻿model,length,gpus,tgs,device\nllama2_7b,8k,8,3000,rubin\n")

    found = load_table(tmp_path / "mine.csv")

    assert ([row.id for row in found.rows], list(found.devices)) == (["llama2_7b-8k-sp1-g8"], ["rubin"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("model,length,gpu,tgs", "ours_1b,2k,8,1"), r"ours.csv, line 1: expected the columns .*, got gpu$"),
        (("model,model,length,gpus,tgs",), "line 1: column model stands there twice"),
        (("model,length,gpus,tgs", "ours_1b,2k,8"), "line 2: expected 4 cells as line 1 names, got 3"),
        (
            ("model,length,gpus,tgs", "ours_1b,2k,0,1"),
            "line 2, column gpus: expected a whole number of at least 1, got '0'",
        ),
        (
            ("model,length,gpus,tgs", "ours_1b,2k,8,nan"),
            "line 2, column tgs: expected a number above 0, without exponent, or OOM, got 'nan'",
        ),
        (
            ("model,length,gpus,tgs,printed_mfu", "", "ours_1b,2k,8,1,101"),
            "line 3, column printed_mfu: expected a percentage above 0, at most 100, got '101'",
        ),
        (("model,length,gpus,tgs", "ours_1b,9q,8,1"), "line 2, column length: expected one of 1k, .*, got '9q'"),
        (("model,length,gpus,tgs", "ours_1b,2k,8,"), "line 2, column tgs: expected a value, got an empty cell"),
        (("model,length,gpus,tgs", "ours,2k,8,1"), "line 2, column model: expected one of .*ours_1b.*, got 'ours'"),
        (
            ("model,length,gpus,tgs,recompute", "ours_1b,2k,8,1,some"),
            "line 2, column recompute: expected one of full, .*, got 'some'",
        ),
        (
            ("model,length,gpus,tgs,sp", "ours_1b,2k,8,1,3"),
            "line 2, column gpus: gpus must be a positive multiple of sp, got gpus=8, sp=3",
        ),
        (
            ("model,length,gpus,tgs,device", "ours_1b,2k,8,1,h100"),
            "line 2, column device: expected one of a100-sxm4-80gb, h100-sxm5-80gb, got 'h100'",
        ),
        (
            ("model,length,gpus,tgs", "ours_1b,2k,8,1", "ours_1b,2k,8,2"),
            "line 3: expected one row of ours_1b-2k-sp1-g8 on a100-sxm4-80gb, got a second one: line 2 is the first",
        ),
        (
            ("model,length,gpus,tgs,name_gpus,device", "ours_1b,2k,8,1,false,", "ours_1b,2k,16,2,false,h100-sxm5-80gb"),
            "line 3, column gpus: expected an id of its own, got ours_1b-2k-sp1 again with other GPUs",
        ),
        (
            ("model,length,gpus,tgs,printed_parameters", "ours_1b,2k,8,1,1315950593"),
            "line 2, column printed_parameters: expected 1,315,950,592 as follows from the numbers of ours_1b, "
            "got 1,315,950,593",
        ),
        (
            ("model,length,gpus,tgs,printed_ratio,ratio_of", "ours_1b,2k,8,1,1.1,theirs"),
            "line 2, column ratio_of: expected the id of a row, got 'theirs'",
        ),
        (('model,length,gpus,tgs,"', ""), "ours.csv, line 2: not CSV: unexpected end of data"),
        (("",), "ours.csv: expected a first line with columns, got an empty file"),
    ],
)
def test_what_is_wrong_is_named(table, lines, message):
    """File, line, column and value."""
    with pytest.raises(FileError, match=message):
        table(*lines)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "tied = true",
            "tied = true\nprinted_parameters = 1.4e9",
            r"models.ours_1b.printed_parameters: expected 1,311",
        ),
        ("hidden = 2048", "hidden = -1", "models.ours_1b.hidden: .*, got -1"),
        ('device = "a100-sxm4-80gb"', "gpu = 8", "defaults: expected the columns .*, got 'gpu'"),
        ('device = "a100-sxm4-80gb"', "gpus = 0", "defaults, column gpus: expected a whole number .*, got '0'"),
        ("[models.ours_1b]", "[models.-1b]", "models.-1b: a model's name must be"),
        ('title = "Ours"\n[', 'titel = "Ours"\n[', "titel: Extra inputs"),
    ],
)
def test_what_is_wrong_in_a_header_is_named(table, old, new, message):
    """File and field."""
    with pytest.raises(FileError, match=rf"ours.toml: {message}"):
        table("model,length,gpus,tgs", "ours_1b,2k,8,1", header=HEADER.replace(old, new, 1))


def test_a_printed_count_is_compared_by_its_digits(table):
    """1.3e9 is as good as the exact number: zeros at its end are no digits."""
    header = HEADER.replace("tied = true", "tied = true\nprinted_parameters = 1.3e9")

    assert len(table("model,length,gpus,tgs", "ours_1b,2k,8,1", header=header).rows) == 1


@pytest.mark.parametrize("name", ["xtunr", "../xtuner", ""])
def test_an_unknown_table_is_named(name):
    """With those that are known."""
    with pytest.raises(FileError, match=f"expected a table, xtuner, llm-foundry, torchtitan, or .*, got {name!r}"):
        load_table(name)


def test_a_file_that_is_not_there(tmp_path):
    """Is named."""
    with pytest.raises(FileError, match=r"none.csv: cannot be read: No such file"):
        load_table(tmp_path / "none.csv")
