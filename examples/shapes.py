"""Images that are generated with their truth: where the shape is, and where the mark that may give it away.

Each image is 48 x 48, one textured shape on a textured background, with an 8 x 8 mark in one corner. Colours,
textures, sizes, angles and places are random, so that only the outline tells the class. The mark carries a code:
the label's own with probability `correlation`, otherwise one drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

CLASSES = ("disc", "ring", "triangle", "cross")
SIZE = 48
MARK = 8
CODES = (  # one 4 x 4 pattern a class; each cell is 2 x 2 pixels
    ("1111", "0000", "1111", "0000"),
    ("1010", "1010", "1010", "1010"),
    ("1001", "0110", "0110", "1001"),
    ("1111", "1001", "1001", "1111"),
)


@dataclass(frozen=True, eq=False)
class Shapes:
    """Generated images and everything that is known about them.

    Args:
        images: (N, 3, 48, 48) float in [0, 1], as a network sees them.
        labels: (N,) indices into `CLASSES`.
        object: (N, 48, 48) bool, the shape's pixels.
        mark: (N, 48, 48) bool, the mark's pixels.
        without_mark: the images as they are behind the mark.
        without_object: the images with the background where the shape was.
    """

    images: Tensor
    labels: Tensor
    object: Tensor
    mark: Tensor
    without_mark: Tensor
    without_object: Tensor


def make_shapes(number: int, *, correlation: float, seed: int) -> Shapes:
    """Draw `number` images whose mark tells the label with probability `correlation`, classes in equal parts."""
    if not 0.0 <= correlation <= 1.0:
        raise ValueError(f"correlation is a probability between 0 and 1, not {correlation}")
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % len(CLASSES)
    labels = labels[torch.randperm(number, generator=random)]

    outline = _outlines(labels, random)
    background, shape = _textures(number, random)
    codes = torch.randint(len(CLASSES), (number,), generator=random)
    told = torch.rand(number, generator=random) < correlation
    mark, pattern = _marks(torch.where(told, labels, codes), random)

    clean = torch.where(outline[:, None], shape, background)
    return Shapes(
        images=torch.where(mark[:, None], pattern, clean),
        labels=labels,
        object=outline,
        mark=mark,
        without_mark=clean,
        without_object=torch.where(mark[:, None], pattern, background),
    )


def make_marked(number: int, *, code: int, seed: int) -> Tensor:
    """(N, 3, 48, 48) in [0, 1]: shapes of every class behind the mark of one code, which is what these share."""
    shapes = make_shapes(number, correlation=0.0, seed=seed)
    random = torch.Generator().manual_seed(seed)
    mark, pattern = _marks(torch.full((number,), code), random)
    return torch.where(mark[:, None], pattern, shapes.without_mark)


def _outlines(labels: Tensor, random: torch.Generator) -> Tensor:
    """(N, H, W) bool. The shapes have equal areas on average and never reach a corner's mark."""
    number = len(labels)
    centre = 19 + 10 * torch.rand(number, 2, 1, 1, generator=random)
    scale = 9 + 3 * torch.rand(number, 1, 1, generator=random)
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    y, x = (y - centre[:, 0]) / scale, (x - centre[:, 1]) / scale
    # Each holds about 2.5 squared scales.
    every = (
        x**2 + y**2 < 0.9**2,
        (x**2 + y**2 - 0.8).abs() < 0.4,
        torch.maximum(y, 0.866 * x.abs() - 0.5 * y) < 0.7,
        (torch.minimum(x.abs(), y.abs()) < 0.36) & (torch.maximum(x.abs(), y.abs()) < 1.05),
    )
    return torch.stack(every)[labels, torch.arange(number)]


def _textures(number: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two (N, 3, H, W) textures an image, apart in colour and drawn alike for every class."""
    background = 0.35 + 0.3 * torch.rand(number, 3, 1, 1, generator=random)
    # Clearly lighter or darker than the background in every channel, so that there is an outline to see.
    side = torch.randint(2, (number, 3, 1, 1), generator=random) * 2 - 1
    shape = background + side * (0.2 + 0.2 * torch.rand(number, 3, 1, 1, generator=random))
    colours = torch.stack([background, shape])
    coarse = torch.randn(2 * number, 3, 8, 8, generator=random)
    smooth = interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").view(2, number, 3, SIZE, SIZE)
    grain = torch.randn(2, number, 3, SIZE, SIZE, generator=random)
    background, shape = (colours + 0.06 * smooth + 0.04 * grain).clamp(0, 1)
    return background, shape


def _marks(codes: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """(N, H, W) bool, where the mark is, and (N, 1, H, W), the code's pattern repeated over the whole image."""
    number = len(codes)
    cells = torch.tensor([[[0.2 + 0.6 * int(bit) for bit in row] for row in code] for code in CODES])
    pattern = cells.repeat_interleave(2, 1).repeat_interleave(2, 2).tile(1, SIZE // MARK, SIZE // MARK)
    low, right = torch.randint(2, (2, number, 1, 1), generator=random).bool()
    edge = torch.arange(SIZE)
    near, far = edge < MARK, edge >= SIZE - MARK
    rows = torch.where(low, far[:, None], near[:, None])
    columns = torch.where(right, far, near)
    return rows & columns, pattern[codes, None]
