"""The picture of the results. Needs matplotlib, which is imported only here."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainpace.simulate.gates import OURS_KNOWN
from trainpace.simulate.pairs import BOTH, SETTINGS
from trainpace.simulate.results import EVERY_CASE
from trainpace.simulate.rows import CASES, Row, pick, standard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0b6e4f", "#3fb68b", "#8a8a8a", "#c2571a", "#3b6fb6", "#8e44ad", "#c0392b")
FOUND, OPEN, PASSED, RED = "#0b6e4f", "#d9d9d9", "#e0a458", "#c0392b"


def write_svg(found: Sequence[Row], path: Path) -> None:
    """Left: which losses each gate finds. Right: what ours makes of a case that lost D, on each machine.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same bytes for the same rows: no random ids, no date.
    with mpl.rc_context({"svg.hashsalt": "trainpace", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(12, 5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _curves(left, found)
        _machines(right, found)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _curves(axes: "Axes", found: Sequence[Row]) -> None:
    noise, detect = SETTINGS[1]
    curve = [
        row
        for row in pick(found, machine="independent", noise=noise, detect=detect, cases=CASES)
        if row.gate != EVERY_CASE
    ]
    names = [name for name in dict.fromkeys(row.gate for row in curve) if len({*_losses(curve, name)}) > 1]
    for name, colour in zip(names, COLOURS, strict=True):
        points = sorted({row.loss: row for row in curve if row.gate == name}.values(), key=lambda row: row.loss)
        label = f"{name} ({points[0].red:.1%} of unchanged sessions red, {points[0].runs:.1f} runs a case)"
        x, y = [100 * row.loss for row in points], [100 * row.found for row in points]
        axes.plot(x, y, color=colour, label=label, linewidth=2.5 if name in BOTH else 1.2, marker=".")
    axes.axvline(100 * detect, ymax=100 / 145, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="true loss of TGS of one case of 14, %", ylabel="found, %", ylim=(0, 145), yticks=range(0, 101, 20))
    axes.set_title(f"At equal cost: noise of a run {noise:.0%}, D = {detect:.0%}")
    axes.legend(fontsize=7.5, loc="upper left", frameon=False)


def _losses(curve: Sequence[Row], name: str) -> list[float]:
    return [row.loss for row in curve if row.gate == name]


def _machines(axes: "Axes", found: Sequence[Row]) -> None:
    labels, bars = [], []
    for noise, detect in SETTINGS:
        rows = standard(found, OURS_KNOWN, noise, detect)
        labels += [f"{row.machine}, {noise:.0%} / {detect:.0%}" for row in rows]
        bars += rows
    places = range(len(bars))
    share = [100 * row.found for row in bars]
    lost = [100 * row.passed for row in bars]
    rest = [100 - one - other for one, other in zip(share, lost, strict=True)]
    axes.barh(places, share, color=FOUND, label="found")
    axes.barh(places, rest, left=share, color=OPEN, label="inconclusive")
    axes.barh(
        places, lost, left=[one + other for one, other in zip(share, rest, strict=True)], color=PASSED, label="pass"
    )
    for place, row in zip(places, bars, strict=True):
        axes.text(101, place, f"{row.red:.1%}", va="center", fontsize=7.5, color=RED)
    axes.set(yticks=places, xlabel="a case that lost D, %  (right: unchanged sessions red)", xlim=(0, 110))
    axes.set_yticklabels(labels, fontsize=7.5)
    axes.invert_yaxis()
    axes.set_title("Ours, pairs, noise known, on every machine: noise / D")
    axes.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
