"""Peak memory of a workload that was never counted, from the stored counts of one like it. Imports no torch.

It decides what fits a GPU before anything runs: the scales ask it for every number of layers.
"""

from collections.abc import Callable, Iterable
from typing import Any

from trainpace.cases.architectures import with_layers
from trainpace.cases.parameters import layer_parameters, parameters
from trainpace.cases.scaling import memory_bytes
from trainpace.cases.workload import Workload
from trainpace.runs.cost import ENGINES, Cost

HEAD_WIDTH = 4
"""Bytes of an element of the head's gradient, which the only rank of a run holds besides its others."""
MARGIN = 1.01
"""On a row that is cut: what grows with nothing of the above, as padding and tables of positions."""
KEPT = ("dtype", "recompute", "param_dtype", "sharding")
"""Fields in which a counted row must be as the workload: what they make of memory is no cut."""


def counted_memory(costs: Iterable[Cost]) -> Callable[[Workload], int]:
    """A function that gives a workload's peak memory of one rank, bytes.

    A stored row of the same model and dtype is cut to the workload, part by part: parameters, gradients and optimizer
    by the parameters that a rank holds; gathered parameters and buffers not at all; activations by layers and tokens
    of a rank; what is temporary by tokens, and never down: most of it is of the vocabulary. The row is that with the
    most tokens up to the workload's, because a part of what is temporary does not grow with them: this keeps the
    estimate above what is needed.

    Where no such row is stored, or the trainer is not ours, it is `trainpace.cases.scaling.memory_bytes`.
    """
    stored = [(_likeness(row.workload), row) for row in costs if row.workload.trainer == "native"]

    def memory(workload: Workload) -> int:
        if workload.trainer != "native" or workload.engine not in ENGINES:
            return memory_bytes(workload)
        wanted, tokens = _likeness(workload), workload.rank_tokens
        like = [row for likeness, row in stored if likeness == wanted]
        if not like:
            return memory_bytes(workload)

        def nearness(row: Cost) -> tuple[bool, int, bool]:
            counted = row.workload
            return counted.rank_tokens <= tokens, -abs(counted.rank_tokens - tokens), counted.case == workload.case

        return _cut(max(like, key=nearness), workload)

    return memory


def _likeness(workload: Workload) -> tuple[Any, ...]:
    """What must be equal in a row that another workload may be cut from: all but layers, vocabulary and tokens."""
    shape = with_layers(workload.decoder, 1).model_copy(update={"vocabulary": 1})
    return shape, *(getattr(workload, name) for name in KEPT)


def _cut(row: Cost, workload: Workload) -> int:
    counted, engine, shape = row.workload, workload.engine, workload.decoder

    def of(category: str, engine: str = engine) -> int:
        return row.counters[f"{engine}.memory.{category}"]

    held = parameters(shape) / workload.ranks / (parameters(counted.decoder) / counted.ranks)
    tokens = workload.rank_tokens / counted.rank_tokens
    layers = shape.layers / counted.decoder.layers
    if (layers, tokens, counted.ranks, counted.accumulation) == (1.0, 1.0, workload.ranks, workload.accumulation):
        return row.peak(engine)
    # Those of ZeRO-3's peak: FSDP2's own may lie where the activations are already gone.
    activations = of("activations", "deepspeed") * layers * tokens
    work = of("temporary", "deepspeed") * max(1.0, tokens)
    matrix = shape.vocabulary * shape.hidden
    states = of("parameters") + of("optimizer")
    if engine == "deepspeed":
        states += of("gradients")
        work += activations + (HEAD_WIDTH * matrix if workload.ranks == 1 else 0)
    elif workload.accumulation > 1:
        states += of("parameters")  # gradients of the micro-steps before, in the parameters' own dtype
        work += activations
    else:
        # Gradients come as activations go. Most is live where they begin, or in the first layer's backward, which is
        # the last: then those of all other layers and of the head are there.
        late = (parameters(shape) - matrix - layer_parameters(shape)) / parameters(shape)
        gradients = of("parameters") * held * max(0.0, late)
        work += max(activations, gradients + activations / shape.layers)
    return round((states * held + of("gathered") + work) * MARGIN)
