"""SmoothGrad against a loop over its own noise, captum at no noise, and a quadratic whose mean gradient is known."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xai.functional import smooth_grad
from lightning_xai.functional.field import generator
from tests.support.attributions import ALL, case, chosen_scores, explained, gradient_by_hand

TARGETS = [1, "predicted"]


def noise(sample: Tensor, seed: int, position: int, copy: int) -> Tensor:
    return torch.randn(sample.shape, generator=generator(seed, position, copy))


def by_hand(model, inputs, targets, samples, share, seed, squared):
    """One copy of one sample at a time; classes without noise."""
    x, run = explained(model, inputs)
    with torch.no_grad():
        output = run(x)
    classes = output.argmax(1) if isinstance(targets, str) else torch.full((len(x),), targets)
    total = torch.zeros_like(x)
    for copy in range(samples):
        draws = torch.stack([noise(x[i], seed, i, copy) * share * (x[i].max() - x[i].min()) for i in range(len(x))])
        place = (x + draws).requires_grad_()
        (gradient,) = torch.autograd.grad(chosen_scores(run(place), classes).sum(), place)
        total += (gradient**2 if squared else gradient) / samples
    return total


@pytest.mark.parametrize("squared", [False, True], ids=["mean", "squares"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", ["conv", "lstm", "table", "two inputs", "tokens"])
def test_it_is_the_mean_by_hand(name, targets, squared):
    model, inputs = case(name)
    found = smooth_grad(model, inputs, targets, samples=4, noise=0.2, seed=3, squared=squared, batch_size=6)
    expected = by_hand(model, inputs, targets, 4, 0.2, 3, squared)
    assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ALL)
def test_without_noise_it_is_the_gradient(name):
    model, inputs = case(name)
    assert_close(
        smooth_grad(model, inputs, 1, noise=0, samples=2), gradient_by_hand(model, inputs, 1), rtol=1e-4, atol=1e-6
    )


def test_the_noise_is_a_share_of_each_sample_s_range():
    class Fourth(nn.Module):
        def forward(self, x):
            return x.pow(3).sum(1, keepdim=True) / 3

    x = torch.tensor([[0.0, 1.0], [0.0, 10.0]]).repeat_interleave(200, 1)
    # the mean of (x + e)^2 is x^2 + the variance
    spread = smooth_grad(Fourth(), x, 1, noise=0.3, samples=64)[:, :200].mean(1)
    assert_close(spread, torch.tensor([0.09, 9.0]), rtol=0.05, atol=0)


def test_settings_that_do_not_fit():
    for settings in ({"samples": 0}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="expected at least one sample, and no negative noise"):
            smooth_grad(*case("table"), **settings)
