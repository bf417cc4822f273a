"""Expected gradients against integrated gradients from each background, a linear net, and what they sum to."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import completeness_gap, expected_gradients, integrated_gradients
from tests.support.attributions import backgrounds, case, explained, mlp, seeded


@pytest.mark.parametrize("name", ["conv", "lstm", "table", "two inputs", "tokens"])
def test_it_is_the_mean_of_integrated_gradients(name):
    model, inputs = case(name)
    background = backgrounds(inputs)
    starts = model.embed(background).detach() if name == "tokens" else background
    each = [integrated_gradients(model, inputs, 1, baseline=start) for start in starts]
    found = expected_gradients(model, inputs, 1, background=background, samples=600, batch_size=1000)
    expected = torch.stack(each).mean(0)
    assert_close(found, expected, rtol=0, atol=0.03 * float(expected.abs().max()))


def test_of_a_linear_net_it_is_the_weights_times_the_distance():
    model, x, background = nn.Linear(6, 4), torch.randn(5, 6), torch.randn(8, 6)
    expected = model.weight[2].detach() * (x - background.mean(0))
    for samples in (8, 16):  # where each background counts equally often nothing is left to chance
        assert_close(expected_gradients(model, x, 2, background=background, samples=samples), expected)
    few = expected_gradients(model, x, 2, background=background, samples=4)
    assert (few - expected).abs().max() > 0.1


def test_every_background_may_be_drawn_where_there_are_more_than_samples():
    background = torch.eye(40) * 100
    found = expected_gradients(nn.Linear(40, 2), torch.zeros(60, 40), 0, background=background, samples=4)
    assert ((found != 0).sum(1) == 4).all()
    assert (found != 0).any(0).all()


def test_they_sum_to_the_change_from_the_mean_score():
    model, x = seeded(mlp), torch.randn(5, 6)
    background = torch.randn(4, 6)
    found = expected_gradients(model, x, 1, background=background, samples=400)
    with torch.no_grad():
        change = model(x)[:, 1] - model(background)[:, 1].mean()
    assert_close(found.sum(1), change, rtol=0, atol=0.01)
    gap = completeness_gap(model, x, 1, found, background=background)
    assert_close(gap, (found.sum(1) - change).abs() / change.abs(), rtol=1e-3, atol=1e-6)


def test_backgrounds_of_embedded_tokens():
    model, ids = case("tokens")
    background = torch.randint(0, 20, (3, 7))
    vectors = model.embed(background).detach()
    found = expected_gradients(model, ids, 1, background=background)
    assert_close(found, expected_gradients(model, ids, 1, background=vectors), rtol=0, atol=0)
    assert found.shape == explained(model, ids)[0].shape


@pytest.mark.parametrize(
    ("name", "background", "text"),
    [
        ("table", torch.zeros(3, 5), r"background has the shape \(3, 5\); expected .*\(M, 6\)"),
        ("table", torch.zeros(6), r"\(6,\); expected .*\(M, 6\)"),
        ("table", torch.zeros(0, 6), r"\(0, 6\)"),
        ("tokens", torch.zeros(3, 5, dtype=torch.long), r"\(3, 5\); expected .*\(M, 7\)"),
        ("tokens", torch.zeros(3, 7), r"\(3, 7\); expected .*\(M, 7, 8\)"),
    ],
)
def test_a_background_that_does_not_fit(name, background, text):
    with pytest.raises(ValueError, match=text):
        expected_gradients(*case(name), background=background)


def test_no_samples():
    with pytest.raises(ValueError, match="samples=0: expected at least one gradient"):
        expected_gradients(*case("table"), background=torch.zeros(1, 6), samples=0)
