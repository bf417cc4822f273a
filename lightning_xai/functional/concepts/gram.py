"""Inner products of many long vectors: in chunks of features, never in TF32 or bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

CHUNK_BYTES = 4 * 2**20  # of the examples' columns that are in hand at a time
_FLOAT64_UP_TO = 4096  # features: cheap there, and float32 rounding would show where they are fewer than the examples


def gram(sets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of sets (n, d) the float64 Gram matrix (M, M) of all M rows about their mean, and their squared norms (M,).

    The norms are not centred: they say how much of the Gram matrix can be rounding.
    """
    number = sum(map(len, sets))
    products = torch.zeros(number, number, dtype=torch.float64, device=_solver_device(sets[0]))
    norms = products.new_zeros(number)
    for columns in _chunks(sets):
        centred = columns - _mean(columns)
        for rows in _blocks(len(centred)):
            products[rows, rows.start :] += _float64(centred[rows] @ centred[rows.start :].T)
        norms += _float64(columns.square().sum(1))
    return products.triu() + products.triu(1).T, norms


def centred_products(vectors: Tensor, sets: Sequence[Tensor]) -> Tensor:
    """(P, d) with the rows of the sets about their mean: float64 (P, M)."""
    products = torch.zeros(len(vectors), sum(map(len, sets)), dtype=torch.float64, device=_solver_device(sets[0]))
    start = 0
    for columns in _chunks(sets):
        stop = start + columns.shape[1]
        part = vectors[:, start:stop].to(columns)
        products += _float64(part @ (columns - _mean(columns)).T)
        start = stop
    return products


def combine(coefficients: Tensor, sets: Sequence[Tensor]) -> Tensor:
    """Sums of the sets' rows about their mean, weighted by (..., M) coefficients: float32 (..., d)."""
    parts = []
    for columns in _chunks(sets):
        centred = columns - _mean(columns)
        parts.append((coefficients.to(centred) @ centred).float())
    return torch.cat(parts, -1)


def _chunks(sets: Sequence[Tensor]) -> Iterator[Tensor]:
    features = sets[0].shape[1]
    wide = features <= _FLOAT64_UP_TO and sets[0].device.type != "mps"
    dtype = torch.float64 if wide else torch.float32
    width = max(1, CHUNK_BYTES // (sum(map(len, sets)) * dtype.itemsize))
    for start in range(0, features, width):
        with _exact(sets[0].device):
            yield torch.cat([part[:, start : start + width].to(dtype) for part in sets])


def _blocks(rows: int) -> list[slice]:
    """Of a symmetric product only what is right of the diagonal's blocks is computed: six blocks spare 42% of it."""
    size = -(-rows // 6)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _mean(columns: Tensor) -> Tensor:
    # in float64 the mean of equal numbers is that number
    return columns.mean(0) if columns.device.type == "mps" else columns.mean(0, dtype=torch.float64).to(columns.dtype)


def _float64(tensor: Tensor) -> Tensor:
    return tensor.to(_solver_device(tensor)).double()


def _solver_device(tensor: Tensor) -> torch.device:
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device  # MPS has no float64


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
