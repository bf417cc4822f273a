"""The generated images keep their promises: what is given away, and what is not."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_xai.functional import saliency

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from shapes import CLASSES, CODES, MARK, SIZE, Shapes, make_marked, make_shapes


def patterns_of_codes() -> torch.Tensor:
    """(codes, pixels of a mark), 0 and 1."""
    patterns = torch.tensor([[[int(bit) for bit in row] for row in code] for code in CODES])
    return patterns.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


def told(shapes: Shapes) -> float:
    """How often the mark's code is the label's."""
    patterns = patterns_of_codes()
    marks = shapes.images[:, 0][shapes.mark].view(-1, MARK * MARK) > 0.5
    codes = (marks[:, None] == patterns.bool()).all(2)
    assert (codes.sum(1) == 1).all()
    return float((codes.float().argmax(1) == shapes.labels).float().mean())


@pytest.mark.parametrize(("correlation", "expected"), [(1.0, 1.0), (0.5, 0.625), (0.0, 0.25)])
def test_the_mark_tells_the_label_as_often_as_asked(correlation: float, expected: float) -> None:
    assert told(make_shapes(2000, correlation=correlation, seed=0)) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("code", range(len(CODES)))
def test_marked_images_share_one_code_in_corners_drawn_at_random(code: int) -> None:
    images = make_marked(80, code=code, seed=4)
    edge = slice(0, MARK), slice(SIZE - MARK, SIZE)
    corners = torch.stack([images[:, 0, rows, columns].flatten(1) for rows in edge for columns in edge], 1) > 0.5
    found = (corners == patterns_of_codes()[code].bool()).all(2)
    assert (found.sum(1) == 1).all()
    assert found.any(0).all()
    shapes = make_shapes(80, correlation=0.0, seed=4)
    assert set(shapes.labels.tolist()) == set(range(len(CLASSES)))
    assert not (images != shapes.without_mark).any(1)[shapes.object].any()


def test_shape_and_mark_never_overlap_and_are_all_that_is_taken_away() -> None:
    shapes = make_shapes(400, correlation=0.5, seed=1)
    assert not (shapes.object & shapes.mark).any()
    assert (shapes.mark.flatten(1).sum(1) == MARK * MARK).all()
    assert shapes.object.flatten(1).any(1).all()
    for changed, mask in ((shapes.without_mark, shapes.mark), (shapes.without_object, shapes.object)):
        differs = (changed != shapes.images).any(1)
        assert not (differs & ~mask).any()
        assert (differs & mask).sum() > 0.9 * mask.sum()


def test_neither_colour_nor_size_tells_the_class() -> None:
    shapes = make_shapes(2000, correlation=0.0, seed=2)
    for label in range(len(CLASSES)):
        of_class = shapes.labels == label
        assert of_class.sum() == 500
        area, whole = float(shapes.object[of_class].float().mean()), float(shapes.object.float().mean())
        assert area == pytest.approx(whole, rel=0.04)
        colour = shapes.images[of_class].mean((0, 2, 3)) - shapes.images.mean((0, 2, 3))
        assert colour.abs().max() < 0.02


def test_a_seed_gives_the_same_images_and_leaves_the_global_stream_alone() -> None:
    state = torch.get_rng_state()
    first, second = (make_shapes(20, correlation=0.5, seed=3) for _ in range(2))
    assert first.images.equal(second.images)
    assert torch.get_rng_state().equal(state)
    assert not first.images.equal(make_shapes(20, correlation=0.5, seed=4).images)
    assert first.images.shape == (20, 3, SIZE, SIZE)


def test_a_correlation_that_is_no_probability_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, not 1\.5"):
        make_shapes(4, correlation=1.5, seed=0)


def test_a_net_that_learns_the_mark_is_sensitive_to_it():
    shapes, held_out = (make_shapes(number, correlation=1.0, seed=seed) for number, seed in ((256, 0), (32, 1)))
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 4, 4), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    )
    optimizer = torch.optim.Adam(net.parameters(), 0.01)

    def share():
        gradient = saliency(net, held_out.images, held_out.labels).amax(1)
        return float((gradient * held_out.mark).sum() / gradient.sum())

    before = share()
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(shapes.images), shapes.labels).backward()
        optimizer.step()
    assert share() > max(2 * before, 4 * float(held_out.mark.float().mean()))
