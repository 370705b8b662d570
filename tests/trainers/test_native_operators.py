"""The native trainer's two operators and its model compute what torch and transformers compute."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from trainpace.cases import YI_34B_200K
from trainpace.trainers.native import attention as attention_room
from trainpace.trainers.native import loss as loss_room
from trainpace.trainers.native.attention import Ulysses, attention
from trainpace.trainers.native.loss import IGNORED, linear_cross_entropy
from trainpace.trainers.native.model import CausalLm, initial, transformers_config

SHAPE = YI_34B_200K.mini


def reference_attention(query, key, value, ends, scale):
    """Attention by definition, in float64, masked to each document's past."""
    tokens, heads, _ = query.shape
    key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    document = torch.bucketize(torch.arange(tokens), ends[1:], right=True)
    seen = (document[:, None] == document[None, :]) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("ends", [[0, 200], [0, 1, 64, 65, 193, 200]], ids=["causal", "documents"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
def test_attention_and_its_gradients(heads, kv_heads, ends):
    """The CPU kernel gives the definition's values and gradients, with grouped heads and across its blocks' borders."""
    torch.manual_seed(0)
    shapes = (200, heads, 8), (200, kv_heads, 8), (200, kv_heads, 8)
    parts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    ends = torch.tensor(ends, dtype=torch.int32)
    longest = int(ends.diff().max())
    wanted = [part.clone().requires_grad_() for part in parts]
    got = [part.float().requires_grad_() for part in parts]
    grad = torch.randn(200, heads, 8, dtype=torch.float64)

    expected = reference_attention(*wanted, ends, 8**-0.5)
    expected.backward(grad)
    actual, _ = attention(*got, ends, longest, 8**-0.5)
    actual.backward(grad.float())

    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)


def test_scores_that_would_overflow():
    """Scores far beyond what exp can hold still give finite weights."""
    query = torch.full((130, 2, 8), 100.0)

    out, lse = attention(query, query, query, torch.tensor([0, 130], dtype=torch.int32), 130, 1.0)

    assert torch.isfinite(out).all()
    assert torch.isfinite(lse).all()


@pytest.mark.parametrize("chunk_logits", [1 << 26, 512 * 7])
def test_loss_and_its_gradients(monkeypatch, chunk_logits):
    """The fused loss gives torch's cross-entropy and gradients, in one chunk or many, ignored labels left out."""
    monkeypatch.setattr(loss_room, "_CHUNK_LOGITS", chunk_logits)
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16), torch.randn(512, 16)
    labels = torch.randint(0, 512, (50,))
    labels[::3] = IGNORED
    wanted = [part.clone().requires_grad_() for part in (hidden, weight)]
    got = [part.clone().requires_grad_() for part in (hidden, weight)]

    expected = torch.nn.functional.cross_entropy(
        wanted[0] @ wanted[1].t(), labels, ignore_index=IGNORED, reduction="sum"
    )
    (expected / 7).backward()
    actual, *_ = linear_cross_entropy(*got, labels)
    (actual / 7).backward()

    torch.testing.assert_close(actual, expected)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.fixture
def pair():
    """The native model and transformers' own, eager and unfused, with the same weights."""
    ours = CausalLm(SHAPE, 96)
    config = transformers_config(SHAPE, 96)
    config._attn_implementation = "eager"
    theirs = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(initial(name, parameter.shape, config, "cpu"))
    renamed = {"body.": "model.", "head.": "lm_head."}
    theirs.load_state_dict(
        {renamed[name[:5]] + name[5:]: value for name, value in ours.state_dict().items()}, strict=True
    )
    return ours, theirs


def test_the_model_is_transformers_own(pair):
    """Loss and every gradient equal transformers' eager attention and cross-entropy over whole logits."""
    ours, theirs = pair
    torch.manual_seed(1)
    tokens = torch.randint(0, 512, (96,))
    labels = torch.cat([tokens[1:], torch.tensor([IGNORED])])

    expected = theirs(input_ids=tokens[None], labels=tokens[None]).loss
    expected.backward()
    total = ours(
        tokens,
        labels,
        torch.arange(96),
        ulysses=Ulysses(None, 1),
        document_ends=torch.tensor([0, 96], dtype=torch.int32),
        longest=96,
    )
    (total / 95).backward()

    torch.testing.assert_close(total / 95, expected)
    wanted = {name.replace("model.", "body.").replace("lm_head.", "head."): p for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-4, atol=1e-6)


def test_operators_count_their_flops():
    """Torch's counter finds both: attention as half the square, 5 / 2 of it backward; the loss as three products."""
    query = torch.randn(64, 4, 8, requires_grad=True)
    hidden, weight = torch.randn(64, 16, requires_grad=True), torch.randn(512, 16, requires_grad=True)
    ends = torch.tensor([0, 64], dtype=torch.int32)

    with FlopCounterMode(display=False) as counter:
        attention(query, query, query, ends, 64, 1.0)[0].sum().backward()
        linear_cross_entropy(hidden, weight, torch.zeros(64, dtype=torch.int64))[0].backward()
    counts = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}

    half_square = 2 * 64 * 64 * 8 * 4 // 2
    assert counts["trainpace.attention"] == 2 * half_square
    assert counts["trainpace.attention_backward"] == 5 * half_square
    assert counts["trainpace.linear_cross_entropy"] == 3 * 2 * 64 * 16 * 512


def test_kernels_for_a_gpu_are_registered():
    """A GPU has a kernel of its own for both attention operators: nothing falls back to the CPU's by chance."""
    registered = [
        torch._C._dispatch_has_kernel_for_dispatch_key(f"trainpace::{name}", "CUDA")
        for name in ("attention", "attention_backward")
    ]

    assert registered == [True, True]
    assert attention_room.NAME == "trainpace"
