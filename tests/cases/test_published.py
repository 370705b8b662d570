"""The published rows as cases, and the cases that a user writes."""

import dataclasses

import pytest

from trainpace.cases import LLAMA2_7B, PUBLISHED, Case, Mini


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
    with pytest.raises(ValueError, match=f"length must be one of 1k, .* or a number of tokens, got {length!r}"):
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


@pytest.mark.parametrize("tokens", [8192, "8192", "08192", "8k"])
def test_a_case_whose_model_is_its_trainers_own(tokens):
    """It has an id as others, whichever way its tokens are said, and no shape."""
    case = Case.of("ours", tokens=tokens, gpus=2, tags=("lora",))

    assert (case.id, case.sequence, case.gpus, case.sp) == ("ours-8k-sp1-lora", 8192, 2, 1)
    assert (case.model.shape, case.mini_shape) == (None, None)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"tokens": 0}, ValueError, "tokens must be a number of tokens, or one of 1k, .*, got 0"),
        ({"tokens": "2m"}, ValueError, "tokens must be .*, got '2m'"),
        ({"tokens": True}, ValueError, "tokens must be .*, got True"),
        ({"tokens": 8.5}, ValueError, "got 8.5"),
        ({"tokens": "8k", "length": "8k"}, TypeError, "takes name and tokens, and no length"),
        ({"tokens": "8k", "gpus": "8"}, ValueError, "gpus must be a whole number of at least 1, got '8'"),
        ({"tokens": "8k", "accumulation": 2.0}, ValueError, "accumulation must be a whole number .*, got 2.0"),
        ({"tokens": 1000, "gpus": 3, "sp": 3}, ValueError, "sp must divide the tokens of a sequence, got 1000 tokens"),
        ({"tokens": "8k", "tags": "lora"}, TypeError, "tags must be a tuple of names, .* got 'lora'"),
        ({"tokens": "8k", "mini": 256}, TypeError, "mini must be a Mini, .* got 256"),
        ({"tokens": "8k", "name": None}, ValueError, "a model's name must be letters .* got None"),
        ({"tokens": "8k", "layers": 2}, TypeError, "layers"),
        ({"tokens": "8k", "mini": Mini(shape=LLAMA2_7B.mini)}, ValueError, "a small shape needs a shape"),
    ],
)
def test_a_case_of_ones_own_is_checked_as_others(given, error, message):
    """What it cannot be, or does not have, is refused when it is made."""
    with pytest.raises(error, match=message):
        Case.of(**{"name": "ours"} | given)


def test_id_names_what_differs_from_the_published_table():
    """In a fixed order, and nothing for what is as published."""
    case = Case(
        model=LLAMA2_7B,
        length="2k",
        sp=1,
        gpus=64,
        name_gpus=True,
        micro_batch=4,
        accumulation=2,
        recompute="none",
        sharding="zero2",
        param_dtype="bf16",
        reduce_dtype="bf16",
        compile=True,
        tags=("ours",),
    )

    assert case.id == "llama2_7b-2k-sp1-g64-mb4-ga2-norc-z2-bf16p-bf16r-compile-ours"
    assert Case(model=LLAMA2_7B, length="32k", sp=4, gpus=8, accumulation=4).id == "llama2_7b-32k-sp4"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"accumulation": -1}, "accumulation must be at least 1, got -1"),
        ({"recompute": "some"}, "recompute must be one of full, selective_op, selective_layer, none, got 'some'"),
        ({"sharding": "hybrid"}, "sharding must be one of full, zero2, got 'hybrid'"),
        ({"reduce_dtype": "fp8"}, "reduce_dtype must be one of bf16, fp32, None, got 'fp8'"),
    ],
)
def test_unknown_way_to_train_is_refused(fields, message):
    """The field, what it may be and what came."""
    with pytest.raises(ValueError, match=message):
        Case(model=LLAMA2_7B, length="8k", sp=1, gpus=8, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sp": 0}, "mini.sp must be at least 1, got 0"),
        ({"sequence": 99, "sp": 2}, "mini.sequence must be a multiple of mini.sp, got sequence=99, sp=2"),
        ({"sp": 3}, "mini.sp must divide the heads of the small shape, got sp=3, heads=8"),
    ],
)
def test_a_small_size_that_cannot_be_is_refused(fields, message):
    """The field and what came, where the case is made."""
    with pytest.raises(ValueError, match=message):
        Case(model=LLAMA2_7B, length="8k", sp=1, gpus=8, mini=Mini(**fields))
