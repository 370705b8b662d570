"""`python -m trainpace predict` and `count`: what is typed becomes cases, counted through the cache, and predicted."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from trainpace.app.option_values import cache_folder
from trainpace.cases import models
from trainpace.cases.architectures import cannot
from trainpace.cases.models import Model
from trainpace.cases.published import Case
from trainpace.cases.scaling import DEEPSPEED_THRESHOLDS, full_workload
from trainpace.cases.workload import Recompute, Sharding, Workload
from trainpace.cost.predict import counted_as, device_named, devices, forecast_of
from trainpace.cost.sweep import Sweep
from trainpace.cost.worker import CountFailed, counted
from trainpace.errors import FileError, UsageError
from trainpace.judge.command import Command
from trainpace.judge.finding import Finding
from trainpace.runs.cost import Cost
from trainpace.stats.forecast import Forecast
from trainpace.store.table_counts import load_counts, write_counts
from trainpace.store.tables import load_table, table_names

ENGINES = ("fsdp2", "deepspeed")
RECOMPUTES: tuple[Recompute, ...] = get_args(Recompute)
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)


def model_named(text: str) -> Model:
    """The model of a config.json's path, or of a name that this package or a shipped table knows.

    Raises:
        UsageError: naming those that are known, or what a config lacks.
    """
    known = {each.name: each for each in vars(models).values() if isinstance(each, Model)}
    for name in table_names():
        known |= {row.model.name: row.model for row in load_table(name).rows}
    if text in known:
        return known[text]
    if not text.endswith(".json"):
        raise UsageError(f"--model: expected the path of a config.json, or one of {', '.join(known)}; got {text!r}")
    return Model.from_config(text)


def case_of(
    model: str,
    *,
    sequence: str,
    gpus: int,
    micro_batch: int,
    accumulation: int,
    sp: int,
    recompute: Recompute,
    sharding: Sharding,
) -> Case:
    """The case that was typed.

    Raises:
        UsageError: naming the option's field, what was expected and what came.
    """
    found = model_named(model)
    if why := cannot(found.decoder):
        raise UsageError(f"--model {model}: {why}")
    try:
        return Case(
            model=found,
            length=sequence,
            sp=sp,
            gpus=gpus,
            name_gpus=True,
            micro_batch=micro_batch,
            accumulation=accumulation,
            recompute=recompute,
            sharding=sharding,
        )
    except ValueError as error:
        raise UsageError(f"predict: {error}") from None


def predict_case(
    case: Case, device: str, *, engine: str, table: str | None = None, network: float | None = None
) -> Forecast:
    """Count one case, or find it in the cache, and predict it.

    Raises:
        UsageError: for a device that is not known, or a case that cannot be counted.
        CountFailed: where counting itself ends.
    """
    try:
        slug, workload = device_named(device), full_workload(case)
    except ValueError as error:
        raise UsageError(str(error)) from None
    cost = _costs([workload])[case.id]
    try:
        counters, products = cost.counters, cost.products
        return forecast_of(counters, products, workload, slug, engine=engine, table=table, network=network)
    except ValueError as error:
        raise UsageError(str(error)) from None


def sweep_case(
    case: Case, device: str, *, engine: str, table: str | None = None, network: float | None = None
) -> list[Forecast]:
    """Every setting of a case's micro-batch, recompute, sp and sharding, the fastest first.

    Raises:
        UsageError, CountFailed: as `predict_case`.
    """
    sweep = Sweep(case=case, engine=engine)
    try:
        slug = device_named(device)
        return sweep.forecasts(_costs(sweep.traced()), slug, table=table, network=network)
    except ValueError as error:
        raise UsageError(str(error)) from None


def count_table(name: str) -> Path:
    """Count the rows of a table that the predictor reads, as far as the cache has them not; the file they are in.

    Raises:
        FileError: for a table or a file that cannot be used.
        CountFailed: for a row that cannot be counted.
    """
    rows = [counted_as(row) for row in load_table(name).rows]
    wanted = {workload.key: workload for workload in rows if workload is not None}
    if not wanted:
        raise FileError(f"{name}: expected rows that the native trainer can run, got none")
    # Of a case and its compiled twin the ids are alike but for that.
    costs = _costs([workload.model_copy(update={"case": key}) for key, workload in wanted.items()])
    counts = {key: costs[key].counters for key in wanted}
    return write_counts(name, counts, next(iter(costs.values())).software)


def counted_rows(name: str) -> int:
    """Rows of a table that are counted."""
    return len(load_counts(name))


def _costs(workloads: Sequence[Workload]) -> dict[str, Cost]:
    """Costs by case, with a line of progress where counting takes a while."""

    def progress(done: float, what: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[Kcounting {len(workloads)} steps: {done:.0f} done, {what}"[:110])
            sys.stderr.flush()

    found: dict[str, Cost] = {}
    for name, cost in counted(workloads, cache=cache_folder(), progress=progress):
        if isinstance(cost, CountFailed):
            raise CountFailed(f"{name}: {cost}", cost.detail)
        found[name] = cost
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    return found


def beside_predictions(findings: Sequence[Finding]) -> list[str]:
    """Lines on measured steps that a table counted: their share of what is predicted. Nothing is judged by it."""
    lines = []
    for finding in findings:
        judgement = finding.judgement
        if judgement is None or judgement.tgs is None or judgement.workload is None or not finding.runs:
            continue
        found = _predicted(judgement.workload, finding.runs[0].device.kind_slug)
        if found is None:
            continue
        low, tgs, high = found.prediction.low, found.prediction.tgs, found.prediction.high
        said = f"of the prediction (docs/prediction.md): {judgement.case} {judgement.tgs / tgs:.0%} of {tgs:.0f} TGS"
        said += f" ({low:.0f} .. {high:.0f}), as the rows of {found.choice.group.table} on {found.choice.group.device}"
        if judgement.tgs < low and not judgement.explanation:
            command = Command().speed(judgement.workload, against="HEAD~1")
            said += f": below the interval; which part is slow only a profile tells, which `{command}` takes of both"
        elif judgement.tgs < low:
            said += ": below the interval; the profile above says which part is slow"
        lines.append(said)
    return lines


def _predicted(workload: Workload, device: str) -> Forecast | None:
    """The prediction of a measured workload; None for a cut one, masked documents, and what was never counted."""
    if workload.scale != "full" or workload.attention == "varlen" or device not in devices():
        return None
    counted_alone = {"warmup": 1, "steps": 1, "nodes": 1, "network": "", "trainer": "native", "engine": "deepspeed"}
    counted = workload.model_copy(update={**counted_alone, "thresholds": DEEPSPEED_THRESHOLDS})
    engine = workload.engine if workload.engine in ENGINES else "fsdp2"
    with suppress(FileError):  # a prediction that cannot be made is no reason to fail what was measured
        for table in table_names():
            if (counters := load_counts(table).get(counted.key)) is not None:
                return forecast_of(counters, None, counted, device, engine=engine)
    return None
