"""All settings of one model on one device: which fit, and how fast each could be.

Counts are affine in the micro-batch, so each other setting is traced at the smallest and the largest, and those between
follow: FLOPs, bytes and calls exactly, the peak as an upper figure where the largest moment of a step is another one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from trainpace.cases.published import Case
from trainpace.cases.scaling import full_workload
from trainpace.cases.workload import Recompute, Sharding, Workload
from trainpace.cost.predict import forecast_of
from trainpace.runs.cost import Cost
from trainpace.stats.forecast import Forecast

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
RECOMPUTES: tuple[Recompute, ...] = ("full", "selective_op", "none")
SPS = (1, 2, 4, 8)
SHARDINGS: tuple[Sharding, ...] = ("full", "zero2")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is tried of a case."""

    case: Case
    engine: str
    micro_batches: Sequence[int] = MICRO_BATCHES
    recomputes: Sequence[Recompute] = RECOMPUTES
    sps: Sequence[int] = SPS
    shardings: Sequence[Sharding] = SHARDINGS

    def lines(self) -> Iterator[list[Case]]:
        """Settings that differ in the micro-batch alone, smallest first; none of an sp that does not divide."""
        case = self.case
        for sp, sharding, recompute in product(self.sps, self.shardings, self.recomputes):
            if any(whole % sp for whole in (case.gpus, case.model.decoder.heads, case.sequence)):
                continue
            yield [
                replace(case, sp=sp, sharding=sharding, recompute=recompute, micro_batch=size, accumulation=1)
                for size in sorted(self.micro_batches)
            ]

    def traced(self) -> list[Workload]:
        """What is counted: two of each line."""
        ends = [case for line in self.lines() for case in {each.id: each for each in (line[0], line[-1])}.values()]
        return [full_workload(case) for case in ends]

    def forecasts(
        self, costs: Mapping[str, Cost], device: str, *, table: str | None = None, network: float | None = None
    ) -> list[Forecast]:
        """Every setting, the fastest first. `costs` are those of `traced`, by case.

        Raises:
            ValueError: for a table that nothing can be learnt from.
        """
        found = []
        for line in self.lines():
            first, last = costs.get(line[0].id), costs.get(line[-1].id)
            if first is None or last is None:  # it could not be traced
                continue
            for case in line:
                workload = full_workload(case)
                counters = between(first, last, case.micro_batch)
                made = forecast_of(counters, None, workload, device, engine=self.engine, table=table, network=network)
                found.append(made)
        return sorted(found, key=lambda each: -each.prediction.tgs)


def between(first: Cost, last: Cost, micro_batch: int) -> dict[str, int]:
    """The counters of a micro-batch from those of two others that differ in nothing else."""
    low, high = first.workload.micro_batch, last.workload.micro_batch
    if low == high:
        return dict(first.counters)
    names = first.counters.keys() | last.counters.keys()
    grown = {}
    for name in sorted(names):
        begin, end = first.counters.get(name, 0), last.counters.get(name, 0)
        grown[name] = begin + (end - begin) * (micro_batch - low) // (high - low)
    return grown
