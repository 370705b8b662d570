"""torchtitan's description against torchtitan's own code, where that is installed (`tox run -e peer-torchtitan`).

It was never run by us: it needs a GPU. What its command line, its data and its logging are is asked of it.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from trainpace.cases.workload import Workload
from trainpace.launch.external import Programs, _files, placeholders
from trainpace.trainers.external import filled, load, read_claims

PYTHON = os.environ.get("TRAINPACE_TORCHTITAN")
pytestmark = pytest.mark.skipif(not PYTHON, reason="torchtitan's interpreter is not named: tox run -e peer-torchtitan")
PARTS = Path(__file__).parent / "peers" / "torchtitan_parts.py"
STEPS = [[256, 2.0, 7.5], [256, 0.125, 6.25], [256, 0.25, 12345.5], [256, 0.0625, 5.0]]
"""Tokens of one rank, seconds, loss."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What torchtitan's own code printed of the description's command line, and of known steps; the work folder."""
    description, work = load("torchtitan"), tmp_path_factory.mktemp("work")
    workload = Workload(
        case="llama3_8b-256-sp1",
        model="llama3_8b",
        scale="full",
        shape=None,
        sequence=256,
        ranks=2,
        sp=1,
        accumulation=1,
        warmup=1,
        steps=3,
        trainer="torchtitan",
        engine="own",
    )
    values = placeholders(
        workload, None, folder=description.folder, work=work, cache=work, python=PYTHON, device="cuda", cores=2
    )
    for name, text in _files(description, workload, values).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    command = Programs._program(description, workload, values)["command"]
    arguments = command[command.index("torchtitan.train") + 1 :]
    done = subprocess.run([PYTHON, PARTS, json.dumps(STEPS), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (work / "output.log").write_text(done.stdout)
    return done.stdout, work


def test_its_command_line_and_its_data(printed):
    """It takes every argument, as meant; its loader gives sequences of the case's length, of the words given to it."""
    told = json.loads(re.search("PARSED (.*)", printed[0])[1])

    assert told == {
        "steps": 4,
        "log_freq": 1,
        "input": [1, 256],
        "labels": [1, 256],
        "ids": [0, *range(3, 29)],
        "off": [False, False, False],
        "model": "8B",
    }


def test_its_own_log_is_read(printed):
    """What its logging writes of known steps comes back as these, to the whole tokens a second that it prints."""
    description = load("torchtitan")
    path = Path(filled(description.reading.path, {"work": str(printed[1])}, where="here"))
    claimed = read_claims(description.reading, path, ranks=2, tokens=256)

    assert claimed.seconds == tuple(seconds for _, seconds, _ in STEPS)
    assert claimed.losses == tuple(loss for _, _, loss in STEPS)
    assert len(re.findall(description.progress, printed[0])) == len(STEPS)
