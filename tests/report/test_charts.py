"""Charts: what a bar shows, told apart without colour, and the same bytes for the same bars."""

import itertools
import json
import struct
import xml.etree.ElementTree as ET

import pytest

from browser import Elements
from trainpace.report.charts import HATCHES, Bar, Drawing, draw, group, on_page, style, words

SVG = "{http://www.w3.org/2000/svg}"
SYSTEMS = ("native", "LLaMA-Factory", "TRL")
BARS = [
    Bar(system=system, length=length, kind="measured", value=value, low=0.97 * value, high=1.03 * value)
    for length, highest in (("8k", 3000.0), ("32k", 2000.0))
    for system, value in zip(SYSTEMS, (highest, highest / 2, highest / 3), strict=True)
]


@pytest.fixture(autouse=True)
def _matplotlib():
    pytest.importorskip("matplotlib")


def parsed(chart):
    """The SVG's root."""
    return ET.fromstring(chart.svg)  # noqa: S314 - our own


def texts(chart):
    """Every text of the chart, in the order in which it is drawn."""
    return [element.text for element in parsed(chart).iter(f"{SVG}text")]


def hatches(chart):
    """The paths of the hatches in the chart: what is left of them in black and white."""
    patterns = parsed(chart).iter(f"{SVG}pattern")
    return [pattern.find(f"{SVG}path").get("d") for pattern in patterns]


def test_bars_have_labels_groups_and_a_legend():
    """Value, length and system stand in the picture as text."""
    found = texts(draw("Llama2-7B", BARS, notes=["on 8 GPUs"]))

    assert {"3000", "1500", "1000", "666.7", "8k", "32k", "TRL, measured", "Llama2-7B", "on 8 GPUs"} <= {*found}


def test_out_of_memory_stands_in_place_of_a_bar():
    """OOM, and no figure."""
    bars = [*BARS, Bar(system="native", length="1M", kind="measured", absent="OOM")]

    assert texts(draw("x", bars)).count("OOM") == 1


def test_a_system_without_a_figure_is_not_called_measured():
    """In the legend and in words its status stands in that place; one with a figure elsewhere is measured."""
    absent = [Bar(system=name, length="1M", kind="measured", absent="OOM") for name in ("native", "TRL 2")]
    drawn = draw("x", [*BARS, *absent])

    assert "TRL 2, OOM" in texts(drawn)
    assert "native, measured" in texts(drawn)
    assert "TRL 2 (measured)" not in drawn.words


def test_bars_of_a_page_say_what_they_are():
    """By groups: figure, interval, what is said in the box, and what a click leads to; nothing without its kind."""
    bars = [
        Bar(
            system="native",
            length="8k\nsp 1",
            kind="measured",
            value=100.0,
            low=99.0,
            high=101.0,
            about=("fast",),
            link="a",
        ),
        Bar(system="XTuner", length="8k\nsp 1", kind="published", value=90.0),
        Bar(system="TRL", length="32k", kind="measured", absent="OOM"),
    ]
    found = Elements(on_page("one", Drawing("Llama2-7B", bars, ["on 8 GPUs"])))
    data = json.loads(next(text for text in found.texts if text.startswith("{")))
    eight, more = data["groups"]

    assert [group["title"] for group in data["groups"]] == ["8k, sp 1", "32k"]
    assert [bar["label"] for bar in eight["bars"]] == ["native", "XTuner, published"]
    assert eight["bars"][0]["said"] == "native, measured\n8k, sp 1\n100.0 TGS (99 .. 101)\nfast"
    assert (eight["bars"][0]["link"], eight["bars"][1]["link"]) == ("a", None)
    assert (more["bars"][0]["value"], more["bars"][0]["text"], more["bars"][0]["said"]) == (
        None,
        "OOM",
        "TRL\n32k\nOOM",
    )
    assert words("Llama2-7B", bars) in {each.get("aria-label") for _, each in found.found}


def test_a_chart_without_any_bar_is_drawn():
    """Everything out of memory is a result too."""
    found = texts(draw("x", [Bar(system="native", length="1M", kind="measured", absent="OOM")]))

    assert "OOM" in found


def test_interval_is_drawn_where_it_is_known():
    """Whiskers belong to bars with an interval alone."""
    bare = Bar(system="native", length="8k", kind="measured", value=1000.0)
    whiskers = Bar(system="native", length="8k", kind="measured", value=1000.0, low=900.0, high=1100.0)

    assert 'id="LineCollection_1"' in draw("x", [whiskers]).svg
    assert "LineCollection" not in draw("x", [bare]).svg


def test_systems_differ_without_colour():
    """Each system of a drawn chart has a hatch of its own, the first none."""
    found = hatches(draw("x", BARS))

    assert len(found) == len(set(found)) == len(SYSTEMS) - 1


def test_kinds_differ_without_colour():
    """By outline, whatever the fill prints as."""
    outlines = [style(0, kind).outline for kind in ("measured", "published", "predicted")]

    assert outlines == ["thin", "thick", "dashed"]


def test_many_systems_differ_without_colour():
    """Hatches that come round again are denser."""
    found = [style(number, "measured").hatch for number in range(2 * len(HATCHES) + 1)]

    assert len(found) == len(set(found))


def test_neighbours_differ_in_brightness():
    """Also where a print is too coarse for hatches, the first three systems are no one grey."""

    def grey(colour):
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    greys = [grey(style(number, kind).fill) for number in (0, 1) for kind in ("measured", "published", "predicted")]

    assert all(abs(a - b) > 25 for a, b in itertools.pairwise(greys))


def test_same_bars_give_the_same_bytes():
    """No date, no random ids, and nobody's own settings."""
    import matplotlib as mpl

    first = draw("x", BARS)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": None}):
        again = draw("x", BARS)

    assert (first.svg, first.png) == (again.svg, again.png)


def test_svg_is_plain():
    """No line ends with blanks, and nothing runs or is loaded."""
    svg = draw("x", BARS).svg

    assert [line for line in svg.splitlines() if line != line.rstrip()] == []
    assert "<script" not in svg
    assert "<image" not in svg


def test_quoted_names_are_text():
    """A system's name cannot become an element, nor a formula."""
    name = "_<b>$x^2$</b>&_2"
    bars = [Bar(system=name, length="8k", kind="measured", value=1.0)]

    assert f"{name}, measured" in texts(draw("<i>$title", bars))


def test_png_is_sharp():
    """Twice the pixels of the SVG's points and more."""
    chart = draw("x", BARS)
    width, _ = struct.unpack(">II", chart.png[16:24])

    assert chart.png.startswith(b"\x89PNG")
    assert width > 2 * float(parsed(chart).get("viewBox").split()[2])


def test_words_say_what_the_chart_shows():
    """For those who do not see it: every figure, with its interval."""
    bars = [
        Bar(system="XTuner", length=group("1m", "sp 16"), kind="published", value=133.6),
        Bar(system="native", length=group("1m", "sp 16"), kind="measured", value=100.0, low=99.0, high=101.0),
        Bar(system="TRL", length=group("1m", "sp 16"), kind="measured", absent="OOM"),
    ]

    assert words("Llama2-7B", bars) == (
        "Llama2-7B, TGS. 1M, sp 16: XTuner (published) 133.6; native (measured) 100.0 (99 .. 101); TRL OOM."
    )


@pytest.mark.parametrize(
    "fields", [{}, {"value": 1.0, "absent": "OOM"}, {"value": 1.0, "low": 0.9}], ids=["nothing", "both", "half"]
)
def test_a_bar_that_says_two_things_is_refused(fields):
    """Either a value or what stands in its place; an interval has two ends."""
    with pytest.raises(ValueError, match="expected"):
        Bar(system="native", length="8k", kind="measured", **fields)
