"""All selected cases of a session, head against base: measured in rounds first, reported by their tests afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainpace.cases import Workload
from trainpace.cases.scaling import full_workload
from trainpace.cost.worker import CountFailed, counted
from trainpace.errors import RunFailed
from trainpace.judge.verdict import Judgement, judge_failure
from trainpace.plan.budget import of_run
from trainpace.plan.paired import Pairs, judgement, measure_rounds
from trainpace.plan.priority import rank
from trainpace.report.explain import beside, count_differences, explain
from trainpace.runs.cost import Cost
from trainpace.runs.datasheets import peak_tflops
from trainpace.runs.run import Run
from trainpace.runs.verdict import Verdict
from trainpace.stats.sequential import SequentialDesign
from trainpace.store.priorities import load_priorities
from trainpace.text import percent

if TYPE_CHECKING:
    from trainpace.app.session import Measured, Selected, Session


def compare(session: "Session", selection: Sequence["Selected"]) -> "dict[str, Measured]":
    """Measure and judge every case of `selection`; what came of each, by test."""
    gate = session.options.gate
    assert gate is not None
    if gate.new_numerics:
        session.say(f"the head's losses may differ: {gate.new_numerics}")
    found = _rounds(session, selection, "head")
    if gate.self_test:
        planted = _rounds(session, selection, "planted")
        for test, measured in found.items():
            measured.judgement = _self_tested(measured.judgement, planted[test].judgement)
        return found
    for measured in found.values():
        judged = measured.judgement
        if measured.runs and (judged.verdict is Verdict.REGRESSION or gate.explain):
            measured.judgement = _explained(session, measured, judged)
    return found


def _rounds(session: "Session", selection: Sequence["Selected"], head: str) -> "dict[str, Measured]":
    """Every case, the side `head` against the base."""
    from trainpace.app.session import Measured

    gate, sides = session.options.gate, session.sides
    assert gate is not None
    order = load_priorities(session.root)
    found: dict[str, Measured] = {}
    cases: list[Pairs] = []
    for each in sorted(selection, key=lambda each: rank(each.case.id, sides.changed, order)):
        try:
            cases.append(Pairs(test=each.test, workload=session.resolve(each.case, each.trainer).workload))
        except RunFailed as failure:
            found[each.test] = Measured([], judge_failure(each.case.id, None, failure), failure.detail)

    def measure(workload: Workload, side: str, title: str) -> Run:
        which = head if side == "head" else side
        run, _ = session.once(workload, title, side=which)
        session.keep(run, replaced=bool(run.health.faults), folder=which)
        return run

    measure_rounds(
        cases,
        measure,
        SequentialDesign(min_effect=gate.detect, max_pairs=gate.max_pairs),
        new_numerics=gate.new_numerics is not None,
        time_is_up=lambda: session.time_is_up,
    )
    for pairs in cases:
        if pairs.base and not pairs.open:
            seconds = (gate.max_pairs - len(pairs.base)) * (of_run(pairs.base[0]) + of_run(pairs.head[0]))
            session.meter.save(seconds, pairs.workload.ranks, "pairs that no verdict needed")
        peak = peak_tflops(session.device_of(pairs.workload), pairs.workload.dtype)
        judged = judgement(pairs, names=(sides.base_name, sides.head_name), peak_tflops=peak)
        found[pairs.test] = Measured(pairs.head, judged, pairs.detail, base_runs=pairs.base)
    return found


def _self_tested(unchanged: Judgement, planted: Judgement) -> Judgement:
    """Pass where the gate is quiet without a slowdown and red with one; else invalid, with what it missed."""
    from trainpace.app.session import PLANTED

    if unchanged.verdict is Verdict.INVALID or planted.verdict is Verdict.INVALID:
        return unchanged if unchanged.verdict is Verdict.INVALID else planted
    wrong = []
    if unchanged.verdict is Verdict.REGRESSION:
        wrong.append(f"self-test: found a slowdown where nothing was changed: {'; '.join(unchanged.reasons)}")
    if planted.verdict is not Verdict.REGRESSION:
        wrong.append(
            f"self-test: expected a planted slowdown of {percent(PLANTED)} to be a regression, got {planted.verdict} "
            f"({planted.tolerance_source})"
        )
    if wrong:
        return unchanged.model_copy(update={"verdict": Verdict.INVALID, "reasons": tuple(wrong)})
    note = f"self-test: a planted slowdown of {percent(PLANTED)} was found ({planted.tolerance_source})"
    return unchanged.model_copy(update={"notes": (*unchanged.notes, note)})


def _explained(session: "Session", measured: "Measured", judged: Judgement) -> Judgement:
    """The judgement with where the time went on both sides; each side trains once more, under a profiler."""
    workload = measured.runs[0].workload
    options = session.options
    assert options.gate is not None
    kept = (options.report or options.runs or options.gate.folder) / "traces" / workload.case
    profiles = []
    for side in ("base", "head"):
        folder: Path = kept / side
        folder.mkdir(parents=True, exist_ok=True)
        with session.show(f"{workload.case} {workload.scale}, profiling {side}", 1):
            try:
                profiles.append(session.distributed.profile(workload, side=side, folder=folder))
            except RunFailed as failure:
                return judged.model_copy(update={"explanation": (f"not explained: {side}: {failure}",)})
    lines = [*explain(*profiles), *beside(measured.base_runs, measured.runs), *_counted(session, workload)]
    return judged.model_copy(update={"explanation": (*lines, f"traces, for Perfetto: {kept}")})


def _counted(session: "Session", workload: Workload) -> list[str]:
    """What a full-size step of both sides must do, as a difference; nothing where it is not the native trainer."""
    if workload.trainer != "native":
        return []
    case = next(each.case for each in session.selection if each.case.id == workload.case)
    costs: list[Cost] = []
    for side in (session.sides.base, session.sides.head):
        with session.show(f"{workload.case}, counting a full-size step", 1):
            try:
                full = full_workload(case, dtype=workload.dtype)
                ((_, cost),) = counted([full], checkout=side.checkout, python=side.python)
            except CountFailed as failure:
                cost = failure
        if isinstance(cost, CountFailed):
            return [f"not counted: {cost}"]
        costs.append(cost)
    return count_differences(*costs)
