import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

from lightning_xai.render import colormap, draw, overlay, text
from lightning_xai.report import Filmstrip, Grid, Overlay, Picture, Traces
from tests.support.tensors import all_on_tensors, on_tensors

overlay, text = all_on_tensors(overlay), all_on_tensors(text)
blend, colorize, table = map(on_tensors, (colormap.blend, colormap.colorize, colormap.table))


def grey(n: int, height: int, width: int) -> torch.Tensor:
    return torch.full((n, height, width, 3), 120, dtype=torch.uint8)


def hue(picture: torch.Tensor) -> torch.Tensor:
    """How far each pixel is from grey."""
    picture = picture.int()
    return picture.amax(-1) - picture.amin(-1)


def hot(size: int, row: int, column: int, value: float = 1.0) -> torch.Tensor:
    cells = torch.zeros(size, size)
    cells[row, column] = value
    return cells


# colours


def test_table_is_matplotlibs():
    import matplotlib

    assert table().shape == (256, 3)
    assert_close(table()[200] / 255, torch.tensor(matplotlib.colormaps["inferno"](200)[:3]).float())
    assert_close(colorize(torch.tensor([0.0, 1.0])), table()[[0, 255]])


def test_relevance_shows_more_the_stronger_it_is():
    base = torch.full((101, 3), 120.0)
    distance = (blend(base, torch.linspace(0, 1, 101)).float() - base).norm(dim=-1)
    assert distance[0] == 0
    assert (distance.diff() >= -1.5).all()
    assert distance[50] < 0.8 * distance[100]


# heatmaps


@pytest.mark.parametrize("scale", [None, 1.0, 0.0, -1.0, float("nan"), float("inf")])
def test_a_zero_map_leaves_no_hue(scale):
    image = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = draw(Overlay(image, torch.zeros(4, 4), scale))
    assert (hue(drawn)[:160] <= 1).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_map_that_is_not_finite_says_so(bad):
    cells = torch.rand(4, 4)
    cells[1, 2] = bad
    drawn = draw(Overlay(grey(1, 32, 32)[0], cells, 1.0))
    assert hue(drawn).max() <= 6
    plain = overlay.overlaid(grey(1, 32, 32), torch.full((1, 4, 4), 1e-9), 1.0, overlay.SIDE)[0]
    assert torch.equal(drawn, text.stamp(plain, "NaN"))
    assert overlay.notes(torch.stack([cells, torch.zeros(4, 4), torch.ones(4, 4)])) == [
        "NaN",
        "no relevance",
        "",
    ]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (3, 3)])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 96), (224, 224), (512, 300)])
def test_a_hot_cell_appears_in_its_place(row, column, height, width):
    drawn = draw(Overlay(grey(1, height, width)[0], hot(4, row, column), None))
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(height / width, rel=0.02)
    tall, wide = drawn.shape[0] / 4, drawn.shape[1] / 4
    strong = (hue(drawn) > 0.8 * hue(drawn).max()).nonzero().float().mean(0)
    assert row * tall <= strong[0] <= (row + 1) * tall
    assert column * wide <= strong[1] <= (column + 1) * wide


def test_stretching_is_bilinear():
    values = torch.rand(2, 3, 5)
    expected = torch.nn.functional.interpolate(values[:, None], (30, 40), mode="bilinear", align_corners=False)
    assert_close(overlay.stretched(values, 30, 40), expected[:, 0])


def test_a_shared_scale_makes_the_weaker_map_paler():
    maps = torch.stack([torch.full((4, 4), 1.0), torch.full((4, 4), 0.5), torch.full((4, 4), 0.05)])
    full, half, faint = overlay.overlaid(grey(3, 32, 32), maps, 1.0, 32).float()
    base = overlay.overlaid(grey(1, 32, 32), torch.full((1, 4, 4), 1e-9), 1.0, 32).float()[0]
    assert (full - base).norm() > 1.3 * (half - base).norm() > 3 * (faint - base).norm() > 0


def test_own_scales_make_them_equal():
    maps = torch.stack([hot(4, 1, 1, 1.0), hot(4, 1, 1, 1e-6)])
    first, second = overlay.overlaid(grey(2, 32, 32), maps, None, 32)
    assert_close(first, second, atol=1, rtol=0)


def test_values_beyond_the_scale_take_the_last_colour():
    assert overlay.strength(torch.tensor([[[9.0, 2.0, 1.0, -4.0]]]), 2.0).tolist() == [[[1, 1, 0.5, 0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_maps_of_any_precision(dtype):
    drawn = overlay.overlaid(grey(1, 8, 8), torch.ones(1, 2, 2, dtype=dtype), 2.0, 8)
    assert drawn.dtype == torch.uint8


def test_the_callers_tensors_stay_as_they_are():
    image, cells = grey(1, 32, 32)[0], torch.tensor([[float("nan"), -1.0]])
    kept = cells.clone()
    draw(Overlay(image, cells, None))
    assert (image == 120).all()
    assert_close(cells, kept, equal_nan=True)


# sizes


@pytest.mark.parametrize(("size", "expected"), [(28, 224), (32, 224), (48, 192), (224, 224), (512, 224)])
def test_images_come_close_to_the_side(size, expected):
    assert overlay.enlarged(overlay.reduced(grey(1, size, size), 224), 224).shape == (1, expected, expected, 3)


def test_a_small_image_keeps_its_pixels():
    image = torch.randint(0, 256, (1, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    large = overlay.enlarged(image, 24)
    assert large.shape == (1, 15, 21, 3)
    assert torch.equal(large[:, 1::3, 1::3], image)


@pytest.mark.parametrize("samples", [1, 3, 8, 20])
@pytest.mark.parametrize("size", [(28, 28), (32, 64), (300, 120)])
def test_grids_are_neither_too_wide_nor_cut(samples, size):
    captions = [f"label: a rather long class name {row}\npred: truck 0.87\nlayer" for row in range(samples)]
    drawn = draw(Grid(grey(samples, *size), torch.rand(samples, 4, 4), captions, 1.0, "A title"))
    assert drawn.dtype == torch.uint8 and drawn.shape[2] == 3
    assert 400 <= drawn.shape[1] <= 1640
    frame = torch.cat([drawn[:10].flatten(0, 1), drawn[-10:].flatten(0, 1), drawn[:, :10].flatten(0, 1)])
    assert (frame == drawn[0, 0]).all()


@pytest.mark.parametrize(("samples", "readings"), [(1, 1), (8, 2), (4, 16)])
@pytest.mark.parametrize("size", [(32, 32), (300, 100)])
def test_filmstrips_hold_every_reading(samples, readings, size):
    names = [f"epoch {column}" for column in range(readings)]
    maps = torch.rand(samples, readings, 4, 4)
    drawn = draw(Filmstrip(grey(samples, *size), maps, ["label: x\npred: y"] * samples, names, 1.0, "A title"))
    assert drawn.dtype == torch.uint8
    assert drawn.shape[1] <= 1920
    assert (drawn[:, -10:] == drawn[0, 0]).all()


def test_a_filmstrip_draws_each_map_in_its_cell():
    maps = torch.zeros(2, 3, 4, 4)
    maps[1, 2] = 1
    drawn = draw(Filmstrip(grey(2, 32, 32), maps, ["", ""], ["0", "1", "2"], 1.0, ""))
    rows, columns = (hue(drawn)[50:] > 60).nonzero().unbind(1)
    height, width = drawn.shape[:2]
    assert columns.min() >= width - 14 - 128 and columns.max() < width - 14
    assert rows.min() + 50 >= height - 14 - 128 and rows.max() + 50 < height - 14


@pytest.mark.parametrize("title", ["short", "Grad-CAM at a layer with a name that goes on " * 6])
@pytest.mark.parametrize("scale", [None, 1.25e-7])
def test_titles_of_any_length_fit(title, scale):
    drawn = draw(Grid(grey(1, 32, 32), torch.rand(1, 4, 4), ["x"], scale, title))
    assert (drawn[:, -10:] == drawn[0, 0]).all()


def test_the_printed_scale_differs():
    first, second = (draw(Grid(grey(1, 32, 32), torch.zeros(1, 4, 4), ["x"], scale, "t")) for scale in (1.0, 2.0))
    assert first.shape == second.shape
    assert not torch.equal(first[:60], second[:60])
    assert torch.equal(first[60:], second[60:])


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_traces(channels):
    signals = None if channels is None else torch.randn(3, channels, 100)
    maps = torch.zeros(3, 10)
    maps[0, 9] = 1
    maps[1] = float("nan")
    drawn = draw(Traces(signals, maps, ["a\nb"] * 3, 1.0, "Along time"))
    assert drawn.dtype == torch.uint8 and drawn.shape[1:] == (748, 3)
    yellow = (hue(drawn)[40:, :] > 100) & (drawn[40:, :, 0] > 200)
    assert yellow.nonzero()[:, 1].min() > 600


def test_traces_use_no_global_figure():
    from matplotlib import _pylab_helpers

    draw(Traces(None, torch.rand(1, 10), ["a"], None, ""))
    assert not _pylab_helpers.Gcf.figs


def test_drawing_takes_no_random_numbers():
    before = torch.get_rng_state()
    draw(Grid(grey(2, 32, 32), torch.rand(2, 4, 4, generator=torch.Generator()), ["x", "y"], 1.0, "t"))
    assert torch.equal(torch.get_rng_state(), before)


# dispatch


def test_a_picture_is_drawn_once_and_let_go():
    picture = Overlay(grey(1, 8, 8)[0], torch.rand(2, 2), 1.0)
    drawn = draw.pixels(picture)
    assert draw.pixels(picture) is drawn
    assert torch.equal(draw(picture), torch.from_numpy(drawn))
    pointer = weakref.ref(picture)
    del picture
    gc.collect()
    assert pointer() is None


def test_others_add_their_own_pictures():
    class Blank(Picture):
        pass

    with pytest.raises(TypeError, match=r"Nothing draws a Blank.*draw\.register\(Blank\)"):
        draw(Blank())

    @draw.register(Blank)
    def draw_blank(picture: Blank) -> torch.Tensor:
        return torch.zeros(1, 1, 3, dtype=torch.uint8)

    assert draw(Blank()).shape == (1, 1, 3)


def test_captions_and_images_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        draw(Grid(grey(2, 8, 8), torch.rand(2, 2, 2), ["only one"], 1.0, "t"))
