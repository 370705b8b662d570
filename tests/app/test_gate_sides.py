"""What one side does to the other, to its files or to the judge is found: the toy's head, slower than its base."""

import pytest

OPTIONS = ("-k", "8k", "--perf-warmup=1", "--perf-steps=6", "--perf-detect=0.2")
# Stops the base's ranks for half of the time.
STOPS_THE_BASE = """
import os, signal, sys, time
from pathlib import Path
def ranks():
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                words = (each / "cmdline").read_bytes().decode().split("\\0")
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if words[-2:-1] and f'"checkout": "{sys.argv[1]}"' in words[-2]:
                found.append((int(each.name), parent))
    hosts = {pid for pid, _ in found}
    return [pid for pid, parent in found if parent in hosts]
while True:
    pids = ranks()
    for how in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            try:
                os.kill(pid, how)
            except OSError:
                pass
        time.sleep(0.01)
"""

# Has the base's run host, and so its ranks, run on one core behind everybody else.
SLOWS_THE_BASE = """
import os
from pathlib import Path
plain = Toy.forward_backward
def forward(self, batch):
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and '"checkout": "{base}"' in (each / "cmdline").read_text():
                os.setpriority(os.PRIO_PROCESS, int(each.name), 19)
        except OSError:
            continue
    return plain(self, batch)
Toy.forward_backward = forward
"""


@pytest.fixture
def compare(repository, tmp_path, started):
    """Runs the base with a head whose steps are slower by half and that executes `attack` when it is imported."""

    def run(attack="", *options, slower=True, **environment):
        head = repository.copy(tmp_path / "head")
        trainer = head.path / "training.py"
        text = trainer.read_text().replace('"seconds": 0.005', '"seconds": 0.0075' if slower else '"seconds": 0.005')
        (trainer).write_text(text + attack)
        done = repository.suite(*OPTIONS, "--perf-head=../head", *options, environment=environment)
        assert started.left() == []
        return done

    return run


def child(program, *arguments):
    """Starts a program that has left its session, and whose parent and environment are gone."""
    words = ["-c", program, *arguments]
    return (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execve(sys.executable, [sys.executable, *{words!r}], {{}})\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )


def test_without_an_attack(compare):
    """The slower head is a regression."""
    assert compare().code == 1


def test_sigstop_base(compare, repository):
    """What head's import starts, and would stop the base's ranks, makes its runs invalid, and is gone in the end."""
    done = compare(child(STOPS_THE_BASE, str(repository.path)))

    assert done.code == 7
    assert "expected nothing to run when its ranks had ended, got process" in done.text


def test_nice_affinity(compare, repository):
    """Head's ranks give the base's host another priority: the base is not measured like that, and both are said."""
    done = compare(SLOWS_THE_BASE.replace("{base}", str(repository.path)))

    assert done.code == 7
    assert "expected nice 0" in done.text
    assert "got nice 19" in done.text
