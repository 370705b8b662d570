"""The comparisons of one session: several training systems on one case, measured in rounds."""

from trainpace.app.speed import Speed
from trainpace.cases.published import Case
from trainpace.errors import RunFailed, Skipped
from trainpace.judge.command import Command
from trainpace.judge.finding import Finding, systems_finding
from trainpace.plan.systems import DEFAULT_ROUNDS, ComparedSystem, SystemsPlan
from trainpace.plan.task import Task, drive
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.trainers.external import Typed, is_external, load


def compare(test: str, case: Case, speed: Speed, command: Command) -> Finding:
    """Measure every trainer of the session on `case`; `command` is that of the test.

    Raises:
        FileError: for a description that cannot be used.
        DeviceBusy: where another suite holds the device.
    """
    try:
        systems = [_system(speed, case, trainer) for trainer in speed.options.trainers]
    except RunFailed as failure:  # it cannot be cut to this machine
        return Finding(case=case.id, verdict=Verdict.INVALID, reasons=(str(failure),))
    plan = SystemsPlan(test, case, systems, rounds=speed.options.runs_per_case or DEFAULT_ROUNDS)

    def measure(task: Task) -> Run | RunFailed | Skipped:
        return speed.driver.measure(task, plan)

    drive(plan, measure)
    for system in systems:
        typed = speed.driver.commands.get(system.trainer, Typed(command.typed()))
        system.command, system.files = typed.command, typed.files
    return systems_finding(plan.compared(speed.workloads.device_of(systems[0].workload)), plan.detail)


def _system(speed: Speed, case: Case, trainer: str) -> ComparedSystem:
    workload = speed.workloads.resolve(case, trainer).workload
    if not is_external(trainer):
        title = f"native ({workload.engine})" if trainer == "native" else trainer
        return ComparedSystem(trainer=trainer, title=title, workload=workload)
    description = load(trainer)
    system = ComparedSystem(
        trainer=trainer, title=description.title, workload=workload, footnotes=description.footnotes
    )
    try:
        speed.resources.start_programs().check(description, workload)
    except Skipped as reason:
        system.drop("skipped", str(reason))
    return system
