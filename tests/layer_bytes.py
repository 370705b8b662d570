"""Bytes of a layer's element-wise work, eager and compiled, and what that means for the speed of a step.

python tests/layer_bytes.py            # or: tox run -e bytes

One layer of Llama2-7B at full width, 8k tokens in bf16: forward, recompute and backward. Eager: what cost/counter.py
counts. Compiled: what Inductor says of the kernels that it would write for a CPU (the terms of its own
GraphLowering.count_bytes); nothing runs, and neither a GPU nor a compiler is needed. Products, attention and loss are
operators of their own, and left out.
"""

import re
from collections import Counter as Multiset
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.graph import GraphLowering
from torch._inductor.utils import get_fused_kernel_name
from torch._subclasses.fake_tensor import FakeTensorMode

from trainpace.cases import LLAMA2_7B, PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.cost.counter import Counter
from trainpace.runs.cost import Cost
from trainpace.runs.datasheets import DATASHEETS
from trainpace.runs.flops import flops_per_token
from trainpace.stats.roofline import times
from trainpace.store.costs import load_costs
from trainpace.trainers.native.attention import Ulysses
from trainpace.trainers.native.compiled import compile_layers
from trainpace.trainers.native.engines import parameters_in
from trainpace.trainers.native.model import CausalLm

ROOT = Path(__file__).resolve().parents[1]
CASE = next(case for case in PUBLISHED if case.id == "llama2_7b-8k-sp1")
DEVICE = "a100-sxm4-80gb"
PRODUCTS, ATTENTION, MEMORY, OPTIMIZER = 0.80, 0.60, 0.85, 0.80
"""Assumed shares of the peak that products and attention reach, and of the memory's bandwidth."""


def main() -> None:
    """Print both, and what follows."""
    workload = full_workload(CASE)
    cost = next(each for each in load_costs(ROOT / "baselines").values() if each.workload.key == workload.key)
    tokens, layers = workload.rank_tokens, workload.shape.layers
    eager, compiled = eager_layer(workload.sequence), compiled_layer(workload.sequence)
    step = sum(row[2] for name, row in cost.operators.items() if name.startswith("step ") and not apart(name[5:]))
    outside = step - layers * eager.size
    joined = outside + layers * compiled.size
    print(f"one layer of {LLAMA2_7B.title}, {tokens} tokens, bf16: forward, recompute and backward; bytes a token that")
    print("are read and written outside of products, attention and loss:\n")
    show("eager, by our counter", eager, tokens)
    show("compiled, by Inductor's own count, C++ backend", compiled, tokens)
    print(f"compiled / eager: {compiled.size / eager.size:.3f}; at most 0.5 is wanted\n")
    print(f"a step, a token: {step / tokens / 1e6:.1f} MB eager, {joined / tokens / 1e6:.1f} MB with compiled layers;")
    print(f"{outside / tokens / 1e6:.1f} MB of both are outside of layers: what FSDP2 gathers, scatters, copies\n")
    print(f"at 8k on an A100, if products reach {PRODUCTS:.0%} of its peak, attention {ATTENTION:.0%}, all else")
    print(f"{MEMORY:.0%} of its memory's bandwidth, and nothing waits (assumptions, none of them measured):\n")
    for what, size in (("eager", step), ("compiled", joined)):
        seconds, share = of_step(cost, size)
        rest = seconds[2] / sum(seconds)
        print(f"  {what:9} {tokens / sum(seconds):5.0f} TGS, HFU {share:.1%}; all else is {rest:.0%} of the step")
    print("  published  3028 TGS, HFU 59.4%; at least 66% is wanted")
    print("\nTriton, in which a GPU's kernels are written, is joined otherwise than C++; how, is not known here.")


@dataclass
class Layer:
    """What one layer's forward, recompute and backward take."""

    parts: Multiset[str] = field(default_factory=Multiset)
    """Bytes by operator or kernel, without those that stand apart."""
    left_out: Multiset[str] = field(default_factory=Multiset)
    """Calls of those that stand apart: the same, eager and compiled."""

    @property
    def size(self) -> int:
        """All bytes."""
        return self.parts.total()


def show(what: str, layer: Layer, tokens: int) -> None:
    """A sum, and its largest parts as shares."""
    left_out = ", ".join(f"{calls} {name}" for name, calls in sorted(layer.left_out.items()))
    print(f"  {what}: {layer.size / tokens / 1e3:.1f} kB; left out: {left_out}")
    for name, size in layer.parts.most_common(6):
        print(f"    {size / layer.size:6.1%}  {name}")


def of_step(cost: Cost, size: int) -> tuple[list[float], float]:
    """Seconds of products, attention, the rest and the optimizer, and HFU by the published formula."""
    sheet, workload = DATASHEETS[DEVICE], cost.workload
    peak = sheet.bf16_tflops or 0.0
    floor = times(cost.counters, workload, sheet)
    attention = floor.attention_forward + floor.attention_backward
    rest = size / (sheet.memory_bytes_per_second * MEMORY)
    seconds = [floor.matmul / PRODUCTS, attention / ATTENTION, rest, floor.optimizer / OPTIMIZER]
    flops = flops_per_token(workload.shape, workload.sequence, "xtuner") * workload.rank_tokens
    return seconds, flops / sum(seconds) / (peak * 1e12)


def apart(operator: str) -> bool:
    """Whether an operator is a product, attention or the loss."""
    return operator.startswith(("aten.mm", "aten.addmm", "aten.bmm", "trainpace."))


def eager_layer(tokens: int) -> Layer:
    """By operator, as cost/counter.py counts."""
    with FakeTensorMode(), parameters_in(torch.bfloat16):
        layer, hidden, named = layer_and_inputs(tokens)
        with (counter := Counter()):
            counter.part = "step"
            layer(hidden, **named).backward(torch.empty_like(hidden))
    found = Layer()
    for name, (calls, _, size) in counter.operators.items():
        operator = name.removeprefix("step ")
        if apart(operator):
            found.left_out[operator] += calls
        else:
            found.parts[operator] += size
    return found


def compiled_layer(tokens: int) -> Layer:
    """By kernel, as Inductor would write them for a CPU."""
    found = Layer()

    def count(graph: GraphLowering) -> Any:
        graph.codegen()
        for node in graph.scheduler.nodes:
            called = getattr(node.node, "op_overload", None) or getattr(node.node, "python_kernel_name", None)
            operator = re.sub(r"^torch\.ops\.|\.(out|default)$", "", str(called or ""))
            if apart(operator):
                found.left_out[operator] += 1
            else:
                inside = operator or get_fused_kernel_name(node.get_nodes(), "original_aten")
                found.parts[f"{node.get_name().partition('_')[0]}: {inside}"] += node.get_read_write_buffers_sizes()
        return SimpleNamespace(call=None, runner=None, __file__="", key="", value="")

    def inner(graph: torch.fx.GraphModule, inputs: Sequence[Any], **settings: Any) -> Callable[..., Any]:
        returned = [each.meta["val"] if isinstance(each, torch.fx.Node) else each for each in outputs_of(graph)]
        with config.patch(fx_graph_cache=False):
            compile_fx_inner(graph, inputs, **settings)
        # Nothing is computed, and no page of these is touched.
        return make_boxed_func(
            lambda *_: [
                torch.empty_strided(each.shape, each.stride(), dtype=each.dtype) if isinstance(each, Tensor) else each
                for each in returned
            ]
        )

    with pytest.MonkeyPatch.context() as patch, parameters_in(torch.bfloat16):
        backend = partial(compile_fx, inner_compile=inner)
        patch.setattr(GraphLowering, "compile_to_module", count)
        patch.setattr(torch, "compile", partial(torch.compile, backend=backend))
        layer, hidden, named = layer_and_inputs(tokens)
        compile_layers(nn.ModuleList([layer]), full_workload(CASE))
        layer(hidden, **named).backward(torch.empty_like(hidden))
    return found


def outputs_of(graph: torch.fx.GraphModule) -> Sequence[Any]:
    """What a graph returns."""
    return graph.graph.find_nodes(op="output")[0].args[0]


def layer_and_inputs(tokens: int) -> tuple[Any, Tensor, dict[str, Any]]:
    """A layer at full width, its input and what it is called with besides; none has values."""
    shape = LLAMA2_7B.shape.model_copy(update={"layers": 1, "vocabulary": 1})
    layer = CausalLm(shape, tokens, "full").layers[0]
    hidden = torch.empty(1, tokens, shape.hidden, requires_grad=True)
    angles = torch.empty(2, 1, tokens, shape.head_size).unbind()
    ends = torch.tensor([0, tokens], dtype=torch.int32)
    named = {"position_embeddings": angles, "ulysses": Ulysses(None, 1), "document_ends": ends, "longest": tokens}
    return layer, hidden, named


if __name__ == "__main__":
    main()
