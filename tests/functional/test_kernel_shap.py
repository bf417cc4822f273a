"""KernelSHAP against Shapley values by their definition, least squares by another, and captum."""

from functools import partial
from itertools import product
from math import comb

import numpy
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import kernel_shap
from lightning_xai.functional.masks import coalitions
from tests.support.masked_cases import TARGETS, Game, mlp, output_of, prepared, shapley


def error(found, truth):
    return float((found - truth).norm() / truth.norm())


def deep(columns, seed=0):
    """A net whose columns meet in more than pairs."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(columns, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)).eval()


# ------------------------------------------------------------ exact


@pytest.mark.parametrize("columns", range(1, 9))
def test_with_all_coalitions_it_is_the_definition(columns):
    model, x = deep(columns), torch.randn(2, columns)
    baseline = torch.randn(columns)

    def value(row, kept):
        mixed = torch.where(torch.tensor([c in kept for c in range(columns)]), x[row], baseline)
        return float(output_of(model.double(), mixed[None].double())[0, 1])

    expected = [shapley(partial(value, row), columns) for row in range(2)]
    found = kernel_shap(model.double(), x.double(), 1, baseline=baseline.double(), masks=max(1, 2**columns - 2))
    assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "two inputs", "lstm", "signal", "volume", "words", "bert"])
def test_of_nets_of_every_kind_it_is_the_definition(name):
    model, inputs, cells, _ = prepared(name)
    features = Game(name, 0, 0).features
    found = kernel_shap(model, inputs, TARGETS, masks=2**features - 2, cells=cells)
    for row in (0, 1):
        game = Game(name, row, int(TARGETS[row]))
        assert_close(found[row], game.spread(shapley(game, features)), rtol=1e-3, atol=1e-5)


def test_two_masks_a_feature_are_exact_for_pairs():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.between, self.alone = nn.Parameter(torch.randn(9, 9)), nn.Parameter(torch.randn(9))

        def forward(self, x):
            return (torch.einsum("nf,fg,ng->n", x, self.between, x) + x @ self.alone)[:, None]

    model, x = Pairs(), torch.randn(3, 9)
    assert_close(kernel_shap(model, x, 1), kernel_shap(model, x, 1, masks=2**9 - 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masks", [20, 21, 60, 200, 1022])
def test_the_values_sum_to_the_difference(masks):
    model, x = deep(10), torch.randn(3, 10)
    outputs = output_of(model, x)[:, 1] - output_of(model, torch.zeros(1, 10))[0, 1]
    assert_close(kernel_shap(model, x, 1, masks=masks).sum(1), outputs, rtol=1e-5, atol=1e-6)


def test_a_linear_model_s_are_its_products_with_any_masks():
    linear, x, background = nn.Linear(10, 3), torch.randn(5, 10), torch.randn(7, 10)
    expected = ((x - background.mean(0)) * linear.weight[2]).detach()
    for masks in (None, 30, 100):
        assert_close(kernel_shap(linear, x, 2, masks=masks, background=background), expected, rtol=1e-4, atol=1e-5)


def test_over_a_background_scores_are_averaged():
    model, x, background = deep(5), torch.randn(3, 5), torch.randn(4, 5)
    each = [kernel_shap(model, x, 1, masks=30, baseline=sample) for sample in background]
    found = kernel_shap(model, x, 1, masks=30, background=background)
    assert_close(found, torch.stack(each).mean(0))


# ------------------------------------------------------------ least squares


@pytest.mark.parametrize(("features", "masks"), [(3, 6), (6, 12), (6, 30), (6, 62), (9, 60), (12, 100)])
def test_the_matrix_solves_the_least_squares(features, masks):
    """The paper's: the kernel's weights, those of nothing and of all without end, here by a projection."""
    bank = coalitions(features, masks, 3)
    rows = bank.masks.numpy()
    assert not rows[-1].any()
    rng = numpy.random.default_rng(0)
    scores = rng.normal(size=len(rows) + 1)  # whole, masks, nothing
    weights = _weights(rows[:-1], features)
    # with the constraint put in: the last value is what the others leave
    z, last = rows[:-1, :-1] - rows[:-1, -1:], rows[:-1, -1]
    target = scores[1:-1] - scores[-1] - last * (scores[0] - scores[-1])
    root = numpy.sqrt(weights)
    solution, *_ = numpy.linalg.lstsq(z * root[:, None], target * root, rcond=None)
    expected = [*solution, scores[0] - scores[-1] - solution.sum()]
    assert_close(bank.operator @ torch.tensor(scores), torch.tensor(expected), rtol=1e-7, atol=1e-9)


def _weights(rows, features):
    """Complete sizes have the kernel's; drawn ones share alike what is left."""
    sizes = rows.sum(1).astype(int)
    kernel = {k: (features - 1) / (k * (features - k)) for k in range(1, features)}
    full = {k for k in kernel if len({tuple(row) for row in rows[sizes == k]}) == comb(features, k)}
    left = sum(value for k, value in kernel.items() if k not in full)
    drawn = sum(k not in full for k in sizes)
    return numpy.array([kernel[k] / comb(features, k) if k in full else left / drawn for k in sizes])


@pytest.mark.parametrize(("features", "masks"), [(1, 5), (2, 2), (5, 30), (8, 200), (8, 40), (20, 41), (20, 500)])
def test_the_coalitions(features, masks):
    bank = coalitions(features, masks, 0)
    rows = bank.masks[:-1]
    assert len(rows) <= masks
    assert bank.operator.shape == (features, len(bank.masks) + 1)
    assert set(rows.unique().tolist()) <= {0.0, 1.0}
    assert ((rows.sum(1) > 0) & (rows.sum(1) < features)).all()
    # each with its complement
    counted = {tuple(row) for row in rows.tolist()}
    assert counted == {tuple(1 - value for value in row) for row in counted}
    if 2**features - 2 <= masks:
        assert counted == {c for c in product((0.0, 1.0), repeat=features) if 0 < sum(c) < features}
    else:
        assert len(rows) >= masks - 1


def test_a_size_is_complete_only_where_its_weight_is():
    """All coalitions of two would leave ten masks to stand for those of three to ten."""
    sizes = coalitions(20, 430, 0).masks[:-1].sum(1)
    assert (sizes == 2).sum() < 150
    assert len(sizes.unique()) > 15
    complete = coalitions(20, 3000, 0).masks[:-1].sum(1)
    assert (complete == 2).sum() == (complete == 18).sum() == comb(20, 2)


def test_more_masks_come_closer_and_never_move():
    model, x = deep(12, 2), 2 * torch.randn(16, 12)
    truth = kernel_shap(model, x, 1, masks=2**12 - 2, batch_size=1024)
    errors = [error(kernel_shap(model, x, 1, masks=masks, batch_size=512), truth) for masks in (24, 256, 1024)]
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2] > 0
    first, second = (kernel_shap(model, x, 1, masks=200, seed=4) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, kernel_shap(model, x, 1, masks=200, seed=5))


def test_it_is_closer_than_captum_s_with_four_times_the_masks():
    captum = pytest.importorskip("captum.attr")
    model, x = deep(12, 2), 2 * torch.randn(4, 12)
    truth = kernel_shap(model, x, 1, masks=2**12 - 2, batch_size=1024)
    torch.manual_seed(0)
    method = captum.KernelShap(model)
    theirs = torch.cat([method.attribute(row[None], target=1, n_samples=96, perturbations_per_eval=64) for row in x])
    assert error(kernel_shap(model, x, 1, masks=24), truth) < error(theirs, truth)


# ------------------------------------------------------------ guards


@pytest.mark.parametrize(("columns", "masks", "least"), [(2, 1, 2), (3, 5, 6), (4, 7, 8), (9, 17, 18)])
def test_too_few_masks(columns, masks, least):
    with pytest.raises(ValueError, match=rf"{masks} masks are too few .* of {columns} features: give {least} or more"):
        kernel_shap(mlp(columns), torch.randn(2, columns), masks=masks)
    assert kernel_shap(mlp(columns), torch.randn(2, columns), masks=least).isfinite().all()


def test_a_background_that_does_not_fit():
    x = torch.randn(3, 6)
    for background in (torch.randn(4, 5), torch.randn(6), torch.randn(0, 6)):
        with pytest.raises(ValueError, match=r"background has the shape \(.*expected samples like .*\(M, 6\)"):
            kernel_shap(mlp(), x, background=background)
    with pytest.raises(ValueError, match="both baseline= and background="):
        kernel_shap(mlp(), x, background=x, baseline="mean")
    model, ids, *_ = prepared("words")
    with pytest.raises(ValueError, match="background of token ids"):
        kernel_shap(model, ids, background=ids)
