"""The page: one file that draws its charts in a real browser, asks for nothing and runs nothing that it quotes."""

import re

import pytest

from browser import CHROMIUM, Elements, requested, run
from trainpace.report import html
from trainpace.report.table import Column, Table, to_html
from trainpace.store.reports import assets

HOSTILE = '</script><script>document.documentElement.dataset.hacked = 1</script><img src=x onerror="x()">&\'"'
QUOTED = Column(HOSTILE, lambda _: HOSTILE, kind=lambda _: "pass", link=lambda _: "one")
DATA = {
    "t": list(range(1_760_000_000, 1_760_000_000 + 86_400 * 40, 86_400)),
    "v": [1000.0 + run % 7 for run in range(20)] + [950.0 + run % 7 for run in range(20)],
    "m": [1024] * 40,
    "s": [6.5] * 40,
    "r": [*[0] * 20, *[1] * 20],
    "revisions": ["aaaa", HOSTILE],
    "levels": [[0, 20, 1003.0], [20, 40, 953.0]],
    "moves": [[20, 19, 21, 0.95]],
    "best": 1003.0,
}

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture
def page(tmp_path):
    """A page with a table and two charts, hostile text wherever text can stand."""
    path = tmp_path / "page.html"
    path.write_text(
        html.page(
            HOSTILE,
            html.heading(HOSTILE),
            html.paragraph(HOSTILE),
            to_html(Table([QUOTED, Column("n", str, float)], [1])),
            html.chart("one", "trend", DATA, title=HOSTILE, notes=[HOSTILE]),
            html.chart("two", "trend", DATA, title="two"),
            assets=assets(),
        )
    )
    return path


def test_nothing_quoted_becomes_an_element(page):
    """The page has its own two kinds of script and no image, whatever was quoted."""
    elements = Elements(page.read_text())
    names = [name for name, _ in elements.found]

    assert "img" not in names
    assert names.count("script") == 3
    assert HOSTILE in "".join(elements.texts)


def test_page_holds_no_address(page):
    """Nothing to load: no address, no import, no source."""
    text = page.read_text().replace("data:,", "")

    assert re.findall(r"https?:|//[a-z]|@import|url\(| src=[^x]", text) == []


def test_policy_names_its_own_script_alone(page):
    """By hash: an inline script that was smuggled in would not run."""
    policy = next(each["content"] for name, each in Elements(page.read_text()).found if "http-equiv" in each)

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[^']+'", policy)


def test_not_a_number_is_refused():
    """A chart of NaN would be an empty one."""
    with pytest.raises(ValueError, match="JSON"):
        html.chart("x", "trend", {"v": [float("nan")]}, title="x")


def test_empty_list_is_nothing():
    """No empty bullets."""
    assert html.items([]) == ""


def test_a_link_stands_where_its_words_stand():
    """Of our own sentences an address is a link, and a document where it is known where documents are read."""
    text = "from https://example.org/x; see docs/cost.md"
    (without,) = [html.items([html.linked(text, assets())])]
    (found,) = [html.items([html.linked(text, html.Assets("", "", "https://example.org/main"))])]

    assert '<a href="https://example.org/x" rel="noreferrer">https://example.org/x</a>; see docs/cost.md' in without
    assert '<a href="https://example.org/main/docs/cost.md" rel="noreferrer">docs/cost.md</a>' in found


def test_a_command_in_a_sentence_is_code():
    """What stands between two backticks; one without its partner is itself."""
    assert html.items(["type `a <b>` now"]) == "<ul><li>type <code>a &lt;b&gt;</code> now</li></ul>"
    assert html.items(["it`s"]) == "<ul><li>it`s</li></ul>"


def test_titles_stand_above_their_numbers():
    """A column of numbers is one in its title and in a cell that has none too."""
    table = Table([Column("n", lambda row: row or "-", lambda row: row and 1.0), Column("m", str)], ["1", ""])
    cells = [each for name, each in Elements(to_html(table)).found if name in {"th", "td"}]

    assert [each.get("class") for each in cells] == ["number", None] * 3


@in_a_browser
def test_charts_are_drawn(page, tmp_path):
    """Opened from a file: both charts have their runs, levels, best level and mark, and nothing quoted ran."""
    elements = Elements(run(page, tmp_path / "profile", "--dump-dom"))
    root = next(attributes for name, attributes in elements.found if name == "html")

    assert root == {"lang": "en", "data-drawn": "2"}
    assert [each["d"].count("h0") for each in elements.of_class("runs")] == [40, 40]
    assert [each["d"].count("M") for each in elements.of_class("level")] == [2, 2]
    assert len(elements.of_class("best")) == len(elements.of_class("slower")) == len(elements.of_class("move")) == 2
    assert "\u22125.0 %" in elements.texts


@in_a_browser
def test_page_answers_to_keys_and_clicks(page, tmp_path):
    """An arrow key shows a run, a click sorts: played by a script that only this copy of the page has."""
    script = """
const svg = document.querySelector("svg");
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
document.querySelectorAll("th button")[1].click();
"""
    played = page.with_name("played.html")
    text = page.read_text().replace("</body>", f"<script>{script}</script></body>")
    played.write_text(re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text))
    elements = Elements(run(played, tmp_path / "profile", "--dump-dom"))
    (tip, _) = elements.of_class("tip")

    assert "hidden" not in tip
    assert any(text.startswith("run 40 of 40, 2025-11-17") and HOSTILE in text for text in elements.texts)
    assert [each.get("aria-sort") for name, each in elements.found if name == "th"] == [None, "ascending"]


@in_a_browser
def test_no_request_leaves_the_page(page, tmp_path):
    """The browser's own log has no request of the page."""
    run(page, tmp_path / "profile", "--dump-dom")

    assert requested(tmp_path / "profile") == set()


@in_a_browser
def test_a_request_would_be_seen(tmp_path):
    """The same log of a page that asks for something, so that the test above can fail."""
    page = tmp_path / "asks.html"
    page.write_text('<!DOCTYPE html><img src="http://127.0.0.1:9/x.png">')
    run(page, tmp_path / "profile", "--dump-dom")

    assert {"http://127.0.0.1:9/x.png"} == requested(tmp_path / "profile")


@in_a_browser
def test_many_runs_are_drawn_thin(tmp_path):
    """Twenty thousand runs become a few thousand strokes, of which a browser draws any number."""
    number = 20_000
    data = {
        **DATA,
        "t": [1_760_000_000] * number,
        "v": [1000.0, 990.0] * (number // 2),
        "m": [1] * number,
        "s": [1] * number,
    }
    data |= {"r": [0] * number, "levels": [[0, number, 995.0]], "moves": []}
    page = tmp_path / "page.html"
    page.write_text(html.page("many", html.chart("one", "trend", data, title="many"), assets=assets()))
    elements = Elements(run(page, tmp_path / "profile", "--dump-dom"))
    (runs,) = elements.of_class("runs")

    assert 1000 < runs["d"].count("M") < 4000
