"""Text for GitHub: annotations for the log of a workflow's step, and the comment beside a pull request."""

from trainpace.report import FILE, markdown
from trainpace.report.record import Entry, Results

COMMENT_LENGTH = 65_000
"""Characters; GitHub refuses a comment above 65,536."""


def annotations(results: Results) -> list[str]:
    """Commands to a workflow's runner, lines that begin with `::`: an error for each case that is red, a warning where
    that was excused."""
    levels = {"failed": "error", "excused": "warning"}
    return [
        f"::{levels[entry.outcome]} title={_property(f'{entry.title}: {entry.label}')}::{_data(_reasons(entry))}"
        for entry in results.entries
        if entry.outcome in levels
    ]


def _reasons(entry: Entry) -> str:
    return "\n".join(filter(None, [*entry.reasons, entry.excused, entry.change])) or entry.label


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def comment(results: Results | None, *, run: str, job: str = "") -> str:
    """The text of the comment.

    Args:
        results: of the session; None where it left none that can be read.
        run: address of the workflow's run.
        job: how the job that measured ended, as the workflow knows it: `success` or `failure`; empty where nobody says.
            The results come from the machine that ran the pull request's code, this does not.
    """
    if results is None:
        body = f"## ❌ The session ended without results\n\nExpected a valid {FILE}; the log says what happened.\n"
    else:
        told = "ended well" if results.exit_status == 0 else f"ended with status {results.exit_status}"
        contradiction = (
            f"## ❌ The job's result is {job}, but {FILE} says that the session {told}\n\n"
            "The job's is what counts. The log says what happened; below is what the file says.\n\n"
            if job and (job == "success") != (results.exit_status == 0)
            else ""
        )
        body = contradiction + markdown.render(results, COMMENT_LENGTH - len(contradiction))
    return f"{body}\n[The whole run]({run})\n"
