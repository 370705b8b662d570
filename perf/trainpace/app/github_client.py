"""GitHub: the log of the workflow that a session runs in, and one comment that is updated, not repeated."""

import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from trainpace.errors import FileError, SuiteError
from trainpace.report.github import annotations
from trainpace.report.github import comment as comment_text
from trainpace.report.record import Results
from trainpace.store.reports import read_results

SECONDS = 30.0
"""Longest wait for one answer."""
PAGE = 100
"""Comments of one answer, GitHub's largest number."""


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


def comment_on(pull_request: int, folder: Path, *, name: str, author: str, job: str = "") -> str:
    """Show the results in `folder` in the pull request's comment of that `name`; returns the comment's address.

    The folder comes from the machine that ran the pull request's code. So its summary.md is not looked at: the text is
    written here, from results.json, which is checked and escaped. Without results the comment says so; it must not go
    on showing those of an earlier commit. Where they contradict the result of the `job` that measured, it says that.

    Raises:
        GitHubError: where the comment cannot be written.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise GitHubError(f"--name: expected letters, digits, - and _, got {name!r}")
    repository = Repository.of_workflow()
    results: Results | None = None
    with suppress(FileError):
        results = read_results(folder)
    run = f"{_variable('GITHUB_SERVER_URL')}/{repository.name}/actions/runs/{_variable('GITHUB_RUN_ID')}"
    marker = f"<!-- trainpace: {name} -->\n"
    text = comment_text(results, run=run, job=job)
    return repository.put_comment(pull_request, text, marker=marker, author=author)


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise GitHubError(f"expected the variable {name}, which GitHub's workflows set, got none")
    return value
