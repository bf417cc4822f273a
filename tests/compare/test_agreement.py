"""Agreement of two explanations, beside scipy's."""

import pytest
import torch
from scipy.stats import spearmanr

from lightning_xai.compare.agreement import agreement, spearman


@pytest.mark.parametrize("cells", [2, 9, 144])
@pytest.mark.parametrize("values", [3, 1000])
def test_spearman_is_that_of_scipy(cells, values):
    generator = torch.Generator().manual_seed(cells)
    first, second = (torch.randint(0, values, (5, cells), generator=generator).float() for _ in range(2))
    first[:, 0], second[:, 0] = values, values  # nothing constant, which scipy warns of
    first[:, 1], second[:, 1] = 0, 0
    expected = [spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    assert spearman(first, second).tolist() == pytest.approx(expected)


def test_maps_that_order_nothing_agree_with_nothing():
    maps = torch.tensor([[1.0, 2, 3], [0, 0, 0], [1, float("nan"), 2], [3, 2, 1]])
    found = spearman(maps, torch.tensor([[1.0, 2, 3]]).expand(4, 3).contiguous())
    assert found[0] == 1 and found[3] == -1
    assert all(value != value for value in found[1:3])


def test_maps_of_two_sizes_are_brought_to_the_larger():
    small = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) * 50
    large = torch.nn.functional.interpolate(small[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    assert agreement(small, large).tolist() == pytest.approx([1, 1, 1], abs=1e-3)


def test_signed_maps_of_two_sizes_keep_their_order():
    small = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)) - 9
    large = torch.nn.functional.interpolate(small[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    assert agreement(small, large).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert agreement(-small, large).tolist() == pytest.approx([-1, -1, -1], abs=1e-3)
