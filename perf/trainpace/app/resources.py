"""The processes, nodes and locks of one session: taken by calls, each at most once, ended together."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainpace.app.beforehand import import_all
from trainpace.app.option_values import cache_folder
from trainpace.app.options import Options
from trainpace.app.sides import Sides, prepare
from trainpace.cases.machine import Machine
from trainpace.cases.published import Case
from trainpace.data.base import Data
from trainpace.errors import FileError, RunFailed
from trainpace.launch.distributed import Distributed
from trainpace.launch.host_client import Side
from trainpace.launch.launcher import Launcher, Local, many_nodes
from trainpace.launch.preflight import PREFLIGHT_STEPS, look_over
from trainpace.store.locks import device_lock

if TYPE_CHECKING:
    from trainpace.launch.external import Programs

INJECTED_SLOWDOWN = 0.3
"""The share by which a self-test slows every step: the gate must find it."""

Show = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]
"""Shows the progress of one run: given a title and the steps in all, a context that takes (step, text)."""


@dataclass(kw_only=True)
class Resources:
    """What one session takes and gives back. What could not be had once is not asked for again."""

    options: Options
    root: Path
    """The tests' root: a user's trainer is imported from it."""
    show: Show
    say: Callable[[str], None]
    """Takes what must stand in the report."""
    cases: Sequence[Case] = ()
    """Selected: they say how many nodes an allocation must have."""
    machine: Machine | None = None
    """What was allocated; None: nothing yet."""
    _launcher: Launcher | None = None
    _distributed: Distributed | None = None
    _programs: "Programs | None" = None
    _sides: Sides | None = None
    _refused: RunFailed | None = None
    _locked: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """End every process that was started, free the device, give the nodes back."""
        self._stack.close()

    def allocate(self) -> Machine:
        """Take the machine: this one, or nodes, for which Slurm may let us wait.

        Raises:
            RunFailed: where the nodes cannot be had, or are not equal.
        """
        if self.machine is None:
            self.machine = self._launch().machine().labelled(self.options.device_label)
        return self.machine

    def start_hosts(self) -> Distributed:
        """What runs workloads in fresh process groups. Takes the device's lock; on nodes it trains a preflight.

        Raises:
            DeviceBusy: where another suite holds the device.
            RunFailed: where the nodes lack what every run needs.
        """
        if self._distributed is None:
            if self._refused is not None:
                raise self._refused
            launcher = self._launch()
            sides = self._measured_sides()
            distributed = Distributed(
                sides=sides, launcher=launcher, count_flops=self.options.count_flops, **self._settings()
            )
            self._stack.enter_context(distributed)
            if launcher.nodes:
                self._check_nodes(distributed, next(iter(sides)))
            self._distributed = distributed
        return self._distributed

    def start_programs(self) -> "Programs":
        """What runs external training systems. Takes the device's lock.

        Raises:
            DeviceBusy: where another suite holds the device.
        """
        if self._programs is None:
            from trainpace.launch.external import Programs

            report = self.options.report.resolve() if self.options.report else None
            programs = Programs(pythons=self.options.pythons, report=report, **self._settings())
            self._programs = self._stack.enter_context(programs)
        return self._programs

    def prepare_sides(self) -> Sides:
        """Base and head of a comparison, checked out and built.

        Raises:
            FileError: where one of them cannot be had.
        """
        if self._sides is None:
            gate = self.options.gate
            assert gate is not None
            import_all()
            try:
                self._sides = prepare(
                    self._stack,
                    self.root,
                    head=gate.head,
                    python=gate.python,
                    build=gate.build,
                    environment=self.options.environment,
                    folder=gate.folder,
                    within=self.options.shared,
                )
            except ValueError as error:
                raise FileError(str(error)) from None
        return self._sides

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a report says first, of sides that were prepared."""
        return self._sides.warnings if self._sides else ()

    def _launch(self) -> Launcher:
        if self._launcher is None:
            if self._refused is not None:  # and does not queue again for every case
                raise self._refused
            if self.options.launcher == "local":
                self._launcher = Local()
            else:
                try:
                    self._launcher = self._stack.enter_context(closing(self._many_nodes()))
                except RunFailed as failure:
                    self._refused = failure
                    raise
        return self._launcher

    def _many_nodes(self) -> Launcher:
        options = self.options
        assert options.shared is not None
        return many_nodes(
            options.launcher,
            shared=options.shared,
            slurm=options.slurm,
            scale=options.scale,
            cases=self.cases,
            added=options.environment,
        )

    def _measured_sides(self) -> dict[str, Side]:
        if self.options.gate is None:
            return {"here": Side(checkout=self.root)}
        sides = self.prepare_sides()
        return {"base": sides.base, "head": sides.head, "injected": replace(sides.head, injected=INJECTED_SLOWDOWN)}

    def _settings(self) -> dict[str, Any]:
        """What every launcher is given; the device is this session's from here on."""
        machine = self.allocate()
        if self.options.launcher == "local" and not self._locked:  # nodes are a scheduler's to give
            self._stack.enter_context(device_lock(machine.device.kind_slug))
            self._locked = True
        return {
            "machine": machine,
            "data": Data(
                sources=self.options.data, tokenizer=self.options.tokenizer, skip_bad=self.options.skip_bad_records
            ),
            "cache": self.options.shared or cache_folder(),
            "keep_logs": self.options.keep_logs,
            "added": self.options.environment,
            "step_timeout": self.options.step_timeout or (1800.0 if machine.gpus else 300.0),
        }

    def _check_nodes(self, distributed: Distributed, side: str) -> None:
        """Measure what joins the nodes, and refuse what every run would lack."""
        machine, nodes = self.allocate(), self._launch().nodes
        try:
            with self.show(f"preflight, {len(nodes)} nodes", PREFLIGHT_STEPS) as progress:
                train = partial(distributed.run, side=side, progress=progress)
                distributed.preflight, said = look_over(nodes, machine, train)
        except RunFailed as failure:
            self._refused = failure
            raise
        for text in said:
            self.say(text)
