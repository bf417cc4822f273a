"""The curves of concept effects: what is hollow, where the band is, and that everything fits."""

import pytest
import torch

from lightning_xai.render import curves, draw
from lightning_xai.report import Curve, Curves

BLUE = torch.tensor([0x00, 0x72, 0xB2])
BAND = 0.5


def curve(values, solid=True, name="striped", band=BAND):
    lower, upper = ([-band] * len(values), [band] * len(values)) if band else (None, None)
    return Curve(name, values, lower, upper, [solid] * len(values))


def picture(*panels, count=6, **told):
    x = list(range(count))
    return Curves(dict(enumerate_names(panels)), x, "epoch", "effect", "Concept effects", told.get("note", ""))


def enumerate_names(panels):
    return ((f"class {index}", panel) for index, panel in enumerate(panels))


def near(drawn, hue, reach=12):
    """Where a picture has this colour."""
    return (drawn.int() - hue).abs().amax(-1) <= reach


def test_hollow_points_have_less_ink():
    rising = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    solid, hollow = (near(draw(picture([curve(rising, told)])), BLUE).sum() for told in (True, False))
    assert solid - hollow > 6 * 20


def test_the_band_is_drawn_once_however_many_curves_share_it():
    flat = [2.0] * 6

    def greys(*of_panel):
        drawn = draw(picture(list(of_panel))).int()
        rows = drawn[90:-60, 120:-60]
        return {tuple(pixel) for pixel in rows.reshape(-1, 3).tolist()}

    one = greys(curve(flat))
    many = greys(curve(flat), curve(flat, name="red"), curve(flat, name="dots"))
    band = [pixel for pixel in one if 205 < pixel[0] < 232 and max(pixel) - min(pixel) < 6]
    assert band
    # a band that is drawn again and again darkens
    assert all(pixel in many for pixel in band)
    assert not [p for p in greys(curve(flat, band=None)) if p in band and p[0] < 225]


def test_a_single_reading_shows_its_band():
    with_band, without = (draw(picture([curve([2.0], band=band)], count=1)).int() for band in (BAND, None))
    assert (with_band != without).any(-1).sum() > 5000


@pytest.mark.parametrize("concepts", [1, 2, 5, 9])
@pytest.mark.parametrize("classes", [1, 4, 10])
def test_every_number_of_concepts_and_classes_fits(concepts, classes):
    names = [f"{'a very long name of a concept ' * 4}{index}" for index in range(concepts)]
    panel = [curve([float(index)] * 6, name=name) for index, name in enumerate(names)]
    drawn = draw(picture(*[panel] * classes, note="word " * 200))
    height, width, channels = drawn.shape
    assert (channels, drawn.dtype) == (3, torch.uint8)
    assert 400 < height < 1200
    assert 600 < width < 1500
    margin = torch.cat([drawn[:4].flatten(0, 1), drawn[-4:].flatten(0, 1), drawn[:, :4].flatten(0, 1)])
    assert (margin == margin[0]).all()


def test_all_panels_have_one_scale():
    """The weaker class looks weaker."""
    low, high = [curve([0.1] * 6)], [curve([5.0] * 6)]
    drawn = near(draw(picture(low, high)), BLUE)
    half = drawn.shape[1] // 2
    below, above = (part[100:].nonzero()[:, 0].float().mean() for part in (drawn[:, :half], drawn[:, half:]))
    assert below - above > 100


def test_forty_curves_look_different():
    assert len({curves._look(place) for place in range(42)}) == 42


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_leave_a_gap(bad):
    drawn = draw(picture([curve([0.0, 1.0, bad, 1.0, 0.0, 1.0])]))
    assert near(drawn, BLUE).any()
