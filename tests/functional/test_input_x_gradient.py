"""Input x gradient against autograd by hand, captum, and nets without biases, whose score it shares out."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import input_x_gradient
from tests.support.attributions import ALL, CASES, TARGETS, case, explained, gradient_by_hand, seeded
from tests.support.nets import Plain


@pytest.mark.parametrize("targets", TARGETS, ids=["labels", "class", "predicted", "callable"])
@pytest.mark.parametrize("name", ALL)
def test_it_is_the_product_by_hand(name, targets):
    model, inputs = case(name)
    expected = explained(model, inputs)[0] * gradient_by_hand(model, inputs, targets)
    for batch_size in (2, 32):
        found = input_x_gradient(model, inputs, targets, batch_size=batch_size)
        assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"writes into its input", "two inputs"}))
def test_it_is_captum_s(name):
    captum = pytest.importorskip("captum.attr")
    model, inputs = case(name)
    theirs = captum.InputXGradient(model.eval()).attribute(inputs.clone().requires_grad_(), target=TARGETS[0]).detach()
    atol = 1e-5 * float(theirs.abs().max())
    assert_close(input_x_gradient(model, inputs, TARGETS[0]), theirs, rtol=0, atol=atol)


def test_without_biases_it_sums_to_the_score():
    model, x = seeded(Plain), torch.randn(4, 3, 15, 11)
    for module in model.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        scores = model(x)[:, 2]
    assert_close(input_x_gradient(model, x, 2).flatten(1).sum(1), scores, rtol=1e-4, atol=1e-6)
