import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_xai.functional import VARIANTS, grad_cam, last_spatial_layer
from lightning_xai.functional.grad_cam import GRADIENT_VARIANTS
from tests.support import textbook_cam
from tests.support.nets import ChannelsLast, Deep, Plain, ResNet, Text, ViT

Move = Callable[[Tensor], Tensor]


def tokens(rows: int, columns: int, prefix: int) -> Move:
    return lambda t: t[:, prefix:].mT.reshape(len(t), t.shape[2], rows, columns)


def zero_channel(dim: int, start: int = 0) -> Callable[[Tensor, int], Tensor]:
    def ablate(output: Tensor, channel: int) -> Tensor:
        output.narrow(1, start, output.shape[1] - start).select(dim, channel).zero_() if dim != 1 else output.select(
            1, channel
        ).zero_()
        return output

    return ablate


# net, layer, input shape, from the layer's output to (N, C, *cells), set a channel to zero
first = zero_channel(1)
last = zero_channel(-1)
CASES: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...], Move, Callable[[Tensor, int], Tensor]]] = {
    "plain": (Plain, "last", (4, 3, 15, 11), lambda t: t, first),
    "in place": (lambda: Plain(inplace=True), "last", (4, 3, 15, 11), lambda t: t, first),
    "relu in place": (lambda: Plain(inplace=True), "act", (4, 3, 15, 11), lambda t: t, first),
    "deep": (Deep, "target", (4, 3, 12, 12), lambda t: t, first),
    "resnet": (ResNet, "layer2.1", (4, 3, 14, 10), lambda t: t, first),
    "residual stage": (ResNet, "layer1", (4, 3, 14, 10), lambda t: t, first),
    "inside a block": (ResNet, "layer2.0.bn1", (4, 3, 14, 10), lambda t: t, first),
    "relu called twice": (ResNet, "layer2.1.relu", (4, 3, 14, 10), lambda t: t, first),
    "1d": (lambda: Plain(dimensions=1), "last", (4, 3, 21), lambda t: t, first),
    "3d": (lambda: Plain(dimensions=3), "last", (4, 3, 9, 11, 13), lambda t: t, first),
    "channels last": (ChannelsLast, "block", (4, 3, 12, 8), lambda t: t.movedim(-1, 1), last),
    "vit, first norm": (ViT, "blocks.1.norm1", (4, 3, 16, 24), tokens(4, 6, 1), zero_channel(-1, 1)),
    "vit, block": (ViT, "blocks.0", (4, 3, 16, 24), tokens(4, 6, 1), zero_channel(-1, 1)),
    "vit, mean": (lambda: ViT(2, "mean"), "norm", (4, 3, 16, 16), tokens(4, 4, 2), zero_channel(-1, 2)),
    "attention": (ViT, "blocks.0.attn", (4, 3, 16, 16), tokens(4, 4, 1), zero_channel(-1, 1)),
}


def case(name: str) -> tuple[nn.Module, str, Tensor, Tensor, Move, Callable[[Tensor, int], Tensor]]:
    make, layer, shape, move, ablate = CASES[name]
    torch.manual_seed(len(name))
    model = make().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    nn.init.normal_(model.head.weight)  # nonzero maps for every class
    x = torch.randn(shape)
    return model, layer, x, torch.randint(0, 5, (len(x),)), move, ablate


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert expected.abs().max() > 0, "an empty comparison"
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("variant", GRADIENT_VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_textbook(name: str, variant: str) -> None:
    model, layer, x, y, move, _ = case(name)
    a, g = textbook_cam.activations_and_gradients(model, layer, x, textbook_cam.class_score(y))
    expected = textbook_cam.gradient_map(variant, move(a), move(g))
    # the squares of tiny gradients lose digits in float32, and so do the quotients of xgrad_cam
    loose = {"grad_cam_plus_plus": 1e-3, "xgrad_cam": 1e-3}.get(variant, 2e-5)
    if name == "vit, block" and variant == "hires_cam":
        loose = 1e-2  # a norm does not see its input's length: the sum over channels cancels to almost nothing
    assert_close(grad_cam(model, x, y, layer=layer, variant=variant), expected, loose)


@pytest.mark.parametrize("name", CASES)
def test_ablation_cam_equals_the_whole_model_run_for_each_channel(name: str) -> None:
    model, layer, x, y, move, ablate = case(name)
    a, _ = textbook_cam.activations_and_gradients(model, layer, x, textbook_cam.class_score(y))
    expected = textbook_cam.ablation_cam(model, layer, x, y, move(a), ablate)
    assert_close(grad_cam(model, x, y, layer=layer, variant="ablation_cam", batch_size=5), expected, 1e-4)


def test_ablation_cam_of_a_module_that_is_called_for_what_it_writes() -> None:
    class Writes(Plain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            self.act(x)  # in place; skipped, it would leave x as it was
            y = self.last(x).flatten(2).mean(2) ** 2
            return self.head(y * x.mean((1, 2, 3))[:, None])

    torch.manual_seed(0)
    model, x, y = Writes(inplace=True), torch.randn(2, 3, 9, 9), torch.tensor([0, 1])
    nn.init.normal_(model.head.weight)
    nn.init.uniform_(model.last.bias, 0, 2)
    a = model.last(model.first(x).relu()).detach()
    expected = textbook_cam.ablation_cam(model, "last", x, y, a, first)
    assert_close(grad_cam(model, x, y, layer="last", variant="ablation_cam"), expected, 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_score_cam_equals_a_loop_over_channels(name: str) -> None:
    model, layer, x, y, move, _ = case(name)
    a, _ = textbook_cam.activations_and_gradients(model, layer, x, textbook_cam.class_score(y))
    expected = textbook_cam.score_cam(model, x, y, move(a))
    assert_close(grad_cam(model, x, y, layer=layer, variant="score_cam", batch_size=5), expected)


@pytest.mark.parametrize("name", ["plain", "in place", "deep", "resnet", "inside a block", "1d", "3d"])
def test_equals_captum(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's own, at its import
        from captum.attr import LayerGradCam
    model, layer, x, y, _, _ = case(name)
    judge = copy.deepcopy(model).eval()
    for module in judge.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    expected = LayerGradCam(judge, judge.get_submodule(layer)).attribute(x, y, relu_attributions=True)
    assert_close(grad_cam(model, x, y, layer=layer), expected[:, 0].detach())


# ---------------------------------------------------------------- targets and layers


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_targets_and_layers_are_those_one_by_one(variant: str) -> None:
    model, _, x, _, _, _ = case("resnet")
    targets = torch.tensor([[0, 3, 4], [2, 2, 1], [1, 0, 3], [4, 2, 2]])
    together = grad_cam(model, x, targets, layer=["layer1", "layer2.1.relu"], variant=variant)
    assert list(together) == ["layer1", "layer2.1.relu"]
    for name, maps in together.items():
        for t in range(3):
            alone = grad_cam(model, x, targets[:, t], layer=name, variant=variant)
            torch.testing.assert_close(maps[:, t], alone, rtol=1e-4, atol=1e-6)


def test_ways_to_name_layers() -> None:
    model, _, x, y, _, _ = case("resnet")
    expected = grad_cam(model, x, y, layer="layer2.1")
    torch.testing.assert_close(grad_cam(model, x, y, layer=model.layer2[1]), expected)
    pattern = grad_cam(model, x, y, layer="layer2.?")
    assert list(pattern) == ["layer2.0", "layer2.1"]
    torch.testing.assert_close(pattern["layer2.1"], expected)
    assert list(grad_cam(model, x, y, layer=[model.get_submodule("layer1")])) == ["layer1"]


def test_ways_to_name_targets() -> None:
    model, layer, x, _, _, _ = case("deep")
    predicted = copy.deepcopy(model).eval()(x).argmax(1)
    expected = grad_cam(model, x, predicted, layer=layer)
    torch.testing.assert_close(grad_cam(model, x, layer=layer), expected)
    torch.testing.assert_close(
        grad_cam(model, x, 2, layer=layer), grad_cam(model, x, lambda out: out[:, 2], layer=layer)
    )
    several = grad_cam(model, x, lambda out: out[:, :2], layer=layer)
    torch.testing.assert_close(several, grad_cam(model, x, torch.tensor([[0, 1]] * 4), layer=layer))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_logit_is_class_one_and_its_negative_class_zero(variant: str) -> None:
    one, x = Plain(classes=1), torch.randn(2, 3, 9, 9)
    two = copy.deepcopy(one)
    two.head = nn.Linear(8, 2)
    two.head.weight.data = torch.cat([-one.head.weight, one.head.weight]).data
    two.head.bias.data = torch.cat([-one.head.bias, one.head.bias]).data
    for y in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        maps = grad_cam(one, x, y, layer="last", variant=variant)
        torch.testing.assert_close(maps, grad_cam(two, x, y, layer="last", variant=variant))


@pytest.mark.parametrize(
    "inputs",
    [lambda x: (x, 2.0), lambda x: [x, 2.0], lambda x: {"x": x, "scale": 2.0}],
    ids=["tuple", "list", "mapping"],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_and_forward(variant: str, inputs: Callable[[Tensor], object]) -> None:
    class Scaled(Plain):
        def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
            return {"logits": super().forward(x) * scale, "loss": x.sum()}

    model, x, y = Scaled(), torch.randn(2, 3, 9, 9), torch.tensor([0, 1])
    found = grad_cam(model, inputs(x), y, layer="last", variant=variant)
    other = grad_cam(model, x, y, layer="last", variant=variant, forward=lambda x: model(x, 2.0))
    torch.testing.assert_close(found, other)
    torch.testing.assert_close(
        other,
        grad_cam(model, x, torch.tensor([0, 1]), layer=model.last, variant=variant, forward=lambda x: model(x, 2.0)),
    )


def test_a_segmentation_target() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1))
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"logits have the shape \(2, 4, 6, 6\).*lambda output: output\[:, 3\]"):
        grad_cam(model, x)
    assert grad_cam(model, x, lambda out: out[:, 1].mean((1, 2)), layer="1").shape == (2, 6, 6)


# ---------------------------------------------------------------- the layer nobody named


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (Plain, (2, 3, 9, 9), "act2"),
        (Deep, (2, 3, 12, 12), "tail.3"),
        (ResNet, (2, 3, 12, 12), "layer2"),
        (lambda: Plain(dimensions=1), (2, 3, 15), "act2"),
        (lambda: Plain(dimensions=3), (2, 3, 9, 9, 9), "act2"),
        (ChannelsLast, (2, 3, 12, 8), "norm"),
        (ViT, (2, 3, 16, 16), "blocks.1.norm1"),
        (lambda: ViT(pool="mean"), (2, 3, 16, 16), "norm"),
        (lambda: ViT(5), (2, 3, 24, 16), "blocks.1.norm1"),
    ],
)
def test_last_spatial_layer(make: Callable[[], nn.Module], shape: tuple[int, ...], expected: str) -> None:
    model, x = make(), torch.randn(shape)
    assert last_spatial_layer(model, x) == expected
    torch.testing.assert_close(grad_cam(model, x), grad_cam(model, x, layer=expected))


@pytest.mark.parametrize(("first", "expected"), [(False, "norm"), (True, "blocks.1.norm1")])
def test_last_spatial_layer_of_text(first: bool, expected: str) -> None:
    model, x = Text(first), torch.randint(0, 20, (3, 6))
    assert last_spatial_layer(model, x) == expected
    assert grad_cam(model, x).shape == (3, 6)


def test_a_layer_behind_which_only_the_class_token_is_read() -> None:
    model, x = ViT(), torch.randn(2, 3, 16, 16)
    for layer in ("blocks.1", "norm", "blocks.1.norm2"):
        with pytest.raises(ValueError, match=rf"behind layer '{layer}' only the class token.*'blocks.1.norm1'"):
            grad_cam(model, x, layer=layer)


def test_no_layer_has_cells() -> None:
    with pytest.raises(ValueError, match=r"found no layer with more than one cell.*name a layer with layer="):
        grad_cam(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4))


# ---------------------------------------------------------------- zero and NaN


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_and_nan_stay_what_they_are(variant: str) -> None:
    model, x = Plain(), torch.randn(3, 3, 9, 9)
    x[1] = torch.nan
    maps = grad_cam(model, x, 0, layer="last", variant=variant)
    assert maps[1].isnan().all()
    assert maps[[0, 2]].isfinite().all()
    nn.init.zeros_(model.last.weight)
    nn.init.zeros_(model.last.bias)
    assert (grad_cam(model, torch.randn(3, 3, 9, 9), 0, layer="last", variant=variant) == 0).all()


# ---------------------------------------------------------------- errors


def test_errors_name_what_was_given_and_the_way_out() -> None:
    model, x, y = Plain(), torch.randn(2, 3, 9, 9), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"no variant 'gradcam'\. Did you mean 'grad_cam'.*Variants: grad_cam, "):
        grad_cam(model, x, y, variant="gradcam")
    with pytest.raises(ValueError, match=r"no layer 'lst'\. Did you mean 'last'.*named_layers"):
        grad_cam(model, x, y, layer="lst")
    with pytest.raises(ValueError, match=r"no layer 'encoder"):
        grad_cam(model, x, y, layer="encoder.*")
    with pytest.raises(ValueError, match=r"the given Conv2d is not a layer of this model"):
        grad_cam(model, x, y, layer=nn.Conv2d(1, 1, 1))
    with pytest.raises(IndexError, match=r"target 7 of sample 1 is out of range: the model has 5 classes, 0 to 4"):
        grad_cam(model, x, torch.tensor([0, 7]), layer="last")
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 samples; expected \(2,\)"):
        grad_cam(model, x, torch.tensor([0, 1, 2]), layer="last")
    with pytest.raises(TypeError, match=r"torch.float32; expected class indices: targets.long\(\)"):
        grad_cam(model, x, torch.tensor([0.0, 1.0]), layer="last")
    with pytest.raises(ValueError, match=r"'label' is unknown"):
        grad_cam(model, x, "label", layer="last")
    with pytest.raises(ValueError, match=r"callable target returned shape \(\); expected one score a sample"):
        grad_cam(model, x, lambda out: out.sum(), layer="last")
    with pytest.raises(ValueError, match=r"callable target returned 1 scores for 2 samples"):
        grad_cam(model, x, lambda out: out[:1, 0], layer="last")
    with pytest.raises(ValueError, match=r"'head' \(Linear\) returns \(2, 5\).*no cells"):
        grad_cam(model, x, y, layer="head")
    with pytest.raises(ValueError, match=r"reshape turned \(2, 8, 2, 2\).*into \(2, 8\)"):
        grad_cam(model, x, y, layer="last", reshape=lambda t: t.flatten(2).mean(2))
    with pytest.raises(TypeError, match=r"no logits.*a dict with the keys \['a', 'b'\].*forward="):
        grad_cam(model, x, y, layer="last", forward=lambda x: {"a": model(x), "b": x})
    with pytest.raises(ValueError, match=r"score_cam masks the input"):
        grad_cam(Text(), torch.randint(0, 20, (2, 6)), variant="score_cam", layer="norm")
    with pytest.raises(ValueError, match=r"ablation_cam sets cells.*reshape does more than move"):
        grad_cam(Deep(), torch.randn(2, 3, 12, 12), variant="ablation_cam", layer="target", reshape=lambda t: t * 2)


def test_a_layer_that_does_not_run_or_does_not_count() -> None:
    class Aside(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.never, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return super().forward(x)

    model, x = Aside(), torch.randn(2, 3, 9, 9)
    with pytest.raises(ValueError, match=r"'never' did not run.*Layers that did: unused, first, act, last, act2, head"):
        grad_cam(model, x, layer="never")
    with pytest.raises(ValueError, match=r"the scores do not depend on 'unused'"):
        grad_cam(model, x, layer="unused")
    with pytest.raises(ValueError, match=r"the scores do not depend on 'unused'"):
        grad_cam(model, x, layer=["last", "unused"])
