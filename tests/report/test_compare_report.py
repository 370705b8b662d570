"""Trainers side by side: what is told of them on the terminal, in files and on a page that a real browser opens."""

import json
import re
import sys

import pytest

from browser import CHROMIUM, Elements, requested, run
from factories import CPU, make_side_by_side, make_system, make_workload
from trainpace.report.compare import (
    Comparison,
    bars,
    draw,
    last_line,
    legend,
    reasons,
    render,
)
from trainpace.store.files import read_record
from trainpace.store.reports import write_compare

FIRST = (1000.0, 1010.0, 990.0)
NATIVE = make_system("native", *FIRST, title="native (deepspeed)")
FACTORY = make_system(
    "llamafactory",
    760.0,
    770.0,
    750.0,
    first=FIRST,
    title="LLaMA-Factory",
    command="FORCE_TORCHRUN=1 llamafactory-cli train train.yaml",
    footnotes=("logs after every step", "the logits are whole"),
)
HF = make_system("hf", 700.0, 690.0, 710.0, first=FIRST, title="transformers", footnotes=("the logits are whole",))
TRL = make_system("trl", title="TRL")
FULL = make_system("full", title="Full", status="out of memory", reason="step 3: out of memory")
WRONG = make_system("wrong", title="Wrong", status="invalid", reason="expected loss 6.24, got 9.1")
HOSTILE = '<img src=x onerror="x()"></script><script>document.documentElement.dataset.hacked = 1</script> | `#1` [x](y)'
SHORT = make_side_by_side(NATIVE, FACTORY, HF, TRL)
LONG = make_side_by_side(NATIVE, FACTORY, FULL, WRONG, TRL, case="llama2_7b-32k-sp1")


def written(folder, *comparisons, said=("mini: no GPU",)):
    """The report in `folder`: the names of its files."""
    write_compare(comparisons, folder, said=said)
    return sorted(path.name for path in folder.iterdir())


def lines(*comparisons, width=160, **overrides):
    """The report on a terminal, without blank lines."""
    return [line for line in render(comparisons, width=width, **overrides).splitlines() if line]


# On the terminal


def test_a_line_has_every_figure():
    """TGS and ratio with their intervals, TFLOPs, memory, start-up, status, footnotes' numbers."""
    (line,) = (line for line in lines(SHORT) if "LLaMA-Factory" in line)

    assert re.sub(r"  +", "|", line.strip()) == (
        "LLaMA-Factory [1, 2]|760.0|735.5 .. 785.2|0.760|0.754 .. 0.766|0.012|1.00 GiB|2.0 s|measured"
    )


def test_the_reference_is_named_in_place_of_an_interval():
    """It is compared with itself: 1, and nothing to doubt."""
    (line,) = (line for line in lines(SHORT) if "native" in line and "measured" in line)

    assert re.search(r" 1\.000 +reference ", line)
    assert "ratio: TGS / that of native (deepspeed) in the same round; above 1 is faster" in lines(SHORT)


def test_another_reference_than_the_first_is_said():
    """Where the first dropped out the ratios are to the next: with why, and with the case where others have another."""
    second = make_system("hf", *FIRST, title="transformers")
    late = make_side_by_side(TRL, second, FACTORY, case="llama2_7b-32k-sp1")
    nobody = make_side_by_side(TRL, WRONG, case="llama2_7b-128k-sp8")
    ratio = "TGS / that of"

    assert legend([late])[0] == (
        f"ratio: {ratio} transformers in the same round; above 1 is faster (TRL, asked for first, has no number: "
        "skipped)"
    )
    assert legend([SHORT, late, nobody])[:3] == [
        f"llama2_7b-8k-sp1: ratio: {ratio} native (deepspeed) in the same round; above 1 is faster",
        f"llama2_7b-32k-sp1: {legend([late])[0]}",
        "llama2_7b-128k-sp8: no ratios: no system was measured",
    ]


def test_every_file_names_the_reference(tmp_path):
    """Table, page and records, where the first system has no number."""
    second = make_system("hf", *FIRST, title="transformers")
    written(tmp_path, make_side_by_side(TRL, second, FACTORY))
    records = json.loads((tmp_path / "compare.json").read_text())["cases"][0]["systems"]

    assert [each["trainer"] for each in records if each["reference"]] == ["hf"]
    for name in ("compare.md", "compare.html"):
        text = (tmp_path / name).read_text()
        assert "reference" in text
        assert "that of transformers in the same round" in text


@pytest.mark.parametrize("width", [80, 160])
def test_the_shares_of_the_peak_are_shown(tmp_path, width):
    """On a device whose peak is known, in every form."""
    found = make_side_by_side(NATIVE.model_copy(update={"tflops": 178.3, "mfu": 0.431, "hfu": 0.572}), FACTORY)
    written(tmp_path, found)

    for share in ("43.1 %", "57.2 %"):
        assert any(share in line for line in lines(found, width=width))
        assert share in (tmp_path / "compare.md").read_text()
        assert share in (tmp_path / "compare.html").read_text()


def test_a_footnote_that_two_share_stands_once():
    """Numbered in the order of the table."""
    found = lines(SHORT)

    assert [line for line in found if line.startswith("[")] == ["[1] logs after every step", "[2] the logits are whole"]
    assert any("transformers [2]" in line for line in found)


def test_a_skipped_system_has_its_install_command():
    """On a line of its own, once for all cases."""
    found = lines(SHORT, LONG)
    place = found.index("skipped: TRL: trl is not installed:")

    assert found[place + 1] == "  tox run -e peer-trl"
    assert found.count("  tox run -e peer-trl") == 1


def test_a_reason_names_its_case_where_it_is_not_that_of_all():
    """Out of memory at one length says nothing of the other."""
    assert ("out of memory", "out of memory: Full: step 3: out of memory (llama2_7b-32k-sp1)") in reasons([SHORT, LONG])


def test_last_line_counts_and_names():
    """What has no number is named."""
    assert last_line([SHORT, LONG]) == (
        "2 cases side by side: 5 measured, 2 skipped (TRL), 1 out of memory (Full), 1 invalid (Wrong)"
    )


def test_one_round_says_that_it_has_no_interval():
    """With the option that gives one."""
    one = make_side_by_side(make_system("native", 1000.0), make_system("hf", 900.0, first=(1000.0,)), rounds=1)

    assert "one round has no interval: `--perf-runs-per-case 3` measures three" in lines(one)


@pytest.mark.parametrize("width", [80, 120, 160])
def test_table_fits(width):
    """No line is wider than the terminal, commands aside, and no figure is cut off."""
    found = lines(SHORT, LONG, width=width)

    assert [line for line in found if len(line) > width and "`" not in line and line != found[-1]] == []
    assert "…" not in "".join(found)


def test_two_comparisons_of_one_case_have_a_heading_each():
    """They stand below each other, and are not one of twice as many systems."""
    twice = [make_side_by_side(make_system("native", 1.0), make_system("trl", 0.8)) for _ in range(2)]
    lines = [line.strip() for line in render(twice, said=(), width=160).splitlines()]

    assert lines.count(twice[0].case) == 2


def test_two_of_one_title_are_told_apart():
    """By what they were asked for as."""
    found = lines(make_side_by_side(make_system("a.toml", 1.0, title="Ours"), make_system("b.toml", 1.0, title="Ours")))

    assert [line.split()[:2] for line in found if "measured" in line and "Ours" in line][:2] == [
        ["Ours", "(a.toml)"],
        ["Ours", "(b.toml)"],
    ]


# In files


def test_every_file_is_written(tmp_path):
    """Records, Markdown, page, and a chart a model, twice."""
    pytest.importorskip("matplotlib")
    yi = make_side_by_side(NATIVE, case="yi_34b_200k-8k-sp1")

    assert written(tmp_path, SHORT, LONG, yi) == [
        "compare-llama2_7b.png",
        "compare-llama2_7b.svg",
        "compare-yi_34b_200k.png",
        "compare-yi_34b_200k.svg",
        "compare.html",
        "compare.json",
        "compare.md",
    ]


def test_records_are_read_back(tmp_path):
    """compare.json holds what was measured, whole, as strict JSON."""
    written(tmp_path, SHORT, LONG)
    json.loads((tmp_path / "compare.json").read_text(), parse_constant=pytest.fail)

    assert read_record(tmp_path / "compare.json", Comparison) == Comparison(said=("mini: no GPU",), cases=(SHORT, LONG))


def test_without_matplotlib_all_but_the_charts_is_written(tmp_path, monkeypatch):
    """The text says how to get the files; the page draws its own chart."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert written(tmp_path, SHORT) == ["compare.html", "compare.json", "compare.md"]
    assert 'pip install "trainpace[charts]"' in (tmp_path / "compare.md").read_text()
    assert (tmp_path / "compare.html").read_text().count('data-draw="bars"') == 1


def test_the_files_of_a_command_lie_in_the_folder(tmp_path):
    """What a command names is written where it says, and its text stands on the page and in the records."""
    files = {"commands/llama2_7b-8k-sp1-hf/train.json": '{"steps": "<40>"}'}
    written(tmp_path, make_side_by_side(NATIVE, HF.model_copy(update={"files": files})))

    assert {path: (tmp_path / path).read_text() for path in files} == files
    assert '{"steps": "<40>"}' in Elements((tmp_path / "compare.html").read_text()).texts
    assert "with commands/llama2" in (tmp_path / "compare.md").read_text().replace("\\", "")


def test_markdown_has_table_footnotes_and_commands(tmp_path):
    """What a pull request's page can show."""
    written(tmp_path, SHORT)
    text = (tmp_path / "compare.md").read_text()

    assert text.startswith("## 1 case side by side: 3 measured, 1 skipped \\(TRL\\)\n")
    assert len(re.findall(r"^\| llama2", text, re.MULTILINE)) == 4
    assert "```text\nFORCE_TORCHRUN=1 llamafactory-cli train train.yaml\n```" in text


def test_markdown_quotes_nothing_that_means_something(tmp_path):
    """A hostile title stays text, and in its cell."""
    written(tmp_path, make_side_by_side(make_system("x", 1.0, title=HOSTILE, footnotes=(HOSTILE,), command=HOSTILE)))
    text = (tmp_path / "compare.md").read_text()
    (row,) = re.findall(r"^\| llama2.*", text, re.MULTILINE)

    assert re.search(r"(?<!\\)<", re.sub(r"```text\n.*?\n```", "", text, flags=re.DOTALL)) is None
    assert len(re.findall(r"(?<!\\)\|", row)) == 13


# Charts


def test_bars_are_those_that_are_measured_or_failed():
    """No bar for who was skipped; OOM and invalid in place of theirs."""
    found = {(bar.system, bar.length.split()[0]): bar.absent or bar.value for bar in bars([SHORT, LONG])}

    assert found["Full", "32k"] == "OOM"
    assert found["Wrong", "32k"] == "invalid"
    assert found["native (deepspeed)", "8k"] == NATIVE.tgs
    assert "TRL" not in {system for system, _ in found}


def test_two_cases_of_one_length_do_not_cover_each_other():
    """The second group has its case below."""
    other = make_side_by_side(NATIVE, workload=make_workload("ours"), length="8k")

    assert len({bar.length for bar in bars([SHORT, other])}) == 2


def test_nothing_measured_draws_nothing():
    """A chart of nothing says nothing."""
    assert draw([make_side_by_side(TRL)]) == {}


# The page


@pytest.fixture
def page(tmp_path):
    """Two cases, a system of every status, and hostile text wherever text can stand."""
    hostile = make_system(
        HOSTILE, *FIRST, title=HOSTILE, footnotes=(HOSTILE,), command=HOSTILE, software={HOSTILE: HOSTILE}
    )
    device = CPU.model_copy(update={"name": HOSTILE})
    written(tmp_path, SHORT, make_side_by_side(*LONG.systems, hostile, case=LONG.case, device=device), said=(HOSTILE,))
    return tmp_path / "compare.html"


def test_page_has_versions_and_commands(page):
    """A column of versions a system, and the exact command behind each bar, linked from the table."""
    elements = Elements(page.read_text())
    links = {each["href"].removeprefix("#") for name, each in elements.found if name == "a"}

    assert links <= {each["id"] for _, each in elements.found if "id" in each}
    assert FACTORY.command in elements.texts
    assert {"llamafactory", "hf", "python", "3.11.7"} <= set(elements.texts)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_page_opens_in_a_browser(page, tmp_path):
    """From a file: the chart has a bar a figure, each leads to its command and says more under the pointer; a click
    sorts, nothing quoted runs, and no request."""
    # Played by a script that only this copy of the page has.
    script = """
const root = document.documentElement.dataset, chart = document.querySelector("figure svg");
root.bars = chart.querySelectorAll(".bar").length;
root.absent = [...chart.querySelectorAll(".absent")].map((each) => each.textContent).join();
root.link = chart.querySelector("a").getAttribute("href");
chart.querySelectorAll(".row")[1].dispatchEvent(new PointerEvent("pointermove", {bubbles: true}));
root.said = document.querySelector(".tip").textContent;
document.querySelectorAll("th button")[2].click();
root.fastest = [...document.querySelectorAll("table")[0].tBodies[0].rows].map((row) => row.cells[2].textContent).at(-1);
root.slowest = document.querySelector("tbody td.number").textContent;
"""
    played = page.with_name("played.html")
    text = page.read_text().replace("</body>", f"<script>addEventListener('load', () => {{{script}}})</script></body>")
    played.write_text(re.sub(r"script-src '[^']+'", "script-src 'unsafe-inline'", text))
    elements = Elements(run(played, tmp_path / "profile", "--dump-dom"))
    root = next(attributes for name, attributes in elements.found if name == "html")

    assert root == {
        "lang": "en",
        "data-drawn": "1",
        "data-bars": "6",
        "data-absent": "OOM,invalid",
        "data-link": "#command-0",
        "data-said": "LLaMA-Factory, measured\n8k, mini, sp 1, 2 CPU ranks\n760.0 TGS (735.5 .. 785.2)\n"
        "ratio 0.760 (0.754 .. 0.766)\nmemory 1.00 GiB, start-up 2.0 s",
        "data-slowest": "-",
        "data-fastest": "1000.0",
    }
    assert HOSTILE in "".join(elements.texts)
    assert requested(tmp_path / "profile") == set()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_no_request_leaves_the_page(page, tmp_path):
    """As it is written, with its own policy."""
    elements = Elements(run(page, tmp_path / "profile", "--dump-dom"))
    root = next(attributes for name, attributes in elements.found if name == "html")

    assert root == {"lang": "en", "data-drawn": "1"}
    assert requested(tmp_path / "profile") == set()
