"""The conventions: against the published table, a traced step, and sums done by hand."""

import pytest

from factories import make_full_workload, make_workload
from trainpace.cases import LLAMA2_7B, LLAMA2_70B, PUBLISHED, Shape
from trainpace.runs import flops
from trainpace.runs.flops import RankFlops, StepFlops, step_flops
from trainpace.store.baselines import load_file, published_folder

TABLE = load_file(published_folder() / "a100-sxm4-80gb.json").baselines
DISAGREES = "llama2_7b-32k-sp1"
"""The one row whose printed TFLOPs (193.0) are not its printed TGS in its own formula (194.3)."""

SMALL = Shape(hidden=2, layers=1, intermediate=3, heads=2, kv_heads=1, vocabulary=5)


@pytest.mark.parametrize("case", [case for case in PUBLISHED if case.id != DISAGREES], ids=str)
def test_xtuner_gives_the_printed_tflops(case):
    """13 of the 14 published rows follow from their TGS within 0.12 %."""
    row = TABLE[f"{case.id}/full/published"]

    assert pytest.approx(row.printed_tflops, rel=0.0012) == flops.tflops(row.tgs, make_full_workload(case.id))


def test_xtuner_names_the_row_that_disagrees():
    """Llama2-7B 32k prints 0.66 % less than its TGS gives."""
    row = TABLE[f"{DISAGREES}/full/published"]
    tflops = flops.tflops(row.tgs, make_full_workload(DISAGREES))

    assert pytest.approx(0.0066, abs=1e-4) == tflops / row.printed_tflops - 1


@pytest.mark.parametrize("case", PUBLISHED, ids=str)
def test_stored_tflops_are_the_stored_tgs_in_the_stored_convention(case):
    """What is judged of a published row is recomputed, in the version that stands beside it."""
    row = TABLE[f"{case.id}/full/published"]
    convention = flops.convention(row.convention)

    assert convention.version == row.convention_version
    assert pytest.approx(flops.tflops(row.tgs, make_full_workload(case.id), row.convention), rel=1e-5) == row.tflops


@pytest.mark.parametrize(
    ("shape", "sequence", "rank_tokens", "traced"),
    [(LLAMA2_7B.shape, 8 << 10, 8 << 10, 5.655e14), (LLAMA2_70B.shape, 1 << 20, 1 << 14, 2.110e17)],
    ids=["7b-8k", "70b-1m-sp64"],
)
def test_exact_counts_what_a_traced_step_counts(shape, sequence, rank_tokens, traced):
    """A step traced at full size gives the same FLOPs; the tracer counts attention whole: twice the attended keys."""
    counted = flops.flops_per_token(shape, 2 * sequence, "exact") * rank_tokens

    assert pytest.approx(traced, rel=3e-4) == counted


@pytest.mark.parametrize(("convention", "by_hand"), [("xtuner", 396), ("megatron", 336), ("exact", 360)])
def test_conventions_add_up_by_hand(convention, by_hand):
    """Hidden 2, 1 layer, MLP 3, 2 heads on 1 key/value head, 5 ids, 4 tokens: small enough for paper."""
    assert by_hand == flops.flops_per_token(SMALL, 4, convention)


def test_conventions_are_versioned():
    """Every convention is found by its name and carries a version."""
    assert {name: each.version for name, each in flops.CONVENTIONS.items()} == {
        "xtuner": 1,
        "megatron": 1,
        "exact": 1,
        "counted": 1,
        "stated": 1,
    }


def test_one_document_attends_as_plain_causal_attention():
    """A document that fills the sequence gives S / 2."""
    assert flops.mean_attended([512]) == 256


def test_packed_documents_attend_to_less():
    """A token of a longer document counts with its longer reach: (10^2 + 30^2) / (2 * 40)."""
    assert flops.mean_attended([10, 30]) == 12.5


def test_document_masks_count_what_is_computed():
    """Two halves attend to half of what one whole does; everything else of a token stays."""
    varlen = make_workload(attention="varlen")
    whole = flops.tflops(1e12, varlen, mean_attended=varlen.sequence / 2)
    halves = flops.tflops(1e12, varlen, mean_attended=varlen.sequence / 4)

    assert flops.tflops(1e12, make_workload()) == whole
    assert pytest.approx(4 * varlen.shape.layers * varlen.sequence * varlen.shape.hidden) == whole - halves


def test_document_masks_need_their_documents():
    """Without its documents a masked workload has no TFLOPs, instead of plain attention's."""
    with pytest.raises(ValueError, match="varlen needs mean_attended, got None"):
        flops.tflops(1000.0, make_workload(attention="varlen"))


@pytest.mark.parametrize("attended", [0, -1, 2049])
def test_attended_keys_have_bounds(attended):
    """More keys than causal attention has, or none, are refused with the bound."""
    with pytest.raises(ValueError, match=rf"above 0 and at most S / 2 = 2048, got {attended}"):
        flops.flops_per_token(SMALL, 4096, mean_attended=attended)


def test_unknown_convention_is_refused():
    """The error names the conventions there are."""
    with pytest.raises(ValueError, match="one of xtuner, megatron, exact, counted, stated, got 'mfu'"):
        flops.convention("mfu")


def shaped(architecture="llama", **fields):
    """A workload of one rank whose model has some other numbers than Llama's."""
    numbers = {"hidden": 64, "layers": 2, "intermediate": 128, "heads": 4, "kv_heads": 4, "vocabulary": 128}
    own = {name: fields.pop(name) for name in ("head", "config", "intermediate") if name in fields}
    shape = Shape(architecture=architecture, **{**numbers, **own})
    return make_workload(shape=shape, ranks=1, sp=1, accumulation=1, sequence=256, **fields)


COUNTS = StepFlops(model_products=256 * 3000, model_attention=6 * 256**2 * 64 * 2, products=256 * 4000, attention=256)
"""Of one micro-step of `shaped()`: 256 tokens, of plain causal attention in two layers of width 64."""


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        (shaped("qwen3", head=32), "its heads are 128 wide together, its hidden size is 64"),
        (shaped("gpt_neox"), "gpt_neox is none of llama"),
        (shaped("mixtral"), "mixtral is none of llama"),
        (shaped("an_own_one", trainer="ours:fast"), "an_own_one is none of llama"),
        (shaped("mistral", config={"sliding_window": 128}), "a window of 128 tokens, of 256"),
        (shaped(config={"head_dim": 32}), "its config has another head_dim than its shape"),
        (shaped(recompute="none"), "xtuner counts that all is recomputed, this recomputes none"),
    ],
    ids=["head size", "no gate", "experts", "unknown", "window", "config", "recompute"],
)
def test_a_formula_is_used_only_where_it_holds(workload, why):
    """Elsewhere there are no TFLOPs of that convention, and the reason is told."""
    assert why in flops.why_not("xtuner", workload)
    assert flops.tflops(1000.0, workload, "xtuner") is None
    assert flops.chosen(workload).name == "counted"
    assert why in flops.why_unknown(workload)


@pytest.mark.parametrize(
    "workload",
    [
        shaped(),
        shaped("qwen3", head=16),
        shaped("cohere"),
        shaped("mistral"),
        shaped("phi3", config={"sliding_window": 256}),
        shaped(micro_batch=4),
        shaped(trainer="ours:fast"),
    ],
    ids=[
        "llama",
        "heads of hidden / heads",
        "cohere",
        "mistral, short",
        "a window as long",
        "micro-batch",
        "own trainer",
    ],
)
def test_a_formula_holds_for_what_multiplies_as_llama_does(workload):
    """The convention of the published table, also for a trainer of one's own."""
    assert flops.why_not("xtuner", workload) is None
    assert flops.chosen(workload).name == "xtuner"


def test_megatron_holds_whatever_is_recomputed():
    """It counts no recompute, so that one that is not made changes nothing."""
    assert flops.why_not("megatron", shaped(recompute="none")) is None


def test_counts_stand_for_a_formula():
    """TFLOPs of the convention `counted` are what was executed; without counts there are none."""
    workload = shaped("gpt_neox")

    assert flops.tflops(1e12, workload, "counted") is None
    assert flops.tflops(1e12, workload, "counted", counted=COUNTS) == 4001
    assert flops.model_flops(workload, counted=COUNTS) == 3000 + 6 * 256 * 64 * 2
    assert flops.hardware_flops(workload, counted=COUNTS) == 4001


def test_documents_cut_counted_attention():
    """Where a token attends to half as many keys, its attention takes half; within a window nobody knows."""
    workload = shaped("gpt_neox", attention="varlen")
    windowed = COUNTS.model_copy(update={"model_attention": COUNTS.model_attention // 2})

    assert flops.model_flops(workload, mean_attended=64.0, counted=COUNTS) == 3000 + 6 * 128 * 64 * 2
    assert flops.model_flops(workload, mean_attended=64.0, counted=windowed) is None


def test_model_flops_are_six_a_parameter_and_attention():
    """Each matrix three times two FLOPs a parameter; causal attention six S h a layer; the embedding multiplies not."""
    workload = make_full_workload()
    shape = workload.shape
    matrices = shape.layers * (4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate) + shape.hidden * 32000

    assert flops.model_flops(workload) == 6 * matrices + 6 * shape.layers * workload.sequence * shape.hidden


def test_hardware_flops_are_the_native_trainers():
    """What another trainer makes again is not known; what the model takes is."""
    own = make_full_workload().model_copy(update={"trainer": "ours:fast"})

    assert flops.hardware_flops(make_full_workload()) == flops.flops_per_token(LLAMA2_7B.shape, 8 << 10, "exact")
    assert flops.hardware_flops(own) is None
    assert flops.model_flops(own) == flops.model_flops(make_full_workload())


def test_a_trainer_that_was_counted_says_what_it_makes_again():
    """Its convention is that of counts whatever formula holds, and its HFU is known; documents were in its step."""
    own = make_workload(trainer="ours:fast", attention="varlen")
    per_token = (COUNTS.products + COUNTS.attention) / own.rank_tokens

    assert flops.chosen(own, counted=COUNTS).name == "counted"
    assert flops.hardware_flops(own, counted=COUNTS, mean_attended=9.0) == per_token
    assert flops.tflops(1e12, own, "counted", counted=COUNTS, mean_attended=9.0) == per_token


def test_what_a_trainer_says_stands_above_all():
    """Of a model without a shape too; it is model FLOPs, and says nothing of what is made again."""
    own = make_workload(trainer="ours:fast", shape=None)

    assert flops.chosen(own, counted=COUNTS, stated=1e9).name == "stated"
    assert flops.tflops(1e12, own, "stated", stated=1e9) == 1e9 / own.rank_tokens
    assert flops.model_flops(own, stated=1e9, counted=COUNTS) == 1e9 / own.rank_tokens
    assert (flops.tflops(1e12, own, "stated"), flops.model_flops(own), flops.hardware_flops(own)) == (None, None, None)
    assert "--perf-count-flops counts a step of ours:fast" in flops.why_unknown(own)


def test_ranks_that_counted_are_one_step():
    """The mean over the ranks; model FLOPs leave out what is made again, and are no more than what is executed."""
    whole = RankFlops(forward=(100, 10), recompute=(100, 10), backward=(200, 25))
    half = RankFlops(forward=(300, 30), recompute=(0, 0), backward=(200, 75))

    assert step_flops([whole]) == StepFlops(model_products=300, model_attention=30, products=400, attention=45)
    assert step_flops([whole, half]) == StepFlops(model_products=400, model_attention=60, products=450, attention=75)


@pytest.mark.parametrize(
    ("rank", "why"),
    [
        (RankFlops(error="ValueError: no more"), "ValueError: no more"),
        (RankFlops(forward=(1, 0), unknown={"flash.fwd": 2}), "no formula for flash.fwd (called 2 x)"),
        (RankFlops(), "no product of matrices passed torch's dispatcher"),
    ],
)
def test_a_count_that_is_not_whole_is_none(rank, why):
    """It would be a number that is too small."""
    assert step_flops([RankFlops(forward=(1, 0)), rank] if rank.error or rank.unknown else [rank]) == why
