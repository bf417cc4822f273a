"""What is kept or taken away as one: cells of an image, segments of a signal, columns, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """Which feature each position of a sample belongs to.

    Args:
        index: (*positions) long, on the CPU.
        grid: how the features lie; their number is its product.
        channels: the dimension of the explained tensor that holds channels, counted from its end; None where each
            value is a position.
    """

    index: Tensor
    grid: tuple[int, ...]
    channels: int | None

    @property
    def number(self) -> int:
        """How many features there are."""
        return torch.Size(self.grid).numel()

    def at_positions(self, values: Tensor) -> Tensor:
        """(..., features) -> (..., *positions), or with a dimension of 1 where the channels are."""
        where = self.index.flatten().to(values.device)
        placed = values.index_select(-1, where).view(*values.shape[:-1], *self.index.shape)
        return placed if self.channels is None else placed.unsqueeze(self.channels)

    def spread(self, values: Tensor, sample: Sequence[int]) -> Tensor:
        """(..., features) -> (..., *sample), each value shared evenly by what its feature covers: sums stay."""
        covered = self.index.flatten().bincount(minlength=self.number)
        covered = covered * (1 if self.channels is None else sample[self.channels])
        placed = self.at_positions(values / covered.to(values))
        return placed.expand(*values.shape[:-1], *sample).contiguous()


def in_cells(sample: Sequence[int], channels: int | None, cells: int) -> Features:
    """The features of samples of this shape: each column of a table, else `cells` along every axis.

    Args:
        sample: the shape of one sample.
        channels: its dimension of channels, counted from the end.
        cells: along each axis; axes that they do not divide have cells of two sizes.

    Raises:
        ValueError: fewer than one cell, or more than there are positions.
    """
    positions = list(sample)
    if channels is not None:
        del positions[channels]
    if len(positions) == 1 and channels is None:
        return one_each(positions[0])
    if cells < 1 or cells > min(positions):
        raise ValueError(
            f"cells={cells} along each axis does not fit {' x '.join(map(str, positions))} positions: give 1 to "
            f"{min(positions)}"
        )
    index = torch.zeros(positions, dtype=torch.long, device="cpu")
    for axis, length in enumerate(positions):
        cell = torch.arange(length, device="cpu") * cells // length
        index = index * cells + cell.view(-1, *[1] * (len(positions) - 1 - axis))
    return Features(index, (cells,) * len(positions), channels)


def one_each(positions: int) -> Features:
    """Each position, a column or a token, is a feature of its own."""
    return Features(torch.arange(positions, device="cpu"), (positions,), None)
