"""Peak memory of a workload that was never counted, from the stored counts of one like it. Imports no torch.

It decides what fits a GPU before anything runs: the scales ask it for every number of layers.
"""

from collections.abc import Callable, Iterable

from trainpace.cases.architectures import with_layers
from trainpace.cases.parameters import parameters
from trainpace.cases.scaling import memory_bytes
from trainpace.cases.workload import Workload
from trainpace.runs.cost import ENGINES, Cost

MARGIN = 1.01
"""On a row that is cut: what grows with nothing of the above, as padding and tables of positions."""
KEPT = ("dtype", "recompute", "param_dtype", "sharding")
"""Fields in which a counted row must be as the workload: what they make of memory is no cut."""


def counted_memory(costs: Iterable[Cost]) -> Callable[[Workload], int]:
    """A function that gives a workload's peak memory of one rank, bytes.

    A stored row of the same model and dtype is cut to the workload, part by part: parameters, gradients and optimizer
    by the parameters that a rank holds; gathered parameters and buffers not at all; activations by layers and tokens
    of a rank; what is temporary by tokens. The row is that with the most tokens up to the workload's, because a part of
    what is temporary does not grow with them: this keeps the estimate above what is needed.

    Where no such row is stored, or the trainer is not ours, it is `trainpace.cases.scaling.memory_bytes`.
    """
    stored = list(costs)

    def memory(workload: Workload) -> int:
        like = [row for row in stored if _alike(row.workload, workload)]
        if not like or workload.trainer != "native" or workload.engine not in ENGINES:
            return memory_bytes(workload)
        tokens = workload.rank_tokens

        def nearness(row: Cost) -> tuple[bool, int, bool]:
            counted = row.workload
            return counted.rank_tokens <= tokens, -abs(counted.rank_tokens - tokens), counted.case == workload.case

        return _cut(max(like, key=nearness), workload)

    return memory


def _alike(counted: Workload, workload: Workload) -> bool:
    one, other = (with_layers(each.decoder, 1).model_copy(update={"vocabulary": 1}) for each in (counted, workload))
    same_shape = one == other
    return same_shape and all(getattr(counted, name) == getattr(workload, name) for name in KEPT)


def _cut(row: Cost, workload: Workload) -> int:
    counted, engine = row.workload, workload.engine

    def of(category: str, engine: str = engine) -> int:
        return row.counters[f"{engine}.memory.{category}"]

    held = parameters(workload.decoder) / workload.ranks / (parameters(counted.decoder) / counted.ranks)
    tokens = workload.rank_tokens / counted.rank_tokens
    layers = workload.decoder.layers / counted.decoder.layers
    states = of("parameters") + of("gradients") + of("optimizer")
    if engine == "fsdp2" and counted.accumulation == 1 < workload.accumulation:
        states += of("parameters")  # gradients of the micro-steps before, in the parameters' own dtype
    # Those of ZeRO-3's peak: FSDP2's own may lie where the activations are already gone.
    activations, temporary = of("activations", "deepspeed"), of("temporary", "deepspeed")
    work = activations * layers * tokens + temporary * max(1.0, tokens)
    alike = (layers, tokens, counted.ranks) == (1.0, 1.0, workload.ranks)
    return round((states * held + of("gathered") + work) * (1.0 if alike else MARGIN))
