"""One side's processes stand still while the other's are measured, and none of them outlives its host."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from factories import make_workload
from repository import TOY
from trainpace.errors import RunFailed
from trainpace.launch import quiet
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.probe.device import present
from trainpace.rank import proc

# Starts a program that nothing points to: another session, no parent, no environment; its pid goes to a file.
LOST = """
import os, sys
def lose(pid, *words):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(pid, "w") as file:
                file.write(f"{{os.getpid()}}\\n")
            os.execve(words[0], words, {{}})
        os._exit(0)
    os.wait()
def act():
    lose({pid!r}, sys.executable, "-c", "import time; time.sleep(600) # {note}")
"""
FORKS = """
import os, time
while True:
    if os.fork() == 0:
        time.sleep(0.02)
        os._exit(0)
    os.wait()
"""
AT_IMPORT = f"{LOST}act()\n"


@pytest.fixture
def sides(tmp_path, monkeypatch, started):
    """Process groups of toys of two sides, in two checkouts."""
    own, other = tmp_path / "base", tmp_path / "head"
    for folder in (own, other):
        folder.mkdir()
        shutil.copy(TOY / "toy_trainer.py", folder / "ours.py")
    found = {
        "base": Side(checkout=own, apart=(other,), folder=own),
        "head": Side(checkout=other, apart=(own,), folder=other),
    }
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Distributed(machine=present(), cache=tmp_path / "cache", step_timeout=60.0, sides=found) as fleet:
        yield fleet
    assert started.left() == []


def toy(**wishes):
    """A short workload of the toy."""
    shape = make_workload().shape.model_copy(update={"config": wishes})
    return make_workload(shape=shape, trainer="ours:Toy", engine="own", ranks=1, warmup=2, steps=4)


def add(fleet, side, code):
    """Have a side's trainer execute `code` when it is imported."""
    with (fleet.sides[side].checkout / "ours.py").open("a") as file:
        file.write(code)


def state(pid):
    """T is stopped, S sleeps; None: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


def test_the_other_side_is_stopped(sides, tmp_path):
    """While one side's ranks run, the other's host and its library's helper stand still; then they go on."""
    add(sides, "head", AT_IMPORT.format(pid=str(tmp_path / "pid"), note="multiprocessing.resource_tracker"))
    sides.run(toy(), side="head")
    (head,) = sides.pool.pids
    pid = (tmp_path / "pid").read_text().strip()
    look = f"cat /proc/{head}/stat /proc/{pid}/stat > {tmp_path}/seen"
    sides.run(toy(do="command", command=look, rank=0), side="base")
    seen = [line.rpartition(")")[2].split()[0] for line in (tmp_path / "seen").read_text().splitlines()]

    assert seen == ["T", "T"]
    assert sides.run(toy(), side="head").steps == 4
    assert sides.pool.pids[0] == head


def test_what_an_import_starts_fails_the_run(sides, tmp_path):
    """A process that has left its session, its parent and its environment is found below the host, named and ended."""
    add(sides, "head", AT_IMPORT.format(pid=str(tmp_path / "pid"), note="ours"))
    with pytest.raises(RunFailed, match=r"nothing to run when its ranks had ended, got process \d+ \(.*# ours"):
        sides.run(toy(), side="head")

    assert state((tmp_path / "pid").read_text().strip()) is None


def test_another_priority_fails_the_run(sides):
    """A host whose priority somebody has changed is not measured with; the next run has a fresh one."""
    sides.run(toy(), side="base")
    (host,) = sides.pool.pids
    os.setpriority(os.PRIO_PROCESS, host, 7)
    with pytest.raises(RunFailed, match=r"the run host was given another priority or other cores: .* got nice 7"):
        sides.run(toy(), side="base")

    assert sides.run(toy(), side="base").steps == 4


def test_other_cores_of_the_suite_fail_the_run(sides):
    """What was done to the suite's own process would be inherited by the hosts that it starts later."""
    present = os.sched_getaffinity(0)
    if len(present) == 1:
        pytest.skip("a single core cannot be taken away")
    os.sched_setaffinity(0, {min(present)})
    try:
        with pytest.raises(RunFailed, match="the suite was given another priority or other cores"):
            sides.run(toy(), side="base")
    finally:
        os.sched_setaffinity(0, present)

    assert sides.run(toy(), side="base").steps == 4


def test_what_a_killed_host_leaves_is_ended(sides, tmp_path):
    """What a rank had started and hidden goes also where the rank has killed its host."""
    add(sides, "head", LOST.format(pid=str(tmp_path / "pid"), note="ours"))
    add(sides, "head", "ACTIONS['lost host'] = lambda: (act(), os.kill(os.getppid(), signal.SIGKILL), hang())\n")
    with pytest.raises(RunFailed, match="killed by SIGKILL"):
        sides.run(toy(do="lost host", rank=0), side="head")

    assert state((tmp_path / "pid").read_text().strip()) is None


def test_a_suite_that_is_killed_leaves_no_stopped_host(tmp_path, started):
    """A stopped host hears nothing, and goes all the same when its suite does."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1].split(':')\n"
        "import os, signal, pathlib\n"
        "from trainpace.launch.distributed import Distributed\n"
        "from trainpace.launch.host_client import Side\n"
        "from trainpace.probe.device import present\n"
        "import test_quiet\n"
        "one, other = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])\n"
        "with Distributed(machine=present(), cache=one, step_timeout=60.0,\n"
        "                 sides={'base': Side(checkout=one, apart=(other,), folder=one)}) as fleet:\n"
        "    fleet.run(test_quiet.toy(), side='base')\n"
        "    assert test_quiet.state(fleet.pool.pids[0]) == 'T'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        shutil.copy(TOY / "toy_trainer.py", folder / "ours.py")
    paths = ":".join([*sys.path, os.path.dirname(__file__)])  # noqa: PTH120
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script, paths, one, other], env=environment, check=False)

    assert done.returncode == -signal.SIGKILL
    assert started.left() == []


def test_stopping_waits_until_nothing_runs(started):
    """Also of what starts others all the time."""
    process = subprocess.Popen([sys.executable, "-c", FORKS], start_new_session=True)
    time.sleep(0.2)
    quiet.stop(process.pid)
    first = proc.descendants(process.pid)
    states = {state(pid) for pid in first | {process.pid}}
    time.sleep(0.1)

    assert "T" in states
    assert states <= {"T", "Z"}
    assert proc.descendants(process.pid) == first
    assert quiet.end(process.pid) == first
    process.wait()
