"""The pytest plugin: options, hooks, and the fixtures judge_speed, judge_cost and compare_trainers."""

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from _pytest.mark import ParameterSet

from trainpace.app.exclusions import COMPARISON, SIDE_BY_SIDE, SPEED_CASE, refuse_other_plugins
from trainpace.app.hours import Selected
from trainpace.app.messages import Messages
from trainpace.app.options import Options, declare_options
from trainpace.app.suite import Suite
from trainpace.app.typed import of_test, typed
from trainpace.cases import PUBLISHED, Case
from trainpace.cases.ids import collision, told_apart
from trainpace.cost.own_model import own_model
from trainpace.errors import FileError, UsageError
from trainpace.judge.finding import Finding
from trainpace.judge.systems import SideBySide
from trainpace.runs.verdict import Verdict

T = TypeVar("T")
_SUITE = pytest.StashKey[Suite]()
_FIXTURES = ("judge_speed", "judge_cost", "compare_trainers")

JudgeSpeed = Callable[[Case], Finding]


class JudgeCost(Protocol):
    """The fixture `judge_cost`: the native trainer's step of a case, or that of a model which the test brings."""

    def __call__(
        self,
        case: Case,
        *,
        build: Callable[..., Any] | str | None = None,
        batch: Callable[..., Any] | str | None = None,
        loss: Callable[..., Any] | str | None = None,
    ) -> Finding:
        """Count, judge, and end the test as the verdict says.

        Args:
            case: the test's parameter.
            build: `build(workload)` gives the model, a torch.nn.Module; None: the native trainer's. It may be named, as
                the others may, `package.module:build`: pytest then need not import it.
            batch: `batch(workload)` gives a rank's micro-batch.
            loss: `loss(model, batch)` gives one number; None: what the model returns of the batch, or its `loss`.
        """


CompareTrainers = Callable[[Case], SideBySide]


class StaleBaseline(UserWarning):
    """A case is faster than its baseline, which hides the next regression until it is refreshed."""


class StaleCost(UserWarning):
    """A step costs less than is stored, which hides the next regression until it is refreshed."""


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
            return torchrun.serve(config.getoption("perf_env"))
    if config.getoption("perf_against", None) is None:
        return None
    from trainpace.app.against import run_from_base

    return run_from_base(config)


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, before anything is collected."""
    if config.getoption("pyargs"):
        config.args = [_installed_cases(each) for each in config.args]
    config.addinivalue_line("markers", "perf_table: its parameter `case` is each case of the session's table")
    config.addinivalue_line("markers", "perf_trainer(name): measure this trainer, package.module:object")
    config.stash[_SUITE] = Suite(
        options=Options.of(config),
        root=config.rootpath,
        show=lambda title, steps: _show(config, title, steps),
        messages=Messages(tell=lambda text: _tell(config, text)),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test of the table its cases. Let those of others that differ in nothing but their GPUs name them."""
    if next(metafunc.definition.iter_markers("perf_table"), None) is not None:
        metafunc.parametrize("case", _of_table(metafunc), ids=str)
        return
    parametrize = metafunc.parametrize

    def named(argnames: Any, argvalues: Any, *args: Any, **options: Any) -> None:
        if argnames in ("case", ["case"], ("case",)):
            argvalues = _named(list(argvalues))
        parametrize(argnames, argvalues, *args, **options)

    if set(_FIXTURES) & set(metafunc.fixturenames):
        metafunc.parametrize = named  # type: ignore[method-assign]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each speed case its clock; take out what a replay does not hold, and what only a measurement counts."""
    from trainpace.report.benchmark import Clock

    suite = config.stash[_SUITE]
    if text := collision((item.nodeid, _case(item)) for item in items if any(_uses(item, each) for each in _FIXTURES)):
        raise pytest.UsageError(text)
    cases = {item: _case(item) for item in items if _is_speed(item)}
    absent = []
    if suite.options.replay:
        try:
            recorded = suite.speed.replayed
        except FileError as error:
            raise pytest.UsageError(f"--perf-replay: {error}") from None
        absent = [item for item, case in cases.items() if case.id not in recorded]
    # A replay and a comparison of two sides are about speed: the base's own cost says nothing of the head.
    if suite.options.replay or suite.options.gate is not None:
        absent += [item for item in items if _is_cost(item)]
    # With several trainers the comparisons alone are run, with one trainer all other tests.
    several = len(suite.options.trainers) > 1
    absent += [item for item in items if (_is_speed(item) or _is_cost(item) if several else _is_compare(item))]
    if absent:
        items[:] = [item for item in items if item not in absent]
        config.hook.pytest_deselected(items=absent)
    for item in cases:
        item.add_marker(pytest.mark.benchmark(timer=Clock()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse, with cases selected, what would leave them without a measurement that counts."""
    config, suite = session.config, session.config.stash[_SUITE]
    judged = [item for item in session.items if item.get_closest_marker("skip") is None]
    speed, costs = ([item for item in judged if of(item)] for of in (_is_speed, _is_cost))
    compared = [item for item in session.items if _is_compare(item)]
    whole = typed(config)
    commands = {item.nodeid: of_test(whole, item) for item in (*speed, *costs, *compared)}
    suite.select(
        [
            Selected(test=item.nodeid, case=_case(item), trainer=_trainer(item), command=commands[item.nodeid])
            for item in speed
        ],
        [_case(item) for item in costs],
        commands,
    )
    if text := _overruled(config, suite.speed.selection):
        suite.messages.say(text)
    if speed or compared or costs:
        sys.stdout.write(suite.log.begin())
    refuse_other_plugins(config, {SPEED_CASE} if speed else {COMPARISON} if compared else set())
    # What follows is of baselines, and of pytest-benchmark's clock: a comparison of trainers has neither.
    if not speed:
        return
    try:
        suite.say_waivers()
    except FileError as error:
        raise pytest.UsageError(str(error)) from None
    if all(_is_speed(item) or _is_cost(item) for item in session.items):
        from trainpace.report.benchmark import silence_table

        silence_table(config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a case fail in a worker of pytest-xdist: it cannot end the session, and what started it collects nothing."""
    if hasattr(item.config, "workerinput") and (_is_speed(item) or _is_compare(item)):
        pytest.fail(SIDE_BY_SIDE, pytrace=False)


@pytest.fixture(scope="session")
def distributed(pytestconfig: pytest.Config) -> Any:
    """Fresh process groups on demand: `distributed.run(workload) -> Run`."""
    return pytestconfig.stash[_SUITE].resources.start_hosts()


@pytest.fixture
def judge_speed(request: pytest.FixtureRequest) -> JudgeSpeed:
    """Measure a case, judge it against its baseline, and end the test as its verdict says."""

    def judge(case: Case) -> Finding:
        if case != (own := _case(request.node)):  # the session was planned before it began, of the parameters
            pytest.fail(f"judge_speed: expected the test's own parameter `case`, {own}, got {case}", pytrace=False)
        if instead := _found(lambda: _suite(request).speed.alike(request.node.nodeid)):
            pytest.skip(instead)
        found = _found(lambda: _suite(request).find_speed(request.node.nodeid))
        _record_speed(found, request)
        _say_verdict(found, request)
        _end(found, request)
        return found

    return judge


@pytest.fixture
def judge_cost(request: pytest.FixtureRequest) -> JudgeCost:
    """Count a case at full size, judge it against what is stored, and end the test as its verdict says."""

    def judge(case: Case, *, build: Any = None, batch: Any = None, loss: Any = None) -> Finding:
        suite = _suite(request)
        if build is None and case.model.shape is None:
            pytest.skip("not counted: the case does not say its model's shape, and judge_cost is given no `build`")
        if build is None and suite.options.trainer != "native":
            pytest.skip("only the native trainer is counted, or what judge_cost is given as `build`")
        own = None
        if build is not None:
            try:
                folder, root = request.config.invocation_params.dir, request.config.rootpath
                own = own_model(build, batch, loss, folder=folder, root=root)
            except ValueError as error:
                pytest.fail(f"judge_cost: {error}", pytrace=False)
        found = _found(lambda: suite.find_cost(request.node.nodeid, case, own))
        from trainpace.report.cost import properties

        assert found.cost is not None
        request.node.user_properties += properties(found.cost).items()
        _end(found, request)
        return found

    return judge


@pytest.fixture
def compare_trainers(request: pytest.FixtureRequest) -> CompareTrainers:
    """Measure a case with every trainer of the session; the test passes when all that are present were measured."""

    def compare(case: Case) -> SideBySide:
        found = _found(lambda: _suite(request).find_systems(request.node.nodeid, case))
        _end(found, request)
        assert found.systems is not None
        return found.systems

    return compare


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End every process; let the exit status say which kind of failure it was; then write the reports."""
    suite = session.config.stash[_SUITE]
    suite.close()
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        session.exitstatus = suite.exit_status(session.testsfailed)
    # results.json and summary.md hold the status: last, so that it is that of the others too.
    writers: list[Callable[[], None]] = [suite.report_systems, lambda: suite.report(session.exitstatus)]
    writers += [partial(suite.export, each) for each in suite.options.exports]
    for write in writers:
        try:
            write()
        except FileError as error:
            suite.messages.say(f"the report was not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.USAGE_ERROR


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables, and what must be said beside them."""
    config.stash[_SUITE].print_reports(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """After everything that others print: what failed, for the log of a workflow."""
    suite = config.stash.get(_SUITE, None)
    if suite and suite.results:
        sys.stdout.write(suite.log.end(suite.results))


@pytest.hookimpl(optionalhook=True)  # there may be a session without pytest-benchmark
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any] | None:
    """pytest-benchmark's own way takes over a second; ours is at hand. A session without our cases keeps its own."""
    suite = config.stash[_SUITE]
    if not suite.of_speed:
        return None
    from trainpace.report.benchmark import machine_info

    return machine_info(suite.resources.allocate())


def _installed_cases(argument: str) -> str:
    """What `--pyargs trainpace.suite` names: the published cases lie in that package, in a checkout beside ours."""
    package = Path(__file__).parent
    path, separator, test = argument.partition("::")
    named = re.fullmatch(r"trainpace\.suite(?:\.(\w+))?", path)
    if named is None or (package / "suite").is_dir():
        return argument
    file = f"{named[1]}.py" if named[1] else ""
    return f"{package.parent / file}{separator}{test}"


def _of_table(metafunc: pytest.Metafunc) -> Sequence[Any]:
    """The cases of --perf-table, else those that are published with the suite; those that cannot be run are skipped."""
    options = metafunc.config.stash[_SUITE].options
    if options.table is None:
        return PUBLISHED
    # What the native trainer lacks, a trainer of one's own may have; counted is the native one alone.
    native = options.trainer == "native" or "judge_cost" in metafunc.fixturenames
    lacks = {row.id: ", ".join(row.lacks) for row in options.table.rows if native and not row.executable}
    return [
        pytest.param(case, marks=pytest.mark.skip(f"not executable: {lacks[case.id]}")) if case.id in lacks else case
        for case in options.table.cases
    ]


def _suite(request: pytest.FixtureRequest) -> Suite:
    return request.config.stash[_SUITE]


def _found(find: Callable[[], T]) -> T:
    """What `find` gives; what a user must change ends the session."""
    try:
        return find()
    except UsageError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def _record_speed(found: Finding, request: pytest.FixtureRequest) -> None:
    """The numbers, for machines: JUnit properties and pytest-benchmark's file."""
    from trainpace.report.benchmark import export, properties

    judgement = found.judgement
    assert judgement is not None
    # Not through record_property, which warns once a case that JUnit's newer schema has no properties.
    request.node.user_properties += properties(judgement).items()
    marker = request.node.get_closest_marker("benchmark")
    assert marker
    export(request.getfixturevalue("benchmark"), marker.kwargs["timer"], list(found.runs), judgement)


def _say_verdict(found: Finding, request: pytest.FixtureRequest) -> None:
    """Say a verdict as soon as it is known, where others are measured after it."""
    from trainpace.report.terminal import verdict_line

    suite = _suite(request)
    if suite.options.can_record and found.judgement is not None:
        suite.messages.tell(verdict_line(found.judgement))


def _end(found: Finding, request: pytest.FixtureRequest) -> None:
    """Pass, fail or skip, with the reasons as the message."""
    ended = _suite(request).outcome(found)
    if ended.status == "failed":
        pytest.fail("\n".join(filter(None, (ended.text, found.detail))), pytrace=False)
    if ended.status == "excused":
        pytest.xfail(ended.text)
    if ended.status == "skipped":
        pytest.skip(ended.text)
    if found.verdict is Verdict.IMPROVEMENT and found.change is None:
        stale = StaleBaseline(f"{found.case}: {ended.text}") if found.cost is None else StaleCost(ended.text)
        warnings.warn(stale, stacklevel=3)


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


def _named(values: list[Any]) -> list[Any]:
    """Parameters `case`, plain or within pytest.param, told apart by their GPUs where that is what differs."""
    parts: list[Any] = [each.values[0] if isinstance(each, ParameterSet) and each.values else each for each in values]
    if not all(isinstance(part, Case) for part in parts):
        return values
    pairs = zip(values, told_apart(parts), strict=True)
    return [each._replace(values=(case,)) if isinstance(each, ParameterSet) else case for each, case in pairs]


def _is_speed(item: pytest.Item) -> bool:
    return _uses(item, "judge_speed")


def _is_cost(item: pytest.Item) -> bool:
    return _uses(item, "judge_cost")


def _is_compare(item: pytest.Item) -> bool:
    return _uses(item, "compare_trainers")


def _uses(item: pytest.Item, fixture: str) -> bool:
    return fixture in getattr(item, "fixturenames", ())


def _case(item: pytest.Item) -> Case:
    """The case of a speed or cost test, its parameter `case`."""
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    if not isinstance(case, Case):
        fixture = next(each for each in _FIXTURES if _uses(item, each))
        raise pytest.UsageError(
            f"{item.nodeid}: a test that uses {fixture} takes a parameter `case`, a trainpace.cases.Case, got {case!r}"
        )
    return case


def _trainer(item: pytest.Item) -> str:
    """What a speed test measures: its marker's trainer, else the session's."""
    marker = item.get_closest_marker("perf_trainer")
    return str(marker.args[0]) if marker else item.config.stash[_SUITE].options.trainer


def _overruled(config: pytest.Config, selection: Sequence[Selected]) -> str | None:
    """Which tests measure another trainer than the one that was typed; None: none does."""
    typed_trainers = config.getoption("perf_trainer", None) or []
    own = [each for each in selection if each.trainer not in typed_trainers] if typed_trainers else []
    if not own:
        return None
    named = ", ".join(dict.fromkeys(each.case.id for each in own))
    trainers = ", ".join(dict.fromkeys(each.trainer for each in own))
    return f"{named}: measured with {trainers}, by its own perf_trainer marker, which stands above --perf-trainer"


def _refuse_an_older_one(plugins: pytest.PytestPluginManager) -> None:
    """An environment that was set up when the package was called `perf` loads that one too."""
    if plugins.has_plugin("perf.plugin"):
        raise pytest.UsageError(
            "this environment holds a trainpace whose package is still called perf, and would load both: run "
            "`pip install -e .` again"
        )
