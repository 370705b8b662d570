"""Bar charts of TGS by sequence length, grouped by system: one chart a model, as in the published source.

On a page its own script draws them (`on_page`). Files need matplotlib (`pip install "trainpace[charts]"`), which is
imported only where one is drawn (`draw`). The same bars give the same bytes: an SVG that is committed changes only with
what it shows.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainpace.report import html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

Kind = Literal["measured", "published", "predicted"]

INSTALL = 'no chart files (.svg, .png) without matplotlib: `pip install "trainpace[charts]"` and run again'

# Of Okabe and Ito, which colour-blind people tell apart. Bluish green comes late: it prints in the grey of the blue.
COLOURS = ("#0072b2", "#e69f00", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#f0e442", "#999999")
HATCHES = ("//", "--", "xx", "\\\\", "||", "++", "/-")
"""Hatches of the second and later systems; the first has none. No dots: they make an SVG ten times as large."""
OUTLINES: Mapping[Kind, Literal["thin", "thick", "dashed"]] = {
    "measured": "thin",
    "published": "thick",
    "predicted": "dashed",
}
TINT = 0.35
"""Share of the system's colour in a published bar; the rest is white."""

HEIGHT = 3.3
"""Height of the figure, inches; a README shows about a hundred points an inch."""
MAX_WIDTH = 8.8
"""Inches."""
MIN_WIDTH = 6.0
"""Inches."""
MIN_SLOTS = 7
"""Least number of places for bars, gaps included."""
FONT = 8.0
"""Size of the font, points."""
MAX_NAME = 40
"""Most characters of a system's name in the legend."""
CHARACTER = 0.56
"""Width of a character / size of the font, roughly."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: the speed of one system at one sequence length."""

    system: str
    length: str
    """Label of the group of bars, `8k`; a second line may say more. Groups stand in the order of their first bars."""
    kind: Kind
    value: float | None = None
    """TGS; None: there is no bar, `absent` stands in its place."""
    low: float | None = None
    """Lower end of the interval, TGS; None without an interval."""
    high: float | None = None
    """Upper end of the interval, TGS; None without an interval."""
    absent: str = ""
    """Text in place of the bar, `OOM`; empty where there is a bar."""
    case: str = ""
    """Id of the case that it is of."""
    about: tuple[str, ...] = ()
    """What a page says of the bar besides its figures, a line each."""
    link: str | None = None
    """Name of what on the page a click leads to; None: nothing."""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.absent):
            raise ValueError(f"expected either value or absent, got value={self.value}, absent={self.absent!r}")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"expected low and high or neither, got low={self.low}, high={self.high}")


@dataclass(frozen=True)
class Style:
    """Style of a series. Also without colour the hatch tells the system, fill and outline tell the kind."""

    hatch: str
    fill: str
    outline: Literal["thin", "thick", "dashed"]


@dataclass(frozen=True)
class Chart:
    """A drawn chart as two files, and as text for those who do not see it."""

    svg: str
    png: bytes
    words: str


def group(length: str, detail: str) -> str:
    """`Bar.length` of a case: its length as the published table writes it, and `detail` on a second line."""
    return f"{length.replace('m', 'M')}\n{detail}"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401 - only whether it can be
    except ModuleNotFoundError:
        return False
    return True


def style(system: int, kind: Kind) -> Style:
    """The style of the bars of one kind of the chart's system number `system`, counted from 0."""
    repeats, which = divmod(system - 1, len(HATCHES))
    colour = COLOURS[system % len(COLOURS)]
    return Style(
        # What comes round again is denser.
        hatch=HATCHES[which] * (1 + repeats) if system else "",
        fill={"measured": colour, "published": _tint(colour), "predicted": "#ffffff"}[kind],
        outline=OUTLINES[kind],
    )


def words(title: str, bars: Sequence[Bar]) -> str:
    """The chart as text: `Llama2-7B, TGS. 8k: XTuner (published) 3028; ..`."""
    groups = []
    for length in dict.fromkeys(bar.length for bar in bars):
        said = [f"{_kind_of(bar)} {_figure(bar)}{_interval(bar)}" for bar in bars if bar.length == length]
        groups.append(f"{length.replace(chr(10), ', ')}: {'; '.join(said)}.")
    return " ".join([f"{title}, TGS.", *groups])


def _kind_of(bar: Bar) -> str:
    # What has no figure was not measured.
    return f"{bar.system} ({bar.kind})" if bar.value is not None else bar.system


@dataclass(frozen=True)
class Drawing:
    """What a chart shows, before it is drawn as files or on a page."""

    title: str
    bars: Sequence[Bar]
    notes: Sequence[str] = ()


def drawn_as_files(drawings: Mapping[str, Drawing]) -> dict[str, Chart]:
    """The charts by the names of their files; none without matplotlib."""
    if not can_draw():
        return {}
    return {name: draw(each.title, each.bars, notes=each.notes) for name, each in drawings.items()}


def on_page(name: str, drawing: Drawing) -> html.Fragment:
    """The chart for a page: bars that answer to a pointer, as wide as the window, without matplotlib."""
    systems = list(dict.fromkeys(bar.system for bar in drawing.bars))
    groups = [
        {
            "title": length.replace("\n", ", "),
            "bars": [_of_page(bar, systems.index(bar.system)) for bar in drawing.bars if bar.length == length],
        }
        for length in dict.fromkeys(bar.length for bar in drawing.bars)
    ]
    return html.chart(
        name,
        "bars",
        {"unit": "TGS", "groups": groups},
        title=f"{drawing.title}: tokens per GPU per second (TGS)",
        words=words(drawing.title, drawing.bars),
        notes=drawing.notes,
    )


def _of_page(bar: Bar, series: int) -> dict[str, Any]:
    said = [_label(bar.system, bar.kind) if bar.value is not None else bar.system, bar.length.replace("\n", ", ")]
    said.append(f"{_figure(bar)}{' TGS' if bar.value is not None else ''}{_interval(bar)}")
    return {
        "label": _label(bar.system, bar.kind) if bar.kind != "measured" else _short(bar.system),
        "series": series,
        "kind": bar.kind,
        "value": bar.value,
        "low": bar.low,
        "high": bar.high,
        "text": _figure(bar),
        "said": "\n".join([*said, *bar.about]),
        "link": bar.link,
    }


def draw(title: str, bars: Sequence[Bar], *, notes: Iterable[str] = ()) -> Chart:
    """Draw `bars` under `title`, with `notes` below.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure
    from matplotlib.style import context

    settings = {"svg.hashsalt": "trainpace", "svg.fonttype": "none", "hatch.linewidth": 0.7}
    # A name with two dollars is no formula.
    settings |= {"text.parse_math": False, "font.size": FONT, "font.sans-serif": ["DejaVu Sans"]}
    # From matplotlib's own settings and not the user's, or the same bars would not give the same bytes.
    with context(["default", settings]):
        lengths = list(dict.fromkeys(bar.length for bar in bars))
        series = list(dict.fromkeys((bar.system, bar.kind) for bar in bars))
        slots = max(MIN_SLOTS, len(lengths) * (len(series) + 1))
        figure = Figure(figsize=(min(MAX_WIDTH, max(MIN_WIDTH, 1 + 0.42 * slots)), HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        figure.suptitle(title, x=0.01, ha="left", fontsize=FONT + 3, fontweight="bold")
        drawn = _bars(axes, bars, lengths, series, points=72 * (figure.get_figwidth() - 0.8) / slots)
        axes.set_ylabel("tokens per GPU per second (TGS)")
        labels = [_legend(bars, *each) for each in series]
        entry = FONT * (6 + CHARACTER * max(map(len, labels), default=0))
        # Named here: matplotlib leaves out what it is told beside a bar, where that begins with an underscore.
        axes.legend(
            drawn,
            labels,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=max(1, int(72 * (figure.get_figwidth() - 0.8) / entry)),
            frameon=False,
            handlelength=2.4,
            handleheight=1.2,
        )
        if text := "\n".join(notes):
            axes.set_xlabel(text, loc="left", fontsize=FONT - 1, labelpad=6)
        said = words(title, bars)
        svg, png = io.StringIO(), io.BytesIO()
        # Without date and version, which change when the chart does not.
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": title, "Description": said})
        figure.savefig(png, format="png", dpi=200, metadata={"Software": None, "Title": title})
    # matplotlib leaves blanks at the ends of lines, which a repository's checks refuse.
    text = "".join(f"{line.rstrip()}\n" for line in svg.getvalue().splitlines())
    return Chart(text, png.getvalue(), said)


def _bars(
    axes: "Axes", bars: Sequence[Bar], lengths: Sequence[str], series: Sequence[tuple[str, Kind]], *, points: float
) -> list["BarContainer"]:
    """Draw the bars and what belongs to each, a container a series; `points` is the width of a bar."""
    drawn = []
    systems = list(dict.fromkeys(system for system, _ in series))
    # As many groups as lengths, a bar's width between two groups.
    place = {length: number * (len(series) + 1) for number, length in enumerate(lengths)}
    upright = any(CHARACTER * FONT * len(_figure(bar)) > points for bar in bars)
    for number, (system, kind) in enumerate(series):
        look = style(systems.index(system), kind)
        mine = [bar for bar in bars if (bar.system, bar.kind) == (system, kind)]
        container = axes.bar(
            [place[bar.length] + number for bar in mine],
            [bar.value or 0 for bar in mine],
            width=0.88,
            color=look.fill,
            hatch=look.hatch,
            edgecolor="black",
            linestyle=(0, (3, 2)) if look.outline == "dashed" else "solid",
            linewidth=1.9 if look.outline == "thick" else 0.9,
            zorder=2,
        )
        drawn.append(container)
        for bar in mine:
            x, top = place[bar.length] + number, bar.high or bar.value or 0
            if bar.value is not None and bar.low is not None and bar.high is not None:
                away = [[bar.value - bar.low], [bar.high - bar.value]]
                # White below black, to be seen on every hatch.
                for colour, width in (("white", 3.2), ("black", 1.2)):
                    axes.errorbar(
                        x,
                        bar.value,
                        yerr=away,
                        fmt="none",
                        ecolor=colour,
                        capsize=3,
                        capthick=width,
                        linewidth=width,
                        zorder=3,
                    )
            axes.annotate(
                _figure(bar),
                (x, top),
                xytext=(0, 3),
                textcoords="offset points",
                rotation=90 if upright else 0,
                ha="center",
                va="bottom",
                fontsize=FONT - 0.5,
                fontweight="bold" if bar.absent else "normal",
            )
    highest = max((bar.high or bar.value or 0 for bar in bars), default=0) or 1
    axes.set_ylim(0, highest * (1.25 if upright else 1.15))
    # Few bars stand in the middle, no wider than many.
    end = len(lengths) * (len(series) + 1) - 1
    room = max(0, MIN_SLOTS - 1 - end) / 2
    axes.set_xlim(-1 - room, end + room)
    axes.set_xticks([place[length] + (len(series) - 1) / 2 for length in lengths], lengths)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _legend(bars: Iterable[Bar], system: str, kind: Kind) -> str:
    """`TRL, measured`; where none of its bars has a figure, `TRL, OOM`."""
    mine = [bar for bar in bars if (bar.system, bar.kind) == (system, kind)]
    if all(bar.value is None for bar in mine):
        return f"{_short(system)}, {', '.join(dict.fromkeys(bar.absent for bar in mine))}"
    return _label(system, kind)


def _label(system: str, kind: Kind) -> str:
    return f"{_short(system)}, {kind}"


def _short(system: str) -> str:
    # Of a long name, a module's path say, the end tells most.
    return system if len(system) <= MAX_NAME else f"..{system[2 - MAX_NAME :]}"


def _figure(bar: Bar) -> str:
    if bar.value is None:
        return bar.absent
    # As many digits as a label has room for: 12345, 948.6, 21.8, 0.123.
    return f"{bar.value:{'.0f' if bar.value >= 1000 else '.1f' if bar.value >= 10 else '.3g'}}"


def _interval(bar: Bar) -> str:
    return "" if bar.low is None or bar.high is None else f" ({bar.low:.4g} .. {bar.high:.4g})"


def _tint(colour: str) -> str:
    """`colour` mixed with white."""
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - TINT * (255 - part)):02x}" for part in parts)
