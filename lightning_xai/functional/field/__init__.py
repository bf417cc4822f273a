"""Field: the scores as a function of one floating-point tensor, and what the methods on it share."""

from lightning_xai.functional.field.baseline import Baseline, backgrounds_of, baseline_of
from lightning_xai.functional.field.copies import generator, positions_of, summed_gradients
from lightning_xai.functional.field.field import Field, Point, attributed, beside, explaining_field, wide
from lightning_xai.functional.field.quadrature import gauss_legendre

__all__ = [
    "Baseline",
    "Field",
    "Point",
    "attributed",
    "backgrounds_of",
    "baseline_of",
    "beside",
    "explaining_field",
    "gauss_legendre",
    "generator",
    "positions_of",
    "summed_gradients",
    "wide",
]
