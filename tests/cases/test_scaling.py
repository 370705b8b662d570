"""How a case is cut: what each scale keeps, what auto takes, and what is said about it."""

from dataclasses import replace

import pytest

from factories import CARDS, make_gpus
from trainpace.cases import LLAMA2_7B, PUBLISHED, YI_34B_200K, Case, Mini, Model, Workload
from trainpace.cases.machine import Device, Machine
from trainpace.cases.scaling import memory_bytes, resolve
from trainpace.cost.estimate import counted_memory
from trainpace.judge.command import Command
from trainpace.store.baselines import published_folder
from trainpace.store.costs import load_costs
from trainpace.text import GIB

CPU = Device(slug="cpu-amd-epyc-2c", name="AMD EPYC", kind="cpu", count=2, memory_bytes=16 * GIB)
LAPTOP = Machine(gpus=None, cpu=CPU, free_bytes=8 * GIB)
CASES = {case.id: case for case in PUBLISHED}
COUNTED = counted_memory(load_costs(published_folder()).values())


def machine(gpus: int, gib: int = 80) -> Machine:
    device = Device(
        slug="a100-sxm4-80gb", name="NVIDIA A100-SXM4-80GB", kind="cuda", count=gpus, memory_bytes=gib * GIB
    )
    return Machine(gpus=device, cpu=CPU, free_bytes=8 * GIB)


def cut(workload: Workload) -> tuple[int, int, int, int]:
    return workload.ranks, workload.sp, workload.shape.layers, workload.sequence


def test_mini_without_cuda():
    """Without CUDA, auto takes the mini scale and says why."""
    actual = resolve(CASES["llama2_7b-8k-sp1"], LAPTOP)

    assert ("no CUDA GPU: mini", "mini", LLAMA2_7B.mini) == (
        actual.reason,
        actual.workload.scale,
        actual.workload.shape,
    )


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("llama2_7b-8k-sp1", (128, 1, 2, 1, 3, 40)),
        ("llama2_7b-32k-sp1", (512, 1, 2, 1, 3, 24)),
        ("yi_34b_200k-32k-sp2", (512, 2, 2, 2, 3, 24)),
        ("llama2_70b-32k-sp4", (512, 2, 2, 2, 3, 24)),
        ("llama2_7b-128k-sp8", (768, 2, 2, 2, 2, 12)),
        ("llama2_7b-256k-sp8", (896, 2, 2, 2, 2, 12)),
        ("llama2_70b-1m-sp64", (1152, 4, 4, 4, 2, 12)),
    ],
)
def test_mini_is_a_fixed_table(case, expected):
    """A mini workload has a 64th of the tokens, of long ones far fewer, at most 4 ranks to a sequence, fixed steps."""
    workload = resolve(CASES[case], machine(8), scale="mini").workload

    actual = (workload.sequence, workload.sp, workload.ranks, workload.accumulation, workload.warmup, workload.steps)
    assert expected == actual


def test_mini_keeps_that_there_are_several():
    """A micro-batch and an accumulation of its own are two at mini scale, and what else a case says stays."""
    case = Case(
        model=LLAMA2_7B, length="8k", sp=1, gpus=8, micro_batch=8, accumulation=16, recompute="none", tags=("a",)
    )
    mini = resolve(case, machine(8), scale="mini").workload
    full = resolve(case, machine(8), scale="full", memory=lambda _: 0).workload

    assert (mini.micro_batch, mini.accumulation, mini.recompute, mini.tags) == (2, 2, "none", ("a",))
    assert (full.micro_batch, full.accumulation, full.rank_tokens) == (8, 16, 8 * 8192)


@pytest.mark.parametrize(
    ("mini", "expected"),
    [
        (Mini(), (128, 2, 2, 2, 2)),
        (Mini(sequence=300), (300, 2, 2, 2, 2)),
        (Mini(sequence=75), (75, 1, 2, 2, 1)),
        (Mini(ranks=1), (128, 1, 1, 2, 1)),
        (Mini(sp=4), (128, 4, 4, 2, 4)),
        (Mini(sequence=64, sp=1, ranks=3, micro_batch=5, accumulation=4), (64, 1, 3, 5, 4)),
    ],
)
def test_a_cases_own_small_size(mini, expected):
    """What it says is taken; the rest follows by rule, so that ranks and sequence are multiples of sp."""
    case = Case(model=LLAMA2_7B, length="8k", sp=2, gpus=8, micro_batch=4, mini=mini)
    small = resolve(case, LAPTOP).workload

    assert (small.sequence, small.sp, small.ranks, small.micro_batch, small.accumulation) == expected
    assert resolve(case, machine(8), scale="full").workload.sequence == 8192


def on(gib, *, gpus=1, free=None, capability=None):
    return replace(machine(gpus, gib), gpu_free_bytes=free and free * GIB, gpu_capability=capability)


def test_mini_on_gpus():
    """As on a CPU, with a rank a GPU; it is another workload, and a CPU's keeps the hash that it had."""
    case = CASES["llama2_7b-128k-sp8"]
    small, wide = (resolve(case, machine(gpus), scale="mini", device="cuda").workload for gpus in (1, 8))
    on_cpu = resolve(case, machine(8), scale="mini").workload

    assert (small.ranks, small.sp, small.sequence) == (1, 1, 768)
    assert wide == on_cpu.model_copy(update={"mini_on": "cuda"})
    assert wide.hash != on_cpu.hash
    assert [machine(8).kind_for(each) for each in (wide, on_cpu)] == ["cuda", "cpu"]
    assert resolve(case, machine(8), device="cpu").workload == on_cpu
    with pytest.raises(ValueError, match="--perf-device cuda needs CUDA GPUs, none is present"):
        resolve(case, LAPTOP, scale="mini", device="cuda")


@pytest.mark.parametrize(
    ("here", "dtype", "said"),
    [
        (on(80, capability=(9, 0)), "fp32", "needs --perf-dtype bf16, got fp32"),
        (on(32, capability=(7, 0)), "bf16", r"compute capability 8\.0 \(A100\), NVIDIA A100-SXM4-80GB has 7\.0"),
        (on(80, free=30), "bf16", "and one has 30 GiB free of 80 GiB: end what uses it"),
    ],
)
def test_ranks_that_would_fail_are_not_started(here, dtype, said):
    """What flash kernels cannot compute in, cards that they do not run on, and GPUs that somebody else has filled."""
    with pytest.raises(ValueError, match=said):
        resolve(CASES["llama2_7b-8k-sp1"], here, dtype=dtype)


def test_gpus_that_are_free_enough():
    """What the case needs is free: that is all that is asked; a trainer of one's own is its user's."""
    assert resolve(CASES["llama2_7b-8k-sp1"], on(80, free=75, capability=(8, 0))).workload.scale == "proxy"
    assert resolve(CASES["llama2_7b-8k-sp1"], on(80, free=30), trainer="ours:T").workload.scale == "proxy"


@pytest.mark.parametrize("engine", ["deepspeed", "fsdp2"])
@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("card", CARDS)
def test_real_cards_are_filled_by_85_percent_at_most(card, gpus, engine):
    """Every published row, by the estimate that it was cut by. None goes to the CPU, and none to the mini scale but
    where one GPU of 24 GB does not hold a single layer of 34B or 70B with its optimizer."""
    here = make_gpus(card, gpus)
    cuts = [resolve(case, here, memory=COUNTED, engine=engine).workload for case in PUBLISHED]
    filled = [COUNTED(cut) / CARDS[card] for cut in cuts if cut.scale == "proxy"]
    small = {cut.model for cut in cuts if cut.scale == "mini"}

    assert max(filled, default=0.0) <= 0.85
    assert all(here.kind_for(cut) == "cuda" for cut in cuts)
    assert small == ({"yi_34b_200k", "llama2_70b"} if (CARDS[card] < 30e9, gpus) == (True, 1) else set())


def test_a_cases_own_small_shape():
    """In the place of the model's."""
    shape = LLAMA2_7B.mini.model_copy(update={"layers": 3})
    case = Case(model=LLAMA2_7B, length="8k", sp=1, gpus=8, mini=Mini(shape=shape))

    assert resolve(case, LAPTOP).workload.shape == shape


def test_the_memory_of_a_trainer_of_ones_own_is_its_users_word():
    """Scale full is taken as asked for, and said; of the native trainer it is refused, as is what lacks GPUs."""
    case, small = Case(model=LLAMA2_7B, length="8k", sp=1, gpus=2), machine(2, gib=24)
    taken = resolve(case, small, scale="full", trainer="ours:Trainer")

    assert (taken.workload.scale, taken.workload.shape.layers) == ("full", 32)
    assert "by the native trainer's estimate it needs about " in taken.warnings[0]
    assert resolve(case, small, trainer="ours:Trainer").workload.scale == "proxy"
    with pytest.raises(ValueError, match="scale full needs about"):
        resolve(case, small, scale="full")
    with pytest.raises(ValueError, match="scale full needs 2 GPUs, 1 present"):
        resolve(case, machine(1), scale="full", trainer="ours:Trainer")


def test_a_proxy_of_layers_that_differ():
    """What the config lists a layer is cut with the layers, and a stored cut of it is reused."""
    kinds = ["sliding_attention", "full_attention"] * 16
    update = {"architecture": "gemma3_text", "config": {"sliding_window": 1024, "layer_types": kinds}}
    model = Model(name="m", title="M", shape=LLAMA2_7B.shape.model_copy(update=update))
    case = Case(model=model, length="8k", sp=1, gpus=8)
    cut = resolve(case, machine(1, gib=40), scale="proxy")
    proxy = cut.workload

    assert proxy.shape.config["layer_types"] == kinds[: proxy.shape.layers]
    assert proxy.shape.layers < 32
    assert resolve(case, machine(1), scale="proxy", stored_cut=proxy) == resolve(
        case, machine(1, gib=40), scale="proxy"
    )


def test_mini_of_an_unusual_case():
    """A user's short case with an sp that no mini has is still cut to one that runs."""
    workload = resolve(Case(model=YI_34B_200K, length="300", sp=3, gpus=3), LAPTOP).workload

    assert (workload.sp, workload.ranks, workload.sequence) == (2, 2, 32)


@pytest.mark.parametrize("case", PUBLISHED, ids=str)
def test_published_rows_fit_the_published_hardware(case):
    """Every row is full on as many A100s of 80 GiB as it was published with."""
    actual = resolve(case, machine(case.gpus))

    assert (f"{case.gpus} GPUs of 80 GiB: full", ()) == (actual.reason, actual.warnings)
    assert (case.gpus, case.sp, case.model.shape.layers, case.sequence) == cut(actual.workload)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("llama2_7b-8k-sp1", "full"),
        ("llama2_7b-32k-sp1", "full"),
        ("llama2_7b-128k-sp8", "full"),
        ("llama2_7b-256k-sp8", "full"),
        ("llama2_7b-1m-sp16", "proxy"),
    ],
)
def test_auto_decides_per_case_on_eight_gpus(case, expected):
    """On 8 A100s four of the five Llama2-7B rows are full and 1M is a proxy."""
    assert expected == resolve(CASES[case], machine(8)).workload.scale


def test_proxy_cuts_ranks_and_sp_before_layers():
    """A proxy takes the GPUs present, the largest sp that they and the heads allow, then as many layers as fit."""
    actual = resolve(CASES["llama2_7b-1m-sp16"], machine(8))

    assert actual.reason == "full needs 32 GPUs, 8 present: proxy, GPUs 32 -> 8, sp 16 -> 8, layers 32 -> 20"
    assert cut(actual.workload) == (8, 8, 20, 1 << 20)
    assert (
        actual.workload.accumulation,
        actual.workload.warmup,
        actual.workload.steps,
        actual.warnings,
    ) == (8, 1, 3, ())


def test_proxy_keeps_the_width():
    """A proxy differs from the full shape in its layers alone."""
    shape = resolve(CASES["yi_34b_200k-8k-sp1"], machine(2)).workload.shape

    assert YI_34B_200K.shape == shape.model_copy(update={"layers": 60})


def test_proxy_sp_divides_the_cases_own():
    """On 6 GPUs an sp of 8 becomes 4, and the two GPUs that do not make a group stay idle."""
    workload = resolve(CASES["llama2_7b-128k-sp8"], machine(6)).workload

    assert (workload.ranks, workload.sp) == (4, 4)


def test_proxy_that_must_cut_the_sequence_says_so():
    """Where two layers do not fit, the sequence is halved until they do, and a warning says so loudly."""
    actual = resolve(CASES["llama2_70b-128k-sp8"], machine(1))

    assert cut(actual.workload) == (1, 1, 2, 32 << 10)
    assert actual.warnings == ("SEQUENCE CUT 131072 -> 32768 tokens: says little of the case's own length",)
    assert (actual.workload.warmup, actual.workload.steps) == (3, 12)


def test_proxy_on_request():
    """A proxy asked for where the full case fits is the full case under another name."""
    actual = resolve(CASES["llama2_7b-8k-sp1"], machine(8), scale="proxy")

    assert (
        actual.reason,
        actual.workload.scale,
        cut(actual.workload),
    ) == ("asked for: proxy", "proxy", (8, 1, 32, 8 << 10))


def test_stored_cut_is_reused():
    """The cut that a proxy baseline was recorded with is taken again, whatever the estimate would choose today."""
    case = CASES["llama2_7b-32k-sp1"]
    stored = resolve(case, machine(1, gib=60)).workload
    actual = resolve(case, machine(1), stored_cut=stored, engine="fsdp2")

    assert (cut(stored), ()) == (cut(actual.workload), actual.warnings)
    assert (actual.workload.engine, actual.workload.thresholds) == ("fsdp2", {})


def test_stored_cut_that_needs_more_gpus_is_not_reused():
    """A stored cut of more GPUs than are present is left aside, with a warning."""
    case = CASES["llama2_7b-32k-sp1"]
    stored = resolve(case, machine(4)).workload
    actual = resolve(case, machine(2), stored_cut=stored)

    assert actual.workload.ranks == 2
    assert actual.warnings == ("the cut stored with the proxy baseline is not reused: it needs 4 GPUs, 2 present",)


def test_stored_cut_of_another_shape_is_not_reused():
    """A stored cut of a model that has changed since is left aside, with a warning."""
    case = CASES["llama2_7b-32k-sp1"]
    stored = resolve(case, machine(2)).workload
    other = stored.model_copy(update={"shape": stored.shape.model_copy(update={"intermediate": 10000})})
    actual = resolve(case, machine(2), stored_cut=other)

    assert cut(stored) == cut(actual.workload)
    assert actual.warnings == (
        "the cut stored with the proxy baseline is not reused: the case's model has another shape now",
    )


@pytest.mark.parametrize(
    ("scale", "present", "message"),
    [
        ("full", machine(4), "llama2_7b-8k-sp1: scale full needs 8 GPUs, 4 present; proxy and auto cut"),
        ("full", machine(8, gib=20), r"scale full needs about 21 GiB a GPU, 18 usable of 20; proxy and auto cut"),
        ("full", LAPTOP, "scale full needs CUDA GPUs, none is present; mini and auto need none"),
        ("proxy", LAPTOP, "scale proxy needs CUDA GPUs, none is present; mini and auto need none"),
        ("proxy", machine(1, gib=4), "scale proxy: not even a few layers and a short sequence fit 1 GPUs of 4 GiB"),
    ],
)
def test_scale_that_cannot_run_is_refused(scale, present, message):
    """A scale that was asked for and cannot run is an error that names what is missing."""
    with pytest.raises(ValueError, match=message):
        resolve(CASES["llama2_7b-8k-sp1"], present, scale=scale)


def test_auto_on_a_gpu_that_is_too_small():
    """A GPU that no proxy fits leaves auto with mini."""
    actual = resolve(CASES["llama2_70b-8k-sp1"], machine(1, gib=4))

    assert actual.reason == "not even a few layers and a short sequence fit 4 GiB: mini on GPUs"


def test_larger_tokenizer_raises_the_vocabulary():
    """More ids than the mini vocabulary holds raise it, change the hash and are said."""
    case = CASES["llama2_7b-8k-sp1"]
    actual = resolve(case, LAPTOP, vocabulary=32000)

    assert actual.workload.shape.vocabulary == 32000
    assert resolve(case, LAPTOP).workload.hash != actual.workload.hash
    assert actual.warnings == ("vocabulary 512 -> 32000: the tokenizer has more ids than the model",)


def test_smaller_tokenizer_changes_nothing():
    """Fewer ids than the vocabulary holds leave the workload as it is."""
    case = CASES["llama2_7b-8k-sp1"]

    assert resolve(case, machine(8)) == resolve(case, machine(8), vocabulary=259)


def test_steps_can_be_set():
    """`warmup` and `steps` replace the table's."""
    workload = resolve(CASES["llama2_7b-1m-sp16"], LAPTOP, warmup=1, steps=2).workload

    assert (workload.warmup, workload.steps) == (1, 2)


@pytest.mark.parametrize(
    ("accumulation", "trainer", "steps"),
    [(5, "ours:fast", 25), (32, "ours:fast", 32), (None, "ours:fast", 24), (5, "torchtitan", 24), (5, "native", 24)],
)
def test_steps_of_a_users_trainer_are_whole_groups(accumulation, trainer, steps):
    """A library's optimizer steps once a group; others keep the table's number. No command need name it."""
    case = replace(CASES["llama2_7b-32k-sp1"], accumulation=accumulation, mini=Mini(accumulation=accumulation))
    workload = resolve(case, LAPTOP, trainer=trainer).workload

    assert workload.steps == steps
    assert "--perf-steps" not in Command().speed(workload)


def test_settings_reach_the_workload():
    """dtype, attention, trainer and engine are part of the workload; a user's trainer has no engine thresholds."""
    workload = resolve(
        CASES["llama2_7b-8k-sp1"], LAPTOP, dtype="fp32", attention="varlen", trainer="ours:fast", engine="deepspeed"
    ).workload

    assert (
        workload.dtype,
        workload.attention,
        workload.trainer,
        workload.thresholds,
    ) == ("fp32", "varlen", "ours:fast", {})


@pytest.mark.parametrize("engine", ["deepspeed", "fsdp2"])
@pytest.mark.parametrize("trainer", ["hf", "systems/mine.toml"])
def test_other_systems_shard_as_the_native_trainer(trainer, engine):
    """They get its thresholds, whatever engine it has: with DeepSpeed's defaults no mini matrix is sharded."""
    native = resolve(CASES["llama2_7b-8k-sp1"], LAPTOP).workload

    other = resolve(CASES["llama2_7b-8k-sp1"], LAPTOP, trainer=trainer, engine=engine).workload

    assert native.thresholds == other.thresholds


def test_mini_shards_its_matrices():
    """At mini scale ZeRO-3's threshold lies below the smallest matrix, or it would shard nothing."""
    workload = resolve(CASES["yi_34b_200k-8k-sp1"], LAPTOP).workload
    key_projection = workload.shape.hidden * workload.shape.kv_heads * workload.shape.head_size

    assert workload.shape.hidden < workload.thresholds["stage3_param_persistence_threshold"] < key_projection


@pytest.mark.parametrize(("case", "traced"), [("llama2_7b-8k-sp1", 16.5), ("llama2_70b-1m-sp64", 48.9)])
def test_memory_estimate_against_a_traced_step(case, traced):
    """The estimate lies above the traced peak (GiB), by a third at most."""
    estimate = memory_bytes(resolve(CASES[case], machine(64), scale="full").workload) / GIB

    assert traced < estimate < traced * 4 / 3


# Cases without a shape


def own(scale="auto", on=LAPTOP, **fields):
    """What becomes of a case without a shape: scale, ranks, sp, tokens, micro-batch, accumulation; warnings."""
    case = Case.of("ours", **{"tokens": "32k", "gpus": 8, "sp": 4, "micro_batch": 4, "accumulation": 8} | fields)
    found = resolve(case, on, scale=scale, trainer="ours:Trainer", engine="own")
    made = found.workload
    assert made.shape is None
    return (made.scale, made.ranks, made.sp, made.sequence, made.micro_batch, made.accumulation), found.warnings


@pytest.mark.parametrize(
    ("scale", "gpus", "fields", "expected"),
    [
        ("mini", 8, {}, ("mini", 2, 2, 512, 4, 8)),
        ("mini", 8, {"tokens": 100, "sp": 1, "gpus": 1}, ("mini", 1, 1, 100, 4, 8)),
        ("mini", 8, {"tokens": "1m"}, ("mini", 2, 2, 1152, 4, 8)),
        ("mini", 8, {"mini": Mini(sequence=64, sp=2, ranks=2, micro_batch=1)}, ("mini", 2, 2, 64, 1, 8)),
        ("auto", 8, {}, ("full", 8, 4, 32768, 4, 8)),
        ("auto", 2, {}, ("proxy", 2, 2, 16384, 4, 8)),
    ],
)
def test_what_is_cut_of_a_case_without_a_shape(scale, gpus, fields, expected):
    """GPUs and the sequence: a rank keeps its tokens on fewer GPUs, and a short sequence is whole on a CPU."""
    assert own(scale, machine(gpus), **fields)[0] == expected


def test_what_is_cut_is_said():
    """With who makes the model small; nothing where nothing is cut."""
    (said,) = own("mini")[1]

    assert said.startswith(
        "GPUs 8 -> 2, sp 4 -> 2, tokens 32768 -> 512; its model is as small as its trainer makes it (context."
    )
    assert own("mini", tokens=512, gpus=1, sp=1)[1] == ()
    assert own(on=machine(2))[1] == ("SEQUENCE CUT 32768 -> 16384 tokens: says little of the case's own length",)


def test_a_cut_without_a_shape_is_used_again():
    """As long as the case has none."""
    case = Case.of("ours", tokens="32k", gpus=8, sp=4)
    asked = {"trainer": "ours:Trainer", "engine": "own", "scale": "proxy"}
    stored = resolve(case, machine(2), **asked).workload
    again = resolve(case, machine(4), stored_cut=stored, **asked)
    other = resolve(replace(CASES["llama2_70b-32k-sp4"]), machine(4), stored_cut=stored, **asked)

    assert (again.workload, again.warnings[1:]) == (stored, ())
    assert "is not reused" in other.warnings[0]


def test_the_native_trainer_needs_a_shape():
    """It is refused before anything starts, with what to type."""
    with pytest.raises(ValueError, match=r"ours-32k-sp1: expected the trainer that has the model, .*--perf-trainer"):
        resolve(Case.of("ours", tokens="32k"), LAPTOP)
