"""What one reading says: scalars, described pictures and table rows; the kinds of pictures are importable here too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_xai.pictures import (
    Bars,
    Beeswarm,
    Curve,
    Curves,
    Filmstrip,
    Grid,
    Matrix,
    Overlay,
    Picture,
    Tokens,
    Traces,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Bars",
    "Beeswarm",
    "Curve",
    "Curves",
    "Filmstrip",
    "Grid",
    "Matrix",
    "Opening",
    "Overlay",
    "Picture",
    "Report",
    "Scalar",
    "TableRow",
    "Tokens",
    "Traces",
]


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
        combinations = product(*(things.get(kind, ()) for kind in kinds))
        return [self._of(dict(zip(kinds, names, strict=True))) for names in combinations]

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
