"""What GitHub shows beside a pull request: annotations in the log, and one comment that is updated, not repeated."""

import json
import os
import re
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from trainpace.errors import FileError, SuiteError
from trainpace.report import markdown
from trainpace.report.record import FILE, Results, Told, read_results

COMMENT_LENGTH = 65_000
"""Characters; GitHub refuses a comment above 65,536."""
SECONDS = 30.0
"""For one answer."""
PAGE = 100


# The log of a workflow's step: a line that begins with `::` is a command to the runner.


class Log:
    """Keeps the runner from obeying what others print, until `end`; says nothing outside GitHub's workflows.

    pytest shows what a failing run printed, and the runner would obey a command in it: one that hides text from the
    log, or annotates a file. The runner itself has a way to stop that, with a word that ends it.
    """

    def __init__(self) -> None:
        self._word = ""

    def begin(self) -> str:
        """What to print before anything is measured."""
        self._word = secrets.token_hex(16) if os.environ.get("GITHUB_ACTIONS") == "true" else ""
        return f"\n::stop-commands::{self._word}\n" if self._word else ""

    def end(self, results: Results) -> str:
        """What to print last: the runner listens again, and hears of what failed."""
        return "\n".join(["", f"::{self._word}::", *annotations(results), ""]) if self._word else ""


def annotations(results: Results) -> list[str]:
    """A workflow command for each case that is red, and a milder one where that was excused."""
    levels = {"failed": "error", "excused": "warning"}
    return [
        f"::{levels[told.outcome]} title={_property(f'{told.title}: {told.said}')}::{_data(_reasons(told))}"
        for told in results.told
        if told.outcome in levels
    ]


def _reasons(told: Told) -> str:
    return "\n".join(filter(None, [*told.reasons, told.excused, told.change])) or told.said


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


# The comment


class GitHubError(SuiteError):
    """GitHub did not do what it was asked; the message says what, and its answer."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the token would go along to wherever the answer points."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository on GitHub, reached through its REST API."""

    api: str
    """`https://api.github.com`, or a server of one's own."""
    name: str
    """`owner/name`."""
    token: str

    @classmethod
    def of_workflow(cls) -> "Repository":
        """The one whose workflow is running.

        Raises:
            GitHubError: naming the variable that is missing or is not what it should be.
        """
        name = _variable("GITHUB_REPOSITORY")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise GitHubError(f"GITHUB_REPOSITORY: expected owner/name, got {name!r}")
        return cls(api=_variable("GITHUB_API_URL").rstrip("/"), name=name, token=_variable("GITHUB_TOKEN"))

    def put_comment(self, pull_request: int, body: str, *, marker: str, author: str) -> str:
        """Write the comment that begins with `marker`: the one of `author` that is there already, else a new one.

        Somebody else's comment that begins alike is left alone. Returns the comment's address.

        Raises:
            GitHubError: where GitHub refuses or cannot be reached.
        """
        url = f"{self.api}/repos/{self.name}/issues/{pull_request}/comments"
        for number in count(1):
            page = self._ask("GET", f"{url}?per_page={PAGE}&page={number}")
            for comment in page:
                if comment["user"]["login"] == author and (comment["body"] or "").startswith(marker):
                    there = f"{self.api}/repos/{self.name}/issues/comments/{int(comment['id'])}"
                    return str(self._ask("PATCH", there, {"body": marker + body})["html_url"])
            if len(page) < PAGE:
                break
        return str(self._ask("POST", url, {"body": marker + body})["html_url"])

    def _ask(self, method: str, url: str, content: dict[str, str] | None = None) -> Any:
        request = Request(  # noqa: S310 - the address is the runner's own
            url,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        try:
            with build_opener(_NoRedirects).open(request, timeout=SECONDS) as answer:
                return json.load(answer)
        except HTTPError as error:
            hint = ""
            if error.code in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
                hint = ": the job needs `permissions: pull-requests: write`"
            raise GitHubError(f"{method} {url}: {error.code} {error.reason}{hint}") from None
        except (URLError, TimeoutError) as error:
            raise GitHubError(f"{method} {url}: {error}") from None
        except ValueError:
            raise GitHubError(f"{method} {url}: expected JSON") from None


def comment_on(pull_request: int, folder: Path, *, name: str, author: str) -> str:
    """Show the results in `folder` in the pull request's comment of that `name`; returns the comment's address.

    The folder comes from the machine that ran the pull request's code. So its summary.md is not looked at: the text is
    written here, from results.json, which is checked and escaped. Without results the comment says so; it must not go
    on showing those of an earlier commit.

    Raises:
        GitHubError: where the comment cannot be written.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise GitHubError(f"--name: expected letters, digits, - and _, got {name!r}")
    repository = Repository.of_workflow()
    try:
        body = markdown.render(read_results(folder), COMMENT_LENGTH)
    except FileError:
        body = f"## ❌ The session ended without results\n\nExpected a valid {FILE}; the log says what happened.\n"
    run = f"{_variable('GITHUB_SERVER_URL')}/{repository.name}/actions/runs/{_variable('GITHUB_RUN_ID')}"
    marker = f"<!-- trainpace: {name} -->\n"
    return repository.put_comment(pull_request, f"{body}\n[The whole run]({run})\n", marker=marker, author=author)


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise GitHubError(f"expected the variable {name}, which GitHub's workflows set, got none")
    return value
