"""Disks that are full, cannot be written, or go away: named with the path and the system's word, nothing half-written.

Each session runs in a mount namespace of its own, so that its disks can be as small and as broken as a test wants them;
they are gone with it.
"""

import json
import shutil
import subprocess

import pytest

from factories import make_runs
from trainpace.store.baselines import refresh

DISK = """
mkdir small frozen after && mount -t tmpfs -o size=64k tmpfs small && mount --bind frozen frozen || exit 99
mount -o remount,ro,bind frozen
"$@"
code=$?
cp -r small/. after
exit $code
"""
"""`small` holds 64 kB, and is copied to `after` at the end; `frozen` can be read alone."""
NAMESPACE = (shutil.which("unshare") or "false", "--user", "--map-root-user", "--mount")
WITHIN = (*NAMESPACE, "sh", "-c", DISK, "sh")
FILL = {"do": "command", "command": "head -c 1M /dev/zero > small/filler; true", "step": 3}
"""The second rank fills the small disk."""
REFRESH = ("--perf-refresh", "--perf-runs-per-case=1")
FULL, READ_ONLY = "No space left on device", "Read-only file system"

pytestmark = pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode != 0,
    reason="this machine gives no mount namespaces",
)


@pytest.fixture
def suite(repository):
    """Runs the suite among the disks; the toy misbehaves in the second case, if at all."""

    def run(*arguments, **options):
        # So many that a rank's lines need room: fewer lie on the page that a full tmpfs has given the file already.
        return repository.suite("--perf-steps=40", *arguments, within=WITHIN, **{"case": "ours-32k-sp2", **options})

    return run


def files(repository, name):
    """What the small disk held under `name`."""
    return sorted(path.name for path in (repository.path / "after" / name).iterdir())


def cases(path):
    """The cases of a file of baselines."""
    return sorted(each["workload"]["case"] for each in json.loads(path.read_text())["baselines"].values())


def test_disk_of_the_ranks_is_full(suite, repository, started):
    """Ranks that cannot even write why they fail: the cause is theirs and the disk's, the case before is judged."""
    done = suite(environment={"TMPDIR": str(repository.path / "small")}, **FILL)

    assert done.code == 7
    assert done.last_line.startswith("2 cases: 1 no baseline (ours-8k-sp1 (training:Toy)), 1 invalid (ours-32k-sp2")
    assert f"exit status 1 at step 43; no space is left under {repository.path}/small" in done.text
    assert files(repository, ".") == ["filler"]
    assert started.left() == []


def test_no_room_for_a_run(suite, repository, started):
    """A disk that is full when a run is to begin fails that run, and takes no traceback to say so."""
    done = suite(environment={"TMPDIR": str(repository.path / "small")}, **FILL | {"case": "ours-8k-sp1"})

    assert done.code == 7
    assert done.last_line.startswith("2 cases: 2 invalid")
    assert "Traceback" not in done.text
    assert started.left() == []


def test_disk_of_the_kept_runs_is_full(suite, repository, started):
    """A run that was to be kept and cannot be is invalid; the one before lies there whole, and no part of another."""
    done = suite("--perf-runs=small/runs", **FILL)
    (kept,) = files(repository, "runs")

    assert done.code == 7
    assert done.last_line.startswith("2 cases: 1 no baseline (ours-8k-sp1 (training:Toy)), 1 invalid (ours-32k-sp2")
    assert f"the run could not be kept: {repository.path}/small/runs/ours-32k-sp2-" in done.text
    assert f"cannot be written: {FULL}" in done.text
    assert kept.startswith("ours-8k-sp1")
    assert started.left() == []


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (FILL, FULL),
        (FILL | {"command": "mount -o remount,ro small"}, READ_ONLY),
        (FILL | {"command": "mv small/ours small/elsewhere"}, "was there before and is gone: is its share still"),
    ],
    ids=["full", "read-only", "gone"],
)
@pytest.mark.slow
def test_baselines_are_lost_while_refreshing(suite, repository, started, wishes, said):
    """The case that cannot be recorded is refused, with the reason; the one before is recorded, in a whole file."""
    done = suite("--perf-baselines=small/ours", *REFRESH, **wishes)
    (path,) = (repository.path / "after").glob("*/cpu-*.json")

    assert done.code == 1
    assert done.last_line.startswith("2 cases: 1 recorded, 1 refused (ours-32k-sp2 (training:Toy): ")
    assert said in done.text
    assert "Traceback" not in done.text
    assert cases(path) == ["ours-8k-sp1"]
    assert files(repository, path.parent.name) == [path.name]
    assert started.left() == []


def test_share_that_was_never_mounted(suite, repository, started):
    """A folder of baselines that goes before anything was recorded is not made anew either."""
    refresh(repository.path / "ours", make_runs(1000.0))
    done = suite("--perf-baselines=ours", *REFRESH, **FILL | {"case": None, "command": "mv ours elsewhere; true"})

    assert done.code == 1
    assert done.last_line.startswith("2 cases: 2 refused")
    assert not (repository.path / "ours").exists()


@pytest.mark.parametrize("option", ["--perf-runs", "--perf-report", "--perf-baselines"])
def test_folder_that_can_only_be_read(suite, repository, started, option):
    """It is refused with its option before anything trains."""
    done = suite(f"{option}=frozen/results", "--perf-refresh")

    assert done.code == 4
    assert f"{option}: expected a folder that can be written, got {repository.path}/frozen/results" in done.text
    assert "43 steps" not in done.text


def test_report_cannot_be_written(suite, repository, started):
    """The session ends with its verdicts on the terminal, says that the report is missing, and does not exit with 0."""
    done = suite("--perf-report=small/report", **FILL)

    assert done.code == 4
    assert done.last_line.startswith("2 cases: 2 no baseline")
    assert f"the report was not written: {repository.path}/small/report" in done.text
    assert "INTERNALERROR" not in done.text
    assert started.left() == []


def test_locks_cannot_be_written(suite, repository, started):
    """Without a place for locks nothing is measured: exit 4, with the place."""
    state = str(repository.path / "frozen")
    done = suite(environment={"TRAINPACE_LOCKS": state})

    assert done.code == 4
    assert f"{state}: cannot be written: {READ_ONLY}" in done.text
    assert started.left() == []
