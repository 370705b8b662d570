"""The history of recorded runs: a line a case, whether it lost speed, and a page of charts.

python -m trainpace history runs --check --report out/
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from trainpace.errors import FileError
from trainpace.report import html
from trainpace.report.table import Column, Table, to_html
from trainpace.runs.summary import RunSummary, SeriesKey, sessions
from trainpace.runs.verdict import Verdict
from trainpace.stats.changepoint import ALPHA, MIN_RUNS, SOON, Change, Segment, Trend, trend
from trainpace.text import UNKNOWN, count, percent, short_revision, tally, version_changes

PAGE = "history.html"
MIB = 1 << 20
SIGNS = {Verdict.REGRESSION: "▼ ", Verdict.PASS: "✓ ", Verdict.INCONCLUSIVE: "? "}


@dataclass(frozen=True)
class Web:
    """Where the commits of a repository are shown."""

    address: str
    """Of the repository, https://github.com/ours/training."""
    between: str
    """What stands between that and what is shown: `/` on GitHub, `/-/` on GitLab."""

    @classmethod
    def of_remote(cls, remote: str) -> "Web | None":
        """What a remote's address, as git knows it, tells; None where it is neither GitHub nor GitLab.

        A user or a token in it is left out.
        """
        found = re.fullmatch(
            r"(?:(?:https?|ssh)://)?(?:[^@/]*@)?(?P<host>[\w.-]+)(?::\d+)?[:/](?P<path>[\w./-]+?)(?:\.git)?/?", remote
        )
        if not found:
            return None
        address = f"https://{found['host']}/{found['path'].lstrip('/')}"
        if "github" in found["host"]:
            return cls(address, "/")
        return cls(address, "/-/") if "gitlab" in found["host"] else None

    def commit(self, revision: str) -> str:
        """Address of a commit."""
        return f"{self.address}{self.between}commit/{revision}"

    def comparison(self, before: str, after: str) -> str:
        """Address of what changed from one commit to another."""
        return f"{self.address}{self.between}compare/{before}...{after}"


@dataclass(frozen=True)
class Series:
    """The runs of one workload on one device, and their trend."""

    kind: SeriesKey
    points: Sequence[RunSummary]
    """The valid runs, oldest first."""
    left_out: int
    """Number of invalid runs."""
    trend: Trend | None
    """None without a valid run."""
    ended: bool
    """Whether newer runs of the case on the device are of another workload: it is shown, not checked."""

    @property
    def verdict(self) -> Verdict:
        """Verdict on the last level against the best one."""
        return self.trend.verdict if self.trend else Verdict.INCONCLUSIVE

    @property
    def lost(self) -> bool:
        """True where `--check` is red: speed was lost, and the series still goes on."""
        return self.verdict is Verdict.REGRESSION and not self.ended


def judge(series: dict[SeriesKey, list[RunSummary]], *, since: Sequence[str] = ()) -> list[Series]:
    """The trend of every series; together they have the error trend.ALPHA.

    Args:
        series: as read_summaries gives them.
        since: where the history to judge begins, `WHEN` or `CASE=WHEN`: a date, or the start of a revision.

    Raises:
        FileError: for a `since` that no run has.
    """
    series = _cut(series, since)
    newest: dict[tuple[str, ...], int] = {}
    for kind, points in series.items():
        same = (kind.case, kind.scale, kind.trainer, kind.device)
        newest[same] = max(newest.get(same, 0), points[-1].started)
    valid = {kind: [point for point in points if point.fault is None] for kind, points in series.items()}
    error = ALPHA / max(1, sum(len(points) >= 2 * MIN_RUNS for points in valid.values()))
    return [
        Series(
            kind,
            points,
            len(series[kind]) - len(points),
            trend([point.tgs for point in points], error=error, sessions=sessions(points)) if points else None,
            ended=series[kind][-1].started < newest[kind.case, kind.scale, kind.trainer, kind.device],
        )
        for kind, points in valid.items()
    ]


def _cut(series: dict[SeriesKey, list[RunSummary]], since: Sequence[str]) -> dict[SeriesKey, list[RunSummary]]:
    for each in since:
        case, _, when = each.rpartition("=")
        cut = {
            kind: points[first:]
            for kind, points in series.items()
            if (not case or kind.case == case) and (first := _first(points, when)) is not None
        }
        if not cut:
            raise FileError(
                f"--since {each}: no run{f' of {case}' if case else ''} is of that revision or after that day"
            )
        series = {**series, **cut}
    return series


def _first(points: Sequence[RunSummary], when: str) -> int | None:
    """The first run of the revision, or on or after the day; None where there is none."""
    try:
        day = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
    except ValueError:
        found = [(point.revision or "").startswith(when) for point in points]
    else:
        found = [point.started >= day for point in points]
    return found.index(True) if True in found else None


# In words


def lines(judged: Sequence[Series], web: "Web | None" = None) -> list[str]:
    """One line a case, below it where its last change can be seen, then the counts of verdicts with every lost case
    named."""
    texts = []
    for series in judged:
        texts += [f"{_word(series)}: {series.kind}: {sentence(series)}", *_where(series, web)]
    words = sorted({_word(series) for series in judged})
    named = [(_word(series), series.kind.case) for series in judged]
    unnamed = {word for word in words if word != Verdict.REGRESSION}
    return [*texts, f"{count(len(judged), 'case')}: {tally(named, order=words, unnamed=unnamed)}"]


def _word(series: Series) -> str:
    return "ended" if series.ended else str(series.verdict)


def sentence(series: Series, *, moved: bool = True) -> str:
    """One sentence on the trend of a series, with its last three changes where `moved`."""
    found, points = series.trend, series.points
    out = f"; {series.left_out} invalid left out" if series.left_out else ""
    if found is None or found.finds is None:
        return f"{len(points)} of the {2 * MIN_RUNS} runs that a trend needs{out}"
    now = found.segments[-1]
    text = f"{now.level:.5g} TGS in the last {now.runs} runs"
    if found.lost:
        best, last = found.reference, points[found.reference.stop - 1]
        text += f", {percent(found.loss)} below {best.level:.5g} in {best.runs} runs up to {_named(last)}"
    elif found.loss:
        text += f", {percent(found.loss)} below its best, which may be chance"
    else:
        text += ", its best level"
    if found.changes and moved:
        text += f"; moved {'; '.join(moves(series, found.changes[-3:]))}"
    if not found.lost:
        text += f"; finds a loss of {percent(found.finds)} in {SOON} runs"
        if found.verdict is Verdict.INCONCLUSIVE:
            text += ", too little to pass: record more runs"
    return text + out


def _where(series: Series, web: "Web | None") -> list[str]:
    """The command that lists the commits of the last change, and their page; nothing where it is of no new commit."""
    if series.trend is None or not series.trend.changes:
        return []
    change = series.trend.changes[-1]
    before, after = (_commit(series.points[at]) for at in (change.first - 1, change.last))
    if not before or not after or not _new_revisions(series.points, change):
        return []
    found = [f"  its commits: git log --oneline {before[:10]}..{after[:10]}"]
    return [*found, f"  their changes: {web.comparison(before, after)}"] if web else found


def moves(series: Series, changes: Sequence[Change]) -> list[str]:
    """Text of each change: by how much, at which revision, and what else may have caused it."""
    return [f"{_signed(change.ratio - 1)} at {_cause(series.points, change)}" for change in changes]


def _cause(points: Sequence[RunSummary], change: Change) -> str:
    """Text on the cause of a change: the revision, or that there was no new one, and versions that changed too."""
    new = _new_revisions(points, change)
    at = _likely(new, change)
    before, after = points[at - 1], points[at]
    if after.revision is None:
        text = f"run {at + 1} ({_day(after)}), of no recorded revision"
    elif not new:
        text = f"{_named(after)}, the same revision as before: the machine or its software"
    else:
        text = _named(after)
        if len(new) > 1:
            first, last = (_short(points[each]) for each in (new[0], new[-1]))
            text += f", or another of the {len(new)} new revisions {first}..{last}"
    return "; ".join([text, *version_changes(dict(before.software), dict(after.software), absent=UNKNOWN)])


def _new_revisions(points: Sequence[RunSummary], change: Change) -> list[int]:
    """The runs of the band that may hold the change at which another revision begins."""
    return [at for at in range(change.first, change.last + 1) if points[at].revision != points[at - 1].revision]


def _likely(new: Sequence[int], change: Change) -> int:
    # A change between two runs of one revision may well lie at the next one: only where none is near is it not code.
    return min(new, key=lambda each: abs(each - change.at), default=change.at)


def _named(point: RunSummary) -> str:
    return f"{_short(point)} ({_day(point)})" if point.revision else _day(point)


def _short(point: RunSummary) -> str:
    return short_revision(point.revision, unknown="?")


def _day(point: RunSummary) -> str:
    return f"{datetime.fromtimestamp(point.started, UTC):%Y-%m-%d}"


def _signed(share: float) -> str:
    return f"{'+' if share > 0 else '-'}{percent(abs(share))}"


# As a page


def _last_move(series: Series) -> str:
    moved = moves(series, series.trend.changes[-1:]) if series.trend else []
    return moved[0] if moved else UNKNOWN


def _of_trend(
    title: str, text: Callable[[Series, Trend], str], value: Callable[[Series, Trend], float]
) -> Column[Series]:
    """A column whose cell is UNKNOWN without a valid run."""
    return Column(
        title,
        lambda series: text(series, series.trend) if series.trend else UNKNOWN,
        lambda series: value(series, series.trend) if series.trend else None,
    )


def _level(title: str, of: Callable[[Trend], Segment]) -> Column[Series]:
    return _of_trend(title, lambda _, found: f"{of(found).level:.5g}", lambda _, found: of(found).level)


CASE: Column[Series] = Column("case", lambda series: series.kind.case)
COLUMNS: tuple[Column[Series], ...] = (
    Column("verdict", lambda series: ("" if series.ended else SIGNS[series.verdict]) + _word(series), kind=_word),
    CASE,
    Column("scale", lambda series: series.kind.scale),
    Column("trainer", lambda series: series.kind.trainer),
    Column("device", lambda series: series.kind.device),
    Column("runs", lambda series: str(len(series.points)), lambda series: len(series.points)),
    _of_trend("last run", lambda series, _: _day(series.points[-1]), lambda series, _: series.points[-1].started),
    _level("TGS now", lambda found: found.segments[-1]),
    _level("TGS best", lambda found: found.reference),
    _of_trend("loss", lambda _, found: percent(found.loss), lambda _, found: found.loss),
    Column("last moved", _last_move),
)


def page(judged: Sequence[Series], assets: html.Assets, web: Web | None = None) -> str:
    """The text of history.html: every case in a table and as a chart, lost ones first.

    Args:
        judged: as `judge` gives them.
        assets: style and script.
        web: where the repository's commits are shown; None: they are named without links.
    """
    order = [Verdict.REGRESSION, Verdict.INCONCLUSIVE, Verdict.PASS]
    drawn = sorted(judged, key=lambda series: (series.ended, order.index(series.verdict)))
    names = {id(series): f"case-{number}" for number, series in enumerate(drawn) if series.trend}
    charts = [_chart(series, names[id(series)], web) for series in drawn if series.trend]

    def link(series: Series) -> str | None:
        return names.get(id(series))

    return html.page(
        "History of training speed",
        html.paragraph(lines(judged)[-1]),
        to_html(Table([replace(each, link=link) if each is CASE else each for each in COLUMNS], drawn)),
        html.paragraph(
            "A dot is a run, a line a level, the dotted line the best level. A triangle down marks where a case got "
            "slower, one up where it got faster; the grey band holds the change at a confidence of 95 %. Move over a "
            "chart or use the arrow keys for one run; drag to enlarge, double-click or Escape to see all. Above the "
            "first chart you choose what all of them show: speed, peak memory or start-up."
        ),
        *charts,
        assets=assets,
    )


def _commit(point: RunSummary) -> str | None:
    # What is not committed, or is no commit's name, has no page and no log.
    revision = point.revision or ""
    return revision if re.fullmatch(r"[0-9a-f]{7,64}", revision) else None


def _links(series: Series, change: Change, web: Web | None) -> dict[str, str]:
    """Addresses of the commit that a change is placed at, and of all that changed in the band that may hold it."""

    if web is None:
        return {}
    links = {}
    new = _new_revisions(series.points, change)
    places = (change.first - 1, _likely(new, change), change.last)
    before, likely, last = (_commit(series.points[at]) for at in places)
    if new and likely:
        links[f"commit {likely[:10]}"] = web.commit(likely)
    if before and last and before != last:
        links[f"all changes {before[:10]}...{last[:10]}"] = web.comparison(before, last)
    return links


def _chart(series: Series, name: str, web: Web | None) -> html.Fragment:
    found, points = series.trend, series.points
    assert found
    revisions = {revision: number for number, revision in enumerate(dict.fromkeys(each.revision for each in points))}
    data: dict[str, Any] = {
        "t": [point.started for point in points],
        "v": [_rounded(point.tgs) for point in points],
        "m": [round(point.peak_memory_bytes / MIB) for point in points],
        "s": [round(point.startup_seconds, 1) for point in points],
        "r": [revisions[point.revision] for point in points],
        "revisions": list(revisions),
        "levels": [[each.start, each.stop, _rounded(each.level)] for each in found.segments],
        "moves": [[each.at, each.first, each.last, round(each.ratio, 4)] for each in found.changes],
        "best": _rounded(found.reference.level),
    }
    moved = zip(moves(series, found.changes), found.changes, strict=True)
    notes: list[str | html.Linked] = [
        sentence(series, moved=False),
        *(html.Linked(f"moved {text}", _links(series, change, web)) for text, change in moved),
    ]
    return html.chart(name, "trend", data, title=f"{series.kind}, workload {series.kind.hash}", notes=notes)


def _rounded(value: float) -> float:
    """`value` to five digits, so that JSON writes it short."""
    return float(f"{value:.5g}")
