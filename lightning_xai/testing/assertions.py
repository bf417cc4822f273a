"""Comparisons that say what was seen where it is not what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_xai.explanation import Explanation
from lightning_xai.testing.project import Project

Make: TypeAlias = Callable[..., Explanation]
Promise: TypeAlias = Callable[[Make, Project, Path], None]

TOLERANCE = 1e-5
"""Of the largest value: sums in another order."""


def assert_scalars(
    seen: Mapping[str, float], expected: Mapping[str, float], where: str, tolerance: float = TOLERANCE
) -> None:
    for tag, value in expected.items():
        assert tag in seen, f"{where} {tag} is missing"
        close = math.isclose(seen[tag], value, rel_tol=tolerance, abs_tol=tolerance)
        assert close or (math.isnan(value) and math.isnan(seen[tag])), f"{where} {tag} is {seen[tag]}, not {value}"


def assert_tensors(
    seen: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, tolerance: float = TOLERANCE
) -> None:
    assert seen.keys() == expected.keys(), f"{where} {sorted(seen)}, not {sorted(expected)}"
    for key, tensor in expected.items():
        one, other = seen[key].double(), tensor.double()
        assert one.shape == other.shape, f"{where} {key} of shape {tuple(one.shape)}, not {tuple(other.shape)}"
        largest = float(other.nan_to_num().abs().max()) if other.numel() else 0.0
        close = torch.isclose(one, other, rtol=tolerance, atol=tolerance * largest + 1e-9, equal_nan=True)
        assert close.all(), f"{where} {key} differs by {float((one - other).abs().max()):.3g} of {largest:.3g}"
