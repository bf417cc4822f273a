"""Numbers over the run as curves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_xai.pictures import Curve, Curves
from lightning_xai.reading import Reading, moments
from lightning_xai.report import Scalar

QUARTILES = (0.25, 0.5, 0.75)


def scalar_charts(scalars: Sequence[Scalar], history: Sequence[Reading], title: str, band: str) -> Curves | None:
    """What is declared with a ``chart``: one panel a chart, one line a scalar, hollow where it is inside its band.

    Args:
        scalars: by whole tags.
        history: readings; those that have let their scalars go are left out.
        title: one line above.
        band: what the bands are of.

    Returns:
        None where there is nothing to draw.
    """
    readings = [reading for reading in history if reading.scalars]
    panels: dict[str, list[Curve]] = {}
    for scalar in scalars:
        if scalar.chart is not None and all(scalar.name in reading.scalars for reading in readings):
            panels.setdefault(scalar.chart.removeprefix("xai/"), []).append(_curve(scalar, readings))
    if not panels or not readings:
        return None
    x, unit = moments(readings)
    banded = any(curve.lower for curves in panels.values() for curve in curves)
    return Curves(panels, x, unit, "", f"{title}, {unit} {x[-1]}", band=band if banded else "")


def spread_charts(names: Sequence[str], history: Sequence[Reading], title: str) -> Curves:
    """What is kept of every sample: one panel a name, the median over the samples with the quartiles as its band.

    Args:
        names: of ``kept`` tensors (N,), in all readings.
        history: readings.
        title: one line above.
    """
    x, unit = moments(history)
    panels = {name: [_quartiles(name, [reading.measured.kept[name] for reading in history])] for name in names}
    return Curves(panels, x, unit, "", f"{title}, {unit} {x[-1]}", band="half of the samples")


def _curve(scalar: Scalar, readings: Sequence[Reading]) -> Curve:
    y = [reading.scalars[scalar.name] for reading in readings]
    if scalar.lower is None or scalar.upper is None:
        return Curve(scalar.name.rpartition("/")[2], y, None, None, [True] * len(y), tag=scalar.name)
    lower, upper = ([reading.scalars[tag] for reading in readings] for tag in (scalar.lower, scalar.upper))
    solid = [not low <= value <= high for value, low, high in zip(y, lower, upper, strict=True)]
    return Curve(scalar.name.rpartition("/")[2], y, lower, upper, solid, tag=scalar.name)


def _quartiles(name: str, values: Sequence[Tensor]) -> Curve:
    quantiles = torch.tensor(QUARTILES, dtype=torch.float64, device="cpu")
    lower, middle, upper = torch.stack([value.double().nanquantile(quantiles) for value in values], 1).tolist()
    return Curve(name, middle, lower, upper, [True] * len(values))
