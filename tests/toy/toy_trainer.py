"""A trainer without torch that sleeps instead of training, and misbehaves as a test wishes.

The wishes are a JSON object in the variable TOY; those in a workload's `shape.config` stand above them:

    seconds, optimizer    how long a step and the optimizer sleep
    say                   what every rank prints when it sets up
    identity              what the trainer says that its losses belong to
    child                 `plain` or `detached`: a process of its own that every rank starts and forgets
    do                    what goes wrong: a key of ACTIONS
    case, rank, step      where it does: a case's id (None: any), a rank, a step from 0 on (SETUP: before the first)
    mark                  a file that is written just before
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SETUP = -1
DEFAULTS = {
    "seconds": 0.005,
    "optimizer": 0.001,
    "say": None,
    "identity": None,
    "child": None,
    "do": "nothing",
    "case": None,
    "rank": 1,
    "step": 2,
    "mark": None,
}


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def fail(error):
    raise error


def hang():
    time.sleep(600)


ACTIONS = {
    "nothing": lambda: None,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "kill host": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "exit": lambda: os._exit(0),
    "raise": lambda: fail(ValueError("the toy broke\nin two lines")),
    "leave": lambda: sys.exit("the toy left"),
    "no memory": lambda: fail(MemoryError("no more")),
    "no GPU memory": lambda: fail(OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    "hang": hang,
    "NaN": lambda: float("nan"),
    "text": lambda: "no number",
    "print": lambda: [os.write(fd, b'{"event": "ended", "exits": []}\n\xff\x00 garbage\n' * 1000) for fd in (1, 2)][:0],
}


class Toy:
    """Sleeps its steps, and does what it was told where it was told."""

    def setup(self, context):
        config = vars(context.workload.shape.config)
        self.wishes = DEFAULTS | json.loads(os.environ.get("TOY", "{}")) | config
        self.data_identity = self.wishes["identity"] and vars(self.wishes["identity"])
        here = {"case": context.workload.case, "rank": context.rank}
        self.here = all(self.wishes[key] in (value, None) for key, value in here.items())
        if self.wishes["say"]:
            print(self.wishes["say"])  # noqa: T201 - what trainers do
        if self.wishes["child"]:
            subprocess.Popen(["sleep", "600"], start_new_session=self.wishes["child"] == "detached")  # noqa: S607
        self.act(SETUP)

    def act(self, step):
        """Go wrong where it is asked for; returns the loss of the step."""
        if not self.here or step != self.wishes["step"]:
            return 1.0
        if self.wishes["mark"]:
            Path(self.wishes["mark"]).touch()
        loss = ACTIONS[self.wishes["do"]]()
        return loss if isinstance(loss, float | str) else 1.0

    def load(self, step):
        return step

    def forward_backward(self, batch):
        time.sleep(self.wishes["seconds"])
        return self.act(batch)

    def optimizer_step(self):
        time.sleep(self.wishes["optimizer"])


toy = Toy()
