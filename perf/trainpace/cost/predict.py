"""The prediction of every published case, from the counted costs and published rows that travel with the package.

The computing is stats/roofline.py; what is printed of it is report/predict.py.
"""

from collections.abc import Sequence
from dataclasses import replace

from trainpace.cases import PUBLISHED
from trainpace.cases.published import PUBLISHED_DEVICE
from trainpace.cases.scaling import full_workload
from trainpace.errors import FileError
from trainpace.judge.baseline import Published
from trainpace.report import published
from trainpace.runs.cost import Cost
from trainpace.runs.datasheets import DATASHEETS
from trainpace.stats.roofline import Forecast, Row, fit, left_out, predictions, times, with_network
from trainpace.store.baselines import load_file, published_folder
from trainpace.store.costs import load_costs


def devices() -> list[str]:
    """Devices that a step can be predicted for."""
    return [slug for slug, sheet in DATASHEETS.items() if sheet.node_bytes_per_second and sheet.memory_bytes]


def forecast(device: str, *, network: float | None = None) -> Forecast:
    """Predict every published case on `device`.

    Args:
        device: slug of its datasheet.
        network: bandwidth between nodes that a GPU has, bytes per second; None: the maker's own system is assumed, and
            for the published rows' device the network that they suggest.

    Raises:
        ValueError: for a device without the datasheet that it takes, naming those that have one.
        FileError: where the counted costs of the rows are missing.
    """
    if device not in devices():
        raise ValueError(f"device must be one of {', '.join(devices())}, got {device!r}")
    if network is not None and not 0 < network < float("inf"):
        raise ValueError(f"network must be a positive bandwidth, got {network:g}")
    costs = _costs()
    rows = published_rows(costs)
    parameters = fit(rows)
    as_published = device == PUBLISHED_DEVICE and network is None
    sheet = DATASHEETS[device] if network is None else with_network(DATASHEETS[device], network)
    used = parameters if as_published else replace(parameters, network=1.0)
    return Forecast(
        device=device,
        sheet=sheet,
        as_published=as_published,
        parameters=parameters,
        costs=costs,
        rows=rows,
        predictions=predictions(costs, sheet, used),
        left_out=left_out(rows),
    )


def predicted_on(device: str) -> dict[str, float]:
    """TGS of each published case on `device`, by case, as `forecast` gives it.

    Raises:
        FileError: where the counted costs of the rows are missing.
    """
    costs = _costs()
    parameters = fit(published_rows(costs))
    used = parameters if device == PUBLISHED_DEVICE else replace(parameters, network=1.0)
    return {each.case: each.tgs for each in predictions(costs, DATASHEETS[device], used)}


def predicted_published() -> dict[str, float]:
    """TGS of each published row, predicted from the counts of all and the figures of the others, by case.

    Raises:
        FileError: where the counted costs of the rows are missing.
    """
    return left_out(published_rows(_costs()))


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


def published_rows(costs: Sequence[Cost]) -> list[Row]:
    """The published row of each of `costs`, on the device that it was measured on."""
    tgs = {each.case: each.tgs for each in _published()}
    sheet = DATASHEETS[PUBLISHED_DEVICE]
    return [
        Row(
            case=cost.workload.case,
            parts=times(cost, sheet),
            tokens=cost.workload.rank_tokens,
            tgs=tgs[cost.workload.case],
        )
        for cost in costs
    ]


def _costs() -> list[Cost]:
    stored = load_costs(published_folder())
    keys = [full_workload(case).key for case in PUBLISHED]
    if missing := [key for key in keys if key not in stored]:
        raise FileError(
            f"no counted cost of {', '.join(missing)}: `pytest perf -k test_cost --perf-refresh` counts them"
        )
    return [stored[key] for key in keys]


def _published() -> list[Published]:
    path = published_folder() / f"{PUBLISHED_DEVICE}.json"
    found = {each.case: each for each in load_file(path).baselines.values() if isinstance(each, Published)}
    if missing := [case.id for case in PUBLISHED if case.id not in found]:
        raise FileError(f"{path}: expected every published row, got none of {', '.join(missing)}")
    return [found[case.id] for case in PUBLISHED]
