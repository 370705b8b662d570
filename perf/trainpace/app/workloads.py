"""What the cases of a session are on this machine: workloads, their device, and the baselines of that."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from trainpace.app.messages import Messages
from trainpace.app.options import Options
from trainpace.app.resources import Resources
from trainpace.cases.machine import Device
from trainpace.cases.published import Case
from trainpace.cases.scaling import CannotStart, Resolved, resolve
from trainpace.cases.workload import Workload
from trainpace.cost.estimate import counted_memory
from trainpace.errors import DataError, RunFailed, UsageError
from trainpace.judge import baseline as baselines
from trainpace.judge.refresh import baselines_of
from trainpace.judge.tables import published
from trainpace.launch.environment import compiler_missing
from trainpace.store.baselines import load_baselines
from trainpace.store.costs import load_costs
from trainpace.store.runs import runs_in
from trainpace.trainers.external import as_trained, digest, is_external, load


@dataclass(kw_only=True)
class Workloads:
    """Cuts cases to the machine that was allocated, each once."""

    options: Options
    root: Path
    """The tests' root: baselines/ lies in it."""
    resources: Resources
    messages: Messages
    _resolved: list[tuple[Case, str, Resolved | RunFailed]] = field(default_factory=list)
    """Cases that were cut, their trainers, and what came of it. Different cases may have the same id."""

    @property
    def baselines_folder(self) -> Path:
        """Where this session reads and refreshes baselines."""
        return self.options.baselines or self.root / "baselines"

    def resolve(self, case: Case, trainer: str) -> Resolved:
        """Cut `case` to this machine; the reason goes to the report.

        Raises:
            RunFailed: where the asked-for scale cannot run here.
            UsageError: where the native trainer cannot run on these GPUs as asked.
        """
        found = next((each for cut, whose, each in self._resolved if (cut, whose) == (case, trainer)), None)
        if found is None:
            try:
                found = self._cut(case, trainer)
            except RunFailed as failure:
                found = failure
            self._resolved.append((case, trainer, found))
        if isinstance(found, RunFailed):
            raise found
        return found

    def device_of(self, workload: Workload) -> Device:
        """What `workload` is measured on."""
        return self.resources.allocate().device_for(workload)

    def baselines(self, device: Device) -> list[baselines.Published | baselines.Measured]:
        """Every baseline of `device` that this session judges against."""
        if self.options.against_runs:
            return [*baselines_of(runs_in(self.options.against_runs), device.slug)]
        stored = load_baselines([self.baselines_folder], device.slug)
        table = self.options.table
        return [*stored, *published(table, device.kind_slug)] if table else stored

    def _cut(self, case: Case, trainer: str) -> Resolved:
        options, machine = self.options, self.resources.allocate()
        cuts = baselines.proxy_cuts(self.baselines(machine.device), case.id)
        try:
            resolved = resolve(
                case,
                machine,
                scale=options.scale,
                device=options.device,
                dtype=options.dtype,
                attention="varlen" if options.varlen else "causal",
                trainer=trainer,
                engine=options.engine if trainer == "native" else "own",
                compiled=options.compile,
                warmup=options.warmup,
                steps=options.steps,
                # A user's own trainer has its own tokens.
                vocabulary=self._vocabulary if trainer == "native" else None,
                stored_cut=cuts[0] if cuts else None,
                memory=self._memory,
            )
        except CannotStart as error:
            raise UsageError(str(error)) from None
        except ValueError as error:
            raise RunFailed(str(error)) from None
        workload = resolved.workload
        compiles_here = trainer == "native" and workload.compile and options.launcher == "local"
        if compiles_here and (why := compiler_missing(machine.kind_for(workload))):
            raise UsageError(f"{case.id}: {why}")
        if is_external(trainer):
            resolved = self._as_trained(resolved, trainer)
        for text in (resolved.reason, *resolved.warnings):
            self.messages.say(f"{case.id}: {text}" if text in resolved.warnings else text)
        return resolved

    def _as_trained(self, resolved: Resolved, trainer: str) -> Resolved:
        """What an external system trains of a cut case: a program may have steps and a length of its own.

        Raises:
            RunFailed: where the case cannot be trained so.
        """
        description, asked = load(trainer), resolved.workload
        try:
            workload = as_trained(description, asked)
        except ValueError as error:
            raise RunFailed(f"{asked.case}: {description.title} trains what it trains: {error}") from None
        own = [
            f"{name} {getattr(workload, name)}"
            for name in ("warmup", "steps", "sequence", "ranks")
            if getattr(workload, name) != getattr(asked, name)
        ]
        if trainer.endswith(".toml"):
            workload = workload.model_copy(update={"description": digest(trainer)})
        said = f"{description.title} has its own {', '.join(own)}"
        return replace(resolved, workload=workload, warnings=(*resolved.warnings, said) if own else resolved.warnings)

    @cached_property
    def _memory(self) -> Callable[[Workload], int] | None:
        """Tells what fits a GPU; None where there is none, and nothing to fit."""
        machine = self.resources.allocate()
        return counted_memory(load_costs(self.baselines_folder).values()) if machine.gpus else None

    @cached_property
    def _vocabulary(self) -> int:
        """Ids that the tokenizer can give.

        Raises:
            RunFailed: where it is no tokenizer.
        """
        from trainpace.data import vocabulary_size

        try:
            return vocabulary_size(self.options.tokenizer)
        except DataError as error:
            raise RunFailed(str(error)) from None
