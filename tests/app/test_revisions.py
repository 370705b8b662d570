"""Other revisions come as folders of their own, and leave the repository as it was."""

import subprocess

import pytest

from trainpace.app.revisions import RevisionError, changed_files, checked_out, merge_base


def git(folder, *arguments):
    """Run git as somebody; what it printed."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)  # noqa: S607 - the git at hand
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Two commits on main, one on a branch off the first."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("first")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "branch", "side")
    (folder / "file").write_text("second")
    git(folder, "commit", "-qam", "second")
    git(folder, "switch", "-q", "side")
    (folder / "baselines").mkdir()
    (folder / "baselines" / "x.json").write_text("{}")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "third")
    return folder


def test_merge_base_is_where_the_branch_left(repository):
    """Not the tip of the other branch: what came there later is not this branch's doing."""
    expected = git(repository, "rev-parse", "main~1")

    assert expected == merge_base(repository, "main")


def test_an_unknown_revision_says_what_git_says(repository):
    """The error names the revision and what to do."""
    with pytest.raises(RevisionError, match="no merge base of HEAD and nowhere"):
        merge_base(repository, "nowhere")


def test_a_checkout_holds_the_revision_and_leaves_nothing(repository):
    """The folder has the revision's files; afterwards neither it nor its registration is there."""
    with checked_out(repository, "main") as folder:
        text = (folder / "file").read_text()

    assert text == "second"
    assert not folder.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_an_option_is_no_revision(repository):
    """A name that looks like an option reaches git as a name."""
    with pytest.raises(RevisionError), checked_out(repository, "--help"):
        pass


def test_changed_files_are_committed_or_not(repository):
    """Everything that the working tree has otherwise than the base."""
    (repository / "file").write_text("edited")

    changed = changed_files(repository, "side~1")

    assert changed == ["baselines/x.json", "file"]


def test_a_folder_without_git_has_no_changes(tmp_path):
    """Outside a repository nothing can be told, and nothing is claimed."""
    assert changed_files(tmp_path, "main") == []
