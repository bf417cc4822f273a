"""Guided backpropagation and deconvolution against a net differentiated layer by layer, captum, and their spellings."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xai.functional import deconvolution, guided_backprop, saliency
from tests.support.attributions import Checkpointed, Sequence, Two, mlp, seeded
from tests.support.nets import Plain, ResNet, Text, ViT

exactly = partial(assert_close, rtol=0, atol=0)
METHODS = {"guided": guided_backprop, "deconvolution": deconvolution}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Vgg(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)),
        )


def layer_by_layer(net: nn.Sequential, x: Tensor, target: int, rule: str) -> Tensor:
    """From the score to the input, one layer's own derivative at a time; at a ReLU what the paper's figure shows."""
    inputs = [x]
    for layer in net:
        inputs.append(layer(inputs[-1]).detach())
    carried = F.one_hot(torch.full((len(x),), target), inputs[-1].shape[1]).float()
    for layer, start in zip(reversed(net), reversed(inputs[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):
            carried = carried * (carried > 0) * ((start > 0) if rule == "guided" else 1)
        else:
            start = start.clone().requires_grad_()
            (carried,) = torch.autograd.grad(layer(start), start, carried)
    return carried


@pytest.mark.parametrize("rule", METHODS)
def test_it_is_the_paper_s_layer_by_layer(rule):
    net, x = seeded(Vgg), torch.randn(4, 3, 12, 12)
    for batch_size in (3, 32):
        found = METHODS[rule](net, x, 2, batch_size=batch_size)
        assert_close(found, layer_by_layer(net, x, 2, rule), rtol=1e-5, atol=1e-7)
    assert (found - saliency(net, x, 2)).abs().max() > 0.1 * found.abs().max()


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
def test_it_is_captum_s_where_relus_are_modules(rule):
    captum = pytest.importorskip("captum.attr")
    theirs = {"guided": captum.GuidedBackprop, "deconvolution": captum.Deconvolution}[rule]
    net, x = seeded(Vgg), torch.randn(4, 3, 12, 12)
    expected = theirs(copy.deepcopy(net)).attribute(x.clone().requires_grad_(), target=1).detach()
    assert_close(METHODS[rule](net, x, 1), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


SPELLINGS = {
    "in place": lambda x: x.relu_(),
    "functional": F.relu,
    "functional in place": partial(F.relu, inplace=True),
    "method": Tensor.relu,
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_min_(0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "one module, often": nn.ReLU(),
}


class Spelled(nn.Module):
    def __init__(self, relu) -> None:
        super().__init__()
        self.net, self.relu = Vgg(), relu

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = self.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x


@each_method
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_a_net_are_bit_identical(spelling, method):
    x = torch.randn(4, 3, 12, 12)
    exactly(method(seeded(partial(Spelled, SPELLINGS[spelling])), x, 1), method(seeded(Vgg), x, 1))


@each_method
def test_a_relu_that_ends_is_one_too(method):
    x = torch.randn(4, 3, 12, 12)
    for relu in (F.relu6, partial(F.hardtanh, min_val=0.0, max_val=6.0), lambda x: x.clamp(0, 6)):
        exactly(method(seeded(partial(Spelled, relu)), x, 1), method(seeded(Vgg), x, 1))
    for other, name in (
        (F.hardtanh, "Hardtanh"),
        (lambda x: x.clamp(max=1), "Clamp"),
        (lambda x: F.threshold(x, 1, 0), "Threshold"),
    ):
        with pytest.raises(ValueError, match=rf"no ReLU .*it has {name}"):
            method(seeded(partial(Spelled, other)), x, 1)


@each_method
def test_residual_nets_several_targets_and_other_input(method):
    net, x = seeded(ResNet), torch.randn(3, 3, 12, 12)
    both = method(net, x, torch.tensor([[0, 2]] * 3))
    for index, target in enumerate((0, 2)):
        assert_close(both[:, index], method(net, x, target), rtol=1e-5, atol=1e-7)
    two = seeded(Two)
    image, numbers = torch.randn(3, 3, 12, 12), torch.randn(3, 5)
    assert method(two, (image, numbers), 1).shape == image.shape


@each_method
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_the_modes_around_it_do_not_matter(around, method):
    net, x = seeded(Plain), torch.randn(3, 3, 15, 11)
    expected = method(net, x, 1)
    with around():
        exactly(method(net, x.clone(), 1), expected)
    exactly(method(seeded(Checkpointed), x, 1), expected)
    compiled = torch.compile(seeded(Plain).eval(), backend="eager")
    compiled(x)
    exactly(method(compiled, x, 1), expected)
    torch._dynamo.reset()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(net, x, 1)
    assert mixed.dtype == torch.float32
    assert_close(mixed, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


class OtherPath(nn.Module):
    """A ReLU that what is explained does not pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.first(x) + self.second(beside).relu()


@each_method
def test_a_net_without_a_relu_is_refused(method):
    x = torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"no ReLU .*\(it has Gelu\).*plain gradient under another name.*saliency"):
        method(seeded(ViT), x)
    with pytest.raises(ValueError, match="it has Tanh"):
        method(mlp(smooth=True), torch.randn(2, 6))
    with pytest.raises(ValueError, match="it has no activation function"):
        method(nn.Linear(6, 3), torch.randn(2, 6))
    with pytest.raises(ValueError, match="it has Gelu"):
        method(seeded(Text), torch.randint(0, 20, (2, 5)))
    with pytest.raises(ValueError, match="no ReLU"):
        method(seeded(Sequence), torch.randn(2, 9, 6))
    with pytest.raises(ValueError, match="no ReLU"):
        method(OtherPath(), (torch.randn(2, 6), torch.randn(2, 5)))
    assert method(OtherPath(), (torch.randn(2, 6), torch.randn(2, 5)), of=1).shape == (2, 5)
