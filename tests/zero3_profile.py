"""What a step of ZeRO-3 is made of: CPU milliseconds in DeepSpeed, products, attention, the rest, by trainer.

    tox run -e zero3-profile -- --trainer native --trainer hf --ranks 2 --steps 120

CPU time and not wall time, so that other work on the machine lengthens it by a factor and adds nothing. A step's is the
fastest tenth of a run without a profiler; the shares are py-spy's, of rank 0 in a second run, C++ frames included.
"""

import argparse
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import resolve
from trainpace.data.base import Data
from trainpace.launch.external import placeholders
from trainpace.probe.device import present
from trainpace.trainers import external
from trainpace.trainers.export import exported
from trainpace.trainers.recipe import deepspeed_config

SKIPPED = 10
"""Steps before those that are looked at: DeepSpeed records the order of its modules in the first two."""
PACKAGE = re.compile(r"\((?:[^()]*/)?(deepspeed|transformers|accelerate|datasets|trainpace)/([^():]*):\d+\)")
PRODUCT = re.compile(r"at::_ops::(mm|addmm|bmm|baddbmm|baddbmm_|matmul|linear)::|gemm")


def part_of(frames):
    """Whose a sample is: the innermost frame that tells says it."""
    found = ((index, named(frames[index])) for index in reversed(range(len(frames))))
    index, part = next(((index, part) for index, part in found if part), (0, "trainer and data"))
    # Between a call of the backward and its operators stands nobody's Python.
    ran_by_autograd = any("_engine_run_backward" in each for each in frames[index + 1 :])
    callers = ("trainer and data", "DeepSpeed's engine")
    return "autograd" if ran_by_autograd and part in callers else part.replace("engine", "Python")


def named(frame):
    """The part that a frame tells, innermost of a sample; None where it is anybody's, as torch's own Python."""
    tells = {
        "products": PRODUCT.search(frame),
        "attention": re.search("scaled_dot_product|flash_attention", frame),
        "collectives": re.search("ProcessGroup|gloo|c10d", frame),
    }
    if (part := next((part for part, match in tells.items() if match), None)) is not None:
        return part
    if (found := PACKAGE.search(frame)) is None:
        return None
    package, file = found.groups()
    if package == "deepspeed":
        return "DeepSpeed's engine" if file.startswith("runtime/engine") else "DeepSpeed's Python"
    wheres = {"attention": "attention|masking_utils", "loss": "loss", "model": "models?[/.]|modeling|activations"}
    return next((part for part, where in wheres.items() if re.search(where, file)), "trainer and data")


def shares(raw):
    """Of a text of py-spy's format `raw`: the share of each part."""
    parts = Counter()
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        if "rank_main" not in stack:
            parts["other threads"] += int(number)
        elif ".mark (" not in stack:
            parts[part_of(stack.split(";"))] += int(number)
    return {part: number / parts.total() for part, number in parts.most_common()}


def rank_main(file):
    """One rank: every step's CPU seconds so far, and py-spy on rank 0 between the skipped steps and the last."""
    asked = json.loads(Path(file).read_text())
    first, spying, marks = os.environ["RANK"] == "0", [], []

    def mark():
        marks.append(time.process_time())
        if first and asked["spy"] and len(marks) == SKIPPED:
            command = ["py-spy", "record", "--native", "--rate", "400", "--format", "raw", "--duration", "900"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            spying.append(subprocess.Popen([*command, "--output", asked["spy"], "--pid", str(os.getpid())], **quiet))
            time.sleep(3)
        if first and len(marks) == asked["steps"]:
            for each in spying:
                each.send_signal(signal.SIGINT)
                each.wait()
            Path(asked["out"]).write_text(json.dumps(marks))

    (native if asked["trainer"] == "native" else hf)(asked, mark)


def native(asked, mark):
    """Train with the native trainer."""
    import torch

    from trainpace.rank.loop import namespace
    from trainpace.trainers.native import Native

    torch.set_num_threads(1)
    workload, rank = namespace(asked["workload"]), int(os.environ["RANK"])
    trainer = Native()
    trainer.setup(
        SimpleNamespace(
            workload=workload,
            rank=rank,
            local_rank=rank,
            world_size=workload.ranks,
            device="cpu",
            data=Data(),
            cache=Path(asked["cache"]),
            note=lambda _: None,
        )
    )
    for step in range(asked["steps"]):
        trainer.forward_backward(trainer.load(step))
        trainer.optimizer_step()
        mark()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def hf(asked, mark):
    """Train with the program of systems/hf.toml, and a callback that marks."""
    import transformers.trainer

    class Mark(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            mark()

    transformers.trainer.DEFAULT_CALLBACKS.append(Mark)
    sys.argv = ["hf_trainer.py", asked["request"]]
    runpy.run_path(str(external.BUILT_IN / "hf_trainer.py"), run_name="__main__")


def run(trainer, ranks, steps, folder, cache, *, spy):
    """CPU milliseconds of a step, the fastest tenth, and py-spy's shares where asked for."""
    case = next(case for case in PUBLISHED if case.id == "llama2_7b-8k-sp1")
    machine = present()
    workload = resolve(case, machine, scale="mini", device="cpu", trainer=trainer, warmup=3, steps=steps).workload
    workload = workload.model_copy(update={"ranks": ranks})
    asked = {"trainer": trainer, "steps": steps, "workload": workload.model_dump(), "cache": str(cache)}
    asked |= {"out": str(folder / "cpu.json"), "spy": str(folder / "spy.raw") if spy else ""}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "DEEPSPEED_LOG_LEVEL": "error", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": str(29600 + os.getpid() % 300), "WORLD_SIZE": str(ranks)}
    environment |= {"LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    if trainer != "native":
        description, kept = external.load(trainer), cache / "systems" / trainer
        kept.mkdir(parents=True, exist_ok=True)
        values = placeholders(
            workload,
            exported(workload, Data(), cache),
            folder=description.folder,
            work=folder,
            cache=kept,
            python=sys.executable,
            device="cpu",
            cores=machine.cpu.count,
        ) | {"optimizer_steps": str(steps)}
        for name, text in description.files.items():
            (folder / name).write_text(external.filled(text, values, where=trainer))
        config = deepspeed_config(workload) | {"zero_allow_untested_optimizer": True}
        (folder / "zero3.json").write_text(json.dumps(config))
        environment |= {k: external.filled(v, values, where=trainer) for k, v in description.environment.items()}
        asked["request"] = str(folder / "train.json")
    (folder / "asked.json").write_text(json.dumps(asked))
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "rank", str(folder / "asked.json")],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"rank-{rank}.log").open("w"),
        )
        for rank in range(ranks)
    ]
    ended = [process.wait() for process in processes]
    if any(ended):
        sys.exit((folder / "rank-0.log").read_text()[-4000:])
    marks = json.loads((folder / "cpu.json").read_text())[SKIPPED:]
    times = sorted(after - before for before, after in pairwise(marks))
    return 1e3 * times[len(times) // 10], shares((folder / "spy.raw").read_text()) if spy else {}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", action="append", choices=["native", "hf"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    typed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        for trainer in typed.trainer or ["native", "hf"]:
            work = Path(folder, trainer)
            work.mkdir()
            cpu, _ = run(trainer, typed.ranks, typed.steps, work, cache, spy=False)
            _, parts = run(trainer, typed.ranks, typed.steps, work, cache, spy=True)
            sys.stdout.write(f"{trainer}, {typed.ranks} ranks: {cpu:.1f} ms of CPU time a step\n")
            for part, share in parts.items():
                sys.stdout.write(f"  {part:20} {share:6.1%} {cpu * share:6.1f} ms\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank_main(sys.argv[2])
    else:
        main()
