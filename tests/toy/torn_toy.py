"""A toy with torch whose second rank hangs as soon as it is forked: the first one waits for it at the rendezvous."""

import os
import time

from torch import distributed
from toy_trainer import Toy

forks = []
os.register_at_fork(before=lambda: forks.append(1), after_in_child=lambda: time.sleep(600 if len(forks) == 2 else 0))


class TornToy(Toy):
    """Joins the process group, as trainers do."""

    def setup(self, context):
        distributed.init_process_group("gloo")
        super().setup(context)
