"""Occlusion against one forward for each feature, captum, and a truth that was planted."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import occlusion
from tests.support.masked_cases import CASES, TARGETS, Game, explained, output_of, places, prepared


def slowly(game):
    """What is lost with each feature alone."""
    players = range(game.features)
    return game.spread([game(players) - game(p for p in players if p != lost) for lost in players])


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_is_lost_with_each_feature(name):
    model, inputs, cells, _ = prepared(name)
    expected = torch.stack([slowly(Game(name, row, int(target))) for row, target in enumerate(TARGETS)])
    before = explained(inputs).clone()
    for batch_size in (3, 64):
        found = occlusion(model, inputs, TARGETS, cells=cells, batch_size=batch_size)
        assert found.dtype == torch.float32
        assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(explained(inputs), before)


@pytest.mark.parametrize("name", ["conv", "signal", "volume", "table", "words"])
def test_it_is_captum_s(name):
    captum = pytest.importorskip("captum.attr")
    model, inputs, cells, channels = prepared(name)
    found = places(inputs.shape[1:], cells, channels)
    features = sum(index * place for index, place in enumerate(found))[None]
    size = sum(int(place.sum()) * place for place in found)
    theirs = captum.FeatureAblation(model).attribute(inputs, baselines=3, target=TARGETS, feature_mask=features)
    ours = occlusion(model, inputs, TARGETS, baseline=3, cells=cells)
    assert_close(ours * size, theirs.float(), rtol=1e-5, atol=1e-6)


def test_it_takes_a_forward_for_each_feature_and_one():
    model, inputs, cells, _ = prepared("conv")
    rows = []
    model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    occlusion(model, inputs, cells=cells, batch_size=10)
    assert sum(rows) == len(inputs) * (cells**2 + 1)
    assert max(rows) == 10


def test_only_what_counts_is_lost():
    class Corner(nn.Module):
        def forward(self, x):
            corner = x[:, 1, :4, :4].square().sum((1, 2))
            return torch.stack([corner, -corner], 1)

    x = torch.rand(4, 3, 16, 16) + 0.5
    found = occlusion(Corner(), x, 0, cells=4)
    assert (found[:, :, :4, :4] > 0).all()
    found[:, :, :4, :4] = 0
    assert not found.any()
    assert (occlusion(Corner(), x, 1, cells=4)[:, :, :4, :4] < 0).all()


def test_of_an_additive_model_it_sums_to_the_score():
    linear, inputs = nn.Linear(6, 3), torch.randn(4, 6)
    found = occlusion(linear, inputs, 2)
    assert_close(found, (inputs * linear.weight[2]).detach())
    assert_close(found.sum(1), output_of(linear, inputs)[:, 2] - linear.bias[2].detach())
