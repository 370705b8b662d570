"""What is said of published rows: that they agree with themselves, lie where predicted, can be run."""

import pytest

from trainpace.judge.tables import Expected, Figure, examine
from trainpace.store.tables import load_table, table_names

HEADER = """
convention = "palm"
truncated = ["printed_tokens_per_second"]
[devices.a100-sxm4-80gb]
peak_tflops = 312
[defaults]
device = "a100-sxm4-80gb"
model = "llama2_7b"
length = "4k"
gpus = 16
"""
FLOPS = 6 * 6738415616 + 12 * 32 * 4096 * 4096
"""Of one token of Llama2-7B at 4k, by palm."""


@pytest.fixture
def checked(tmp_path):
    """`checked(tgs=1000, printed_mfu="15.0")`: column, and whether it agrees, of each check of such a row."""

    def make(header: str = HEADER, **cells: object) -> dict[str, bool]:
        (tmp_path / "ours.csv").write_text(",".join(cells) + "\n" + ",".join(map(str, cells.values())) + "\n")
        (tmp_path / "ours.toml").write_text(header)
        return {check.column: check.agrees for check in examine(load_table(tmp_path / "ours.csv"))[0].checks}

    return make


CONTRADICTIONS = {
    "xtuner": {
        ("llama2_7b-32k-sp1", "tflops"),
        ("cohere_100b-128k-sp32-g64", "tflops"),
        ("cohere_100b-128k-sp32-g64", "gpus"),
        ("cohere_100b-128k-sp16-g128", "gpus"),
        ("cohere_100b-128k-sp16-g256", "gpus"),
    },
    "llm-foundry": set(),
    "torchtitan": {
        ("llama3_1_405b-8k-sp1-g128-mb2-fp8-tp8", "mfu"),
        ("llama3_1_405b-8k-sp1-g128-mb2-fp8-tp8-asynctp", "mfu"),
        ("llama4_scout-8k-sp1-g512-compile-mxfp8", "ratio"),
    },
}
DOUBTED = {"xtuner": 1, "llm-foundry": 5, "torchtitan": 6}


@pytest.mark.parametrize("name", table_names())
def test_what_contradicts_itself_in_the_shipped_tables(name):
    """What is known of them, and nothing else; every row is checked, or says why there is nothing to check."""
    found = examine(load_table(name))

    assert {(each.row.id, check.column) for each in found for check in each.wrong} == CONTRADICTIONS[name]
    assert sum(bool(each.row.doubt) for each in found) == DOUBTED[name]
    assert [each.row.id for each in found if not each.checks and not each.why_unchecked] == []


@pytest.mark.parametrize(
    ("cells", "column", "right", "wrong"),
    [
        ({"tgs": 1000}, "printed_tflops", f"{FLOPS / 1e9:.1f}", f"{FLOPS / 1e9 + 0.2:.1f}"),
        ({"tgs": 1000}, "printed_mfu", f"{FLOPS / 3.12e9:.2f}", f"{FLOPS / 3.12e9 + 0.1:.2f}"),
        ({"tgs": 1000, "matmul_dtype": "fp8"}, "printed_mfu", f"{FLOPS / 6.24e9:.2f}", f"{FLOPS / 3.12e9:.2f}"),
        ({"tgs": 1000, "printed_mfu": "15.00"}, "printed_hfu", "20.00", "15.00"),
        ({"tgs": 1000, "printed_mfu": "15.00", "recompute": "none"}, "printed_hfu", "15.00", "20.00"),
        ({"tgs": 1000}, "printed_tokens_per_second", 16007, 16009),
        (
            {"tgs": 1000, "printed_tokens_per_second": 16000},
            "printed_sequences_per_second",
            "3.906",
            "3.908",
        ),
        ({"tgs": 1000, "sp": 2, "micro_batch": 4, "accumulation": 3}, "global_batch", 96, 192),
        ({"tgs": 1000, "global_batch": 16}, "batch_tokens", 65536, 65537),
        ({"tgs": 1000, "tp": 2, "pp": 4}, "dp", 2, 4),
        ({"tgs": 1000}, "printed_gpus", 16, 8),
        ({"tgs": 1000}, "printed_memory_gib", "79.9", "80.2"),
    ],
)
def test_a_figure_must_follow_from_the_others(checked, cells, column, right, wrong):
    """Within the rounding of all of them."""
    name = column.removeprefix("printed_")

    assert checked(**cells, **{column: right})[name] is True
    assert checked(**cells, **{column: wrong})[name] is False


def test_a_last_batch_may_be_smaller_where_the_table_says_so(checked):
    """40 sequences are 2 micro-batches of 32, of which the second has 8."""
    header = HEADER.replace("convention", "partial_batches = true\nconvention")
    cells = {"tgs": 1000, "micro_batch": 2, "accumulation": 2, "global_batch": 40}

    assert checked(**cells) == {"global_batch": False}
    assert checked(header, **cells) == {"global_batch": True}
    assert checked(header, **cells | {"global_batch": 32}) == {"global_batch": False}


def test_printed_digits_decide():
    """What is rounded may be half a digit off, what is cut a whole one; both figures have such an interval."""
    assert Figure(0.5, 1.5).meets(Figure(1.5, 2.5))
    assert not Figure(0.5, 1.5).meets(Figure(1.6, 2.5))
    assert Figure(0.5, 1.5).meets(Figure(1.6, 2.5), 0.07)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(3000, 3100, "within"), (3100, 3200, "slower"), (2900, 3000, "faster")]
)
def test_a_row_beside_its_prediction(low, high, said):
    """Within the interval of a predictor that did not see it, or how not."""
    expected = Expected(low=low, tgs=(low + high) / 2, high=high)

    found = examine(load_table("xtuner"), {("llama2_7b-8k-sp1", "a100-sxm4-80gb"): expected, ("x", None): "fp8"})

    assert (found[0].predicted, found[1].predicted) == (said, "not predicted")
    assert (found[0].executable, found[24].executable) == ("yes", "no: deepseek_v2")
