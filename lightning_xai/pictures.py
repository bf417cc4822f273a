"""What can be drawn, described: arrays and captions. `lightning_xai.render` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Picture:
    """A described picture. `lightning_xai.render.draw` holds one drawing function for each subclass."""


@dataclass(frozen=True, eq=False)
class Overlay(Picture):
    """One heatmap over one image.

    Args:
        image: (H, W, 3) uint8.
        map: (h, w) float, as measured: not scaled, not resized.
        scale: the value that takes the last colour; None takes the map's own maximum.
        signed: whether values below zero speak against, and the scale is of absolute ones; else they count as zero.
    """

    image: Tensor
    map: Tensor
    scale: float | None
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Grid(Picture):
    """One column a sample: the image, the heatmap over it, the caption.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, h, w) float, as measured.
        captions: N strings; a newline starts a new line.
        scale: the value that takes the last colour in every column; None scales each map by its own maximum.
        title: one line above the grid.
        signed: whether values below zero speak against, and the scale is of absolute ones; else they count as zero.
    """

    images: Tensor
    maps: Tensor
    captions: Sequence[str]
    scale: float | None
    title: str
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Filmstrip(Picture):
    """The history of the same samples: one row a sample, the image first, then one column a reading.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, T, h, w) float, as measured.
        captions: N strings, one a row; a newline starts a new line.
        columns: T strings, one a reading (``"epoch 3"``).
        scale: the value that takes the last colour in every column; None scales each map by its own maximum.
        title: one line above the strip.
        signed: whether values below zero speak against, and the scale is of absolute ones; else they count as zero.
    """

    images: Tensor
    maps: Tensor
    captions: Sequence[str]
    columns: Sequence[str]
    scale: float | None
    title: str
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Traces(Picture):
    """Maps along one axis, one panel a sample: the signal as lines over a background coloured by the map.

    Args:
        signals: (N, C, L) float, or None where there is nothing to draw but the map.
        maps: (N, l) float, as measured; stretched over the signal.
        captions: N strings; a newline starts a new line.
        scale: the value that takes the last colour in every panel; None scales each map by its own maximum.
        title: one line above the panels.
        signed: whether values below zero speak against, and the scale is of absolute ones; else they count as zero.
    """

    signals: Tensor | None
    maps: Tensor
    captions: Sequence[str]
    scale: float | None
    title: str
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Tokens(Picture):
    """Texts whose tokens are coloured by their weight: one block a sample, one line a reading.

    Args:
        tokens: N lists of strings.
        weights: N tensors (T, number of the sample's tokens) float, as measured.
        captions: N strings; a newline starts a new part.
        lines: T strings, one a reading (``"epoch 3"``).
        scale: the value that takes the last colour in every line; None scales each line by its own maximum.
        title: one line above.
        signed: whether values below zero speak against, and the scale is of absolute ones; else they count as zero.
    """

    tokens: Sequence[Sequence[str]]
    weights: Sequence[Tensor]
    captions: Sequence[str]
    lines: Sequence[str]
    scale: float | None
    title: str
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Bars(Picture):
    """What each column of a table counts: one panel a sample, one bar a column, the same columns in every panel.

    Args:
        names: F strings.
        values: (N, F) float, signed: above zero for what is explained, below against it.
        inputs: (N, F) float, what the columns hold, told beside their names; None tells nothing.
        captions: N strings; a newline starts a new line.
        scale: the absolute value that every panel reaches to; None gives each panel its own.
        title: one line above the panels.
    """

    names: Sequence[str]
    values: Tensor
    inputs: Tensor | None
    captions: Sequence[str]
    scale: float | None
    title: str


@dataclass(frozen=True, eq=False)
class Beeswarm(Picture):
    """What each column of a table counts in all samples: one row a column, one dot a sample.

    Args:
        names: F strings.
        values: (N, F) float, signed: above zero for what is explained, below against it.
        inputs: (N, F) float, what the columns hold, as the colours of the dots; None draws them alike.
        scale: the absolute value that the axis reaches to; None takes the largest.
        title: one line above.
    """

    names: Sequence[str]
    values: Tensor
    inputs: Tensor | None
    scale: float | None
    title: str


@dataclass(frozen=True, eq=False)
class Matrix(Picture):
    """Attention from token to token: one band a sample, one panel a head, each on its own scale.

    Args:
        maps: N tensors (heads, queries, keys) float, as measured.
        rows: N lists of the queries' tokens; empty where there are none.
        columns: N lists of the keys' tokens.
        captions: N strings; a newline starts a new part.
        title: one line above.
    """

    maps: Sequence[Tensor]
    rows: Sequence[Sequence[str]]
    columns: Sequence[Sequence[str]]
    captions: Sequence[str]
    title: str


@dataclass(frozen=True, eq=False)
class Curve:
    """One line of a `Curves` panel, with the band that chance gives it.

    Args:
        name: in the legend.
        y: T values, one a reading.
        lower: T lower ends of the band; None draws none.
        upper: T upper ends of the band.
        solid: whether each point is filled; hollow points say that chance explains them.
        tag: of the scalar that it draws.
    """

    name: str
    y: Sequence[float]
    lower: Sequence[float] | None
    upper: Sequence[float] | None
    solid: Sequence[bool]
    tag: str = ""


@dataclass(frozen=True, eq=False)
class Curves(Picture):
    """Scalars over the run, one panel a class (or whatever the panels stand for).

    Args:
        panels: title -> its curves.
        x: T positions, the same for all curves.
        x_label: below the panels.
        y_label: beside them.
        title: one line above.
        note: one line below, in small.
        band: what the bands are of, for the legend; empty where no curve has one.
    """

    panels: Mapping[str, Sequence[Curve]]
    x: Sequence[float]
    x_label: str
    y_label: str
    title: str
    note: str = ""
    band: str = "random concepts"
