"""Load of a rank's cores by others, and the choice of quiet ones."""

import os
import subprocess
import sys

import pytest

from trainpace.rank import load, proc
from trainpace.rank.load import Core, Look

HERE = min(os.sched_getaffinity(0))
ELSEWHERE = 4_000
"""No core of this machine."""
NOBODY = 2**22 + 1
"""The first process id that no kernel gives: such a process has run where its last line says."""
FOREIGN = NOBODY + 100
"""A process session that is not this test's, whose own may be 0: it was begun outside of a container."""


def process(number, seconds, *, core=HERE, session=FOREIGN, name="firefox", started="1"):
    return proc.Stat(
        pid=NOBODY + number,
        name=name,
        parent=1,
        session=session,
        cpu_seconds=seconds,
        started=started,
        resident_bytes=1,
        core=core,
    )


def looks(before, after, busy=(10.0, 12.0)):
    """Two looks, two seconds apart."""
    return [
        Look(seconds, spent, {each.pid: each for each in processes})
        for seconds, spent, processes in zip((100.0, 102.0), busy, (before, after), strict=True)
    ]


def test_load_by_others():
    """What the session did not do on these cores others did; those that ran there are named, the busiest first."""
    ours = os.getsid(0)
    before = [process(0, 5.0, session=ours), process(1, 7.0), process(2, 1.0, core=ELSEWHERE), process(3, 1.0)]
    after = [
        process(0, 6.0, session=ours),
        process(1, 7.3),
        process(2, 3.0, core=ELSEWHERE),
        process(3, 1.01),
        process(4, 0.6, name="cc1", started="2"),
        process(5, 0.2, session=FOREIGN + 1, name="pytest"),
    ]

    found = load.between(*looks(before, after), watch=[NOBODY + 5])

    assert (found["window_seconds"], found["busy_cpu_seconds"]) == (2.0, 2.0)
    assert found["own_cpu_seconds"] == pytest.approx(1.2)
    assert [(each["name"], each["pid"]) for each in found["others"]] == [("cc1", NOBODY + 4), ("firefox", NOBODY + 1)]
    assert found["others"][1]["cores"] == pytest.approx(0.15)


def test_own_work_on_other_cores_is_not_this_ranks():
    """Another rank of the session, bound to another core, takes nothing from what others did on this one."""
    ours = os.getsid(0)
    found = load.between(
        *looks([process(0, 1.0, session=ours, core=ELSEWHERE)], [process(0, 3.0, session=ours, core=ELSEWHERE)]), []
    )

    assert found["own_cpu_seconds"] == 0


def test_a_number_that_was_given_anew_is_another_process():
    """A process that has the number of one that ended began at nothing."""
    found = load.between(*looks([process(0, 50.0)], [process(0, 0.5, started="9")]), [])

    assert found["others"][0]["cores"] == pytest.approx(0.25)


def test_cores_that_the_kernel_does_not_tell_of():
    """Where a core is missing from the kernel's list, what was done on it is not known."""
    assert proc.busy_seconds({HERE, ELSEWHERE}) is None
    assert (proc.busy_seconds({HERE}) or 0) > 0
    assert load.between(*looks([], [], busy=(None, None)), [])["busy_cpu_seconds"] is None


def test_a_name_is_readable():
    """A process may call itself anything: what no terminal should print is replaced."""
    code = "import os; open('/proc/self/comm', 'w').write('a)\\x1b[2J\\n'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        found = proc.stat(started.pid)
        started.kill()

    assert found.name == "a)?[2J?"
    assert found.parent == os.getpid()
    assert found.core in range(os.cpu_count() or 1)


FOUR = [Core(0), Core(1), Core(2), Core(3)]
PAIRS = [Core(number, siblings=frozenset({number ^ 1})) for number in range(4)]


@pytest.mark.parametrize(
    ("count", "cores", "expected"),
    [
        (2, FOUR, [0, 1]),
        (2, [Core(0, 1.0), Core(1), Core(2, 0.3), Core(3)], [1, 3]),
        (2, [Core(0, 0.05), Core(1), Core(2), Core(3)], [0, 1]),
        (2, PAIRS, [0, 2]),
        (3, PAIRS, [0, 2, 1]),
        (1, [Core(0, speed=2.0e6), Core(1, speed=5.0e6, busy=0.5), Core(2, speed=5.1e6, busy=0.9)], [1]),
        (2, [Core(0, speed=5.1e6), Core(1, speed=2.0e6), Core(2, speed=5.0e6)], [0, 2]),
        (5, [Core(4), Core(7)], [4, 7, 4, 7, 4]),
    ],
    ids=["quiet", "busy", "a tick", "siblings", "more than physical", "slow kind", "boost", "fewer than ranks"],
)
def test_choice_of_cores(count, cores, expected):
    """Fast kinds first, then whole physical cores, then quiet ones, then low numbers."""
    assert load.choose(count, cores) == expected


def test_quiet_cores_are_this_process_s():
    """What is chosen is among the cores that this process may use; where there is no choice none is looked at."""
    allowed = os.sched_getaffinity(0)

    assert set(load.quiet_cores(len(allowed))) == allowed
    assert set(load.quiet_cores(1)) < allowed or len(allowed) == 1
