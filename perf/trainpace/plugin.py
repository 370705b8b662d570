"""The pytest plugin: options, fixtures and hooks. Thin: each calls one function of a room."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from trainpace.app.compare_plugin import ComparePlugin, is_compare
from trainpace.app.cost_plugin import CostPlugin, is_cost
from trainpace.app.exclusions import COMPARISON, SPEED_CASE, refuse_other_plugins
from trainpace.app.options import Options, declare_options
from trainpace.app.session import Measured, Selected, Session
from trainpace.cases import Case
from trainpace.errors import FileError, UsageError
from trainpace.judge.verdict import exit_status, outcome
from trainpace.runs.verdict import Verdict

_SESSION = pytest.StashKey[Session]()
_COSTS = pytest.StashKey[CostPlugin]()
_COMPARISONS = pytest.StashKey[ComparePlugin]()

JudgeSpeed = Callable[[Case], Measured]


class StaleBaseline(UserWarning):
    """A case is faster than its baseline, which hides the next regression until it is refreshed."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the options."""
    _refuse_an_older_one(pluginmanager)
    declare_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Where this process is not the one that runs the suite: serve that one, or start it from the merge base."""
    if config.getoption("perf_launcher", "local") == "torchrun":
        from trainpace.launch import torchrun

        try:
            rank, _ = torchrun.place()
        except ValueError as error:
            raise pytest.UsageError(f"--perf-launcher torchrun: {error}") from None
        if rank:
            return torchrun.serve()
    if config.getoption("perf_against", None) is None:
        return None
    from trainpace.app.against import run_from_base

    return run_from_base(config)


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, before anything is collected."""
    config.addinivalue_line("markers", "perf_trainer(name): measure this trainer, package.module:object")
    config.stash[_SESSION] = Session(
        options=Options.of(config),
        root=config.rootpath,
        show=lambda title, steps: _show(config, title, steps),
        tell=lambda text: _tell(config, text),
    )
    config.stash[_COSTS] = CostPlugin(config.stash[_SESSION])
    config.pluginmanager.register(config.stash[_COSTS], "trainpace.app.cost_plugin:costs")
    config.stash[_COMPARISONS] = ComparePlugin(config.stash[_SESSION])
    config.pluginmanager.register(config.stash[_COMPARISONS], "trainpace.app.compare_plugin:comparisons")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each speed case its clock; take out what a replay does not hold."""
    from trainpace.report.benchmark import Clock

    session = config.stash[_SESSION]
    cases = {item: _case(item) for item in items if _is_speed(item)}
    if session.options.replay:
        try:
            recorded = session.replayed
        except FileError as error:
            raise pytest.UsageError(f"--perf-replay: {error}") from None
        missing = [item for item, case in cases.items() if case.id not in recorded]
        items[:] = [item for item in items if item not in missing]
        if missing:
            config.hook.pytest_deselected(items=missing)
    for item in cases:
        item.add_marker(pytest.mark.benchmark(timer=Clock()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse, with cases selected, what would leave them without a measurement that counts."""
    config, speed = session.config, [item for item in session.items if _is_speed(item)]
    config.stash[_SESSION].selection = [
        Selected(test=item.nodeid, case=_case(item), trainer=_trainer(item)) for item in speed
    ]
    compared = any(map(is_compare, session.items))
    if speed or compared or any(map(is_cost, session.items)):
        sys.stdout.write(config.stash[_SESSION].log.begin())
    refuse_other_plugins(config, {SPEED_CASE} if speed else {COMPARISON} if compared else set())
    # What follows is of baselines, and of pytest-benchmark's clock: a comparison of trainers has neither.
    if not speed:
        return
    try:
        config.stash[_SESSION].say_quarantine()
    except FileError as error:
        raise pytest.UsageError(str(error)) from None
    if all(_is_speed(item) or is_cost(item) for item in session.items):
        from trainpace.report.benchmark import silence_table

        silence_table(config)


@pytest.fixture(scope="session")
def distributed(pytestconfig: pytest.Config) -> Any:
    """Fresh process groups on demand: `distributed.run(workload) -> Run`."""
    return pytestconfig.stash[_SESSION].distributed


@pytest.fixture
def judge_speed(request: pytest.FixtureRequest) -> JudgeSpeed:
    """Measure a case, judge it against its baseline, and end the test as its verdict says."""
    session = request.config.stash[_SESSION]

    def judge(case: Case) -> Measured:
        try:
            measured = session.measure(request.node.nodeid, case, _trainer(request.node))
        except UsageError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        session.waive(measured)
        _record(measured, request)
        _end(measured, session.options)
        return measured

    return judge


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End every process; let the exit status say which kind of failure it was; then write the reports."""
    stash = session.config.stash
    perf_session, costs, comparisons = stash[_SESSION], stash[_COSTS], stash[_COMPARISONS]
    perf_session.close()
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        session.exitstatus = _exit_status(perf_session, costs, comparisons, session.testsfailed)
    # results.json and summary.md hold the status: last, so that it is that of the others too.
    for write in (
        comparisons.write_report,
        lambda: perf_session.report(session.exitstatus, costs.results, comparisons.results),
    ):
        try:
            write()
        except FileError as error:
            perf_session.say(f"the report was not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.USAGE_ERROR


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and what must be said beside it."""
    session = config.stash[_SESSION]
    if session.measured:
        from trainpace.app.printing import print_section
        from trainpace.report.terminal import render

        report = partial(
            render,
            [each.judgement for each in session.measured.values()],
            changes=[each.change for each in session.measured.values() if each.change],
            said=session.said,
        )
        print_section(terminalreporter, "trainpace", report, warnings=session.warnings)


def pytest_unconfigure(config: pytest.Config) -> None:
    """After everything that others print: what failed, for the log of a workflow."""
    session = config.stash.get(_SESSION, None)
    if session and session.results:
        sys.stdout.write(session.log.end(session.results))


@pytest.hookimpl(optionalhook=True)  # there may be a session without pytest-benchmark
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any] | None:
    """pytest-benchmark's own way takes over a second; ours is at hand. A session without our cases keeps its own."""
    if not config.stash[_SESSION].measured:
        return None
    from trainpace.report.benchmark import machine_info

    return machine_info(config.stash[_SESSION].machine)


def _record(measured: Measured, request: pytest.FixtureRequest) -> None:
    """The numbers, for machines: JUnit properties and pytest-benchmark's file."""
    from trainpace.report.benchmark import export, properties

    # Not through record_property, which warns once a case that JUnit's newer schema has no properties.
    request.node.user_properties += properties(measured.judgement).items()
    marker = request.node.get_closest_marker("benchmark")
    assert marker
    export(request.getfixturevalue("benchmark"), marker.kwargs["timer"], measured.runs, measured.judgement)


def _end(measured: Measured, options: Options) -> None:
    """Pass, fail or skip, with the reasons as the message."""
    how, text = _outcome(measured, options)
    if how == "failed":
        pytest.fail("\n".join(filter(None, (text, measured.detail))), pytrace=False)
    if how == "excused":
        pytest.xfail(text)
    if how == "skipped":
        pytest.skip(text)
    if measured.judgement.verdict is Verdict.IMPROVEMENT and measured.change is None:
        warnings.warn(StaleBaseline(f"{measured.judgement.case}: {text}"), stacklevel=2)


def _exit_status(session: Session, costs: CostPlugin, comparisons: ComparePlugin, failed: int) -> int:
    """Of a session in which `failed` tests failed."""
    measured = session.measured.values()
    judged_failures = sum(_outcome(each, session.options)[0] == "failed" for each in measured)
    return exit_status(
        [each.judgement.verdict for each in measured if each.change is None and not each.judgement.waiver]
        + costs.verdicts
        + comparisons.verdicts,
        require_verdict=session.options.require_verdict,
        ordinary_failure=failed > judged_failures + costs.failures + comparisons.failures
        or any(each.change is not None and each.change.new is None for each in measured),
    )


def _outcome(measured: Measured, options: Options) -> tuple[str, str]:
    """What becomes of the test, and why. A refresh passes when it recorded: its verdict is of the old baseline."""
    judgement, change = measured.judgement, measured.change
    if change is not None:
        return ("failed" if change.new is None else "passed"), str(change)
    text = "\n".join((f"{judgement.verdict}: {judgement.case}", *judgement.reasons, *judgement.explanation))
    how = outcome(judgement.verdict, require_verdict=options.require_verdict)
    if how == "failed" and judgement.waiver:
        return "excused", f"{text}\n{judgement.waiver}"
    return how, text


def _tell(config: pytest.Config, text: str) -> None:
    """Print a line now; pytest's capturing steps aside for it."""
    capture = config.pluginmanager.getplugin("capturemanager")
    reporter = config.pluginmanager.getplugin("terminalreporter")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        reporter.ensure_newline()
        reporter.write_line(text)


@contextlib.contextmanager
def _show(config: pytest.Config, title: str, steps: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar while a run is under way; pytest's capturing steps aside for it."""
    from trainpace.app.printing import Progress

    capture = config.pluginmanager.getplugin("capturemanager")
    reporter = config.pluginmanager.getplugin("terminalreporter")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        progress = Progress.on(reporter)
        progress.start(title, steps)
        try:
            yield progress.update
        finally:
            progress.stop()


def _is_speed(item: pytest.Item) -> bool:
    return "judge_speed" in getattr(item, "fixturenames", ())


def _case(item: pytest.Item) -> Case:
    """The case of a speed test, its parameter `case`."""
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    if not isinstance(case, Case):
        raise pytest.UsageError(
            f"{item.nodeid}: a test that uses judge_speed takes a parameter `case`, a trainpace.cases.Case, "
            f"got {case!r}"
        )
    return case


def _trainer(item: pytest.Item) -> str:
    """What a speed test measures: its marker's trainer, else the session's."""
    marker = item.get_closest_marker("perf_trainer")
    return str(marker.args[0]) if marker else item.config.stash[_SESSION].options.trainer


def _refuse_an_older_one(plugins: pytest.PytestPluginManager) -> None:
    """An environment that was set up when the package was called `perf` loads that one too."""
    if plugins.has_plugin("perf.plugin"):
        raise pytest.UsageError(
            "this environment holds a trainpace whose package is still called perf, and would load both: run "
            "`pip install -e .` again"
        )
