"""The files of a report."""

from factories import make_case_result, make_results
from trainpace.report.markdown import render
from trainpace.store.reports import assets, write_summary


def test_summary_goes_to_the_folder_and_the_page(tmp_path):
    """The summary is a file, and is appended to the page of the workflow's run."""
    (tmp_path / "page.md").write_text("before\n")
    results = make_results(make_case_result())
    write_summary(results, tmp_path, page=tmp_path / "page.md")

    assert (tmp_path / "summary.md").read_text() == render(results)
    assert (tmp_path / "page.md").read_text() == f"before\n{render(results)}\n"


def test_summary_without_a_page(tmp_path):
    """Outside a workflow the folder's file is all."""
    write_summary(make_results(make_case_result()), tmp_path, page=None)

    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]


def test_assets_come_with_the_package():
    """Style and script are there, and not swapped."""
    found = assets()

    assert "{" in found.style
    assert "function" in found.script
