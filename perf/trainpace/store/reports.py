"""The files of a report: results.json, summary.md, and the pages of a comparison, the history, the published table.

Each file is written whole or not at all. Every writer raises FileError where one cannot be written.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files
from pathlib import Path

from trainpace.judge.systems import SideBySide
from trainpace.report import FILE, compare, exports, history, markdown, published, scatter, tables
from trainpace.report.charts import Chart
from trainpace.report.html import Assets
from trainpace.report.record import Results
from trainpace.stats.learning import Group
from trainpace.store.files import read_record, write_whole, writing


def write_results(results: Results, folder: Path) -> None:
    """Write results.json into `folder`."""
    _make(folder)
    write_whole(folder / FILE, results.model_dump_json(indent=1) + "\n")


def read_results(folder: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        FileError: where it is missing or is no such file.
    """
    return read_record(folder / FILE, Results)


def write_summary(results: Results, folder: Path | None, *, page: Path | None) -> None:
    """Write summary.md into `folder`, and append it to the file `page`, which a workflow shows; None: not there."""
    text = markdown.render(results)
    if folder:
        write_whole(folder / markdown.FILE, text)
    if page:
        with writing(page), page.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def write_export(results: Results, name: str, path: Path) -> None:
    """Write the session in a format of other tools, a key of report/exports.py's TEXTS, to `path`."""
    _make(path.parent)
    write_whole(path, exports.TEXTS[name](results))


def write_compare(comparisons: Sequence[SideBySide], folder: Path, *, said: Sequence[str]) -> None:
    """Write compare.json, compare.md, compare.html and a chart a model into `folder`.

    Besides the files that its commands name. Without matplotlib everything but the charts' files is written, and says
    what draws them.
    """
    _make(folder)
    record = compare.Comparison(said=tuple(said), cases=tuple(comparisons))
    write_whole(folder / f"{compare.NAME}.json", record.model_dump_json(indent=1) + "\n")
    drawn = compare.draw(comparisons)
    _write_charts(drawn, folder)
    write_whole(folder / f"{compare.NAME}.md", compare.markdown(comparisons, said=said, drawn=drawn))
    write_whole(folder / f"{compare.NAME}.html", compare.page(comparisons, said=said, assets=assets()))
    for path, text in compare.files(comparisons).items():
        _make((folder / path).parent)
        write_whole(folder / path, text)


def write_published(rows: Sequence[published.Row], folder: Path) -> None:
    """Write published.md, published.html and a chart a model into `folder`; without matplotlib no charts."""
    _make(folder)
    drawn = published.draw(rows)
    _write_charts(drawn, folder)
    write_whole(folder / f"{published.NAME}.md", published.markdown(rows, drawn))
    write_whole(folder / f"{published.NAME}.html", published.page(rows, assets()))


def write_table(report: tables.Report, folder: Path) -> None:
    """Write a table's .md, .html and charts into `folder`; without matplotlib no charts."""
    _make(folder)
    drawn = tables.draw(report)
    _write_charts(drawn, folder)
    write_whole(folder / f"{report.name}.md", tables.markdown(report, drawn))
    write_whole(folder / f"{report.name}.html", tables.page(report, assets()))


def write_prediction(groups: Sequence[Group], folder: Path) -> None:
    """Write prediction.html, how far off left-out rows are, into `folder`, and a chart a device; without matplotlib no
    charts' files."""
    _make(folder)
    _write_charts(scatter.draw(groups), folder)
    write_whole(folder / f"{scatter.NAME}.html", scatter.page(groups, assets()))


def write_history(judged: Sequence[history.Series], folder: Path, web: history.Web | None = None) -> None:
    """Write history.html into `folder`; `web` is where commits are shown, None: nowhere."""
    _make(folder)
    write_whole(folder / history.PAGE, history.page(judged, assets(), web))


def assets() -> Assets:
    """The style and the script of every page, as they come with the package."""
    folder = files("trainpace.report")
    return Assets(
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"),
        documents=_documents(),
    )


def _documents() -> str | None:
    """Where the documents are read, as the package's metadata says: `Project-URL: Source, https://..`."""
    try:
        urls = metadata("trainpace").get_all("Project-URL") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return None
    named = dict(url.split(", ", 1) for url in urls)
    return f"{named['Source'].rstrip('/')}/blob/main" if "Source" in named else None


def _write_charts(drawn: Mapping[str, Chart], folder: Path) -> None:
    for name, chart in drawn.items():
        write_whole(folder / f"{name}.svg", chart.svg)
        write_whole(folder / f"{name}.png", chart.png)


def _make(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
