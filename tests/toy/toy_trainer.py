"""A trainer without torch that sleeps instead of training, and misbehaves as a test wishes.

The wishes are a JSON object in the variable TRAINPACE_TOY; those in a workload's `shape.config` stand above them:

    seconds, optimizer    how long a step and the optimizer sleep
    say                   what every rank prints when it sets up
    identity              what the trainer says that its losses belong to
    child                 `plain` or `detached`: a process of its own that every rank starts and forgets
    do                    what goes wrong: a key of ACTIONS
    command               what `do: "command"` runs in a shell
    relay                 a FIFO: where `do: "relay"` has the rank's lines go instead of into their file
    case, rank, step      where it does: a case's id (None: any), a rank, a step from 0 on (SETUP: before the first)
    part                  in which part of the step: `forward_backward` or `load`
    slow                  seconds that its steps take more there, whatever `do` says
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
    "command": "true",
    "relay": None,
    "case": None,
    "rank": 1,
    "step": 2,
    "part": "forward_backward",
    "slow": 0.0,
    "mark": None,
}


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def fail(error):
    raise error


def hang():
    time.sleep(600)


def step_the_clock_back():
    """As an administrator does: every later look at the calendar, in this process, is an hour too early."""
    now = time.time
    time.time = lambda: now() - 3600


def relay_lines(fifo):
    """Hand the lines of this rank to whoever reads `fifo`."""
    for fd in Path("/proc/self/fd").iterdir():
        if fd.is_symlink() and fd.readlink().suffix == ".jsonl":
            os.dup2(os.open(fifo, os.O_WRONLY), int(fd.name))


ACTIONS = {
    "nothing": lambda: None,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "kill host": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "exit": lambda: os._exit(0),
    "raise": lambda: fail(ValueError("the toy broke\nin two lines")),
    "raise hostile": lambda: fail(ValueError("\ud800broke \x1b]0;owned\x07\x1b[2J\x1b]52;c;eA==\x07")),
    "leave": lambda: sys.exit("the toy left"),
    "no memory": lambda: fail(MemoryError("no more")),
    "no GPU memory": lambda: fail(OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    "hang": hang,
    "clock": step_the_clock_back,
    "NaN": lambda: float("nan"),
    "text": lambda: "no number",
    "print": lambda: [os.write(fd, b'{"event": "ended", "exits": []}\n\xff\x00 garbage\n' * 1000) for fd in (1, 2)][:0],
}


class Toy:
    """Sleeps its steps, and does what it was told where it was told."""

    def setup(self, context):
        shape = context.workload.shape
        self.wishes = DEFAULTS | json.loads(os.environ.get("TRAINPACE_TOY", "{}")) | (shape.config if shape else {})
        self.data_identity = self.wishes["identity"]
        here = {"case": context.workload.case, "rank": context.rank}
        self.here = all(self.wishes[key] in (value, None) for key, value in here.items())
        if self.wishes["say"]:
            print(self.wishes["say"])  # noqa: T201 - what trainers do
        if self.wishes["child"]:
            subprocess.Popen(["sleep", "600"], start_new_session=self.wishes["child"] == "detached")  # noqa: S607
        self.actions = ACTIONS | {
            "command": lambda: subprocess.run(self.wishes["command"], shell=True, check=True),  # noqa: S602
            "relay": lambda: relay_lines(self.wishes["relay"]),
        }
        self.act(SETUP, "setup")

    def act(self, step, part="forward_backward"):
        """Go wrong where it is asked for; returns the loss of the step."""
        if not self.here or step != self.wishes["step"] or part not in {"setup", self.wishes["part"]}:
            return 1.0
        if self.wishes["mark"]:
            Path(self.wishes["mark"]).touch()
        loss = self.actions[self.wishes["do"]]()
        return loss if isinstance(loss, float | str) else 1.0

    def load(self, step):
        self.act(step, "load")
        return step

    def forward_backward(self, batch):
        time.sleep(self.wishes["seconds"] + self.here * self.wishes["slow"])
        return self.act(batch)

    def optimizer_step(self):
        time.sleep(self.wishes["optimizer"])


toy = Toy()
