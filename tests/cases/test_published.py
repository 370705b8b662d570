"""The published rows as cases, and the cases that a user writes."""

import dataclasses

import pytest

from trainpace.cases import LLAMA2_7B, PUBLISHED, Case


def test_fourteen_rows_with_ids_of_their_own():
    """The table has 14 rows, and each id names one."""
    assert len({case.id for case in PUBLISHED}) == 14


def test_id_says_model_length_and_sp():
    """An id reads `model-length-sp`."""
    assert (PUBLISHED[0].id, str(PUBLISHED[-1])) == ("llama2_7b-8k-sp1", "llama2_70b-1m-sp64")


def test_length_by_name_and_by_number():
    """A length is a name of the table or a number of tokens."""
    assert (
        Case(model=LLAMA2_7B, length="1m", sp=1, gpus=1).sequence,
        Case(model=LLAMA2_7B, length="5000", sp=1, gpus=1).sequence,
    ) == (1 << 20, 5000)


@pytest.mark.parametrize("length", ["9k", "0", "-5", ""])
def test_unknown_length_is_refused(length):
    """A length that is neither is an error that names it."""
    with pytest.raises(ValueError, match=f"length must be one of 8k, .* or a number of tokens, got {length!r}"):
        Case(model=LLAMA2_7B, length=length, sp=1, gpus=1)


@pytest.mark.parametrize(("sp", "gpus"), [(3, 8), (0, 8), (1, 0), (16, 8)])
def test_gpus_are_a_multiple_of_sp(sp, gpus):
    """GPUs that do not make whole sequence-parallel groups are an error that names both numbers."""
    with pytest.raises(ValueError, match=f"got gpus={gpus}, sp={sp}"):
        Case(model=LLAMA2_7B, length="8k", sp=sp, gpus=gpus)


@pytest.mark.parametrize(
    "name", ["../../pwn", "/abs", "a/b", "..", ".a", "-k", "", "x\ny", "\x1b[2J", "\0", "é", "a b", "a" * 101]
)
def test_a_name_that_is_no_file_name_is_refused(name):
    """An id becomes file names and lines of reports: a model's name is checked where it is made."""
    with pytest.raises(ValueError, match=r"a model's name must be letters \(a to z\), digits, .*, got ") as raised:
        dataclasses.replace(LLAMA2_7B, name=name)
    assert raised.value.args[0].isprintable()


def test_an_id_that_is_too_long_is_refused():
    """A file's name has room for an id of 100 characters."""
    with pytest.raises(ValueError, match=r"a case's id must be .* at most 100 characters, got .* of 103 characters"):
        Case(model=dataclasses.replace(LLAMA2_7B, name="a" * 96), length="8k", sp=1, gpus=1)
