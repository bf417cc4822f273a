"""Feature importance against its definitions over a background, and truths that were planted."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import feature_importance, kernel_shap
from tests.support.masked_cases import Two, mlp, output_of, prepared, shapley


@pytest.mark.parametrize("draws", [32, 5])
def test_it_is_the_shapley_value_over_the_background(draws):
    model, x = mlp(4, smooth=True), torch.randn(8, 4)
    background = x if draws >= len(x) else torch.randn(draws, 4)

    def value(row, kept):
        mixed = background.clone()
        for column in kept:
            mixed[:, column] = x[row, column]
        return float(output_of(model, mixed)[:, 1].mean())

    expected = torch.tensor([shapley(partial(value, row), 4) for row in range(len(x))])
    given = draws if background is x else background
    assert_close(feature_importance(model, x, 1, background=given, masks=14), expected, rtol=1e-3, atol=1e-5)


def test_permutation_is_the_mean_loss_over_the_background():
    model, x = mlp(4, smooth=True), torch.randn(8, 4)
    whole = output_of(model, x)[:, 1]
    expected = torch.zeros(8, 4)
    for column in range(4):
        for other in x:
            changed = x.clone()
            changed[:, column] = other[column]
            expected[:, column] += (whole - output_of(model, changed)[:, 1]) / len(x)
    assert_close(feature_importance(model, x, 1, method="permutation"), expected, rtol=1e-4, atol=1e-6)


def test_the_mean_over_all_permutations_is_the_textbook_s():
    """What shuffling a column costs, averaged over many shuffles: scikit-learn's importance of the score."""
    torch.manual_seed(0)
    model, x, y = mlp(4, smooth=True), torch.randn(12, 4), torch.randint(0, 4, (12,))
    score = lambda table: float(output_of(model, table).gather(1, y[:, None]).mean())  # noqa: E731
    generator, losses = torch.Generator().manual_seed(0), torch.zeros(4)
    for _ in range(300):
        order = torch.randperm(12, generator=generator)
        for column in range(4):
            shuffled = x.clone()
            shuffled[:, column] = x[order, column]
            losses[column] += (score(x) - score(shuffled)) / 300
    found = feature_importance(model, x, y, method="permutation").mean(0)
    assert_close(found, losses, rtol=0, atol=0.03)
    assert (found.abs() > 0.03).any()


@pytest.mark.parametrize("method", ["kernel_shap", "permutation"])
def test_columns_that_do_not_count_have_none(method):
    class Planted(nn.Module):
        def forward(self, x):
            return torch.stack([3 * x[:, 1] + x[:, 4] * x[:, 1], x[:, 0] * 0], 1)

    found = feature_importance(Planted(), torch.randn(40, 7), 0, method=method).abs().mean(0)
    assert_close(found[[0, 2, 3, 5, 6]], torch.zeros(5), rtol=0, atol=1e-6)
    assert found[1] > found[4] > 0.1


def test_a_linear_model_s_are_its_products():
    linear, x = nn.Linear(9, 3), torch.randn(50, 9)
    expected = ((x - x.mean(0)) * linear.weight[2]).detach()
    for method in ("kernel_shap", "permutation"):
        found = feature_importance(linear, x, 2, method=method, background=50)
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_background_is_drawn_by_the_seed():
    model, x = mlp(), torch.randn(20, 6)
    before = torch.get_rng_state()
    first = feature_importance(model, x, 1, background=4, seed=1)
    assert torch.equal(first, feature_importance(model, x, 1, background=4, seed=1))
    assert not torch.equal(first, feature_importance(model, x, 1, background=4, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    drawn = torch.randperm(20, generator=torch.Generator().manual_seed(1))[:4]
    assert_close(first, kernel_shap(model, x, 1, background=x[drawn]))


def test_a_table_beside_an_image():
    torch.manual_seed(0)
    model, image, table = Two().eval(), torch.randn(4, 3, 12, 12), torch.randn(4, 5)
    found = feature_importance(model, (image, table), 1, of=1, masks=30)
    background = output_of(model, (image.repeat_interleave(4, 0), table.repeat(4, 1)))[:, 1].view(4, 4).mean(1)
    assert_close(found.sum(1), output_of(model, (image, table))[:, 1] - background, rtol=1e-4, atol=1e-6)
    assert feature_importance(model, (image, table), torch.tensor([[0, 1]] * 4), of=1).shape == (4, 2, 5)


# ------------------------------------------------------------ guards


def test_what_is_no_table():
    for name in ("conv", "words"):
        model, inputs, *_ = prepared(name)
        with pytest.raises(ValueError, match=r"columns of a floating-point table \(N, columns\), and the input is"):
            feature_importance(model, inputs)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "kernelshap"}, "method='kernelshap' is unknown. Did you mean 'kernel_shap'"),
        ({"background": 0}, "background=0 samples leave nothing"),
        ({"background": torch.randn(3, 5)}, r"background has the shape \(3, 5\)"),
        ({"masks": 11}, "11 masks are too few"),
    ],
)
def test_settings_that_do_not_fit(settings, text):
    with pytest.raises(ValueError, match=text):
        feature_importance(mlp(), torch.randn(4, 6), **settings)
