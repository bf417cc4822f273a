"""How the rows of a loss's input belong to samples, classes and places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lightning_xai.flow.own_step.losses import Family
from lightning_xai.flow.own_step.task import TaskName

FAMILIES: Mapping[TaskName, Family] = {
    "multiclass": "classes",
    "segmentation": "classes",
    "tokens": "classes",
    "language": "classes",
    "multilabel": "yes or no",
    "binary": "yes or no",
    "regression": "values",
}
"""What the output of a task is laid out like."""


@dataclass(frozen=True)
class Layout:
    """How a loss's input is laid out.

    Args:
        family: of the loss: whether there is a dimension of classes.
        shape: of the input behind its rows.
        rows: of each sample.
        stacked: whether all first rows of the samples come first (views, one behind the other), not all rows of the
            first sample.
    """

    family: Family
    shape: tuple[int, ...]
    rows: int = 1
    stacked: bool = False

    def values(self, values: Tensor) -> Tensor:
        """(N, classes) or (N, classes, places) of the input; (N, numbers) of values."""
        if values.ndim != len(self.shape) + 1:  # (N, L, C) where the loss took (N * L, C), or a sample alone, squeezed
            values = values.reshape(-1, *self.shape)
        if self.family == "values":
            return self._by_sample(values, 0).flatten(1) if values.ndim > 1 or self.rows > 1 else values[:, None]
        if self.family == "yes or no" and values.ndim in (1, 3):  # no dimension of classes
            values = values[:, None]
        found = self._by_sample(values, 1)
        return found.flatten(2) if found.ndim > 2 else found

    def labels(self, labels: Tensor) -> Tensor:
        """(N,) or (N, places) classes of the target; of yes or no, and of values, as `values`."""
        if self.family != "classes":
            return self.values(labels.reshape(-1, *self.shape))
        if labels.is_floating_point():  # a share of each class
            labels = labels.argmax(1)
        found = self._by_sample(labels, 0)
        return found.flatten(1) if found.ndim > 1 else found

    def _by_sample(self, values: Tensor, classes: int) -> Tensor:
        if self.rows == 1:
            return values
        if self.stacked:
            return values.reshape(self.rows, -1, *values.shape[1:]).movedim(0, 1 + classes)
        return values.reshape(-1, self.rows, *values.shape[1:]).movedim(1, 1 + classes)
