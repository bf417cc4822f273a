"""LIME against scikit-learn's ridge regression, captum with the same masks, and models that are linear."""

import numpy
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_distances
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import lime
from lightning_xai.functional.masks import fitted, masking, neighbours
from tests.support.masked_cases import TARGETS, Game, mlp, prepared


def as_the_package(masks, width):
    """Weights as lime 0.2 has them, for images; for texts distances and width are a hundred times larger."""
    distances = cosine_distances(masks, masks[:1])[:, 0]
    return numpy.sqrt(numpy.exp(-(distances**2) / width**2))


def rows(bank):
    return torch.cat([torch.ones_like(bank.masks[:1]), bank.masks]).numpy()


@pytest.mark.parametrize("name", ["conv", "vit", "lstm", "signal", "table", "two inputs", "words", "bert"])
def test_it_is_a_ridge_regression_of_scikit_learn(name):
    model, inputs, cells, _ = prepared(name)
    game = Game(name, 1, int(TARGETS[1]))
    settings = {"masks": 40, "kernel_width": 0.4, "ridge": 0.7, "seed": 3}
    masks = rows(neighbours(game.features, *settings.values()))
    scores = [game(numpy.flatnonzero(mask).tolist()) for mask in masks]
    ridge = Ridge(alpha=0.7).fit(masks, scores, sample_weight=as_the_package(masks, 0.4))
    found = lime(model, inputs, TARGETS, cells=cells, **settings)[1]
    assert_close(found, game.spread(ridge.coef_.tolist()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("width", "ridge"), [(0.25, 1.0), (0.1, 1e-3), (25.0, 10.0)])
def test_r2_is_scikit_learn_s(width, ridge):
    model, x = mlp(smooth=True), torch.randn(4, 6)
    bank = neighbours(6, 100, width, ridge, 0)
    with masking(model, x, torch.tensor([[0, 1]] * 4)) as masked:
        fit = fitted(masked, bank)
        scores = torch.cat([masked.whole[None], masked.scores(bank.masks)])
    assert fit.values.shape == (4, 2, 6) and fit.r2.shape == (4, 2)
    weights = as_the_package(rows(bank), width)
    for row in range(4):
        for target in range(2):
            reference = Ridge(alpha=ridge).fit(rows(bank), scores[:, row, target], sample_weight=weights)
            expected = reference.score(rows(bank), scores[:, row, target], sample_weight=weights)
            assert float(fit.r2[row, target]) == pytest.approx(expected, abs=1e-9)


def test_r2_of_what_is_linear_and_of_what_does_not_vary():
    bank = neighbours(6, 200, 0.25, 1e-6, 0)
    x = torch.randn(3, 6)
    with masking(nn.Linear(6, 2), x, 1) as masked:
        assert (fitted(masked, bank).r2 > 1 - 1e-6).all()
    with masking(mlp(), x, 1, baseline=x) as masked:
        fit = fitted(masked, bank)
    assert fit.r2.isnan().all()
    assert fit.values.abs().max() < 1e-6


def test_it_is_captum_s_with_the_same_masks():
    attr = pytest.importorskip("captum.attr")
    from captum._utils.models.linear_model import SkLearnRidge

    model, x = mlp(smooth=True).eval(), torch.randn(1, 6)
    bank = torch.tensor(rows(neighbours(6, 64, 0.25, 1.0, 0))).float()

    def perturb(original, **settings):
        yield from bank[:, None]

    method = attr.LimeBase(
        model,
        SkLearnRidge(alpha=1.0),
        similarity_func=lambda original, perturbed, mask, **settings: float(
            as_the_package(numpy.stack([numpy.ones(6), mask[0].numpy()]), 0.25)[1]
        ),
        perturb_func=perturb,
        perturb_interpretable_space=True,
        from_interp_rep_transform=lambda mask, original, **settings: mask * original,
        to_interp_rep_transform=None,
    )
    theirs = method.attribute(x, target=1, n_samples=64)
    assert_close(lime(model, x, 1, masks=64), theirs, rtol=1e-4, atol=1e-5)


def test_a_linear_model_s_are_its_products():
    linear, x = nn.Linear(6, 3), torch.randn(5, 6)
    assert_close(lime(linear, x, 2, ridge=1e-6), (x * linear.weight[2]).detach(), rtol=1e-4, atol=1e-5)


def test_a_linear_model_s_products_stay_in_order_on_images():
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    x = torch.randn(2, 3, 8, 8)
    truth = (x.flatten(1) * linear[1].weight[1]).detach().view(2, 3, 4, 2, 4, 2).sum((1, 3, 5))
    found = lime(linear, x, 1, cells=4, ridge=1e-6).view(2, 3, 4, 2, 4, 2).sum((1, 3, 5))
    assert_close(found, truth, rtol=1e-4, atol=1e-5)


def test_it_takes_a_forward_for_each_mask():
    model, x, seen = mlp(), torch.randn(3, 6), []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    lime(model, x, masks=50)
    assert sum(seen) == 3 * 50


def test_the_masks_are_those_of_the_seed():
    model, x = mlp(), torch.randn(2, 6)
    assert torch.equal(lime(model, x, 1, seed=1), lime(model, x, 1, seed=1))
    assert not torch.equal(lime(model, x, 1, seed=1), lime(model, x, 1, seed=2))
    counts = neighbours(30, 512, 0.25, 1.0, 0).masks.mean(0)
    assert ((counts - 0.5).abs() < 0.12).all()


# ------------------------------------------------------------ guards


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"masks": 6}, "6 masks are too few for a linear model of 6 features"),
        ({"kernel_width": 0.0}, "kernel_width=0.0 has to be positive"),
        ({"ridge": -1.0}, "ridge=-1.0 has to be positive"),
        ({"ridge": float("nan")}, "ridge=nan has to be positive"),
    ],
)
def test_settings_that_do_not_fit(settings, text):
    with pytest.raises(ValueError, match=text):
        lime(mlp(), torch.randn(2, 6), **settings)
