"""Maps with a sign: red for, blue against, nothing at zero."""

import numpy as np
import pytest
import torch

from lightning_xai.render import colormap, draw, overlay
from lightning_xai.report import Filmstrip, Grid, Overlay, Report, TableRow, Tokens, Traces
from lightning_xai.storage.described import describe, restore, with_films

# Machado et al. 2009: what those see who lack one kind of cone, of linear RGB
SIGHT = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(pixels, sight="all cones"):
    """CIE Lab of (..., 3) sRGB, 0 to 255, as it is seen."""
    share = np.asarray(pixels, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = (linear @ SIGHT[sight].T).clip(0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / (0.9505, 1, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def far(first, second, sight="all cones"):
    """Differences between colours: 2 can just be seen."""
    return np.linalg.norm(lab(first, sight) - lab(second, sight), axis=-1)


def grey(n, side=32, value=120):
    return torch.full((n, side, side, 3), value, dtype=torch.uint8)


def red(pixels):
    return np.asarray(pixels)[..., 0].astype(int) - np.asarray(pixels)[..., 2]


# ------------------------------------------------------------ colours

PAINTS = {"over an image": colormap.blend, "on paper": colormap.on_paper}
BASES = {"over an image": (30, 118, 213), "on paper": (238, 247)}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("paint", PAINTS)
def test_for_and_against_are_told_apart_by_everyone(paint, sight):
    for base in BASES[paint]:
        values = np.array([-1, -0.5, -0.2, 0, 0.2, 0.5, 1], np.float32)
        colours = PAINTS[paint](colormap.flat(base, 7), values, True)
        apart = far(colours, colours[::-1], sight)
        assert apart[0] > 45 and apart[1] > 25 and apart[2] > 12
        assert (far(colours, colours[3], sight)[[0, -1]] > 25).all()


@pytest.mark.parametrize("paint", PAINTS)
def test_the_stronger_the_farther_from_nothing(paint):
    values = np.linspace(0, 1, 21, dtype=np.float32)
    for base in BASES[paint]:
        for sign in (1, -1):
            colours = PAINTS[paint](colormap.flat(base, 21), sign * values, True)
            assert (colours[0] == base).all()
            away = far(colours, colours[0])
            assert (np.diff(away) > -0.5).all()
            assert away[-1] > 1.2 * away[10] > 0


def test_a_positive_map_is_not_repainted():
    image, cells = grey(1)[0], torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(Overlay(image, cells, 1.0)), draw(Overlay(image, cells, 1.0, signed=False)))
    assert not torch.equal(draw(Overlay(image, cells, 1.0)), draw(Overlay(image, cells, 1.0, signed=True)))
    # what is below zero counts nothing in it, as ever
    assert torch.equal(draw(Overlay(image, cells - 0.5, 1.0)), draw(Overlay(image, (cells - 0.5).clamp_min(0), 1.0)))


# ------------------------------------------------------------ scales


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (4.0, [[0.5, -0.25, 0, -1], [0, 0, 0, 0.25]]),
        (None, [[0.25, -0.125, 0, -1], [0, 0, 0, 1]]),
        (0.0, [[0.25, -0.125, 0, -1], [0, 0, 0, 0.125]]),
        (float("nan"), [[0.25, -0.125, 0, -1], [0, 0, 0, 0.125]]),
    ],
)
def test_a_scale_is_of_absolute_values(scale, expected):
    maps = torch.tensor([[2.0, -1, 0, -8], [0, 0, 0, 1]])
    assert overlay.strength(maps, scale, signed=True).tolist() == expected


def test_what_has_no_relevance_and_what_is_no_number():
    maps = torch.tensor([[-1.0, 0], [0, 0], [float("nan"), 1]])
    assert overlay.notes(maps, signed=True) == ["", "no relevance", "NaN"]
    assert overlay.notes(maps) == ["no relevance", "no relevance", "NaN"]
    drawn = overlay.overlaid(grey(1), torch.full((1, 4, 4), float("nan")), 1.0, 32, signed=True)
    assert abs(red(drawn)).max() <= 6  # the plate has a tint


@pytest.mark.parametrize("kind", ["grid", "traces"])
def test_what_speaks_only_against_is_relevance(kind):
    against = -signed_cells().abs()
    drawn = draw.pixels(PICTURES[kind](against, True))
    nothing = draw.pixels(PICTURES[kind](torch.zeros(2, 4, 4), True))
    words = [(np.abs(red(picture[60:])) < 8) & (np.asarray(picture[60:]).mean(-1) < 80) for picture in (drawn, nothing)]
    assert words[0].sum() < words[1].sum()  # the plate, or the note, that says so


def test_turned_around_a_map_has_the_other_colours():
    cells = torch.tensor([[0.0, 1], [-1, 0]])
    drawn, turned = (draw.pixels(Overlay(grey(1)[0], m, 1.0, signed=True)) for m in (cells, -cells))
    half = drawn.shape[0] // 2
    for pixels, sign in ((drawn, 1), (turned, -1)):
        assert (sign * red(pixels[:half, half:])).mean() > 30
        assert (sign * red(pixels[half:, :half])).mean() < -30
    assert abs(red(drawn[:20, :20])).max() <= 2  # a corner of zeros, nothing but the image


# ------------------------------------------------------------ pictures


def signed_cells(readings=None):
    maps = torch.zeros(2, 4, 4)
    maps[0], maps[1] = 0.5, -1
    return maps if readings is None else maps[:, None].repeat(1, readings, 1, 1)


def sides(drawn):
    """How much of a picture, below its heading, is red and how much blue."""
    colours = red(drawn)[60:]
    return float((colours > 40).mean()), float((colours < -40).mean())


PICTURES = {
    "grid": lambda maps, signed: Grid(grey(2), maps, ["a", "b"], 1.0, "t", signed),
    "filmstrip": lambda maps, signed: Filmstrip(grey(2), maps[:, None], ["a", "b"], ["0"], 1.0, "t", signed),
    "traces": lambda maps, signed: Traces(None, maps.flatten(1), ["a", "b"], 1.0, "t", signed),
    "tokens": lambda maps, signed: Tokens(
        [["word"] * 16] * 2, [m.view(1, 16) for m in maps], ["a", "b"], ["0"], 1.0, "t", signed
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_picture_has_both_sides(kind):
    only_for, only_against = signed_cells().abs(), -signed_cells().abs()
    for maps, expected in ((signed_cells(), (True, True)), (only_for, (True, False)), (only_against, (False, True))):
        assert tuple(share > 0.02 for share in sides(draw.pixels(PICTURES[kind](maps, True)))) == expected


@pytest.mark.parametrize("kind", PICTURES)
def test_the_legend_has_both_sides(kind):
    drawn = draw.pixels(PICTURES[kind](torch.zeros(2, 4, 4), True))[:50]
    bar = red(drawn)[np.ptp(red(drawn), 1).argmax()]
    where = np.flatnonzero(abs(bar) > 60)
    assert bar[where[0]] < -100 and bar[where[-1]] > 100
    middle = bar[(where[0] + where[-1]) // 2]
    assert abs(middle) < 60


def test_the_scale_is_printed_with_both_signs():
    first, second = (draw(Grid(grey(1), torch.zeros(1, 4, 4), ["x"], scale, "t", True)) for scale in (1.0, 2.0))
    assert not torch.equal(first[:60], second[:60])
    assert torch.equal(first[60:], second[60:])
    own = draw(Grid(grey(1), torch.zeros(1, 4, 4), ["x"], None, "t", True))
    assert not torch.equal(own, draw(Grid(grey(1), torch.zeros(1, 4, 4), ["x"], None, "t")))


def test_a_strong_token_can_be_read():
    drawn = draw.pixels(Tokens([["word"]], [torch.tensor([[-1.0]])], [""], [""], 1.0, "t", True))
    plate = drawn[-30:]
    luma = plate.astype(float) @ (0.299, 0.587, 0.114)
    assert np.median(luma[red(plate) < -100]) < 140 and luma.max() > 240  # white ink on a dark plate


def test_the_sign_goes_through_a_store():
    grid = Grid(grey(2), signed_cells(), ["a", "b"], 1.0, "t", signed=True)
    rows = [TableRow(i, "a", "b", 0.5, grey(1)[0], Overlay(grey(1)[0], signed_cells()[i], 1.0, True)) for i in (0, 1)]
    arrays = []

    def put(array):
        arrays.append(array)
        return str(len(arrays) - 1)

    plain = describe(Report(1, {}, {"g": grid}, {"g/samples": rows}), put)
    report = restore(plain, lambda name: arrays[int(name)])
    assert report.pictures["g"].signed
    assert all(row.heatmap.signed for row in report.tables["g/samples"])
    assert with_films(report, [("epoch 1", report)]).pictures["g/filmstrip"].signed
    del plain["pictures"]["g"]["signed"]  # as it was written before maps had a sign
    assert not restore(plain, lambda name: arrays[int(name)]).pictures["g"].signed
