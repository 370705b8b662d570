"""The seam between step loop and trainer, as it is described and as it is."""

import json
import subprocess
import sys
from pathlib import Path

import trainpace
from trainpace.trainers.protocol import Context, Trainer

ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from trainpace.rank import loop
class Trainer:
    def setup(self, context):
        print(json.dumps(sorted(vars(context))))
        raise SystemExit
sys.modules["asked"] = type(sys)("asked")
sys.modules["asked"].Trainer = Trainer
request = {"folder": sys.argv[2], "trainer": "asked:Trainer", "workload": {"ranks": 1}, "device": "cpu", "pin": True,
           "data": {}, "cache": sys.argv[2], "watch": []}
loop.main(request, 0, 0)
"""


def test_context_is_what_is_described(tmp_path):
    """The step loop gives a trainer exactly the fields that Context describes."""
    package = Path(trainpace.__file__).parents[1]
    command = [sys.executable, "-c", ASK, str(package), str(tmp_path)]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout

    assert json.loads(said) == sorted(Context.__annotations__)


def test_four_parts():
    """A trainer is four parts, in the order in which the step loop calls them."""
    parts = [name for name in vars(Trainer) if not name.startswith("_")]

    assert parts == ["setup", "load", "forward_backward", "optimizer_step"]
