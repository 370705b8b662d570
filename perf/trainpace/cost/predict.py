"""Predictions, from the published tables and the counted costs of their rows that travel with the package.

The computing is stats/learning.py and stats/roofline.py; what is printed of it is report/predict.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from trainpace.cases import PUBLISHED
from trainpace.cases.architectures import has_experts
from trainpace.cases.published import PUBLISHED_DEVICE
from trainpace.cases.scaling import full_workload
from trainpace.cases.tables import Row as TableRow
from trainpace.cases.tables import Table
from trainpace.cases.workload import Workload
from trainpace.errors import FileError
from trainpace.judge.baseline import Published
from trainpace.judge.tables import Expected
from trainpace.report import published
from trainpace.runs.cost import PRODUCTS
from trainpace.runs.datasheets import DATASHEETS, OF_ONE_CLUSTER
from trainpace.stats.forecast import Choice, Forecast
from trainpace.stats.learning import (
    Group,
    Row,
    beyond,
    distance,
    nearest_row,
    predict,
    spread_between,
    transferred,
    unlikeness,
)
from trainpace.stats.roofline import Times, times, with_network
from trainpace.store.baselines import load_file, published_folder
from trainpace.store.table_counts import load_counts
from trainpace.store.tables import FIRST, load_table, table_names


def devices() -> list[str]:
    """Devices that a step can be predicted for."""
    return [slug for slug, sheet in DATASHEETS.items() if sheet.node_bytes_per_second and sheet.memory_bytes]


def device_named(name: str) -> str:
    """The device of that slug, or the only one whose slug begins so.

    Raises:
        ValueError: naming those that there are.
    """
    begins = [slug for slug in devices() if slug.startswith(name) and slug not in OF_ONE_CLUSTER]
    found = [name] if name in devices() else begins
    if len(found) != 1 or not name:
        several = f"{name!r}, which begins {', '.join(found)}" if found and name else repr(name)
        raise ValueError(f"device must be one of {', '.join(devices())}, got {several}")
    return found[0]


# What the tables teach


def counted_as(row: TableRow) -> Workload | None:
    """The workload whose counts stand for a row: its own, or its eager twin's; None where the trainer cannot run it."""
    if row.case is None or not row.executable:
        return None
    return full_workload(replace(row.case, compile=False))


def _compiled(row: TableRow) -> bool:
    return row.case is not None and row.case.compile


def times_of(row: TableRow, table: Table, counts: Mapping[str, Mapping[str, int]]) -> Times | None:
    """The parts of a row's step on its device; None where one of them is not known."""
    workload = counted_as(row)
    if workload is None or row.device not in DATASHEETS or workload.key not in counts:
        return None
    return times(
        counts[workload.key],
        workload,
        DATASHEETS[row.device],
        engine=table.engine,
        network=table.devices[row.device].network_bytes_per_second,
        repeats_kv=table.repeats_kv,
    )


def learnt_rows(table: Table, counts: Mapping[str, Mapping[str, int]]) -> dict[str, list[Row]]:
    """The measured, executable rows of a table whose device is stated, by device; none that was compiled."""
    found: dict[str, list[Row]] = {}
    for row in table.rows:
        parts = times_of(row, table, counts) if row.tgs and not _compiled(row) else None
        if parts is not None and row.case is not None and row.device is not None and row.tgs:
            # A network that the table states is one cluster's; else each section may be of another.
            cluster = "" if table.devices[row.device].network == "stated" else row.section
            mine = Row(
                case=row.id,
                model=row.model.name,
                workload=full_workload(row.case),
                parts=parts,
                tgs=row.tgs,
                cluster=f"{table.name} {cluster}".rstrip(),
            )
            found.setdefault(row.device, []).append(mine)
    return found


def learn(tables: Iterable[str | Path]) -> list[Group]:
    """What tables teach, by their names or paths: a group a table and device, rows of models with experts apart.

    Raises:
        FileError: for counted costs that cannot be used.
    """
    made = []
    for name in tables:
        table = load_table(name)
        for device, rows in learnt_rows(table, load_counts(name)).items():
            for experts in (False, True):
                mine = tuple(row for row in rows if has_experts(row.workload.decoder) == experts)
                if mine:
                    made.append(Group(table=table.name, device=device, rows=mine, attention=table.attention))
    own = [group for group in made if group.is_own]

    def with_nearest(group: Group) -> Group:
        if group.is_own or not own:
            return group
        sheet = DATASHEETS[group.device]
        # The stack first: its kernel of attention differs more between stacks than between cards.
        near = min(own, key=lambda each: (each.table != group.table, distance(sheet, DATASHEETS[each.device])))
        experts = any(has_experts(row.workload.decoder) for row in group.rows)
        spread = 1.0 if experts or near.table != group.table else spread_between(sheet, DATASHEETS[near.device])
        return replace(group, nearest=near, spread=spread)

    return [with_nearest(group) for group in made]


@cache
def learnt() -> tuple[Group, ...]:
    """What the tables teach that travel with the package."""
    return tuple(learn(table_names()))


def choose(workload: Workload, device: str, *, table: str | None = None, network: float | None = None) -> Choice:
    """Whose parameters `workload` on `device` is predicted with.

    Rows of the device come first, then those of the device that is most like it; among them the group with the row that
    is most like the workload. `table` leaves only the rows of that table. The network is what is given, or the maker's:
    its share is what a table's stack reached of a network that was stated, never of one that was found by fitting.

    Raises:
        ValueError: where no row of the table may be learnt from.
    """
    groups = [each for each in learnt() if table in (None, each.table)]
    if not groups:
        tables = sorted({each.table for each in learnt()})
        raise ValueError(f"table must be one of {', '.join(tables)}, which have rows to learn from, got {table!r}")
    sheet = DATASHEETS[device]

    def order(group: Group) -> tuple[bool, float, float]:
        experts = has_experts(group.rows[0].workload.decoder)
        away = 0.0 if group.device == device else distance(sheet, DATASHEETS[group.device])
        return (
            experts != has_experts(workload.decoder),
            away,
            unlikeness(workload, nearest_row(workload, group.rows).workload),
        )

    group = min(groups, key=order)
    near = nearest_row(workload, group.rows)
    stated = [share for cluster, share in group.parameters.networks.items() if cluster == group.table]
    parameters = replace(group.parameters, networks={}, network=min(1.0, *stated, group.parameters.network))
    outside = beyond(workload, group.rows)
    wide = [group.width] if len(group.rows) > 1 else []
    if group.device != device:
        wide.append(transferred(learnt(), devices=True))
    if outside or not group.is_own:
        wide.append(transferred(learnt(), devices=False))
    if group.device != device:
        outside = (f"device {device} (rows: {group.device})", *outside)
    return Choice(group=group, parameters=parameters, network=network, near=near, width=max(wide), beyond=outside)


def forecast_of(
    counters: Mapping[str, int],
    products: Mapping[str, int] | None,
    workload: Workload,
    device: str,
    *,
    engine: str = "deepspeed",
    table: str | None = None,
    network: float | None = None,
) -> Forecast:
    """What `workload`, of which `counters` were counted, could reach on `device`.

    Args:
        counters: of runs/cost.py.
        products: FLOPs of its products by phase, where they are known.
        workload: what was counted.
        device: slug.
        engine: whose collectives and memory.
        table: whose rows alone are learnt from; None: see `choose`.
        network: between nodes, bytes per second that a GPU gets, one direction; None: the maker's.

    Raises:
        ValueError: for a table that nothing can be learnt from.
    """
    sheet = DATASHEETS[device] if network is None else with_network(DATASHEETS[device], network)
    choice = choose(workload, device, table=table, network=network)
    parts = times(counters, workload, sheet, engine=engine)
    found = predict(workload, parts, choice.parameters, wide=choice.width)
    model = None
    if products:
        # Backward, a flash kernel makes 2.5 times the forward's FLOPs: one of its five products is made again.
        attention = counters["step.flops.attention_backward"] * 3 * 2 // 5
        model = 3 * products["forward"] + counters["step.flops.loss"] + attention
    return Forecast(
        device=device,
        sheet=sheet,
        workload=workload,
        choice=choice,
        prediction=replace(found, beyond=choice.beyond),
        peak_bytes=counters[f"{engine}.memory.peak"],
        model_flops=model,
        hardware_flops=sum(counters[f"step.flops.{group}"] for group in PRODUCTS),
    )


def forecasts(device: str, *, table: str | None = None, network: float | None = None) -> list[Forecast]:
    """Every case of the published table on `device`, in its order.

    Raises:
        ValueError: for a device without the datasheet that it takes, a network that is none, or such a table.
        FileError: where the counted costs of the rows are missing.
    """
    device = device_named(device)
    check_network(network)
    counts = _published_counts()
    workloads = [full_workload(case) for case in PUBLISHED]
    return [forecast_of(counts[each.key], None, each, device, table=table, network=network) for each in workloads]


def check_network(network: float | None) -> None:
    """Refuse a bandwidth that is none.

    Raises:
        ValueError: naming it.
    """
    if network is not None and not 0 < network < float("inf"):
        raise ValueError(f"network must be a positive bandwidth, got {network:g}")


def predicted_on(device: str) -> dict[str, float]:
    """TGS of each published case on `device`, by case, as `forecasts` gives it.

    Raises:
        FileError: where the counted costs of the rows are missing.
    """
    return {each.workload.case: each.prediction.tgs for each in forecasts(device)}


def predicted_published() -> dict[str, float]:
    """TGS of each published row, predicted from the rows of other models of its table, by case.

    Raises:
        FileError: where the counted costs of the rows are missing.
    """
    _published_counts()
    groups = [each for each in learnt() if (each.table, each.device) == (FIRST, PUBLISHED_DEVICE)]
    cases = {case.id for case in PUBLISHED}
    return {case: tgs for group in groups for case, tgs in group.left_out.items() if case in cases}


@dataclass(frozen=True, kw_only=True)
class RowPrediction:
    """What the predictor says of one row of a table."""

    tgs: float | None = None
    low: float | None = None
    high: float | None = None
    """Of the interval."""
    within: bool | None = None
    """Whether the row's figure lies in it; None without a figure, an interval, or of a bound."""
    bound: bool = False
    """A lower bound of the speed: of a compiled row, predicted from what its layers do as eager."""
    why_not: str = ""
    """Why nothing is predicted; empty where something is."""


def predict_rows(name: str | Path) -> dict[int, RowPrediction]:
    """What is predicted of each row of a table without the rows of its model, by the row's line.

    Raises:
        FileError: for a table or counts that cannot be used.
    """
    table, counts = load_table(name), load_counts(name)
    shipped = str(name) in table_names()
    groups = [each for each in (learnt() if shipped else learn([*table_names(), name])) if each.table == table.name]
    return {row.line: _row_prediction(row, table, counts, groups) for row in table.rows}


def _row_prediction(
    row: TableRow, table: Table, counts: Mapping[str, Mapping[str, int]], groups: Sequence[Group]
) -> RowPrediction:
    if why_not := _why_not(row, table, counts):
        return RowPrediction(why_not=why_not)
    mine = [each for each in groups if each.device == row.device]
    for group in mine:
        if row.id in group.left_out and not _compiled(row):
            low, high = group.intervals[row.id]
            within = group.within[row.id] if len(group.rows) > 1 else None
            return RowPrediction(tgs=group.left_out[row.id], low=low, high=high, within=within)
    # Not learnt from: a compiled row, or one without a figure.
    parts, workload = times_of(row, table, counts), counted_as(row)
    assert parts is not None
    assert workload is not None
    if not mine:
        return RowPrediction(why_not=f"no row of its table on {row.device} teaches anything")
    group = min(mine, key=lambda each: has_experts(each.rows[0].workload.decoder) != has_experts(workload.decoder))
    found = predict(workload, parts, group.parameters.on(f"{table.name} {row.section}"), wide=group.width)
    return RowPrediction(tgs=found.tgs, low=found.low, high=found.high, bound=_compiled(row))


def _why_not(row: TableRow, table: Table, counts: Mapping[str, Mapping[str, int]]) -> str:
    workload = counted_as(row)
    if workload is None:
        return f"not counted: {', '.join(row.lacks) or 'the row does not say its GPUs'}"
    if row.device is None:
        return "its device is not stated"
    if row.device not in DATASHEETS:
        return f"no datasheet of {row.device}"
    return "" if workload.key in counts else f"not counted: `python -m trainpace count {table.name}` does"


def expected(name: str | Path) -> dict[tuple[str, str | None], Expected | str]:
    """`predict_rows` as judge/tables.py takes it: by a row's id and device; a text where there is no interval.

    Raises:
        FileError: for a table or counts that cannot be used.
    """
    said = predict_rows(name)
    found: dict[tuple[str, str | None], Expected | str] = {}
    for row in load_table(name).rows:
        mine = said[row.line]
        if mine.tgs is None or mine.low is None or mine.high is None:
            found[row.id, row.device] = mine.why_not
        elif mine.bound:
            found[row.id, row.device] = f"at least {mine.tgs:.0f}, as eager"
        else:
            found[row.id, row.device] = Expected(low=mine.low, tgs=mine.tgs, high=mine.high)
    return found


def published_table() -> list[published.Row]:
    """The published table with predictions, in its own order; without them where the counted costs are missing.

    Raises:
        FileError: where the baselines cannot be used, or lack a row.
    """
    try:
        predicted = predicted_published()
    except FileError:
        predicted = {}
    return published.rows(_published(), predicted)


def _published_counts() -> dict[str, dict[str, int]]:
    counts = load_counts(FIRST)
    keys = [full_workload(case).key for case in PUBLISHED]
    if missing := [key for key in keys if key not in counts]:
        raise FileError(f"no counted cost of {', '.join(missing)}: `python -m trainpace count {FIRST}` counts them")
    return counts


def _published() -> list[Published]:
    path = published_folder() / f"{PUBLISHED_DEVICE}.json"
    found = {each.case: each for each in load_file(path).baselines.values() if isinstance(each, Published)}
    if missing := [case.id for case in PUBLISHED if case.id not in found]:
        raise FileError(f"{path}: expected every published row, got none of {', '.join(missing)}")
    return [found[case.id] for case in PUBLISHED]
