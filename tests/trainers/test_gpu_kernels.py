"""What only a GPU runs of the native trainer, as far as it can be known without one: calls, shapes, what waits."""

import inspect
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainpace.cases import LLAMA2_7B
from trainpace.trainers.native import Native, attention_cpu
from trainpace.trainers.native import attention as attention_room
from trainpace.trainers.native.attention import Ulysses
from trainpace.trainers.native.loss import chunk_tokens, linear_cross_entropy
from trainpace.trainers.native.model import CausalLm, initial

SCALE = 0.3
ENDS = [0, 24, 64]


# As flash-attn 2.8 has them (flash_attn/flash_attn_interface.py); computed here by the CPU's kernel.
def _flash_attn_varlen_forward(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p,
    softmax_scale,
    causal,
    window_size_left=-1,
    window_size_right=-1,
    softcap=0.0,
    alibi_slopes=None,
    return_softmax=False,
    block_table=None,
    leftpad_k=None,
    seqused_k=None,
    zero_tensors=False,
):
    plain = (dropout_p, softcap, alibi_slopes, return_softmax, block_table, leftpad_k, seqused_k, zero_tensors)
    assert plain == (0.0, 0.0, None, False, None, None, None, False)
    assert (max_seqlen_q, max_seqlen_k, causal) == (40, 40, True)
    window = _window(window_size_left, window_size_right)
    cuts = [slice(*cut) for cut in zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist()[1:], strict=False)]
    parts = [attention_cpu.forward(q[cut], k[cut], v[cut], softmax_scale, window) for cut in cuts]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts], dim=1), None, None


def _flash_attn_varlen_backward(
    dout,
    q,
    k,
    v,
    out,
    softmax_lse,
    dq,
    dk,
    dv,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p,
    softmax_scale,
    causal,
    window_size_left,
    window_size_right,
    softcap,
    alibi_slopes,
    deterministic,
    rng_state=None,
    zero_tensors=False,
):
    assert (dropout_p, softcap, alibi_slopes, deterministic, rng_state, zero_tensors) == (
        0,
        0,
        None,
        False,
        None,
        False,
    )
    assert (max_seqlen_q, max_seqlen_k, causal) == (40, 40, True)
    window = _window(window_size_left, window_size_right)
    for begin, end in zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist()[1:], strict=False):
        cut = slice(begin, end)
        parts = (dout[cut], q[cut], k[cut], v[cut], out[cut], softmax_lse[:, cut])
        for whole, part in zip((dq, dk, dv), attention_cpu.backward(*parts, softmax_scale, window), strict=True):
            whole[cut] = part


def _window(left, right):
    """As the CPU's kernel is told, from flash-attn's two numbers."""
    assert right == (-1 if left == -1 else 0)
    return left + 1


@pytest.fixture
def flash_attn(monkeypatch):
    """A module in flash-attn's place, with its signatures."""
    package, interface = ModuleType("flash_attn"), ModuleType("flash_attn.flash_attn_interface")
    package.__path__ = []
    package.flash_attn_interface = interface
    interface.__spec__ = inspect.getmodule(pytest).__spec__
    interface._flash_attn_varlen_forward = _flash_attn_varlen_forward
    interface._flash_attn_varlen_backward = _flash_attn_varlen_backward
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.flash_attn_interface", interface)
    attention_room._flash_attn.cache_clear()
    yield
    attention_room._flash_attn.cache_clear()


@pytest.mark.parametrize("window", [0, 8])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_every_argument_of_flash_attn_is_in_its_place(flash_attn, kv_heads, window):
    """Called as flash-attn 2.8 is, forward and backward give what the operator gives."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(64, heads, 8) for heads in (4, kv_heads, kv_heads))
    grad = torch.randn(64, 4, 8)
    rest = (torch.tensor(ENDS, dtype=torch.int32), 40, SCALE, window)

    out, lse = attention_room._attention_cuda(query, key, value, *rest)
    grads = attention_room._attention_backward_cuda(grad, query, key, value, out, lse, *rest)

    expected = attention_room.attention(query, key, value, *rest)
    torch.testing.assert_close((out, lse), expected)
    torch.testing.assert_close(
        grads, attention_room.attention_backward(grad, query, key, value, *expected, *rest), rtol=1e-4, atol=1e-5
    )


def test_a_namespace_is_no_flash_attn(tmp_path, monkeypatch):
    """Where another package has put its own below the name, as flash-attn-4 does, torch's kernel is used."""
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    attention_room._flash_attn.cache_clear()

    assert attention_room._flash_attn() is None


@pytest.mark.parametrize("window", [0, 512])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(32, 32, 128), (56, 8, 128), (12, 2, 8)])
def test_calls_of_torch_s_flash_kernel(heads, kv_heads, size, window):
    """On a GPU's tensors, without a GPU: the arguments fit its schema, and what comes back the operator's shapes."""
    attention_room._flash_attn.cache_clear()
    with FakeTensorMode():
        query, key, value = (
            torch.empty(2048, number, size, dtype=torch.bfloat16, device="cuda")
            for number in (heads, kv_heads, kv_heads)
        )
        ends = torch.empty(3, dtype=torch.int32, device="cuda")
        rest = (ends, 1024, size**-0.5, window)
        out, lse = attention_room._attention_cuda(query, key, value, *rest)
        grads = attention_room._attention_backward_cuda(torch.empty_like(out), query, key, value, out, lse, *rest)

    assert (out.shape, out.dtype, out.device.type) == (query.shape, torch.bfloat16, "cuda")
    assert (lse.shape, lse.dtype) == ((heads, 2048), torch.float32)
    assert [grad.shape for grad in grads] == [query.shape, key.shape, value.shape]


class Waiting(TorchDispatchMode):
    """Names the operators whose result the host must wait for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if any(name in str(operator) for name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")):
            self.seen.append(str(operator))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("recompute", ["full", "selective_op", "none"])
def test_a_micro_step_waits_for_nothing(recompute):
    """Forward, recompute and backward look at no value that the device computes: the queue never drains."""
    model = CausalLm(LLAMA2_7B.mini, 64, recompute)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial(name, parameter.shape, model.config, "cpu"))
    batch = {
        "tokens": torch.arange(64),
        "labels": torch.arange(64),
        "positions": torch.arange(64),
        "document_ends": torch.tensor([0, 64], dtype=torch.int32),
        "longest": 64,
    }
    with Waiting() as waiting:
        (model(**batch, ulysses=Ulysses(None, 1)) / 64).backward()

    assert waiting.seen == []


@pytest.mark.parametrize(("vocabulary", "tokens"), [(32000, 2048), (64000, 1024), (128256, 512), (151936, 384)])
def test_chunks_of_the_loss_fill_tiles(vocabulary, tokens):
    """The loss's products have numbers of tokens that GPUs' products come in."""
    assert chunk_tokens(vocabulary) == tokens


@pytest.mark.parametrize("scale", [1 / 8191, 1 / 7001, 1 / 5003])
def test_the_scale_of_the_loss_is_not_rounded(scale):
    """In bf16 each gradient has its own rounding, to both sides, and none in common by that of the loss's factor."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(512, 64).bfloat16().requires_grad_(), (0.1 * torch.randn(1000, 64)).bfloat16()
    loss, plain, _ = linear_cross_entropy(hidden, weight, torch.randint(0, 1000, (512,)))
    (loss * scale).backward()
    wanted = plain.double() * scale

    assert float((hidden.grad.double() * wanted).sum() / (wanted * wanted).sum()) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize(("device", "expected"), [("cuda", ("nccl", torch.device("cuda", 3))), ("cpu", ("gloo", None))])
def test_ranks_meet_on_their_own_device(monkeypatch, device, expected):
    """NCCL is told which GPU is the rank's: it connects before the first step, and groups are parts of that."""

    class Met(Exception):
        pass

    def meet(backend, *, device_id):
        raise Met(backend, device_id)

    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    with pytest.raises(Met) as met:
        Native().setup(SimpleNamespace(workload=None, device=device, local_rank=3))

    assert met.value.args == expected
