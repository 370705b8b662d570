"""A published table drawn: what stands in the terminal, on the page and in the charts."""

import pytest

from trainpace.__main__ import main
from trainpace.judge.tables import Expected, examine
from trainpace.report import tables
from trainpace.store.tables import load_table


@pytest.fixture
def torchtitan():
    """Its report, with a prediction of the first row."""
    table = load_table("torchtitan")
    first = table.rows[0]
    return tables.Report(
        table, examine(table, {(first.id, first.device): Expected(low=5000, tgs=5500, high=6000), ("x", "y"): "fp8"})
    )


def test_what_contradicts_itself_is_named(capsys):
    """With what follows from what, and the line of the source; a doubt with its reason; the rest in one line."""
    status = main(["published", "torchtitan"])
    said = " ".join(capsys.readouterr().out.split())

    assert status == 0
    assert (
        "llama4_scout-8k-sp1-g512-compile-mxfp8: ratio: 1.203 printed, 1.19971 follows from its TGS and 6169 of "
        "llama4_scout-8k-sp1-g512-compile (torchtitan/components/quantization/mxfp8.md:179)" in said
    )
    assert "doubted: the page does not name the dense model" in said
    assert "49 rows: 45 agree with themselves; 3 contradict themselves; 1 print nothing to check; " in said
    assert " of 10 lie within their prediction; 13 executable, 36 not (27 fp8, " in said


def test_a_prediction_stands_beside_its_row(torchtitan):
    """Its interval, and where the published figure lies; in the chart as a bar of its own."""
    text = tables.render(torchtitan, width=200)

    assert "5000 .. 6000" in text
    assert "1 of 1 lie within their prediction" in " ".join(text.split())
    assert [bar.kind for bar in tables.bars(torchtitan, torchtitan.rows[:2])] == ["published", "predicted", "published"]


def test_the_report_of_a_table(tmp_path):
    """A page, its Markdown, and charts of a model and a device of at most twelve rows each."""
    assert main(["published", "xtuner", "--report", str(tmp_path)]) == 0

    page = (tmp_path / "published-xtuner.html").read_text()
    names = {path.stem for path in tmp_path.glob("*.svg")}

    assert "cohere_100b-128k-sp32-g64" in page
    assert "OOM" in (tmp_path / "published-xtuner-deepseek_v2-a100-sxm4-80gb.svg").read_text()
    assert names >= {"published-xtuner-llama2_7b-a100-sxm4-80gb", "published-xtuner-llama3_8b-not-stated"}
    assert page.count("<figure") == len(names)


def test_an_unknown_table(capsys):
    """Exit status 4, and those that are known."""
    assert main(["published", "nobody"]) == 4
    assert "expected a table, xtuner, llm-foundry, torchtitan, or" in capsys.readouterr().err
