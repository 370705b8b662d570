"""How a case is cut to the machine at hand: case + machine -> workload, with the reason beside it.

`full` is the row as published; `proxy` keeps width, dtype and sequence and cuts ranks, then layers; `mini` has
everything small, for a CPU. `auto` takes the largest of them that the machine can run.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from trainpace.cases.architectures import cannot, with_layers
from trainpace.cases.machine import Device, Machine
from trainpace.cases.parameters import layer_parameters, parameters
from trainpace.cases.published import Case
from trainpace.cases.workload import Attention, Dtype, Scale, Shape, Workload, is_own_trainer
from trainpace.text import GIB, gib

MINI_SEQUENCE_CUT = 64
"""A mini sequence is the case's over this up to MINI_CUT_UP_TO: 8k -> 128 tokens, 32k -> 512."""
MINI_CUT_UP_TO = 32 << 10
"""Longer sequences need no such length to run the code path: each doubling adds MINI_DOUBLING tokens, 1M -> 1152."""
MINI_DOUBLING = 128
MOST_MINI = 2
"""Largest micro-batch and accumulation of the mini scale."""
MINI_SP = (4, 2, 1)
"""Sequence-parallel sizes of the mini scale, largest first."""
MOST_MINI_SP = 2
"""Of them what a case has at most: two ranks run the code path of several, and four on two cores mostly wait for each
other. One that has more ranks a sequence than key/value heads, which they then share, may have all four."""

NODE_GPUS = 8
"""GPUs of a usual node, where one must be asked for before it can be looked at."""
LEAST_MINI_RANK_TOKENS = 16
"""A user's short case is not cut below this."""
MINI_OWN_SEQUENCE = 512
"""Where the model is its trainer's own affair, nothing else of it is small: a sequence is not cut below this."""

MEMORY_SHARE = 0.9
"""Of a GPU's memory that a whole case may fill; the rest is CUDA's context, NCCL's buffers and fragments."""
PROXY_MEMORY_SHARE = 0.85
"""The same of a cut, whose memory is estimated: that was compared with a real GPU's peak on one card alone."""
FLASH_CAPABILITY = (8, 0)
"""From which compute capability on flash kernels run: Ampere."""
LEAST_LAYERS = 2
"""A proxy with one layer would have nothing to prefetch while it computes; on one GPU alone there is nothing to."""
LOSS_CHUNK = 4096
"""Tokens whose logits exist at one time: the loss is computed in chunks of about this size."""
LEAST_RANK_TOKENS = 1024
"""A proxy whose ranks hold fewer tokens than this would no longer fill a GPU."""

# (tokens of a sequence up to, warm-up, measured steps). On a CPU 3 warm-up steps are enough for short steps, and the
# spread between runs falls with more steps far more cheaply than with more runs; long steps are steady by themselves.
# A first session makes four runs of each case: the steps of one take about four seconds on two cores.
MINI_STEPS = ((256, 3, 40), (512, 3, 24), (2048, 2, 12), (4096, 2, 8), (None, 2, 4))
# A step of 1M tokens takes minutes. Fewer measured steps than the accumulation do no harm: the step loop forces an
# optimizer step after the last one.
GPU_STEPS = ((8 << 10, 5, 20), (32 << 10, 3, 12), (128 << 10, 2, 6), (256 << 10, 2, 4), (None, 1, 3))
Memory = Callable[[Workload], int]
"""Peak memory of one rank of a workload, bytes."""

StepTable = tuple[tuple[int | None, int, int], ...]

# DeepSpeed's documented defaults of ZeRO-3 for what decides its communication, in elements. They are spelt out so
# that a version with other defaults cannot change what a stored baseline means.
DEEPSPEED_THRESHOLDS = {
    "reduce_bucket_size": 500_000_000,
    "stage3_max_live_parameters": 1_000_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
    "stage3_param_persistence_threshold": 100_000,
    "stage3_prefetch_bucket_size": 50_000_000,
}
# At full width this threshold keeps norms whole on every rank and shards the matrices. A mini matrix is smaller than
# the default, and ZeRO-3 would shard nothing at all.
MINI_PERSISTENCE_THRESHOLD = 1_000


class CannotStart(ValueError):
    """GPUs that are large enough, and on which the native trainer cannot run as asked. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A workload, why it has this scale, and what a user must know about the cut."""

    workload: Workload
    reason: str
    """`8 GPUs of 80 GiB: full`."""
    warnings: tuple[str, ...] = ()


def resolve(
    case: Case,
    machine: Machine,
    *,
    scale: Literal["auto"] | Scale = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Dtype = "bf16",
    attention: Attention = "causal",
    trainer: str = "native",
    engine: str = "deepspeed",
    compiled: bool = False,
    warmup: int | None = None,
    steps: int | None = None,
    vocabulary: int | None = None,
    stored_cut: Workload | None = None,
    memory: Memory | None = None,
) -> Resolved:
    """Cut `case` to `machine`.

    `device` is what ranks run on: `cpu` leaves GPUs alone, `cuda` has the scale `mini` run on them too. By itself that
    runs on the CPU, unless there are GPUs that nothing larger fits. `compiled` has the layers compiled, also where the
    case does not say so. `warmup` and `steps` replace the fixed table's. `vocabulary` is the tokenizer's number of ids:
    more than the workload's raise it. `stored_cut` is the workload of this device's stored proxy baseline, whose cut is
    reused. `memory` gives the peak memory of one rank, bytes (default: memory_bytes).

    Of a case without a shape nothing is known but its tokens and GPUs. `mini` cuts these, not its micro-batch and
    accumulation; `proxy` has fewer GPUs, each with the tokens that it has in the case; `full` is believed to fit.

    Raises:
        CannotStart: the ranks would fail for what concerns the whole session: the dtype, the GPUs, their free memory.
        ValueError: a scale was asked for that this machine cannot run, or the native trainer for a model that it cannot
            train; the message names what is missing.
    """

    if trainer == "native" and (why := _cannot_build(case)):
        raise ValueError(f"{case.id}: {why}")

    peak = memory or memory_bytes

    def at(scale: Scale, shape: Shape | None, *, sequence: int, sp: int, ranks: int, on_gpus: bool = False) -> Workload:
        of_case = _of_case(case, sp, scale)
        table_warmup, table_steps = default_steps(scale, sequence, sp, of_case["accumulation"], trainer)
        nodes = num_nodes(ranks, scale, machine, on_gpus=on_gpus)
        return Workload(
            case=case.id,
            model=case.model.name,
            scale=scale,
            nodes=nodes,
            network=machine.network if nodes > 1 else "",
            shape=shape and shape.model_copy(update={"vocabulary": max(shape.vocabulary, vocabulary or 0)}),
            sequence=sequence,
            ranks=ranks,
            sp=sp,
            dtype=dtype,
            attention=attention,
            **{**of_case, "compile": compiled or case.compile},
            warmup=table_warmup if warmup is None else warmup,
            steps=table_steps if steps is None else steps,
            trainer=trainer,
            engine=engine,
            thresholds=_thresholds(scale, trainer, engine),
            mini_on="cuda" if on_gpus else "cpu",
        )

    def resolved(workload: Workload, reason: str, *warnings: str) -> Resolved:
        published = case.mini_shape if workload.scale == "mini" else case.model.shape
        if published and workload.decoder.vocabulary > published.vocabulary:
            ids = f"vocabulary {published.vocabulary} -> {workload.decoder.vocabulary}"
            warnings = (*warnings, f"{ids}: the tokenizer has more ids than the model")
        if trainer == "native" and (why := _cannot_start(workload, machine, peak)):
            raise CannotStart(f"{case.id}: {why}")
        return Resolved(workload=workload, reason=reason, warnings=warnings)

    def mini(reason: str, *, on_gpus: bool = device == "cuda") -> Resolved:
        sp, ranks = _mini_on_gpus(case, machine) if on_gpus else (mini_sp(case), mini_ranks(case))
        sequence = case.mini.sequence or _mini_rank_tokens(case, sp) * sp
        small = at("mini", case.mini_shape, sequence=sequence, sp=sp, ranks=ranks, on_gpus=on_gpus)
        return resolved(small, f"{reason}: mini{' on GPUs' if on_gpus else ''}", *_cut_of_own(case, small))

    gpus = None if device == "cpu" else machine.gpus
    if gpus is None and device == "cuda":
        raise ValueError(f"{case.id}: --perf-device cuda needs CUDA GPUs, none is present")
    if scale == "mini":
        return mini("asked for")
    if gpus is None and scale == "auto":
        return mini("no CUDA GPU")
    if gpus is None:
        raise ValueError(f"{case.id}: scale {scale} needs CUDA GPUs, none is present; mini and auto need none")

    full = at("full", case.model.shape, sequence=case.sequence, sp=case.sp, ranks=case.gpus)
    lacks = _lacks(full, gpus, peak)
    if scale != "proxy" and not lacks:
        return resolved(full, f"{gpus.count} GPUs of {gib(gpus.memory_bytes, 0)}: full")
    if scale == "full" and trainer != "native" and full.ranks <= gpus.count:
        taken = f"full as asked for: by the native trainer's estimate it {lacks}, of {trainer} nobody knows"
        return resolved(full, f"{gpus.count} GPUs of {gib(gpus.memory_bytes, 0)}: full", taken)
    if scale == "full":
        raise ValueError(f"{case.id}: scale full {lacks}; proxy and auto cut the case to this machine")

    warnings = []
    refusal = _cannot_reuse(stored_cut, full, gpus) if stored_cut else None
    if refusal:
        warnings.append(f"the cut stored with the proxy baseline is not reused: {refusal}")
    cut = stored_cut if stored_cut and not refusal else _proxy_cut(full, gpus, peak)
    if cut is None and scale == "auto":
        few = f"not even a few layers and a short sequence fit {gib(gpus.memory_bytes, 0)}"
        return mini(few, on_gpus=True)
    if cut is None:
        raise ValueError(
            f"{case.id}: scale proxy: not even a few layers and a short sequence fit "
            f"{gpus.count} GPUs of {gib(gpus.memory_bytes, 0)}; use larger GPUs, or scale mini"
        )
    shape = with_layers(case.model.shape, cut.decoder.layers) if case.model.shape else None
    proxy = at("proxy", shape, sequence=cut.sequence, sp=cut.sp, ranks=cut.ranks)
    if proxy.sequence < full.sequence:
        warnings.append(
            f"SEQUENCE CUT {full.sequence} -> {proxy.sequence} tokens: says little of the case's own length"
        )
    return resolved(proxy, f"{f'full {lacks}' if lacks else 'asked for'}: proxy{_changes(full, proxy)}", *warnings)


def _cannot_build(case: Case) -> str | None:
    """Why the native trainer cannot train a case's model, on whatever machine; None where it can."""
    if case.model.shape is None:
        return (
            "expected the trainer that has the model, because the case does not say its shape: "
            "--perf-trainer package.module:object, or @pytest.mark.perf_trainer above the test"
        )
    return cannot(case.model.shape, case.sequence)


def _cannot_start(workload: Workload, machine: Machine, memory: Memory) -> str | None:
    """Why the native trainer's ranks would fail on GPUs that are large enough; None where they would not."""
    if machine.gpus is None or machine.kind_for(workload) == "cpu":
        return None
    if workload.dtype != "bf16":
        return f"attention on a GPU needs --perf-dtype bf16, got {workload.dtype}: no flash kernel computes in it"
    if machine.gpu_capability is not None and machine.gpu_capability < FLASH_CAPABILITY:
        least, found = (".".join(map(str, each)) for each in (FLASH_CAPABILITY, machine.gpu_capability))
        return (
            f"attention on a GPU needs compute capability {least} (A100), {machine.gpus.name} has {found}; "
            "--perf-scale mini runs on the CPU"
        )
    free, needed = machine.gpu_free_bytes, memory(workload)
    if free is not None and needed > free:
        return (
            f"needs about {gib(needed, 0)} a GPU, and one has {gib(free, 0)} free of "
            f"{gib(machine.gpus.memory_bytes, 0)}: end what uses it (nvidia-smi names it), or leave that GPU out with "
            "CUDA_VISIBLE_DEVICES"
        )
    return None


def _of_case(case: Case, sp: int, scale: Scale) -> dict[str, Any]:
    """The fields of a workload that a case gives as they are; `sp` is what the scale made of the case's."""
    accumulation, micro_batch = case.accumulation or sp, case.micro_batch
    if scale == "mini":  # the code path of several, in the time of two
        most = MOST_MINI if case.model.shape else max(micro_batch, accumulation)
        micro_batch = case.mini.micro_batch or min(micro_batch, most)
        accumulation = case.mini.accumulation or (min(accumulation, most) if case.accumulation else sp)
    return {
        "micro_batch": micro_batch,
        "accumulation": accumulation,
        "recompute": case.recompute,
        "sharding": case.sharding,
        "param_dtype": case.param_dtype,
        "reduce_dtype": case.reduce_dtype,
        "compile": case.compile,
        "tags": case.tags,
    }


def _cut_of_own(case: Case, small: Workload) -> tuple[str, ...]:
    """What the scale `mini` cuts of a case without a shape, and what it does not."""
    pairs = (("GPUs", case.gpus, small.ranks), ("sp", case.sp, small.sp), ("tokens", case.sequence, small.sequence))
    cut = ", ".join(f"{what} {old} -> {new}" for what, old, new in pairs if old != new)
    if case.model.shape is not None or not cut:
        return ()
    return (f"{cut}; its model is as small as its trainer makes it (context.workload.scale is mini)",)


def mini_sequence(sequence: int) -> int:
    """Tokens that a sequence has at the mini scale, before it is shared among ranks; it never falls with `sequence`."""
    if sequence <= MINI_CUT_UP_TO:
        return sequence // MINI_SEQUENCE_CUT
    doublings = (sequence // MINI_CUT_UP_TO).bit_length() - 1
    return MINI_CUT_UP_TO // MINI_SEQUENCE_CUT + MINI_DOUBLING * doublings


def _mini_rank_tokens(case: Case, sp: int) -> int:
    """Tokens that one of `sp` ranks has of a sequence at the mini scale."""
    tokens = max(mini_sequence(case.sequence) // sp, LEAST_MINI_RANK_TOKENS)
    return tokens if case.model.shape else max(tokens, min(case.sequence, MINI_OWN_SEQUENCE) // sp)


def mini_sp(case: Case) -> int:
    """Ranks that share a sequence at the mini scale."""
    # What it must divide; what follows by rule is made a multiple of it.
    heads = case.mini_shape.heads if case.mini_shape else 0
    shared = (heads, case.mini.ranks or 0, case.mini.sequence or 0)
    shape = case.model.shape
    shares_heads = shape is not None and case.sp > shape.kv_heads
    most = min(case.sp, max(MINI_SP) if shares_heads else MOST_MINI_SP)
    fits = (size for size in MINI_SP if size <= most and not any(number % size for number in shared))
    return case.mini.sp or next(fits)


def mini_ranks(case: Case) -> int:
    """Ranks of a case at the mini scale."""
    sp = mini_sp(case)
    return case.mini.ranks or max(sp, min(2, case.gpus))


def _mini_on_gpus(case: Case, machine: Machine) -> tuple[int, int]:
    """The same on GPUs: sp and ranks, one a GPU."""
    assert machine.gpus
    wanted, present = mini_sp(case), machine.gpus.count
    sp = next(size for size in range(min(wanted, present), 0, -1) if wanted % size == 0)
    return sp, min(mini_ranks(case), present) // sp * sp


def num_nodes(ranks: int, scale: Scale, machine: Machine, *, on_gpus: bool = False) -> int:
    """Nodes of `machine` that `ranks` are spread over, equally: as few as have the GPUs, on CPUs as many as there are.

    Raises:
        ValueError: where they cannot be spread equally.
    """
    sizes = [nodes for nodes in range(1, machine.nodes + 1) if ranks % nodes == 0]
    if (scale == "mini" and not on_gpus) or machine.gpus is None:
        return sizes[-1]
    enough = [nodes for nodes in sizes if ranks // nodes <= machine.node_gpus]
    # More ranks than GPUs are refused where it is asked what fits.
    if not enough and ranks <= machine.gpus.count:
        raise ValueError(
            f"{ranks} ranks cannot be spread equally over {machine.nodes} nodes of {machine.node_gpus} GPUs"
        )
    return enough[0] if enough else sizes[-1]


def full_workload(case: Case, *, dtype: Dtype = "bf16", trainer: str = "native") -> Workload:
    """One step of `case` as published, for counting it: what `full` resolves to, whatever the machine at hand has.

    The native trainer under DeepSpeed, plain causal attention; another one under FSDP2. The numbers of steps decide
    nothing that is counted: they are 1, so that the steps' table can change without making counts another workload's.
    """
    return Workload(
        case=case.id,
        model=case.model.name,
        scale="full",
        shape=case.model.shape,
        sequence=case.sequence,
        ranks=case.gpus,
        sp=case.sp,
        dtype=dtype,
        **_of_case(case, case.sp, "full"),
        warmup=1,
        steps=1,
        trainer=trainer,
        engine="deepspeed" if trainer == "native" else "fsdp2",
        thresholds=DEEPSPEED_THRESHOLDS if trainer == "native" else {},
    )


def memory_bytes(workload: Workload) -> int:
    """Estimated peak memory of one rank in a training step, bytes: an upper estimate, for choosing a cut.

    For a model whose steps were never counted; cost/estimate.py knows better where one was.

    The parts, with P parameters, T = S / sp tokens on a rank, h hidden, I intermediate, w bytes of the dtype:

    - sharded states: fp32 master and two Adam moments 12 P, and where the dtype is not fp32 also its copy and its
      gradients 2 w P, else gradients 4 P; over the ranks. 16 P / ranks in both.
    - gathered: the layer at work and the one prefetched, the embedding or output matrix, one layer's gradients before
      they are scattered; for DeepSpeed at least what it may keep gathered and its bucket.
    - checkpoints: the input of every layer, L T h w; and of every layer that is not recomputed what it keeps, about
      14 h and 4 I elements a token, or of products and attention alone 6 h and 2 I.
    - one layer recomputed and differentiated: about 16 h (norms in fp32, q, k, v and their exchanged copies, attention,
      residuals, gradients) and 7 I (gate, up, activation, product, three gradients) elements a token.
    - the loss of one chunk of tokens: logits in w, in fp32, and their fp32 gradient.

    Counted steps (baselines/cost.json, ZeRO-3) of 7B 8k on 8 ranks peak at 19.7 GiB and of 70B 1M on 64 ranks at
    48.9 GiB; this gives 20.7 and 52.7, and is 2 to 8 % above the count in all fourteen rows.
    """
    shape, tokens = workload.decoder, workload.rank_tokens
    width = 2 if workload.dtype == "bf16" else 4
    layer, matrix, whole = layer_parameters(shape), shape.vocabulary * shape.hidden, parameters(shape)

    states = (16 if workload.param_dtype == "fp32" else 8) * whole // workload.ranks
    live = max(2 * layer + matrix, min(whole, workload.thresholds.get("stage3_max_live_parameters", 0)))
    bucket = max(layer, min(whole, workload.thresholds.get("reduce_bucket_size", 0)))
    checkpoints = shape.layers * tokens * shape.hidden * width
    work = tokens * (16 * shape.hidden + 7 * shape.intermediate) * width
    loss = min(tokens, LOSS_CHUNK) * shape.vocabulary * (width + 8)
    kept_layers, hidden, intermediate = {
        "full": (0, 0, 0),
        "selective_op": (shape.layers, 6, 2),
        "selective_layer": (shape.layers // 2, 14, 4),
        "none": (shape.layers, 14, 4),
    }[workload.recompute]
    kept = kept_layers * tokens * (hidden * shape.hidden + intermediate * shape.intermediate) * width
    return states + (live + bucket) * width + checkpoints + kept + work + loss


def default_steps(scale: Scale, sequence: int, sp: int, accumulation: int, trainer: str) -> tuple[int, int]:
    """Warm-up and measured steps of the fixed table; at mini scale never fewer than sp.

    Of a user's own trainer whole groups of the accumulation, as libraries' loops need them; but where the accumulation
    only follows from sp, not so many steps more.
    """
    table = MINI_STEPS if scale == "mini" else GPU_STEPS
    warmup, steps = next((warmup, steps) for limit, warmup, steps in table if limit is None or sequence <= limit)
    steps = max(steps, sp) if scale == "mini" else steps
    if is_own_trainer(trainer) and (accumulation <= steps or accumulation != sp):
        steps = -(-steps // accumulation) * accumulation
    return warmup, steps


def _thresholds(scale: Scale, trainer: str, engine: str) -> dict[str, int]:
    """What ZeRO-3 communicates by: the native trainer under it, and other systems, which are named or files.

    FSDP2, wrapped layer by layer, and a user's own trainer (`module:object`) have no such settings.
    """
    if is_own_trainer(trainer) or (trainer == "native" and engine != "deepspeed"):
        return {}
    if scale == "mini":
        return DEEPSPEED_THRESHOLDS | {"stage3_param_persistence_threshold": MINI_PERSISTENCE_THRESHOLD}
    return DEEPSPEED_THRESHOLDS


def _lacks(workload: Workload, gpus: Device, memory: Memory, share: float = MEMORY_SHARE) -> str:
    """What `gpus` lack to run `workload`; empty where they can."""
    if workload.ranks > gpus.count:
        return f"needs {workload.ranks} GPUs, {gpus.count} present"
    if workload.shape is None:  # what memory it takes nobody knows
        return ""
    needed, usable = memory(workload), share * gpus.memory_bytes
    if needed > usable:
        return f"needs about {needed / GIB:.0f} GiB a GPU, {usable / GIB:.0f} usable of {gpus.memory_bytes / GIB:.0f}"
    return ""


def _cannot_reuse(stored: Workload, full: Workload, gpus: Device) -> str:
    """Why a stored cut does not fit the case or the machine any more; empty where it does."""
    if (stored.case, stored.scale) != (full.case, "proxy"):
        return f"it is of {stored.case} at scale {stored.scale}"
    if not _same_shape(full.shape, stored.shape):
        return "the case's model has another shape now"
    if stored.ranks > gpus.count:
        return f"it needs {stored.ranks} GPUs, {gpus.count} present"
    return ""


def _same_shape(full: Shape | None, stored: Shape | None) -> bool:
    """Whether a stored cut is one of this shape, whatever its layers and its tokenizer."""
    if full is None or stored is None:
        return full is stored
    cut = with_layers(full, stored.layers)
    return stored.model_copy(update={"vocabulary": cut.vocabulary}) == cut


def _proxy_cut(full: Workload, gpus: Device, memory: Memory) -> Workload | None:
    """The largest cut that fits: GPUs and sp to those present, then layers, then sequence by halves. None if none."""
    sizes = range(1, min(full.sp, gpus.count) + 1)
    heads = full.shape.heads if full.shape else 0
    sp = max(size for size in sizes if full.sp % size == 0 and heads % size == 0)
    ranks = min(full.ranks, gpus.count) // sp * sp
    if full.shape is None:
        return full.model_copy(update={"sequence": full.sequence // full.sp * sp, "sp": sp, "ranks": ranks})
    least = min(LEAST_LAYERS if ranks > 1 else 1, full.shape.layers)
    sequence = full.sequence

    def of(layers: int) -> Workload:
        shape = with_layers(full.decoder, layers)
        return full.model_copy(update={"shape": shape, "sequence": sequence, "sp": sp, "ranks": ranks})

    def is_too_large(layers: int) -> bool:
        return bool(_lacks(of(layers), gpus, memory, PROXY_MEMORY_SHARE))

    while True:
        # More layers never take less: the first that are too many are looked for by halves.
        if fitting := bisect_left(range(least, full.shape.layers + 1), True, key=is_too_large):
            return of(least + fitting - 1)
        if sequence % (2 * sp) or full.micro_batch * sequence // 2 < LEAST_RANK_TOKENS * sp:
            return None
        sequence //= 2


def _changes(full: Workload, proxy: Workload) -> str:
    """`, GPUs 32 -> 8, sp 16 -> 8`, empty where nothing had to be cut."""
    pairs = (
        ("GPUs", full.ranks, proxy.ranks),
        ("sp", full.sp, proxy.sp),
        ("layers", full.shape and full.shape.layers, proxy.shape and proxy.shape.layers),
        ("tokens", full.sequence, proxy.sequence),
    )
    return "".join(f", {what} {old} -> {new}" for what, old, new in pairs if old != new)
