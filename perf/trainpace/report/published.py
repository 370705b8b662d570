"""The published table: every row with its formula checked, and its three charts drawn again.

python -m trainpace published --report out/
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainpace.cases import PUBLISHED, Case
from trainpace.judge.baseline import Published
from trainpace.report import charts, html
from trainpace.report.charts import Bar, Chart, Drawing
from trainpace.report.columns import TGS
from trainpace.report.console import PLAIN_WIDTH, as_text
from trainpace.report.escape import plain, sentence
from trainpace.report.table import Column, Table, to_html, to_markdown
from trainpace.runs.flops import DEFAULT, flops_per_token
from trainpace.text import UNKNOWN, fixed_percent, known, percent, signed_percent

NAME = "published"
"""Name of the report's files, without ending; charts add the model's."""
SYSTEM = "XTuner"
"""The system that the table is of."""
TOLERANCE = 0.002
"""Largest relative difference of two TFLOPs that agree.

Figures are printed with four digits, which leaves up to 0.12 %; the row that disagrees is 0.66 % off."""
NARROW = 96
"""Columns of a terminal below which HIDDEN is left out: the other columns and the charts say it as well."""
HIDDEN = {"GPUs", "by\nformula"}
LLAMA_FACTORY = (
    "the source compares with LLaMA-Factory (commit 8e04794), whose figures it gives as pictures alone: none is read "
    "off them, and no bar of it stands here"
)


@dataclass(frozen=True)
class Row:
    """A published row, with its TFLOPs computed again and its speed predicted."""

    case: Case
    published: Published
    recomputed: float
    """TFLOPs by the formula from the published TGS."""
    predicted: float | None
    """TGS predicted from counts and the other rows; None where the counts are missing."""

    @property
    def printed(self) -> float:
        """TFLOPs as printed; every row of this table prints them."""
        assert self.published.printed_tflops is not None
        return self.published.printed_tflops

    @property
    def off(self) -> float:
        """`recomputed` / printed TFLOPs - 1."""
        return self.recomputed / self.printed - 1

    @property
    def agrees(self) -> bool:
        """Whether `recomputed` is what is printed, within TOLERANCE."""
        return abs(self.off) <= TOLERANCE

    @property
    def predicted_off(self) -> float | None:
        """Predicted / published TGS - 1; None without a prediction."""
        return None if self.predicted is None else self.predicted / self.published.tgs - 1


def rows(published: Iterable[Published], predicted: Mapping[str, float]) -> list[Row]:
    """The table.

    Args:
        published: the row of each case of PUBLISHED, in its order.
        predicted: TGS by case; what is missing there is not known.
    """
    return [
        Row(
            case,
            row,
            row.tgs * flops_per_token(case.model.decoder, case.sequence) / 1e12,
            predicted.get(case.id),
        )
        for case, row in zip(PUBLISHED, published, strict=True)
    ]


def draw(found: Sequence[Row]) -> dict[str, Chart]:
    """The charts as files, by their names; none without matplotlib."""
    return charts.drawn_as_files(drawings(found))


def drawings(found: Sequence[Row]) -> dict[str, Drawing]:
    """One chart a model, by the name of its files."""
    drawn = {}
    for model in {row.case.model.name: row.case.model for row in found}.values():
        notes = ["NVIDIA A100-SXM4-80GB, full fine-tuning under ZeRO-3; one iteration each, so no intervals"]
        mine = [row for row in found if row.case.model == model]
        if any(row.predicted for row in mine):
            notes.append(_how_predicted(found))
        drawn[f"{NAME}-{model.name}"] = Drawing(model.title, bars(mine), notes)
    return drawn


def bars(found: Sequence[Row]) -> list[Bar]:
    """A bar for the published TGS of each row, and one for the predicted TGS where it is known."""
    drawn = []
    for row in found:
        group = charts.group(row.case.length, f"sp {row.case.sp}, {row.case.gpus} GPUs")
        drawn.append(Bar(system=SYSTEM, length=group, kind="published", value=row.published.tgs))
        if row.predicted:
            drawn.append(Bar(system=SYSTEM, length=group, kind="predicted", value=row.predicted))
    return drawn


# The table


def _agrees(row: Row) -> str:
    return "yes" if row.agrees else "no"


CASE: Column[Row] = Column("case", lambda row: row.case.id, quoted=True)
FIGURES: tuple[Column[Row], ...] = (
    Column("GPUs", lambda row: str(row.case.gpus), lambda row: row.case.gpus, "right"),
    TGS.of(lambda row: row.published),
    Column(
        "TFLOPs\nprinted",
        lambda row: f"{row.printed:.1f}",
        lambda row: row.printed,
        "right",
    ),
    Column("by\nformula", lambda row: f"{row.recomputed:.1f}", lambda row: row.recomputed, "right"),
    Column("off\nby", lambda row: signed_percent(row.off, 2), lambda row: row.off, "right"),
    Column("TGS\npredicted", lambda row: known(row.predicted, ".1f"), lambda row: row.predicted or 0.0, "right"),
    Column(
        "predicted\noff by",
        lambda row: UNKNOWN if row.predicted_off is None else signed_percent(row.predicted_off),
        lambda row: row.predicted_off or 0.0,
        "right",
    ),
)
AGREES: Column[Row] = Column("agrees", _agrees, kind=lambda row: "pass" if row.agrees else "regression")
COLUMNS = (CASE, *FIGURES, AGREES)


def render(found: Sequence[Row], *, width: int = PLAIN_WIDTH) -> str:
    """The table and the lines below it as text."""
    shown = [column for column in COLUMNS if width >= NARROW or column.title not in HIDDEN]
    return as_text(Table(shown, found), [(line, "") for line in ["", *footnotes(found), summary(found)]], width)


def summary(found: Sequence[Row]) -> str:
    """`14 rows: 13 agree with the formula within 0.12 %, 1 disagrees (llama2_7b-32k-sp1)`."""
    agreeing = [row for row in found if row.agrees]
    wrong = [row.case.id for row in found if not row.agrees]
    text = f"{len(found)} rows: {len(agreeing)} agree with the formula"
    if agreeing:
        text += f" within {fixed_percent(max(abs(row.off) for row in agreeing), 2)}"
    return text + (f", {len(wrong)} disagree{'s' if len(wrong) == 1 else ''} ({', '.join(wrong)})" if wrong else "")


def footnotes(found: Sequence[Row]) -> list[str]:
    """Lines below the table: rows that disagree, the formula, the prediction, the sources."""
    lines = [
        f"{row.case.id}: {row.published.tgs} TGS gives {row.recomputed:.1f} TFLOPs by the formula, the table prints "
        f"{row.printed}, so its two figures do not belong together"
        for row in found
        if not row.agrees
    ]
    lines.append(
        f"formula: the convention {DEFAULT}, activation recompute counted, causal attention as half, shared key/value "
        "heads taken for whole ones (docs/measuring.md)"
    )
    if any(row.predicted for row in found):
        off = [abs(row.predicted_off) for row in found if row.predicted_off is not None]
        lines.append(f"{_how_predicted(found)}; off by {percent(sum(off) / len(off))} on average (docs/cost.md)")
    else:
        lines.append(
            "no predictions without the counted costs: `pytest --pyargs trainpace.suite.test_cost --perf-refresh` "
            "counts them"
        )
    lines.append(LLAMA_FACTORY)
    lines += dict.fromkeys(
        f"{row.published.source}; on {row.published.hardware}; "
        f"{', '.join(f'{name} {version}' for name, version in row.published.software.items())}"
        for row in found
    )
    return lines


def markdown(found: Sequence[Row], drawn: dict[str, Chart]) -> str:
    """The text of published.md."""
    lines = [f"## {plain(summary(found))}", ""]
    lines += [f"![{plain(chart.words)}]({name}.svg)\n" for name, chart in drawn.items()]
    lines += [
        to_markdown(Table(COLUMNS, found)),
        *(f"- {sentence(text)}" for text in [*footnotes(found), *_undrawn(drawn)]),
    ]
    return "\n".join(lines) + "\n"


def page(found: Sequence[Row], assets: html.Assets) -> str:
    """The text of published.html."""

    def chart_of(row: Row) -> str:
        return f"{NAME}-{row.case.model.name}"

    return html.page(
        "The published speed table",
        html.paragraph(summary(found)),
        *(charts.on_page(name, drawing) for name, drawing in drawings(found).items()),
        to_html(Table([replace(CASE, link=chart_of), *FIGURES, AGREES], found)),
        html.items(html.linked(text, assets) for text in footnotes(found)),
        assets=assets,
    )


def _how_predicted(found: Sequence[Row]) -> str:
    return f"predicted: from counted costs and the other {len(found) - 1} rows; no measurement"


def _undrawn(drawn: dict[str, Chart]) -> list[str]:
    return [] if drawn else [charts.INSTALL]
