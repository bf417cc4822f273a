"""What the guarded pass restores, how taps see a forward, and that each guard can fail."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_xai.functional import grad_cam, hooks, inspecting, last_spatial_layer
from lightning_xai.functional.grad_cam import VARIANTS
from lightning_xai.functional.passes import guard
from tests.support import textbook_cam
from tests.support.hooks import hooks_of
from tests.support.nets import Deep, Plain, ResNet

np = pytest.importorskip("numpy")


class Restless(Plain):
    """A forward that does in eval mode what no forward should."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(2))
        self.replaced: Tensor
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.replaced = self.replaced + 1
        nn.functional.batch_norm(torch.randn(2, 8), self.norm.running_mean, self.norm.running_var, training=True)
        random.random(), np.random.rand()
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.zeros(1))
        self.first.weight.requires_grad_(False)
        self.first.bias.grad = self.last.bias.grad = None
        x = self.norm(self.last(self.act(self.first(x))))
        if self.fail:
            raise RuntimeError("in the middle")
        return self.head(x.flatten(2).mean(2))

    def eval(self) -> "Restless":
        raise AssertionError("eval() is the user's")

    def train(self, mode: bool = True) -> "Restless":
        raise AssertionError("train() is the user's")


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that must not change, as plain comparable values."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "training": [m.training for m in model.modules()],
        "objects": {name: id(t) for name, t in tensors.items()},
        "values": {name: t.tolist() for name, t in tensors.items()},
        "requires_grad": {name: t.requires_grad for name, t in tensors.items()},
        "grads": {n: (id(p.grad), None if p.grad is None else p.grad.tolist()) for n, p in model.named_parameters()},
        "hooks": [hooks_of(model), ["forward" in vars(m) for m in model.modules()]],
        "rng": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "flags": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_cache_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cudnn.enabled,
        ),
    }


def half_trained(model: nn.Module) -> nn.Module:
    """With gradients in mid-accumulation and a mixture of training flags."""
    for index, module in enumerate(model.modules()):
        module.training = index % 3 != 1
    for index, parameter in enumerate(model.parameters()):
        if index % 2:
            parameter.grad = torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_restored(variant: str, fail: bool) -> None:
    model, x = half_trained(Restless()), torch.randn(2, 3, 9, 9)
    before = state(model)
    model.fail = fail
    with pytest.raises(RuntimeError, match="in the middle") if fail else nullcontext():
        grad_cam(model, x, 1, layer="last", variant=variant)
    assert state(model) == before


def test_everything_is_restored_from_within_itself() -> None:
    model = half_trained(Restless())
    before = state(model)
    with inspecting(model):
        inside = state(model)
        assert not torch.is_autocast_cache_enabled(), "before torch 2.9 it kept casts made without grad"
        with inspecting(model):
            grad_cam(model, torch.randn(2, 3, 9, 9), 1)
        assert state(model) == inside
        assert not any(inside["training"])
        assert not any(inside["requires_grad"].values())
    assert state(model) == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_modes_around_the_call(variant: str, frozen: bool, mode: Callable[[], Any]) -> None:
    model, x, y = Deep(), torch.randn(2, 3, 12, 12), torch.tensor([0, 1])
    expected = grad_cam(model, x, y, layer="target", variant=variant)
    model.requires_grad_(not frozen)
    with mode():
        # made inside: inference tensors under inference_mode
        found = grad_cam(model, x.clone(), y.clone(), layer="target", variant=variant)
        assert torch.equal(found, expected)
    assert not found.requires_grad


def test_inference_tensors_in_the_model() -> None:
    model, x = Deep(), torch.randn(2, 3, 12, 12)
    expected = grad_cam(model, x, 1, layer="target")
    with torch.inference_mode():
        model.stem[1].running_mean = model.stem[1].running_mean.clone()
        model.head = nn.Linear(4 * 36, 5)
        buffer = model.stem[1].running_mean
    assert model.head.weight.is_inference()
    assert grad_cam(model, x, 1, layer="target").shape == expected.shape
    assert model.stem[1].running_mean is buffer
    assert model.head.weight.is_inference()


def test_inputs_that_require_grad_get_none() -> None:
    x = torch.randn(2, 3, 9, 9, requires_grad=True)
    assert not grad_cam(Plain(), x).requires_grad
    assert x.grad is None


def test_no_graph_below_the_layer_and_no_parameter_gradient() -> None:
    model, x = ResNet(), torch.randn(2, 3, 12, 12)
    below: list[bool] = []
    model.layer2[0].register_forward_hook(lambda module, args, output: below.append(output.requires_grad))
    nodes: list[str] = []
    with inspecting(model), hooks.tapping(model, {"layer2": model.layer2}, lambda: model(x).sum()) as (_, score):
        nodes += sorted(node.name() for node in hooks.graph_nodes(score))
    assert below == [False]
    assert nodes.count("torch::autograd::AccumulateGrad") == 1, "the leaf; no parameter"
    assert not any("Convolution" in node for node in nodes)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the model", "outside of the model"])
def test_training_around_a_call_in_one_autocast_region_is_bit_identical(elsewhere: bool) -> None:
    def gradients(call: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model, head, x = ResNet(), nn.Linear(5, 5), torch.randn(2, 3, 12, 12)
        explained, layer = (model, "layer2") if not elsewhere else (model.layer2, "1")

        def forward(x: Tensor) -> Tensor:
            return head(model(x))

        with torch.autocast("cpu", torch.bfloat16):
            if call:
                grad_cam(explained, x, layer=layer, forward=forward)
            loss = forward(x).float().sum()
            if call:
                grad_cam(explained, x, layer=layer, forward=forward)
            loss = loss + forward(x * 2).float().sum()
        loss.backward()
        return [parameter.grad for parameter in (*model.parameters(), *head.parameters())]

    found, expected = gradients(True), gradients(False)
    assert all(f is not None and torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_a_graph_that_holds_a_buffer_survives() -> None:
    model, x = Plain(), torch.randn(2, 3, 9, 9)
    model.register_buffer("scale", torch.ones(5))
    loss = (model(x) * model.scale).sum() + (model.head.weight[:, 0] * model.scale).sum()
    grad_cam(model, x)
    loss.backward()


def test_bfloat16_autocast_is_float32_arithmetic_on_that_pass() -> None:
    model, x, y = Deep(), torch.randn(2, 3, 12, 12), torch.tensor([0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = grad_cam(model, x, y, layer="target")
        a, g = textbook_cam.activations_and_gradients(model, "target", x, textbook_cam.class_score(y))
    assert a.dtype == torch.bfloat16
    expected = textbook_cam.gradient_map("grad_cam", a, g)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["torch.compile", "module.compile", "a part"])
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_warm_compiled_model(backend: str, how: str) -> None:
    torch.manual_seed(1)
    model, x = ResNet().eval(), torch.randn(2, 3, 12, 12)
    expected = grad_cam(model, x, 1, layer="layer2.0.bn1")
    if how == "module.compile":
        model.compile(backend=backend)
        compiled = model
    elif how == "torch.compile":
        compiled = torch.compile(model, backend=backend)
    else:
        model.layer2 = torch.compile(model.layer2, backend=backend)
        compiled = model
    compiled(x)
    with torch.no_grad():
        compiled(x)
    torch.testing.assert_close(grad_cam(compiled, x, 1, layer="layer2.0.bn1"), expected)
    assert last_spatial_layer(compiled, x) == "layer2"


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_nothing_is_compiled_or_compiled_again() -> None:
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model, x = ResNet().eval(), torch.randn(2, 3, 12, 12)
    compiled = torch.compile(model, backend=backend)
    compiled(x)
    count = len(graphs)
    grad_cam(compiled, x, 1, layer="layer1.bn1")
    compiled(x)
    assert len(graphs) == count > 0


class Checkpointed(nn.Module):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.inner, self.place = Deep(), place

    def forward(self, x: Tensor) -> Tensor:
        net = self.inner
        parts = {
            "before": [(net.stem, True), (net.target, False), (net.tail, False)],
            "around": [(nn.Sequential(net.stem, net.target, net.tail[:2]), True), (net.tail[2:], False)],
            "after": [(net.stem, False), (net.target, False), (net.tail[0], False), (net.tail[1:], True)],
        }
        for part, again in parts[self.place]:
            x = checkpoint(part, x, use_reentrant=False) if again else part(x)
        return net.head(x)


@pytest.mark.parametrize("place", ["before", "around", "after"])
@pytest.mark.parametrize("layers", [["inner.target"], ["inner.stem.0", "inner.target", "inner.tail.1"]])
@pytest.mark.parametrize("variant", ["grad_cam", "ablation_cam"])
def test_checkpointing(variant: str, layers: list[str], place: str) -> None:
    model, x = Checkpointed(place), torch.randn(2, 3, 12, 12)
    expected = grad_cam(model.inner, x, 1, layer=[name.removeprefix("inner.") for name in layers], variant=variant)
    found = grad_cam(model, x, 1, layer=layers, variant=variant)
    for name in layers:
        torch.testing.assert_close(found[name], expected[name.removeprefix("inner.")])


def test_checkpointing_behind_a_frozen_stem() -> None:
    class Frozen(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            net = self.inner
            with torch.no_grad():
                x = net.stem(x)
            return net.head(checkpoint(lambda x: net.tail(net.target(x)), x, use_reentrant=False))

    model, x, layers = Frozen("around"), torch.randn(2, 3, 12, 12), ["stem.0", "target"]
    expected = grad_cam(model.inner, x, 1, layer=layers)
    found = grad_cam(model, x, 1, layer=[f"inner.{name}" for name in layers])
    for name in layers:
        torch.testing.assert_close(found[f"inner.{name}"], expected[name])


def test_a_backbone_under_no_grad_is_explained_all_the_same() -> None:
    class Transfer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
            self.head = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 5))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.backbone(x)
            return self.head(features)

    model, x, y = Transfer(), torch.randn(2, 3, 9, 9), torch.tensor([0, 1])
    plain = nn.Sequential(model.backbone, model.head)
    found = grad_cam(model, x, y, layer=["backbone.0", "backbone.2", "head.0"])
    for maps, same in zip(found.values(), ["0.0", "0.2", "1.0"], strict=True):
        torch.testing.assert_close(maps, grad_cam(plain, x, y, layer=same))
    torch.testing.assert_close(grad_cam(model, x, y, layer="backbone.2"), found["backbone.2"])
    assert last_spatial_layer(model, x) == "head.1"


def test_a_detached_output_is_an_error_that_says_so() -> None:
    class Detached(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(ValueError, match=r"do not depend on 'last'.*detach\(\)"):
        grad_cam(Detached(), torch.randn(2, 3, 9, 9), layer="last")


def test_writing_into_a_layers_output_through_another_name() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.drop, self.head = nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            y = self.drop(x)  # in eval mode the same tensor
            x.mul_(-3)
            return self.head((y.relu() + x * 0).flatten(2).mean(2))

    model, x, y = Aliased(), torch.randn(2, 3, 9, 9), torch.tensor([0, 1])
    a = model.conv(x).detach()
    # the output as it was when the layer returned it, whatever is done to that memory later
    with inspecting(model), hooks.tapping(model, {"drop": model.drop}, lambda: model(x).sum()) as (taps, _):
        torch.testing.assert_close(taps["drop"], a)
    assert grad_cam(model, x, y, layer=["conv", "drop"])["drop"].shape == (2, 7, 7)


def test_outputs_that_are_collections() -> None:
    class Pair(nn.Module):
        def __init__(self, kind: type) -> None:
            super().__init__()
            self.conv, self.kind = nn.Conv2d(3, 4, 3), kind

        def forward(self, x: Tensor) -> Any:
            x = self.conv(x)
            return {"features": x, "size": x.shape} if self.kind is dict else self.kind((x, "other"))

    for kind in (tuple, list, dict):
        pair, head = Pair(kind), nn.Linear(4, 5)
        model = nn.Module()
        model.pair, model.head = pair, head
        pick = (lambda out: out["features"]) if kind is dict else (lambda out: out[0])

        def forward(x: Tensor, pair=pair, head=head, pick=pick) -> Tensor:
            return head(pick(pair(x)).relu().flatten(2).mean(2))

        x = torch.randn(2, 3, 9, 9)
        found = grad_cam(model, x, 1, layer=["pair", "pair.conv"], forward=forward)
        torch.testing.assert_close(found["pair"], found["pair.conv"])


def test_the_fast_path_of_a_padded_transformer() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.embed, self.encoder, self.head = nn.Embedding(10, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.encoder(self.embed(x), src_key_padding_mask=x == 0)
            return self.head(x.mean(1))

    # in eval mode without grad it works on nested tensors, which have no layout
    model, x = Padded(), torch.tensor([[1, 2, 3, 4, 0, 0], [5, 6, 7, 0, 0, 0]])
    for layer in ("encoder.layers.0", "encoder.layers.1.norm1", "encoder.layers.1"):
        assert grad_cam(model, x, 1, layer=layer).shape == (2, 6)


def test_functional_needs_torch_alone() -> None:
    code = (
        "import sys, lightning_xai.functional\n"
        "heavy = {'pytorch_lightning', 'lightning', 'matplotlib', 'tensorboard', 'wandb', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- each guard, taken away


@contextmanager
def without(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    @contextmanager
    def nothing(*_: Any) -> Iterator[None]:
        yield

    with monkeypatch.context() as patch:
        patch.setattr(guard, name, nothing)
        yield


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_guards_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    with without("_rng_restored", monkeypatch), pytest.raises(AssertionError):
        test_everything_is_restored("grad_cam", False)
    with without("_flags_set", monkeypatch), pytest.raises(Exception):  # noqa: B017
        test_the_fast_path_of_a_padded_transformer()
    with without("_eager", monkeypatch), pytest.raises(AssertionError):
        test_nothing_is_compiled_or_compiled_again()
    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        patch.setattr(guard, "_copy", lambda to, source: None)
        test_everything_is_restored("grad_cam", False)
