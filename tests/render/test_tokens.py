import pytest
import torch

from lightning_xai.render import colormap, draw, tokens
from lightning_xai.render.text import PAPER
from lightning_xai.render.tokens import shown
from lightning_xai.report import Matrix, Tokens
from tests.support.tensors import on_tensors

on_paper, coloured = on_tensors(colormap.on_paper), on_tensors(tokens.coloured)


def paper(picture: torch.Tensor) -> torch.Tensor:
    """Which pixels are empty page."""
    return (picture == torch.tensor(PAPER, dtype=torch.uint8)).all(-1)


def picture(tokens, weights, lines=("epoch 0",), scale=1.0, captions=None) -> Tokens:
    return Tokens(tokens, weights, captions or [""] * len(tokens), list(lines), scale, "Attention of a layer")


def test_the_stronger_the_darker():
    shades = on_paper(torch.full((101, 3), 247.0), torch.linspace(0, 1, 101)).float().mean(-1)
    assert shades[0] == 247
    assert (shades.diff() <= 1).all()
    assert shades[-1] < 100


def test_weights_colour_their_tokens():
    drawn = coloured(["left", "right"], torch.tensor([0.0, 1.0]), 200)
    ground = on_paper(torch.full((1, 3), 247.0), torch.ones(1))[0]
    hit = (drawn == ground).all(-1).nonzero()[:, 1]
    assert len(hit) > 100
    assert hit.min() > paper(drawn).float().mean(0).argmin()


def test_long_texts_wrap_and_no_token_leaves_the_page():
    few, many = (draw(picture([["word"] * n], [torch.rand(1, n)])) for n in (4, 200))
    assert many.shape[0] > few.shape[0] + 100
    assert many.shape[1] <= 1200
    assert paper(many)[:, -14:].all()
    endless = coloured(["x" * 500, "b"], torch.ones(2), 300)
    assert endless.shape[1] == 300


def test_each_reading_is_a_line():
    tokens = [["one", "two"], ["three"]]
    heights = [
        draw(picture(tokens, [torch.rand(t, 2), torch.rand(t, 1)], [f"epoch {i}" for i in range(t)])).shape[0]
        for t in (1, 2, 3)
    ]
    assert heights[0] < heights[1] < heights[2]
    assert heights[2] - heights[1] == heights[1] - heights[0]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weights_that_say_nothing_are_drawn_without_colour(value):
    drawn = draw(picture([["one", "two"]], [torch.full((1, 2), value)], scale=value))
    below = drawn[60:].int()
    assert int((below.amax(-1) - below.amin(-1)).max()) < 12  # the ink is not quite grey


@pytest.mark.parametrize(
    ("token", "read"),
    [("Ġgood", "good"), ("▁good", "good"), ("##ing", "##ing"), ("\n", "⏎"), ("", "␣"), ("Ġ", "␣"), ("[CLS]", "[CLS]")],
)
def test_marks_for_spaces_are_not_shown(token, read):
    assert shown(token) == read


def test_a_matrix_has_a_panel_a_head():
    sizes = [
        draw(Matrix([torch.rand(heads, 6, 6)], [list("abcdef")], [list("abcdef")], ["label 0"], "Attention"))
        for heads in (1, 12, 40)
    ]
    assert sizes[0].shape[0] < sizes[2].shape[0]
    assert all(page.shape[1] <= 1300 for page in sizes)


@pytest.mark.parametrize("shape", [(2, 1, 9), (2, 128, 128), (3, 40, 7), (1, 1, 1)])
def test_matrices_of_every_size_are_drawn(shape):
    names = [[f"q{i}" for i in range(shape[1])]], [[f"k{i}" for i in range(shape[2])]]
    for rows, columns in (names, ([[]], [[]])):
        drawn = draw(Matrix([torch.rand(shape)], rows, columns, [""], "Attention of a layer"))
        assert drawn.dtype == torch.uint8
        assert max(drawn.shape) < 2000
