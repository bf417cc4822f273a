"""Integrated gradients against integrals worked out by hand, a fine sum, captum, and what they have to sum to."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xai.functional import completeness_gap, integrated_gradients
from tests.support.attributions import CASES, TARGETS, case, chosen_scores, explained, mlp, seeded
from tests.support.nets import ChannelsLast, Plain, Text

exactly = partial(assert_close, rtol=0, atol=0)


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] * x[:, 1], -x[:, 0]], 1)


class Cubic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] ** 3 + 2 * x[:, 0] * x[:, 1] ** 2 - x[:, 2], x[:, 2]], 1)


def fine_sum(model, inputs, targets, baseline, steps=300):
    """The integral by many midpoints in double precision, the classes fixed at the samples."""
    model = model.double()
    x, run = explained(model, inputs.double() if inputs.is_floating_point() else inputs)
    with torch.no_grad():
        output = run(x)
    classes = output.argmax(1) if isinstance(targets, str) else targets
    start, total = (torch.zeros_like(x) + baseline).detach(), torch.zeros_like(x)
    for step in range(steps):
        place = (start + (step + 0.5) / steps * (x - start)).requires_grad_()
        total += torch.autograd.grad(chosen_scores(run(place), classes).sum(), place)[0] / steps
    return ((x - start) * total).float()


def test_a_product_is_shared_evenly():
    x, start = torch.randn(6, 3), torch.randn(3)
    a, b = x[:, 0] - start[0], x[:, 1] - start[1]
    # of x0 x1 on the way from s: half of the joint change each, and what one brings alone
    expected = torch.stack([a * (start[1] + b / 2), b * (start[0] + a / 2), torch.zeros(6)], 1)
    for steps in (1, 4):  # one place is exact for lines, and the gradient is one
        assert_close(integrated_gradients(Product(), x, 0, baseline=start, steps=steps), expected, rtol=1e-5, atol=1e-6)
    assert_close(integrated_gradients(Product(), x, 0)[:, 0], x[:, 0] * x[:, 1] / 2)


def test_cubics_are_exact_with_two_steps():
    x = torch.randn(6, 3)
    first, second, third = x.unbind(1)
    expected = torch.stack([first**3 + 2 / 3 * first * second**2, 4 / 3 * first * second**2, -third], 1)
    assert_close(integrated_gradients(Cubic(), x, 0, steps=2), expected, rtol=1e-5, atol=1e-5)
    assert (integrated_gradients(Cubic(), x, 0, steps=1) - expected).abs().max() > 0.01


@pytest.mark.parametrize("targets", [TARGETS[0], "predicted"], ids=["labels", "predicted"])
@pytest.mark.parametrize(
    ("make", "inputs", "baseline"),
    [
        (partial(mlp, smooth=True), torch.randn(5, 6), 0.1),
        (ChannelsLast, torch.randn(5, 3, 8, 8), 0.1),
        # not zero, where the first LayerNorm jumps
        (Text, torch.randint(4, 20, (5, 7)), 3),
    ],
    ids=["table", "images", "tokens"],
)
def test_it_is_the_integral(make, inputs, baseline, targets):
    model = seeded(make)
    found = integrated_gradients(model, inputs, targets, baseline=baseline)
    expected = fine_sum(model, inputs, targets, model.embed.weight[3].double() if make is Text else baseline)
    assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", sorted(set(CASES) - {"writes into its input"}))
def test_it_is_captum_s(name):
    captum = pytest.importorskip("captum.attr")
    model, inputs = case(name)
    x, run = explained(model, inputs)
    rest = inputs[1:] if isinstance(inputs, tuple) else ()
    found = integrated_gradients(model, inputs, TARGETS[0], baseline=torch.full_like(x, 0.3), steps=8)

    def forward(x, *rest):
        return model(x, *rest) if rest else run(x)

    theirs = captum.IntegratedGradients(forward).attribute(
        x, 0.3, target=TARGETS[0], additional_forward_args=rest or None, n_steps=8, method="gausslegendre"
    )
    assert_close(found, theirs.float(), rtol=0, atol=1e-5 * float(theirs.abs().max()))


# ------------------------------------------------------------ what they sum to


@pytest.mark.parametrize("name", ["conv", "signal", "vit", "lstm", "table", "tokens"])
def test_they_sum_to_the_change_of_the_score(name):
    model, inputs = case(name)
    x, run = explained(model, inputs)
    # of tokens not from zero, where the first LayerNorm jumps
    baseline = 3 if name == "tokens" else None
    start = model.embed.weight[3].detach().expand_as(x) if name == "tokens" else torch.zeros_like(x)
    found = integrated_gradients(model, inputs, 1, baseline=baseline, steps=64)
    with torch.no_grad():
        change = run(x)[:, 1] - run(start)[:, 1]
    # a ReLU's corner is passed between two places
    assert_close(found.flatten(1).sum(1), change, rtol=0.02, atol=0.05 * float(change.abs().max()))
    gap = completeness_gap(model, inputs, 1, found, baseline=baseline)
    assert_close(gap, (found.flatten(1).sum(1) - change).abs() / change.abs(), rtol=0.02, atol=1e-4)


def test_the_gap_is_what_too_few_steps_lose():
    x = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    one = integrated_gradients(Cubic(), x, 0, steps=1)
    assert_close(one[:, 0], torch.tensor([6.0, 1.25]))  # 2 * 3 * 1^2, and 3 / 4 + 2 / 4
    assert_close(completeness_gap(Cubic(), x, 0, one), torch.tensor([0.25, 0.25]))
    assert_close(completeness_gap(Cubic(), x, 0, 2 * one), torch.tensor([0.5, 0.5]))
    both = torch.stack([one, torch.zeros_like(one)], 1)
    gaps = completeness_gap(Cubic(), x, torch.tensor([[0, 1]] * 2), both)
    assert_close(gaps, torch.tensor([[0.25, 0.0], [0.25, 0.0]]))
    assert completeness_gap(Cubic(), x, 1, one).isinf().all()


def test_the_gap_of_backgrounds_is_that_to_their_mean_score():
    x, background = torch.randn(4, 3), torch.randn(3, 3)
    with torch.no_grad():
        change = Product()(x)[:, 0] - Product()(background)[:, 0].mean()
    attributions = torch.stack([change * 0.9, change * 0, change * 0], 1)
    gap = completeness_gap(Product(), x, 0, attributions, background=background, batch_size=5)
    assert_close(gap, torch.full((4,), 0.1))


def test_attributions_of_another_shape_have_no_gap():
    with pytest.raises(ValueError, match=r"attributions have the shape \(2, 3\); expected .* \(4, 3\)"):
        completeness_gap(Product(), torch.randn(4, 3), 0, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="both baseline= and background="):
        completeness_gap(Product(), torch.randn(4, 3), 0, torch.zeros(4, 3), baseline=0, background=torch.zeros(1, 3))


# ------------------------------------------------------------ where the way begins


@pytest.mark.parametrize(
    ("baseline", "tensor"),
    [
        (None, lambda x: torch.zeros_like(x)),
        ("zero", lambda x: torch.zeros_like(x)),
        (0.5, lambda x: torch.full_like(x, 0.5)),
        ("mean", lambda x: x.mean((2, 3), keepdim=True)),
        (torch.tensor(0.5), lambda x: torch.full_like(x, 0.5)),
        (torch.full((3, 9, 9), 0.5), lambda x: torch.full_like(x, 0.5)),
        (torch.full((1, 3, 9, 9), 0.5), lambda x: torch.full_like(x, 0.5)),
    ],
    ids=["default", "zero", "number", "mean", "scalar", "sample", "one"],
)
def test_baselines_of_images(baseline, tensor):
    model, x = seeded(Plain), torch.randn(4, 3, 9, 9)
    expected = integrated_gradients(model, x, 1, baseline=tensor(x).expand_as(x).clone(), steps=4)
    exactly(integrated_gradients(model, x, 1, baseline=baseline, steps=4), expected)


def test_a_blurred_baseline_is_what_is_coarse():
    model, x = seeded(Plain), torch.randn(2, 3, 32, 32)
    coarse = nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=4, mode="bilinear")
    expected = integrated_gradients(model, x, 1, baseline=coarse, steps=4)
    assert_close(integrated_gradients(model, x, 1, baseline="blur", steps=4), expected, rtol=1e-4, atol=1e-6)
    smooth = torch.ones(2, 3, 9, 9) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    assert integrated_gradients(model, smooth, 1, baseline="blur").abs().max() < 1e-6
    assert integrated_gradients(model, smooth, 1, baseline="mean").abs().max() < 1e-6


def test_the_mean_of_a_sequence_is_that_of_its_places():
    model, x = case("lstm")
    expected = integrated_gradients(model, x, 1, baseline=x.mean(1, keepdim=True).expand_as(x).clone())
    exactly(integrated_gradients(model, x, 1, baseline="mean"), expected)


def test_the_mean_of_a_table_is_that_of_its_columns():
    model, x = case("table")
    exactly(integrated_gradients(model, x, 1, baseline="mean"), integrated_gradients(model, x, 1, baseline=x.mean(0)))
    with pytest.raises(ValueError, match="'blur' needs neighbours, and columns have none"):
        integrated_gradients(model, x, baseline="blur")


def test_baselines_of_tokens():
    model, ids = case("tokens")
    neutral = model.embed.weight[3].detach()
    expected = integrated_gradients(model, ids, 1, baseline=neutral.expand(7, 8))
    exactly(integrated_gradients(model, ids, 1, baseline=3), expected)
    same = torch.full((5, 7), 3)
    assert not integrated_gradients(model, same, 1, baseline=3).any()
    exactly(integrated_gradients(model, ids, 1, baseline="zero"), integrated_gradients(model, ids, 1))
    compiled = torch.compile(model, backend="eager")
    exactly(integrated_gradients(compiled, ids, 1, baseline=3), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"baseline": torch.zeros(3, 8, 8)},
            r"baseline has the shape \(3, 8, 8\); expected that of a sample, \(3, 9, 9\)",
        ),
        ({"baseline": torch.zeros(2, 3, 9, 9)}, r"expected .*\(3, 9, 9\), or one for each, \(4, 3, 9, 9\)"),
        ({"baseline": "zeros"}, r"'zeros' is unknown. Did you mean 'zero'\?.*\(N, 3, 9, 9\)"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_what_does_not_fit(settings, text):
    with pytest.raises(ValueError, match=text):
        integrated_gradients(seeded(Plain), torch.randn(4, 3, 9, 9), 1, **settings)
