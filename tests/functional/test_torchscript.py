"""Parts of TorchScript: maps of the plain layers beside them, and an error that says why they have none."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xai.functional import attention_maps, find_layers, grad_cam, last_spatial_layer, named_layers
from lightning_xai.functional.activations import activations, earlier_layer, layer_gradients
from lightning_xai.functional.attention_relevance import attention_relevance
from lightning_xai.functional.grad_cam import VARIANTS
from tests.support.nets import ViT

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def traced(part: nn.Module, example: Tensor) -> nn.Module:
    return torch.jit.trace(part, example)


def scripted(part: nn.Module, example: Tensor) -> nn.Module:
    return torch.jit.script(part)


def frozen(part: nn.Module, example: Tensor) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(part))


MADE = [frozen, scripted, traced]


class Parts(nn.Module):
    """A stem, a layer, and a head that is not affine."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.post = nn.Conv2d(6, 5, 3)
        self.tail = nn.Sequential(nn.GELU(), nn.Flatten(), nn.Linear(180, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.post(self.stem(x)))


EXAMPLES = {"stem": torch.zeros(1, 3, 16, 16), "tail": torch.zeros(1, 5, 6, 6)}
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 3, 0])


def pair(make: Callable[[nn.Module, Tensor], nn.Module], *parts: str) -> tuple[nn.Module, nn.Module]:
    """The plain net, and the same with these parts as TorchScript."""
    torch.manual_seed(0)
    plain = Parts().eval()
    changed = copy.deepcopy(plain)
    for name in parts:
        setattr(changed, name, make(getattr(changed, name), EXAMPLES[name]))
    return plain, changed.eval()  # also of its frozen parts, which know no mode before


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("parts", [["stem"], ["tail"], ["stem", "tail"]])
@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_equal_those_of_the_plain_net(make, parts: list[str], variant: str) -> None:
    plain, changed = pair(make, *parts)
    expected = grad_cam(plain, IMAGES, CLASSES, layer="post", variant=variant)
    for _ in range(3):  # TorchScript makes other code of its second and third call
        assert_close(grad_cam(changed, IMAGES, CLASSES, layer="post", variant=variant), expected)
        assert_close(grad_cam(changed, IMAGES, CLASSES, layer=changed.post, variant=variant), expected)


@pytest.mark.parametrize("make", MADE)
def test_what_layers_return_and_their_gradients(make) -> None:
    plain, changed = pair(make, "stem", "tail")
    for function in (activations, lambda model, images, layer: layer_gradients(model, images, CLASSES, layer)):
        assert_close(function(changed, IMAGES, "post"), function(plain, IMAGES, "post"))
    assert earlier_layer(changed, IMAGES, CLASSES, changed.post) is None


@pytest.mark.parametrize("make", MADE)
def test_the_automatic_layer_is_a_plain_one(make) -> None:
    plain, changed = pair(make, "tail")
    assert last_spatial_layer(plain, IMAGES) == "tail.0"
    assert last_spatial_layer(changed, IMAGES) == "post"
    assert_close(grad_cam(changed, IMAGES, 1), grad_cam(plain, IMAGES, 1, layer="post"))


@pytest.mark.parametrize("make", MADE)
def test_attention_beside_parts_of_torchscript(make) -> None:
    torch.manual_seed(0)
    plain, images = ViT().eval(), torch.randn(2, 3, 16, 16)
    changed = copy.deepcopy(plain)
    for block in changed.blocks:
        block.mlp = make(block.mlp, torch.zeros(1, 17, 12))
    changed.eval()
    assert_close(attention_maps(changed, images), attention_maps(plain, images))
    assert_close(attention_relevance(changed, images, 1), attention_relevance(plain, images, 1))


@pytest.mark.parametrize("make", [scripted, traced, frozen])
def test_a_layer_of_torchscript_is_refused_by_name(make) -> None:
    _, changed = pair(make, "stem")
    assert "stem" in named_layers(changed)
    for layer in ("stem", changed.stem, "ste*"):
        with pytest.raises(ValueError, match=r"'stem' is TorchScript \(.*no hooks.*such as 'post', or give the plain"):
            find_layers(changed, layer)
    assert list(find_layers(changed, "*st*")) == ["post"]
    around = nn.Sequential(nn.ReLU(), changed)
    with pytest.raises(ValueError, match=r"'1\.stem' is TorchScript .* such as '1' or '1\.post', or give"):
        find_layers(around, "1.stem")


def test_a_model_of_nothing_else() -> None:
    plain, _ = pair(frozen)
    whole = torch.jit.freeze(torch.jit.script(nn.Sequential(plain)).eval()).eval()
    with pytest.raises(ValueError, match=r"found no layer .* among 0 with cells: none\."):
        grad_cam(whole, IMAGES)
    inside = nn.Sequential(whole).eval()
    with pytest.raises(ValueError, match=r"found no layer .* Nothing inside of '0' is seen, as TorchScript takes no"):
        grad_cam(inside, IMAGES)
    with pytest.raises(ValueError, match=r"found no attention .* Nothing inside of '0' is seen"):
        attention_maps(inside, IMAGES)
    with pytest.raises(ValueError, match=r"'0' is TorchScript \(.*cannot be seen\. Give the plain module"):
        find_layers(inside, "0")
