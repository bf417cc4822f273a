"""The user's loaders and datasets, seen from outside: nothing here reads a sample or changes an object."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy
from torch import Tensor
from torch.utils.data import default_collate

from lightning_xai.flow.namespaces import Trainer
from lightning_xai.flow.schedule import validates


def dataset_of(trainer: Trainer, loader: int) -> Any:
    """The dataset of the validation (else test, else training) DataLoader number ``loader``."""
    # not by their truth: a DataLoader of a stream has no length to ask for
    every = (trainer.val_dataloaders, trainer.test_dataloaders, trainer.train_dataloader)
    leaves = next((leaves for loaders in every if (leaves := flattened(loaders))), [None])
    return getattr(leaves[min(loader, len(leaves) - 1)], "dataset", None)


def flattened(loaders: Any) -> list[Any]:
    """The loaders of a nest of mappings and sequences, in the order that Lightning numbers them."""
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return [leaf for item in loaders.values() for leaf in flattened(item)]
    if isinstance(loaders, (list, tuple)):
        return [leaf for item in loaders for leaf in flattened(item)]
    return [loaders]


def most_samples(trainer: Trainer, loader: int) -> int | None:
    """How many samples pass by in an epoch of what is explained, at most; None where that is unknown yet."""
    validated = validates(trainer)
    leaves = flattened(trainer.val_dataloaders if validated else trainer.train_dataloader)
    batches: Any = trainer.num_val_batches if validated else [trainer.num_training_batches]
    if loader >= min(len(leaves), len(batches)) or len(leaves) != len(batches):
        return None
    leaf, number = leaves[loader], batches[loader]
    size = getattr(leaf, "batch_size", None) or getattr(getattr(leaf, "batch_sampler", None), "batch_size", None)
    # a collate_fn of the user's may make several samples of one
    if not isinstance(size, int) or math.isinf(number) or getattr(leaf, "collate_fn", None) is not default_collate:
        return None
    return size * int(number) * trainer.world_size


def copied(dataset: Any, most: float = math.inf) -> Any:
    """A copy made by pickle: whatever it opens, draws or counts while it is read stays with the copy.

    Args:
        dataset: what is copied.
        most: bytes of tensors and arrays that a copy may take.

    Raises:
        Exception: whatever its own pickling raises; ValueError above ``most``.
    """
    copy = io.BytesIO()
    _Pickler(copy, most).dump(dataset)
    copy.seek(0)
    return pickle.load(copy)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, most: float) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._left = most

    def persistent_id(self, obj: Any) -> None:
        if isinstance(obj, (Tensor, numpy.ndarray)):
            self._left -= obj.nbytes
            if self._left < 0:
                raise ValueError("it is too large to be copied")
