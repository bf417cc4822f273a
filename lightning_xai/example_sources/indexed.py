"""Examples by index: of map-style datasets, and of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_xai.batches import Inputs, collated, split_batch
from lightning_xai.tensors import map_tensors, tensors


def pool_length(pool: Any) -> int:
    """How many examples there are in what random sets are drawn from.

    Raises:
        ValueError: for a pool without a length and an order.
    """
    if examples := tensors(pool):
        return len(examples[0])
    if not has_index(pool):
        raise ValueError(
            f"random counterparts are drawn by index, which a {type(pool).__name__} does not allow: give randoms= "
            "a map-style dataset, tensors, or a folder"
        )
    return len(pool)


def set_size(available: int, sets: int, size: int) -> int:
    """Examples of each of ``sets`` random sets: ``size``, or fewer where the pool has not so many for each.

    No two sets share an example: they would differ less than a concept differs from them by chance, and the band
    between them would be too narrow.

    Raises:
        ValueError: for a pool of less than two examples a set.
    """
    if available < 2 * sets:
        raise ValueError(
            f"the random pool has {available} examples, and each of {sets} random sets needs two of its own, better "
            f"{size}: give randoms= a larger one, or fewer random_sets"
        )
    return min(size, available // sets)


def random_sets(pool: Any, sets: int, size: int, seed: int) -> list[Inputs]:
    """Sets of ``size`` examples, all different, drawn from a map-style dataset or from tensors, by index.

    The draw has a generator of its own: the same seed gives the same sets, and no global RNG moves.

    Args:
        pool: what they are drawn from; the labels of a dataset are left out.
        sets: how many.
        size: examples of each; see `set_size`.
        seed: of the draw.

    Raises:
        ValueError: for a pool of fewer examples, or without a length and an order.
    """
    if (available := pool_length(pool)) < sets * size:
        raise ValueError(f"{sets} sets of {size} different examples cannot be drawn from {available}")
    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed), device="cpu")
    indices = order[: sets * size].view(sets, size)
    if tensors(pool):
        return [map_tensors(pool, lambda t, rows=rows: t[rows]) for rows in indices]  # type: ignore[misc]
    return [examples_at(pool, rows.tolist()) for rows in indices]


def examples_at(dataset: Any, indices: Sequence[int]) -> Inputs:
    """The inputs of a dataset's examples, without their labels, as one batch."""
    return split_batch(collated([dataset[index] for index in indices]))[0]


def has_index(data: Any) -> bool:
    """Whether it is a map-style dataset."""
    plain = isinstance(data, (str, list, tuple, dict, Tensor))
    streams = isinstance(data, IterableDataset)  # it has a __getitem__, which raises
    return not plain and not streams and hasattr(data, "__getitem__") and hasattr(data, "__len__")
