"""Bars of a sample's columns, and the swarm of all samples."""

import numpy as np
import pytest
import torch

from lightning_xai.render import bars, beeswarm, columns, draw
from lightning_xai.report import Bars, Beeswarm, Report
from lightning_xai.storage.described import describe, restore


def red(pixels):
    return np.asarray(pixels)[..., 0].astype(int) - np.asarray(pixels)[..., 2]


def names(number):
    return [f"column {index}" for index in range(number)]


def extent(where):
    return int(where.min()), int(where.max())


def test_the_leading_columns_are_the_largest_on_average():
    values = np.array([[1.0, -3, 0, 2], [1, 3, 0, -2.5]])
    assert columns.leading(values, 4) == [1, 3, 0, 2]
    assert columns.leading(values, 2) == [1, 3]


@pytest.mark.parametrize(
    ("scale", "expected"), [(5.0, 5.0), (None, 3.0), (0.0, 3.0), (float("nan"), 3.0), (float("inf"), 3.0)]
)
def test_an_axis_reaches_the_scale(scale, expected):
    assert columns.reach(np.array([[1.0, -3]]), scale) == expected
    assert columns.reach(np.zeros((0, 2)), None) == 1.0


def test_bars_are_as_long_as_their_values():
    drawn = draw.pixels(Bars(["a", "b", "c"], torch.tensor([[2.0, -1, 0]]), None, ["x"], 2.0, "t"))
    panel = drawn[60:]
    right, left = np.nonzero((red(panel) > 120).any(0))[0], np.nonzero((red(panel) < -120).any(0))[0]
    assert len(right) == pytest.approx(2 * len(left), abs=3)
    assert left.max() < right.min()
    # the larger above the smaller
    assert np.nonzero((red(panel) > 120).any(1))[0].max() < np.nonzero((red(panel) < -120).any(1))[0].min()


def test_panels_share_their_columns_and_scale():
    values = torch.tensor([[4.0, 0.1], [0.1, 1.0]])
    one, both = (
        [draw.pixels(Bars(["a", "b"], values[row : row + 1], None, ["x"], scale, "t")) for row in (0, 1)]
        for scale in (4.0, None)
    )
    lengths = [[int((red(picture[60:]) > 120).any(0).sum()) for picture in pictures] for pictures in (one, both)]
    assert lengths[0][0] == pytest.approx(4 * lengths[0][1], rel=0.1)
    assert lengths[1][0] == pytest.approx(lengths[1][1], abs=2)


def test_what_is_not_shown_is_summed():
    values = torch.cat([torch.linspace(20, 9, 12), torch.full((5,), -2.0)])[None]
    wide = draw.pixels(Bars(names(17), values, None, ["x"], None, "t"))
    twelve = draw.pixels(Bars(names(12), values[:, :12], None, ["x"], None, "t"))
    assert wide.shape[0] == twelve.shape[0] + 20
    panel = wide[60:]
    blue, hot = (np.nonzero(side.any(0))[0] for side in (red(panel) < -120, red(panel) > 120))
    assert len(blue) == pytest.approx(len(hot) / 2, abs=3)  # 5 times -2, beside the largest, 20


@pytest.mark.parametrize("samples", [1, 3, 8])
@pytest.mark.parametrize("inputs", [False, True])
def test_bars_of_any_number(samples, inputs):
    values = torch.randn(samples, 6, generator=torch.Generator().manual_seed(0))
    long = ["a", "$x$ and $y", "a very long name of a column that goes on and on", "", "ü", "$\\frac$"]
    drawn = draw(
        Bars(long, values, values if inputs else None, [f"label {i}\npred 1" for i in range(samples)], 3.0, "t")
    )
    assert drawn.dtype == torch.uint8 and drawn.shape[2] == 3
    assert (drawn[:, -10:] == drawn[0, 0]).all() and (drawn[:, :10] == drawn[0, 0]).all()
    assert drawn.shape[1] <= 1300


def test_numbers_stay_however_long_the_name_is():
    held = Bars(
        ["a very long name of a column that goes on and on"], torch.ones(1, 1), torch.tensor([[-1.25]]), [""], None, ""
    )
    assert bars._named(held, 0, 0).endswith("… = −1.25") or bars._named(held, 0, 0).endswith(" = −1.25")
    assert "…" in bars._named(held, 0, 0)


def test_values_that_are_no_numbers():
    values = torch.tensor([[1.0, float("nan")], [1.0, 2.0]])
    both = draw.pixels(Bars(["a", "b"], values, None, ["x", "x"], None, "t"))
    sane = draw.pixels(Bars(["a", "b"], torch.tensor([[1.0, 0], [1.0, 2.0]]), None, ["x\n(NaN)", "x"], None, "t"))
    assert np.array_equal(both, sane)
    for inputs in (None, values):
        drawn = draw(Beeswarm(["a", "b"], values, inputs, None, "t"))
        assert drawn.dtype == torch.uint8
        nothing = draw(Beeswarm(["a", "b"], torch.full((2, 2), float("nan")), inputs, None, "t"))
        assert nothing.dtype == torch.uint8


def test_dots_lie_where_their_values_are():
    values = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-0.5, 0.0]])
    drawn = draw.pixels(Beeswarm(["a", "b"], values, None, 1.0, "t"))
    dots = np.nonzero((abs(drawn.astype(int) - (92, 96, 102)).sum(-1) < 12)[60:90, 190:714].any(0))[0]
    groups = np.split(dots, np.flatnonzero(np.diff(dots) > 3) + 1)
    centres = [float(group.mean()) for group in groups]
    wide = centres[-1] - centres[0]
    # -0.5 and 1, on an axis from -1.05 to 1.05
    assert wide == pytest.approx(1.5 / 2.1 * (760 - 170 - 60), abs=8)


def test_a_swarm_spreads_what_lies_at_one_place():
    across = np.zeros(9, np.float32)
    up = beeswarm._spread(across, 1.0)
    assert len(set(up.tolist())) == 9
    assert abs(up).max() <= 0.45
    many = beeswarm._spread(np.zeros(500, np.float32), 1.0)
    assert abs(many).max() <= 0.45
    assert not beeswarm._spread(np.linspace(-1, 1, 9, dtype=np.float32), 1.0).any()


def test_dots_are_shaded_by_what_the_column_holds():
    shades = beeswarm._shades(np.array([0.0, 0.5, 1.0, np.nan]))
    luma = shades @ (0.299, 0.587, 0.114)
    assert luma[0] < luma[1] < luma[2] < 0.85
    assert np.allclose(shades[3], shades[1], atol=0.02)
    assert np.isfinite(beeswarm._shades(np.ones(3))).all() and np.isfinite(beeswarm._shades(np.full(3, np.nan))).all()


def test_only_so_many_columns_are_shown():
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert draw(Beeswarm(names(40), values, values, None, "t")).shape[0] < 22 * 34 + 120


@pytest.mark.parametrize("inputs", [None, torch.ones(2, 2)])
def test_they_go_through_a_store(inputs):
    values, arrays = torch.tensor([[1.0, -1], [0, 2]]), []

    def put(array):
        arrays.append(array)
        return str(len(arrays) - 1)

    pictures = {
        "bars": Bars(["a", "b"], values, inputs, ["x", "y"], 2.0, "t"),
        "all": Beeswarm(["a", "b"], values, inputs, 2.0, "t"),
    }
    back = restore(describe(Report(0, {}, pictures), put), lambda name: arrays[int(name)])
    for tag, picture in pictures.items():
        assert type(back.pictures[tag]) is type(picture)
        assert np.array_equal(draw.pixels(back.pictures[tag]), draw.pixels(picture))
