"""Other revisions of a repository, as folders of their own. Needs git; nothing of the working tree is touched."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainpace.errors import UsageError
from trainpace.launch.environment import given

# What was measured may have told its repository to start programs: git starts none of these, and hands on no secret.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


class RevisionError(UsageError):
    """A revision that cannot be had; the message says what git said."""


def merge_base(repository: Path, revision: str) -> str:
    """The commit at which HEAD left `revision`.

    Raises:
        RevisionError: for an unknown revision, or one without a common ancestor (a shallow clone has none).
    """
    try:
        return _git(repository, "merge-base", "HEAD", revision)
    except RevisionError as error:
        raise RevisionError(f"no merge base of HEAD and {revision}: {error}; fetch the whole history") from None


def commit_of(repository: Path, revision: str) -> str:
    """The whole name of a commit.

    Raises:
        RevisionError: for an unknown revision.
    """
    return _git(repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")


def remote_of(repository: Path) -> str | None:
    """The address of `origin`; None where there is none, and outside a repository."""
    try:
        return _git(repository, "remote", "get-url", "origin")
    except RevisionError:
        return None


def root_of(folder: Path) -> Path:
    """The top of the working tree that `folder` lies in.

    Raises:
        RevisionError: outside a repository.
    """
    return Path(_git(folder, "rev-parse", "--show-toplevel"))


def main_branch(repository: Path) -> str:
    """What pull requests are merged into: as `origin` says, else the branch that is checked out, else `main`."""
    for command in (("symbolic-ref", "--short", "refs/remotes/origin/HEAD"), ("symbolic-ref", "--short", "HEAD")):
        with suppress(RevisionError):
            return _git(repository, *command).removeprefix("origin/")
    return "main"


def source_files(repository: Path) -> list[str]:
    """Files that git tracks, and those that it does not ignore, relative to `repository`."""
    found = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted(filter(None, found.split("\0")))


def subject_of(repository: Path, commit: str) -> str:
    """The first line of a commit's message."""
    return _git(repository, "log", "-1", "--format=%s", commit)


def changed_files(repository: Path, base: str) -> list[str]:
    """Files that differ between `base` and the working tree, relative to it; empty outside a repository."""
    try:
        return _git(repository, "diff", "--name-only", "--relative", base).splitlines()
    except RevisionError:
        return []


def dirty_files(repository: Path) -> list[str]:
    """Tracked files that differ from the commit that is checked out, relative to it; empty outside a repository.

    Baselines are no difference, as for a run's revision.
    """
    try:
        return _git(
            repository, "diff", "--name-only", "HEAD", "--", ":/", ":(top,exclude,glob)**/baselines/**"
        ).splitlines()
    except RevisionError:
        return []


def tracked_files(repository: Path) -> frozenset[str] | None:
    """Files below `repository` that git tracks, relative to it; None outside a repository."""
    try:
        return frozenset(filter(None, _git(repository, "ls-files", "-z").split("\0")))
    except RevisionError:
        return None


def content_of(repository: Path, commit: str, name: str) -> bytes | None:
    """What a file, relative to `repository`, holds in a commit; None where it is not in it."""
    done = subprocess.run(
        [*_GIT, "-C", str(repository), "cat-file", "blob", f"{commit}:./{name}"],
        capture_output=True,
        check=False,
        env=given(os.environ),
    )
    return done.stdout if done.returncode == 0 else None


@contextmanager
def checked_out(repository: Path, revision: str, *, within: Path | None = None) -> Iterator[Path]:
    """`revision` of `repository` in a folder of its own, gone when the context ends.

    `within` is a folder that all nodes see; None: this machine's temporary files.

    Raises:
        RevisionError: for an unknown revision.
    """
    commit = commit_of(repository, revision)
    folder = Path(tempfile.mkdtemp(prefix="trainpace-revision-", dir=within)) / commit[:12]
    _git(repository, "worktree", "add", "--quiet", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        _git(repository, "worktree", "remove", "--force", str(folder))
        shutil.rmtree(folder.parent, ignore_errors=True)


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [*_GIT, "-C", str(repository), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=given(os.environ),
        )
    except FileNotFoundError:
        raise RevisionError("git is not installed") from None
    if done.returncode:
        raise RevisionError(done.stderr.strip() or f"git {arguments[0]} failed")
    return done.stdout.strip()
