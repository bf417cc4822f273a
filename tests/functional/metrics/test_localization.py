"""Drift, share, lift and pointing against values worked out by hand."""

import pytest
import torch

from lightning_xai.functional.metrics.localization import drift, mask_lift, mask_share, pointing_game, shows_relevance


def corner(size=4):
    maps = torch.zeros(1, size, size)
    maps[0, 0, 0] = 2.0
    return maps


def test_drift_is_the_share_that_moved():
    there = torch.zeros(1, 4, 4)
    there[0, 3, 3] = 9.0
    half = corner() + corner().flip((1, 2))
    assert drift(corner(), corner() * 7).item() == 0
    assert drift(corner(), there).item() == 1
    assert drift(half, corner()).item() == pytest.approx(0.5)


def test_drift_of_the_first_reading_and_of_blank_maps_is_from_the_even_map():
    assert drift(corner()).item() == pytest.approx(15 / 16)
    assert drift(torch.ones(1, 4, 4)).item() == 0
    assert drift(torch.zeros(1, 4, 4), corner()).item() == pytest.approx(15 / 16)
    assert drift(torch.full((1, 4, 4), float("nan")), corner()).item() == pytest.approx(15 / 16)


def test_share_counts_covered_area():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, :2, :1] = True  # half of the first cell's four pixels
    assert mask_share(corner(), mask).item() == pytest.approx(0.5)
    assert mask_lift(corner(), mask).item() == pytest.approx(0.5 / (2 / 64))
    assert mask_share(torch.ones(1, 4, 4), mask).item() == pytest.approx(2 / 64)
    assert mask_lift(torch.zeros(1, 4, 4), mask).item() == pytest.approx(1)


def test_an_empty_mask_has_no_share_and_no_lift():
    empty = torch.zeros(1, 8, 8, dtype=torch.bool)
    assert mask_share(corner(), empty).item() == 0
    assert mask_lift(corner(), empty).item() == 0


@pytest.mark.parametrize(("cell", "hit"), [((0, 0), 1), ((1, 1), 1), ((2, 2), 0), ((0, 2), 0)])
def test_pointing_forgives_one_cell(cell, hit):
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = True
    maps = torch.zeros(1, 4, 4)
    maps[0][cell] = 1.0
    assert pointing_game(maps, mask).item() == hit
    assert pointing_game(torch.zeros(1, 4, 4), mask).item() == 0


def test_shows_relevance():
    maps = torch.stack([torch.zeros(2, 2), torch.eye(2), torch.full((2, 2), float("nan"))])
    assert shows_relevance(maps).tolist() == [False, True, False]


def test_of_signed_maps_the_absolute_values_count():
    maps = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    other, mask = maps.flip(1), torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:, :3, :5] = True
    assert torch.equal(drift(maps, other), drift(maps.abs(), other.abs()))
    assert torch.equal(mask_share(maps, mask), mask_share(maps.abs(), mask))
    assert torch.equal(pointing_game(maps, mask), pointing_game(maps.abs(), mask))
    assert pointing_game(-corner(), torch.ones(1, 4, 4, dtype=torch.bool)).item() == 1
    against = corner() - 3 * corner().flip((1, 2))
    assert mask_share(against, corner() != 0).item() == pytest.approx(0.25)
