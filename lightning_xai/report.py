"""What one reading says: scalars, described pictures and table rows. Nothing here is drawn yet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scalar:
    """One number that a callback logs, or a family of them: loggers, charts and pages follow from it.

    Args:
        name: the rest of its tag, behind ``xai/<callback>/``; a word in braces stands for each thing of a kind, as
            ``"{layer}/drift"``.
        meaning: what it says, in a few words.
        lower: the name of the scalar that is the lower end of its band.
        upper: the name of the upper end.
        chart: the title of a chart that all scalars of this title are drawn in together.
        leads: whether it comes first where scalars are shown.
    """

    name: str
    meaning: str
    lower: str | None = None
    upper: str | None = None
    chart: str | None = None
    leads: bool = False

    def each(self, things: Mapping[str, Sequence[str]]) -> list[Scalar]:
        """The scalars that it stands for, where there are such ``things`` by kind.

        Example:
            >>> [s.name for s in Scalar("{layer}/drift", "what moved").each({"layer": ["stem", "head"]})]
            ['stem/drift', 'head/drift']
        """
        kinds = re.findall(r"{(\w+)}", self.name)
        chosen = product(*(things.get(kind, ()) for kind in kinds))
        return [self._of(dict(zip(kinds, names, strict=True))) for names in chosen]

    def under(self, tag: str) -> Scalar:
        """The same with whole tags."""
        lower, upper, chart = (f"{tag}/{text}" if text else None for text in (self.lower, self.upper, self.chart))
        return replace(self, name=f"{tag}/{self.name}", lower=lower, upper=upper, chart=chart)

    def fits(self, name: str) -> bool:
        """Whether a name without braces is one of those that it stands for."""
        words = re.split(r"{\w+}", self.name)
        return re.fullmatch(".+".join(map(re.escape, words)), name) is not None

    def _of(self, names: Mapping[str, str]) -> Scalar:
        filled = {f.name: _filled(getattr(self, f.name), names) for f in fields(self)}
        return Scalar(**filled)


def _filled(text: Any, names: Mapping[str, str]) -> Any:
    return re.sub(r"{(\w+)}", lambda kind: names.get(kind[1], kind[0]), text) if isinstance(text, str) else text


class Picture:
    """A described picture. `lightning_xai.render.draw` holds one drawing function for each subclass."""


@dataclass(frozen=True, eq=False)
class Overlay(Picture):
    """One heatmap over one image.

    Args:
        image: (H, W, 3) uint8.
        map: (h, w) float, as measured: not scaled, not resized.
        scale: the value that takes the last colour; None takes the map's own maximum.
    """

    image: Tensor
    map: Tensor
    scale: float | None


@dataclass(frozen=True, eq=False)
class Grid(Picture):
    """One column a sample: the image, the heatmap over it, the caption.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, h, w) float, as measured.
        captions: N strings; a newline starts a new line.
        scale: the value that takes the last colour in every column; None scales each map by its own maximum.
        title: one line above the grid.
    """

    images: Tensor
    maps: Tensor
    captions: Sequence[str]
    scale: float | None
    title: str


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
    """

    images: Tensor
    maps: Tensor
    captions: Sequence[str]
    columns: Sequence[str]
    scale: float | None
    title: str


@dataclass(frozen=True, eq=False)
class Traces(Picture):
    """Maps along one axis, one panel a sample: the signal as lines over a background coloured by the map.

    Args:
        signals: (N, C, L) float, or None where there is nothing to draw but the map.
        maps: (N, l) float, as measured; stretched over the signal.
        captions: N strings; a newline starts a new line.
        scale: the value that takes the last colour in every panel; None scales each map by its own maximum.
        title: one line above the panels.
    """

    signals: Tensor | None
    maps: Tensor
    captions: Sequence[str]
    scale: float | None
    title: str


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
    """

    tokens: Sequence[Sequence[str]]
    weights: Sequence[Tensor]
    captions: Sequence[str]
    lines: Sequence[str]
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


@dataclass(frozen=True, eq=False)
class TableRow:
    """One sample of one reading, for loggers that keep tables.

    ``sample_id`` is the sample's place in the probe, ``input`` its image (H, W, 3) uint8 where it has one.
    """

    sample_id: int
    label: str
    prediction: str
    confidence: float
    input: Tensor | None
    heatmap: Picture


@dataclass(frozen=True, eq=False)
class Report:
    """One reading, ready to log. Keys are whole tags (``xai/grad_cam/layer4/drift``).

    Args:
        epoch: the epoch the reading belongs to.
        scalars: tag -> value.
        pictures: tag -> description; drawn by `lightning_xai.render`.
        tables: tag -> rows.
    """

    epoch: int
    scalars: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    tables: Mapping[str, Sequence[TableRow]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Opening:
    """What a logger is told once, before the first report of a run.

    Args:
        folder: where pictures and tables may be put as files; None where nothing may be written.
        fingerprints: callback name -> fingerprint of its probe, for those known at the start.
        scalars: every scalar that the run is going to log, by whole tag.
    """

    folder: Path | None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    scalars: Sequence[Scalar] = ()
