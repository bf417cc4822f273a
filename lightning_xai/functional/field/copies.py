"""Copies of samples, moved and differentiated a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lightning_xai.functional.field.field import Point, beside, wide

Step = Callable[[Tensor, Tensor], tuple[Tensor, "Tensor | float"]]
"""(copies, samples), both (B,) -> where these copies stand, and what their gradients are weighed by: (B, ...).

In float32 at least: half precision has no 32 places on a short way, and their weights would not sum to one.
"""


def summed_gradients(
    point: Point, copies: int, batch_size: int, step: Step, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The weighted sum over copies of each sample's gradients: (N, ...) or (N, T, ...).

    Args:
        point: the samples.
        copies: of each of them.
        batch_size: the most copies in one forward.
        step: where a copy stands and what it weighs.
        change: made of each gradient before it is weighed.
    """
    shape = (*point.scores.shape, *point.x.shape[1:])
    total = wide(torch.zeros(shape, dtype=point.x.dtype, device=point.x.device))
    for numbers, rows in batches_of_copies(point, copies, batch_size):
        x, weight = step(numbers, rows)
        gradient = point.gradient(rows, x.to(point.x.dtype))
        gradient = gradient if change is None else change(gradient)
        weight = beside(weight, gradient) if isinstance(weight, Tensor) else weight
        total.index_add_(0, rows, gradient * weight)
    return total


def batches_of_copies(point: Point, copies: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The number and the sample of each copy, (B,) each, `batch_size` at a time."""
    samples = len(point.x)
    every = torch.arange(copies * samples, dtype=torch.long, device=point.x.device)
    for places in torch.split(every, batch_size):
        yield places // samples, places % samples


def positions_of(point: Point, positions: Sequence[int] | Tensor | None) -> list[int]:
    """Of the samples in the whole that they are a part of, by default one after the other from 0.

    Raises:
        ValueError: another number of positions than of samples.
    """
    places = list(range(len(point.x))) if positions is None else [int(position) for position in positions]
    if len(places) != len(point.x):
        raise ValueError(f"{len(places)} positions for {len(point.x)} samples; expected one of each")
    return places


def generator(seed: int, *place: int) -> torch.Generator:
    """Randomness of its own, the same on every device: by a sample's position and a copy's number, not by batch."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=7).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big"))
