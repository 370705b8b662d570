"""Compiled layers compute what eager ones compute, are compiled once, and keep of a layer what the case says."""

from functools import partial

import pytest

pytest.importorskip("torch")

import torch
from test_parity import KEPT, TOLERANCE, gradient_error, of, trained, workload  # noqa: F401 - a fixture
from torch import nn
from torch.utils.checkpoint import checkpoint

from factories import make_workload
from trainpace.cases import YI_34B_200K
from trainpace.launch.distributed import Distributed
from trainpace.probe.device import present
from trainpace.trainers.native import compiled
from trainpace.trainers.native.attention import Ulysses
from trainpace.trainers.native.model import CausalLm, initial

WINDOWS = {"sliding_window": 2048, "layer_types": ["sliding_attention", "full_attention"] * 16}
GEMMA = of("gemma3_text", head=256, tied=True, config=WINDOWS)


class Layer(nn.Module):
    """One that multiplies."""

    gradient_checkpointing = True

    def forward(self, hidden, *, longest):
        """As transformers calls it."""
        return hidden * longest


def compiled_layers(monkeypatch, **fields):
    """Two layers after compile_layers, and what torch.compile was asked for."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda forward, **settings: asked.append(settings) or forward)
    layers = nn.ModuleList([Layer(), Layer()])
    compiled.compile_layers(layers, make_workload(compile=True, **fields))
    return layers, asked


@pytest.mark.parametrize("recompute", ["full", "selective_op"])
def test_the_forward_is_compiled_and_not_the_call(monkeypatch, recompute):
    """Hooks around it gather parameters; what is made again is made within, and transformers' own way is off."""
    called = []

    def record(*args, **named):
        called.append("context_fn" in named)
        return checkpoint(*args, **named)

    monkeypatch.setattr(compiled, "checkpoint", record)
    layers, asked = compiled_layers(monkeypatch, recompute=recompute)

    out = layers[0](torch.ones(2, requires_grad=True), longest=3)

    assert out.tolist() == [3.0, 3.0]
    assert asked == [{"fullgraph": True, "dynamic": False}] * 2
    assert not any(layer.gradient_checkpointing for layer in layers)
    assert called == [recompute == "selective_op"]


def test_a_layer_that_keeps_everything_is_compiled_as_it_is(monkeypatch):
    """Without recompute nothing stands around the forward."""
    monkeypatch.setattr(Layer, "gradient_checkpointing", False)
    monkeypatch.setattr(compiled, "checkpoint", None)
    layers, _ = compiled_layers(monkeypatch, recompute="none")

    assert layers[0](torch.ones(2), longest=2).tolist() == [2.0, 2.0]


def saved_bytes(recompute):
    """Bytes that one compiled layer of 64 tokens keeps for its backward besides its parameters, and of its input."""
    torch._dynamo.reset()
    shape = YI_34B_200K.mini
    model = CausalLm(shape, 64, recompute)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(initial(name, parameter.shape, model.config, "cpu"))
    without_code = partial(torch.compile, backend="aot_eager_decomp_partition")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", without_code)
        compiled.compile_layers(model.layers, make_workload(recompute=recompute))
    hidden = torch.randn(1, 64, shape.hidden, requires_grad=True)
    angles = [each.detach() for each in model.body.rotary_emb(hidden, torch.arange(64).unsqueeze(0))]
    ends = torch.tensor([0, 64], dtype=torch.int32)
    given = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *angles)}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.layers[0](
            hidden, position_embeddings=tuple(angles), ulysses=Ulysses(None, 1), document_ends=ends, longest=64
        )
    return sum(kept.values()), hidden.numel() * hidden.element_size()


@pytest.mark.slow
def test_a_layer_keeps_what_the_case_says():
    """full: its input alone (and where documents end). selective_op: more, and less than none."""
    full, one = saved_bytes("full")
    selective, _ = saved_bytes("selective_op")
    everything, _ = saved_bytes("none")

    assert one <= full < 1.1 * one
    assert 2 * one < selective < everything


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["causal", "varlen"])
@pytest.mark.parametrize("sp", [1, 2])
@pytest.mark.parametrize("engine", ["fsdp2", "deepspeed"])
def test_it_trains_what_eager_layers_train(trained, engine, sp, attention):  # noqa: F811
    """Loss and gradients are the eager step's, to 1e-6 in fp32; all layers are one graph."""
    expected = trained(YI_34B_200K, attention, engine, 2, sp)

    actual = trained(YI_34B_200K, attention, engine, 2, sp, compile=True)

    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE
    assert (expected["graphs"], actual["graphs"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("fields", KEPT, ids=str)
@pytest.mark.parametrize("engine", ["fsdp2", "deepspeed"])
def test_every_way_to_train_can_be_compiled(trained, engine, fields):  # noqa: F811
    """What is kept of a layer and how it is sharded change nothing."""
    expected = trained(YI_34B_200K, "causal", engine, 2, 2, **fields)

    actual = trained(YI_34B_200K, "causal", engine, 2, 2, compile=True, **fields)

    assert float(expected["loss"]) == pytest.approx(float(actual["loss"]), rel=TOLERANCE)
    assert gradient_error(expected, actual) < TOLERANCE


@pytest.mark.slow
def test_layers_of_two_kinds_are_two_graphs(trained):  # noqa: F811
    """With and without a window."""
    expected = trained(GEMMA, "causal", "fsdp2", 2, 1)

    actual = trained(GEMMA, "causal", "fsdp2", 2, 1, compile=True)

    # A graph sums in another order, and this model has two norms more a layer and those of queries and keys: 1.1e-6.
    assert gradient_error(expected, actual) < 2 * TOLERANCE
    assert actual["graphs"] == 2


@pytest.mark.slow
def test_compiling_halves_what_a_layer_reads_and_writes():
    """Outside of products and attention, of which there are as many; counted, at full width and 8k tokens."""
    from layer_bytes import compiled_layer, eager_layer  # a second of torch's compiler

    eager, joined = eager_layer(8192), compiled_layer(8192)

    assert eager.left_out == joined.left_out
    assert 0.1 * eager.size < joined.size < 0.5 * eager.size


@pytest.mark.slow
def test_it_is_compiled_once_a_session_and_said(tmp_path, monkeypatch):
    """The second run writes no code; while the first one does, a line says so."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch's compiler sets it where it is imported
    wanted = workload(YI_34B_200K, "causal", "deepspeed", 1, 1, compile=True).model_copy(update={"trainer": "native"})
    said = []

    with Distributed(machine=present(), cache=tmp_path, step_timeout=300) as distributed:
        distributed.run(wanted, progress=lambda _, doing: said.append(doing))
        written = sorted(distributed.pool.folder.rglob("*.cpp"))
        distributed.run(wanted)
        after = sorted(distributed.pool.folder.rglob("*.cpp"))

    assert len(written) > 5
    assert after == written
    assert {"compiling the layers (step 1)", "compiling the layers' backward (step 1)"} <= set(said)
