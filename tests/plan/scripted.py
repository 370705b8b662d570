"""Sessions whose runs are answers of a script: the real plans and findings, no processes. README.md beside the records
says what a script holds."""

import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import factories
from trainpace.app import driver, kept, speed
from trainpace.app.hours import Selected
from trainpace.app.messages import Messages
from trainpace.app.options import Gate, Options
from trainpace.app.sides import Sides
from trainpace.app.suite import Suite
from trainpace.cases import PUBLISHED, scaling
from trainpace.cases.machine import Device, Machine
from trainpace.cases.scaling import resolve
from trainpace.errors import RunFailed, Skipped
from trainpace.launch.host_client import Side
from trainpace.plan.paired import MinEffects
from trainpace.runs.run import Health, RunNode
from trainpace.store import baselines as baseline_store
from trainpace.store.baselines import refresh
from trainpace.store.runs import write_run
from trainpace.trainers.external import Typed

CASES = {case.id: case for case in PUBLISHED}
EPOCH = datetime(2026, 11, 25, tzinfo=UTC)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
PYTHON = "3.11.7"
SOFTWARE = {"python": PYTHON, "torch": "2.13.0"}
REVISION = "0123456789abcdef0123456789abcdef01234567"
A100 = Device(slug="a100-sxm4-80gb", name="NVIDIA A100-SXM4-80GB", kind="cuda", count=8, memory_bytes=80 << 30)
MACHINES = {
    "cpu": Machine(gpus=None, cpu=factories.CPU, free_bytes=8 << 30),
    "8xa100": Machine(gpus=A100, cpu=factories.CPU, gpu_free_bytes=80 << 30, free_bytes=64 << 30),
}
DEFAULTS = {
    "scale": "mini",
    "runs_per_case": None,
    "tolerance": None,
    "refresh": False,
    "max_spread": 0.10,
    "accept_slower": None,
    "accepted": None,
    "max_minutes": None,
    "steps": None,
    "warmup": None,
    "keep": False,
    "detect": 0.05,
    "detect_of": {},
    "max_pairs": None,
    "new_numerics": None,
    "self_test": False,
    "explain": False,
}
"""Of a script's `options`."""


MINI_STEPS_THEN = ((512, 3, 40), (1024, 3, 20), (2048, 2, 16), (4096, 2, 8), (None, 2, 4))
"""The steps of mini scale when the sessions were recorded."""


class Frozen(datetime):
    """now() is always NOW."""

    @classmethod
    def now(cls, tz=None):
        return NOW


class Clock:
    """Seconds; measurements move it on."""

    now = 0.0

    def monotonic(self):
        return self.now


def fixed(monkeypatch):
    """Fix what a session looks up: dates, versions, the revision, the mini sizes of then; the clock that measurements
    move on."""
    clock = Clock()
    monkeypatch.setattr(scaling, "MINI_CUT_UP_TO", 1 << 30)
    monkeypatch.setattr(scaling, "MINI_STEPS", MINI_STEPS_THEN)
    monkeypatch.setattr(scaling, "MOST_MINI_SP", 4)
    monkeypatch.setattr(baseline_store, "datetime", Frozen)
    monkeypatch.setattr(driver, "time", clock)
    monkeypatch.setattr(speed, "revision", lambda _: REVISION)
    monkeypatch.setattr(speed, "platform", SimpleNamespace(python_version=lambda: PYTHON))
    monkeypatch.setattr(speed, "versions", lambda _: dict(SOFTWARE))
    monkeypatch.setattr(speed, "data_names", lambda *_: (("generated",), "bytes"))
    assert kept.data_names  # it is looked up in speed
    return clock


def workload_of(case_id, trainer="native", machine="cpu", **options):
    """What a case is at a script's scale."""
    given = DEFAULTS | options
    return resolve(
        CASES[case_id],
        MACHINES[machine],
        scale=given["scale"],
        trainer=trainer,
        engine="deepspeed" if trainer == "native" else "own",
        warmup=given["warmup"],
        steps=given["steps"],
    ).workload


def run_of(answer, workload, number, device):
    """The run that an answer describes; `number` is that of the call within the session: the run's id and start."""
    run = factories.make_run(
        workload=workload,
        tgs=answer["tgs"],
        seed=number,
        device=device,
        health=Health(
            foreign_cores=answer.get("foreign_cores"),
            faults=tuple(answer.get("faults", ())),
            notes=tuple(answer.get("notes", ())),
        ),
        losses=tuple(answer.get("losses", factories.LOSSES)),
        peak_memory_bytes=answer.get("memory", 1 << 30),
        warmup_factor=2.0,
        software=answer.get("software", SOFTWARE),
        revision=answer.get("revision", REVISION),
        startup_seconds=answer.get("startup", 2.0),
        data=factories.DATA.model_copy(update={"seed": answer.get("data_seed", 0)}),
        started=(EPOCH + timedelta(minutes=number)).isoformat(timespec="seconds"),
    )
    ranks = run.ranks
    if "yardstick" in answer:
        ranks = tuple(rank.model_copy(update={"yardstick_seconds": answer["yardstick"]}) for rank in ranks)
    if "slow_ranks" in answer:
        ranks = tuple(_slowed(rank, 1 + answer["slow_by"], set(answer["slow_ranks"])) for rank in ranks)
    update = {"ranks": ranks}
    if "nodes" in answer:
        share = workload.ranks // len(answer["nodes"])
        update["nodes"] = tuple(RunNode(name=name, ranks=share) for name in answer["nodes"])
    if "stopped_after" in answer:
        made = update["stopped_after"] = answer["stopped_after"]
        update["ranks"] = tuple(_shortened(rank, workload, made) for rank in ranks)
    if answer.get("no_data"):
        update["data"] = None
    if answer.get("reported"):
        silent = update["ranks"][0].model_copy(update={"losses": None, "data_seconds": None})
        update |= {"source": "reported", "ranks": (silent,)}
    elif answer.get("no_losses"):
        silent = update["ranks"][0].model_copy(update={"losses": None})
        update |= {"source": "reported", "ranks": (silent,)}
    return run.model_copy(update=update)


def _slowed(rank, by, slow):
    if rank.rank not in slow:
        return rank
    lists = {name: [each * by for each in getattr(rank, name)] for name in ("seconds", "optimizer_seconds")}
    return rank.model_copy(update=lists)


def _shortened(rank, workload, made):
    return rank.model_copy(
        update={
            "seconds": rank.seconds[:made],
            "data_seconds": rank.data_seconds[:made],
            "optimizer_seconds": rank.optimizer_seconds[: max(1, made // workload.accumulation)],
            "losses": rank.losses[: workload.warmup + made],
        }
    )


class Cut(BaseException):
    """The session is cut off, as by a signal."""


class Scripted:
    """One session under a script."""

    def __init__(self, script, folder, clock, *, answered=None, cut_after=None, resume=False, replay=None):
        self.script, self.folder, self.clock = script, folder, clock
        self.device = MACHINES[script["machine"]].device if script["options"].get("scale") == "full" else factories.CPU
        options = DEFAULTS | script["options"]
        self.answered = dict(answered or {})
        self.number = sum(self.answered.values())
        self.cut_after = cut_after
        self.asked, self.kept, self.under_way = [], [], None
        self.runs_folder = folder / "runs" if options["keep"] and replay is None else None
        gate = Gate(
            folder=folder,
            head="head",
            python=None,
            build=None,
            detect=MinEffects(options["detect"], tuple(options["detect_of"].items())),
            max_pairs=options["max_pairs"],
            new_numerics=options["new_numerics"],
            explain=options["explain"],
            self_test=options["self_test"],
        )
        self.suite = suite = Suite(
            options=Options(
                scale=options["scale"],
                dtype="bf16",
                engine="deepspeed",
                trainers=tuple(script["trainers"]),
                pythons={},
                varlen=False,
                data=(),
                tokenizer="bytes",
                warmup=options["warmup"],
                steps=options["steps"],
                runs_per_case=options["runs_per_case"],
                tolerance=options["tolerance"],
                baselines=folder / "baselines",
                runs=self.runs_folder,
                resume=resume,
                report=None,
                replay=(replay,) if replay else (),
                against_runs=(folder / "against",) if script.get("against_runs") else (),
                refresh=options["refresh"],
                max_spread=options["max_spread"],
                accept_slower=options["accept_slower"],
                accepted=options["accepted"],
                require_verdict=False,
                step_timeout=None,
                launcher="local",
                slurm=(),
                shared=None,
                max_minutes=options["max_minutes"],
                max_hours=None,
                gate=gate if script["kind"] == "paired" else None,
            ),
            root=folder,
            show=lambda *_: nullcontext(lambda *_: None),
            messages=Messages(),
        )
        clock.now = suite.speed.driver._began = 0.0
        suite.speed._announced = True
        resources, self.driver = suite.resources, suite.speed.driver
        resources.machine = MACHINES[script["machine"]]
        self.driver.train, suite.workloads.resolve = self.train, self.resolve
        self._keep, self.driver._keep = self.driver._keep, self.keep
        resources.start_programs = lambda: SimpleNamespace(check=self.check, versions=lambda _: dict(SOFTWARE))
        resources.start_hosts = lambda: SimpleNamespace(profile=self.profile)
        resources._sides = Sides(
            base=Side(checkout=folder),
            head=Side(checkout=folder / "head"),
            base_name="1a2b3c4",
            head_name="5d6e7f8",
            changed=tuple(script.get("changed", ())),
        )
        trainer = script["trainers"][0]
        selected = [
            Selected(test=each["case"], case=CASES[each["case"]], trainer=each.get("trainer", trainer))
            for each in script["cases"]
        ]
        suite.select(selected, [])

    # What the suite calls

    def resolve(self, case, trainer):
        entry = next(each for each in self.script["cases"] if each["case"] == case.id)
        if "unresolved" in entry:
            raise RunFailed(entry["unresolved"])
        return SimpleNamespace(workload=workload_of(case.id, trainer, self.script["machine"], **self.script["options"]))

    def check(self, description, workload):
        if why := self.script.get("absent", {}).get(description.name):
            raise Skipped(why)

    def profile(self, *_, **__):
        raise RunFailed("no profiler in this recording")

    def keep(self, run, *, replaced, folder):
        entry = {"id": run.id, "case": run.workload.case, "after": len(self.asked), "folder": folder}
        self.kept.append(entry | {"replaced": replaced})
        self._keep(run, replaced=replaced, folder=folder)

    def train(self, task):
        if self.cut_after is not None and self.number >= self.cut_after:
            raise Cut
        key = f"{task.workload.case}/{task.side}"
        index = self.answered.get(key, 0)
        self.answered[key] = index + 1
        self.number += 1
        self.asked.append(
            {
                "case": task.workload.case,
                "side": task.side,
                "number": index,
                "title": task.label,
                "borders": list(task.stop_at),
                "for": self.under_way,
                "id": f"run{self.number}",
            }
        )
        answers = self.script["answers"].get(key) or [{"tgs": 1000.0}]
        answer = answers[min(index, len(answers) - 1)]
        self.clock.now += answer.get("seconds", self.script.get("seconds_per_run", 60.0))
        if "failed" in answer:
            raise RunFailed(answer["failed"], rank=answer.get("rank"), detail=answer.get("detail", ""))
        if "skipped" in answer:
            raise Skipped(answer["skipped"])
        self.driver.commands[task.workload.trainer] = Typed(f"run {task.workload.trainer}")
        return run_of(answer, task.workload, self.number, self.device)

    # What it says

    def measure(self):
        """Every test in order, as pytest would; True where the session was cut off."""
        self.findings = {}
        for each in self.suite.speed.selection:
            self.under_way = each.test
            try:
                if self.script["kind"] == "systems":
                    self.findings[each.test] = self.suite.find_systems(each.test, each.case)
                else:
                    self.findings[each.test] = self.suite.find_speed(each.test)
            except Cut:
                return True
        return False

    @property
    def files(self):
        """Names of the kept runs."""
        if self.runs_folder is None:
            return None
        return sorted(str(path.relative_to(self.runs_folder)) for path in self.runs_folder.rglob("*.json"))


def prepare(script, folder):
    """Baselines, quarantine, priorities and runs to be judged against, as the script has them."""
    baselines = folder / "baselines"
    baselines.mkdir(parents=True)
    for stored in script.get("baselines", ()):
        device = MACHINES[script["machine"]].device if script["options"].get("scale") == "full" else factories.CPU
        trainer = stored.get("trainer", script["trainers"][0])
        options = script["options"] | stored.get("options", {})
        workload = workload_of(stored["case"], trainer, script["machine"], **options)
        fields = {name: value for name, value in stored.items() if name not in {"case", "tgs", "options", "trainer"}}
        runs = [run_of(fields | {"tgs": tgs}, workload, number, device) for number, tgs in enumerate(stored["tgs"])]
        refresh(baselines, runs, max_spread=0.99, accept_slower=stored.get("accept_slower"))
    if script.get("quarantine"):
        (baselines / "quarantine.toml").write_text(
            "".join(
                f'[[case]]\ncase = "{each["case"]}"\nreason = "{each["reason"]}"\nuntil = {each["until"]}\n'
                f'who = "{each["who"]}"\n'
                for each in script["quarantine"]
            )
        )
    if script.get("priorities"):
        (folder / "perf-priorities.toml").write_text(
            "".join(
                f"[[priority]]\npaths = {json.dumps(each['paths'])}\ncases = {json.dumps(each['cases'])}\n"
                for each in script["priorities"]
            )
        )
    for number, (case, tgs) in enumerate(script.get("against_runs", ())):
        workload = workload_of(case, script["trainers"][0], script["machine"], **script["options"])
        write_run(run_of({"tgs": tgs}, workload, 1000 + number, factories.CPU), folder / "against")
