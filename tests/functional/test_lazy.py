"""Lazy modules that no forward has run: nothing but the guarded pass may look at what they do not have yet."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.testing import assert_close

from lightning_xai.functional import attention_maps, find_layers, grad_cam, last_spatial_layer
from lightning_xai.functional.activations import activations, layer_gradients
from lightning_xai.functional.attention_relevance import attention_relevance
from lightning_xai.functional.grad_cam import VARIANTS
from tests.support.nets import ViT

pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 1])

FUNCTIONS = {
    **{name: partial(grad_cam, inputs=IMAGES, targets=1, layer="patches", variant=name) for name in VARIANTS},
    "automatic layer": lambda net: grad_cam(net, IMAGES, CLASSES),
    "activations": lambda net: activations(net, IMAGES, ["patches", "head"]),
    "gradients": lambda net: layer_gradients(net, IMAGES, CLASSES, "blocks.0"),
    "attention": lambda net: attention_maps(net, IMAGES),
    "relevance": lambda net: attention_relevance(net, IMAGES, CLASSES),
}


def nets() -> tuple[nn.Module, nn.Module]:
    """A net, and the same with lazy modules in it that its forward does not run."""
    plain, lazy = ViT().eval(), ViT()
    lazy.load_state_dict(plain.state_dict())
    lazy.auxiliary = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    return plain, lazy.eval()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lazy_module_beside_what_runs_changes_nothing(name: str) -> None:
    plain, lazy = nets()
    assert_close(FUNCTIONS[name](lazy), FUNCTIONS[name](plain))
    assert all(map(is_lazy, lazy.auxiliary.parameters()))


def test_who_asks_for_it_is_told_that_it_did_not_run() -> None:
    _, lazy = nets()
    assert len(find_layers(lazy, "auxiliary*")) == 5
    with pytest.raises(ValueError, match=r"'auxiliary\.0' did not run in this forward"):
        grad_cam(lazy, IMAGES, layer="auxiliary.0")
    assert last_spatial_layer(lazy, IMAGES) == "blocks.1.norm1"
