"""A toy whose second rank hangs as soon as it is forked."""

import os
import time

from toy_trainer import Toy

__all__ = ["Toy"]
forks = []
os.register_at_fork(before=lambda: forks.append(1), after_in_child=lambda: time.sleep(600 if len(forks) == 2 else 0))
