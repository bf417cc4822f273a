"""Which layouts are recognised, which are refused, and the names of layers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_xai.functional import find_layers, grad_cam, last_spatial_layer, named_layers
from lightning_xai.functional.hooks import Call
from lightning_xai.functional.passes.layout import Layout, recognise
from tests.support import textbook_cam
from tests.support.nets import Plain, ResNet

IMAGE = (2, 3, 224, 224)


class Unknown(nn.Module):
    """A module whose type says nothing."""


@pytest.mark.parametrize(
    ("module", "shape", "input_shape", "expected"),
    [
        # the type says it
        (nn.Conv2d(3, 8, 3), (2, 8, 8, 8), IMAGE, Layout(False)),
        (nn.BatchNorm2d(8), (2, 7, 7, 7), IMAGE, Layout(False)),
        (nn.LayerNorm(8), (2, 8, 8, 8), IMAGE, Layout(True)),
        (nn.Linear(8, 8), (2, 8, 8, 8), IMAGE, Layout(True)),
        (nn.Conv3d(3, 8, 3), (2, 8, 4, 5, 6), (2, 3, 9, 9, 9), Layout(False)),
        (nn.Conv1d(3, 8, 3), (2, 8, 50), (2, 50), Layout(False)),
        (nn.LayerNorm(8), (2, 50, 8), (2, 50), Layout(True)),
        (nn.GRU(3, 8, batch_first=True), (2, 50, 8), (2, 50, 3), Layout(True)),
        (nn.GRU(3, 8, batch_first=True), (2, 49, 8), IMAGE, Layout(True)),
        # the geometry says it
        (Unknown(), (2, 512, 7, 7), IMAGE, Layout(False)),
        (Unknown(), (2, 7, 7, 768), IMAGE, Layout(True)),
        (Unknown(), (2, 56, 56, 96), IMAGE, Layout(True)),
        (Unknown(), (2, 64, 56, 56), IMAGE, Layout(False)),
        (Unknown(), (2, 64, 40, 60), (2, 3, 320, 480), Layout(False)),
        (Unknown(), (2, 40, 60, 64), (2, 3, 320, 480), Layout(True)),
        (Unknown(), (2, 40, 60, 64), (2, 320, 480, 3), Layout(True)),
        (Unknown(), (2, 64, 4, 14, 14), (2, 3, 8, 224, 224), Layout(False)),
        (Unknown(), (2, 4, 14, 14, 64), (2, 3, 8, 224, 224), Layout(True)),
        (Unknown(), (2, 16, 25), (2, 4, 100), Layout(False)),
        (Unknown(), (2, 100, 64), (2, 100, 4), Layout(True)),
        (Unknown(), (2, 50, 8), (2, 50), Layout(True)),
        # tokens
        (Unknown(), (2, 197, 768), IMAGE, Layout(True, 1, (14, 14))),
        (nn.LayerNorm(1024), (2, 197, 1024), IMAGE, Layout(True, 1, (14, 14))),
        (Unknown(), (2, 198, 192), IMAGE, Layout(True, 2, (14, 14))),
        (Unknown(), (2, 201, 768), IMAGE, Layout(True, 5, (14, 14))),
        (Unknown(), (2, 200, 768), IMAGE, Layout(True, 4, (14, 14))),
        (Unknown(), (2, 49, 768), IMAGE, Layout(True, 0, (7, 7))),
        (Unknown(), (2, 50, 768), IMAGE, Layout(True, 1, (7, 7))),
        (Unknown(), (2, 6, 12), (2, 3, 32, 32), Layout(True, 2, (2, 2))),
        (Unknown(), (2, 281, 768), (2, 3, 224, 320), Layout(True, 1, (14, 20))),
        (Unknown(), (2, 1531, 384), (2, 3, 476, 630), Layout(True, 1, (34, 45))),
    ],
)
def test_recognised(module: nn.Module, shape: tuple[int, ...], input_shape: tuple[int, ...], expected: Layout) -> None:
    def not_asked() -> list[Call]:
        raise AssertionError("no trace is needed")

    layout = recognise("x", module, shape, input_shape, not_asked)
    assert layout == expected
    moved = layout(torch.zeros(shape))
    assert moved.shape[2:] == layout.cells(shape)
    assert moved.shape[:2] == (2, shape[-1] if expected.channels_last else shape[1])


@pytest.mark.parametrize(
    ("shape", "input_shape", "module", "expected"),
    [
        ((2, 56, 56, 56), IMAGE, nn.Conv2d(3, 56, 3), Layout(False)),
        ((2, 56, 56, 56), IMAGE, nn.LayerNorm(56), Layout(True)),
        ((2, 197, 1024), IMAGE, nn.LayerNorm(1024), Layout(True, 1, (14, 14))),
        ((2, 4, 50), (2, 4, 100), nn.Conv1d(4, 4, 3), Layout(False)),
        ((2, 50, 50), (2, 50), nn.Linear(50, 50), Layout(True)),
        ((2, 25, 8), (2, 50), nn.LayerNorm(8), Layout(True)),
    ],
)
def test_open_until_the_layers_before_are_asked(
    shape: tuple[int, ...], input_shape: tuple[int, ...], module: nn.Module, expected: Layout
) -> None:
    other = Call("other", nn.Conv2d(1, 1, 1), (2, 1, 1, 1))
    assert recognise("x", Unknown(), shape, input_shape, lambda: [Call("y", module, shape), other]) == expected
    with pytest.raises(ValueError, match=r"'x' \(Unknown\) returns.*(several layouts fit|no layout fits).*reshape="):
        recognise("x", Unknown(), shape, input_shape, lambda: [other])


@pytest.mark.parametrize(
    ("module", "shape", "input_shape", "match"),
    [
        (nn.LayerNorm(8), (32, 49, 8), IMAGE, "first dimension is not the batch.*reshape="),
        (nn.LayerNorm(8), (50, 2, 8), (2, 50), "first dimension is not the batch"),
        (nn.MultiheadAttention(8, 2), (2, 2, 8), (2, 2), "first dimension is not the batch"),
        (nn.TransformerEncoderLayer(8, 2), (2, 2, 8), (2, 2), "first dimension is not the batch"),
        (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 1, enable_nested_tensor=False),
            (2, 2, 8),
            (2, 2),
            "not the batch",
        ),
        (nn.LayerNorm(8), (2, 95, 8), IMAGE, "no layout fits.*reshape="),
        (Unknown(), (2, 4096, 8), (2, 1, 64, 64, 64), "no layout fits"),
        (nn.Linear(3, 8), (2, 8), (2, 3), "there are no cells"),
    ],
)
def test_refused(module: nn.Module, shape: tuple[int, ...], input_shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        recognise("x", module, shape, input_shape, list)


def test_a_layer_inside_windows_is_explained_with_reshape() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.inner, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x)  # (N, 8, 4, 4) -> windows of 2 x 2
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).reshape(-1, 4, 8)
            x = self.inner(x).relu()
            return self.head(x.reshape(-1, 16, 8).mean(1))

    def reshape(t: Tensor) -> Tensor:
        return t.reshape(-1, 2, 2, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, 4, 4)

    model, x, y = Windows(), torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"'inner'.*first dimension is not the batch"):
        grad_cam(model, x, y, layer="inner")
    a, g = textbook_cam.activations_and_gradients(model, "inner", x, textbook_cam.class_score(y))
    expected = textbook_cam.gradient_map("grad_cam", reshape(a), reshape(g)).float()
    torch.testing.assert_close(grad_cam(model, x, y, layer="inner", reshape=reshape), expected)
    with pytest.raises(ValueError, match="ablation_cam"):
        grad_cam(model, x, lambda out: out.relu()[:, 0], layer="inner", reshape=reshape, variant="ablation_cam")


# ---------------------------------------------------------------- Hugging Face


def vit(pool: str = "token") -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    )


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    return SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "layer", "move"),
    [
        (vit, "vit.layers.1.layernorm_before", lambda t: t[:, 1:].mT.reshape(3, 16, 4, 4)),
        (swin, "swin.layernorm", lambda t: t.mT.reshape(3, 16, 8, 8)),
    ],
)
def test_hugging_face(make: Callable[[], nn.Module], layer: str, move: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x, y = make(), torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 0])
    auto = last_spatial_layer(model, {"pixel_values": x})
    assert auto == layer, list(named_layers(model))
    a, g = textbook_cam.activations_and_gradients(model, auto, x, lambda out: out.logits.gather(1, y[:, None])[:, 0])
    expected = textbook_cam.gradient_map("grad_cam", move(a), move(g)).float()
    torch.testing.assert_close(
        grad_cam(model, {"pixel_values": x}, y), expected, rtol=1e-4, atol=1e-5 * float(expected.max())
    )


# ---------------------------------------------------------------- names


def test_names_show_no_wrapper() -> None:
    model = ResNet()
    plain = list(named_layers(model))
    assert "" not in plain
    assert plain[:2] == ["stem", "stem.0"]
    model.layer2 = torch.compile(model.layer2, backend="eager")
    assert sorted(named_layers(torch.compile(model, backend="eager"))) == sorted(plain)
    assert list(named_layers(nn.DataParallel(ResNet()))) == plain
    nested = nn.ModuleDict({"module": ResNet()})
    assert list(named_layers(nested))[:2] == ["module", "module.stem"]


def test_find_layers() -> None:
    model = ResNet()
    assert list(find_layers(model, "layer1.conv?")) == ["layer1.conv1", "layer1.conv2"]
    assert list(find_layers(model, [model.head, "layer1"])) == ["head", "layer1"]
    plain, compiled = model.layer2, torch.compile(model.layer2, backend="eager")
    model.layer2 = compiled
    assert find_layers(model, compiled) == {"layer2": plain}
    with pytest.raises(ValueError, match=r"no layer 'conv1'\. Did you mean 'layer1.conv1' or 'layer2.0.conv1'"):
        find_layers(model, "conv1")
    with pytest.raises(ValueError, match="layers is empty"):
        find_layers(model, [])
    with pytest.raises(ValueError, match="the given ResNet is not a layer"):
        find_layers(model, model)


def test_the_default_layer_is_the_last_to_run_not_the_last_defined() -> None:
    class Backwards(Plain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.act2(self.act(self.first(x)))
            return self.head(torch.cat([x, x[:, :2]], 1).flatten(2).mean(2))

    assert last_spatial_layer(Backwards(), torch.randn(2, 3, 9, 9)) == "act2"
