"""The published table again: its formula checked row by row, its charts drawn, in files that a browser opens."""

import sys
from pathlib import Path

import pytest

from browser import CHROMIUM, Elements, requested, run
from trainpace.__main__ import main
from trainpace.cases import PUBLISHED
from trainpace.cost import predict
from trainpace.errors import FileError
from trainpace.report import published
from trainpace.store.reports import write_published

DOCS = Path(__file__).resolve().parents[2] / "docs"
CHARTS = {"published-llama2_7b", "published-yi_34b_200k", "published-llama2_70b"}


@pytest.fixture(scope="module")
def rows():
    return predict.published_table()


def test_every_row_is_there_in_the_tables_order(rows):
    """Fourteen rows, each with its own figures."""
    assert [row.case for row in rows] == list(PUBLISHED)
    assert [row.published.case for row in rows] == [case.id for case in PUBLISHED]


def test_one_row_disagrees_with_the_formula(rows):
    """The others agree within 0.12 %; it is named, with both figures."""
    assert [(row.case.id, round(row.off, 4)) for row in rows if not row.agrees] == [("llama2_7b-32k-sp1", 0.0066)]
    assert max(abs(row.off) for row in rows if row.agrees) < 0.0012
    assert "llama2_7b-32k-sp1: 2234.2 TGS gives 194.3 TFLOPs by the formula, the table prints 193.0" in " ".join(
        published.footnotes(rows)
    )


def test_predictions_come_from_the_other_rows(rows):
    """As docs/prediction.md lists them: none is fitted on itself."""
    found = {row.case.id: round(row.predicted, 1) for row in rows}

    assert (found["llama2_7b-8k-sp1"], found["yi_34b_200k-256k-sp8"]) == (3098.3, 154.1)


def test_figures_that_exist_as_pictures_alone_are_not_invented(rows):
    """A footnote says so, and no bar is drawn."""
    systems = {bar.system for bar in published.bars(rows)}

    assert systems == {"XTuner"}
    assert any("LLaMA-Factory" in line and "pictures alone" in line for line in published.footnotes(rows))


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits(rows, width):
    """No figure is cut off, and no line but the last is wider than the terminal."""
    lines = published.render(rows, width=width).splitlines()

    assert "…" not in "".join(lines)
    assert max(map(len, lines[:-1])) <= width


def test_command_prints_and_writes(tmp_path, capsys):
    """The table on the terminal; Markdown, page and three charts, twice, in the folder."""
    pytest.importorskip("matplotlib")

    assert main(["published", "--report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(
        "14 rows: 13 agree with the formula within 0.11 %, 1 disagrees (llama2_7b-32k-sp1)\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "published.html",
        "published.md",
        *(f"{name}.{ending}" for name in CHARTS for ending in ("svg", "png")),
    }


def test_without_matplotlib_all_but_the_charts_is_written(rows, tmp_path, monkeypatch):
    """The text says how to get the files; the page draws its own charts."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_published(rows, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["published.html", "published.md"]
    assert 'pip install "trainpace[charts]"' in (tmp_path / "published.md").read_text()
    assert (tmp_path / "published.html").read_text().count('data-draw="bars"') == 3


def test_without_counted_costs_there_are_no_predictions(monkeypatch):
    """The published figures need none; the command that counts them is named."""

    def missing():
        raise FileError("no counted cost")

    monkeypatch.setattr(predict, "predicted_published", missing)
    rows = predict.published_table()

    assert {row.predicted for row in rows} == {None}
    assert {bar.kind for bar in published.bars(rows)} == {"published"}
    assert "`pytest --pyargs trainpace.suite.test_cost --perf-refresh`" in published.render(rows)


def test_broken_baselines_are_named(tmp_path, monkeypatch, capsys):
    """A usage error, not a traceback."""
    monkeypatch.setattr(predict, "published_folder", lambda: tmp_path)

    assert main(["published"]) == 4
    assert "a100-sxm4-80gb.json: cannot be read" in capsys.readouterr().err


def test_committed_charts_are_those_of_the_table(rows):
    """docs/ shows what the command draws: `python -m trainpace published --report DIR` draws them anew."""
    pytest.importorskip("matplotlib")
    drawn = published.draw(rows)

    assert drawn.keys() == CHARTS
    assert [name for name in CHARTS if f">{drawn[name].words}<" not in (DOCS / f"{name}.svg").read_text()] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_page_opens_in_a_browser(rows, tmp_path):
    """From a file: it draws three charts, a bar a published and a predicted figure, and asks for nothing."""
    write_published(rows, tmp_path)
    elements = Elements(run(tmp_path / "published.html", tmp_path / "profile", "--dump-dom"))
    root = next(attributes for name, attributes in elements.found if name == "html")

    assert root["data-drawn"] == "3"
    assert len(elements.of_class("bar s0 published")) == len(elements.of_class("bar s0 predicted")) == 14
    assert requested(tmp_path / "profile") == set()
