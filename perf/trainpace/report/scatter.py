"""Predicted against published TGS of rows whose model was left out: a chart a device, as files and on a page.

python -m trainpace predict h100-sxm --errors --report out/
"""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median

from trainpace.report import charts, html
from trainpace.report.charts import COLOURS, FONT, Chart
from trainpace.report.predict import ERRORS, HOW
from trainpace.report.table import Table, to_html
from trainpace.stats.learning import FEWEST_ROWS, Group
from trainpace.text import percent, signed_percent

NAME = "prediction"
"""Of the files, with the device behind it."""
MARKS = "osD^vPX*"
"""One a model group of a chart, told apart without colour too."""
FAR = 0.15
"""Relative. A row that is further off is named in the picture."""
WIDTH, HEIGHT = 7.0, 3.6
"""Inches."""
LIMITS = (0.5, 1.5)
"""Of the ratio."""


def draw(groups: Sequence[Group]) -> dict[str, Chart]:
    """One chart a device, of its groups with enough rows, by the name of its files; none without matplotlib."""
    if not charts.can_draw():
        return {}
    return {f"{NAME}-{device}": _draw(device, of) for device, of in _by_device(groups).items()}


def _by_device(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups with enough rows, by device."""
    enough = [group for group in groups if len(group.rows) >= FEWEST_ROWS]
    return {
        device: [group for group in enough if group.device == device]
        for device in dict.fromkeys(group.device for group in enough)
    }


def page(groups: Sequence[Group], assets: html.Assets) -> str:
    """The text of prediction.html: the errors in a table, and a chart a device."""
    found = _by_device(groups)

    def chart_of(group: Group) -> str | None:
        return f"{NAME}-{group.device}" if group.device in found else None

    columns = [replace(each, link=chart_of) if each.title == "device" else each for each in ERRORS]
    return html.page(
        "Predicted and published training speed",
        html.items([html.linked(HOW, assets)]),
        to_html(Table(columns, groups)),
        *(_on_page(device, of) for device, of in found.items()),
        assets=assets,
    )


def _on_page(device: str, groups: Sequence[Group]) -> html.Fragment:
    points = [
        {
            "x": row.tgs,
            "y": 1 + group.errors[row.case],
            "series": number,
            "said": f"{row.case}\n{group.table}\n{row.tgs:.1f} TGS published\n"
            f"{row.tgs * (1 + group.errors[row.case]):.1f} predicted, {signed_percent(group.errors[row.case])}",
        }
        for number, group in enumerate(groups)
        for row in group.rows
    ]
    data = {
        "across": "published TGS",
        "up": "predicted without its model / published",
        "points": points,
        "names": [f"{group.table}, {len(group.rows)} rows" for group in groups],
        "lines": [{"y": 1.0, "text": "as published"}, {"y": 0.9, "text": "10 % less"}, {"y": 1.1, "text": "10 % more"}],
        "limits": LIMITS,
    }
    return html.chart(f"{NAME}-{device}", "scatter", data, title=device, words=words(device, groups))


def words(device: str, groups: Sequence[Group]) -> str:
    """The chart as text, for those who do not see it."""
    said = []
    for group in groups:
        errors = [abs(error) for error in group.errors.values()]
        said.append(
            f"{group.table}: {len(errors)} rows, off by {percent(fmean(errors))} on average, {percent(median(errors))} "
            f"in the middle, {percent(max(errors))} at worst."
        )
    return f"{device}, TGS predicted without the row's model against published. {' '.join(said)}"


def _draw(device: str, groups: Sequence[Group]) -> Chart:
    from matplotlib.figure import Figure
    from matplotlib.style import context

    settings = {"svg.hashsalt": "trainpace", "svg.fonttype": "none", "text.parse_math": False, "font.size": FONT}
    with context(["default", settings | {"font.sans-serif": ["DejaVu Sans"]}]):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        figure.suptitle(device, x=0.01, ha="left", fontsize=FONT + 3, fontweight="bold")
        far = []
        for number, group in enumerate(groups):
            axes.plot(
                [row.tgs for row in group.rows],
                [1 + group.errors[row.case] for row in group.rows],
                MARKS[number % len(MARKS)],
                markersize=5,
                markerfacecolor="none",
                markeredgecolor=COLOURS[number % len(COLOURS)],
                label=f"{group.table}, {len(group.rows)} rows",
                zorder=3,
            )
            errors = {row.case: group.errors[row.case] for row in group.rows}
            far += [(row.tgs, 1 + errors[row.case], row.case) for row in group.rows if abs(errors[row.case]) > FAR]
        for tgs, ratio, case in far:
            axes.annotate(case, (tgs, ratio), xytext=(5, 3), textcoords="offset points", fontsize=FONT - 1.5)
        every = [row.tgs for group in groups for row in group.rows]
        ends = (10 ** math.floor(math.log10(min(every))), 10 ** math.ceil(math.log10(max(every)) + 0.3))
        for ratio, style, label in ((1.0, "-", "as published"), (0.9, "--", "10 % off"), (1.1, "--", None)):
            axes.plot(ends, [ratio, ratio], color="#555555", linewidth=0.8, linestyle=style, label=label, zorder=2)
        axes.set(xscale="log", xlim=ends, ylim=LIMITS)
        axes.xaxis.set_major_formatter(lambda tgs, _: f"{tgs:,.0f}")
        axes.set_xlabel("published TGS")
        axes.set_ylabel("predicted without its model / published")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(loc="lower right", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        svg, png = io.StringIO(), io.BytesIO()
        said = words(device, groups)
        about = {"Date": None, "Creator": None, "Title": device, "Description": said}
        figure.savefig(svg, format="svg", metadata=about)
        figure.savefig(png, format="png", dpi=200, metadata={"Software": None, "Title": device})
    text = "".join(f"{line.rstrip()}\n" for line in svg.getvalue().splitlines())
    return Chart(text, png.getvalue(), said)
