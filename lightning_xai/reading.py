"""Reading: what one look at the model measured, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """What `measure` returns.

    Args:
        rows: tensors whose first dimension is the probe's samples (``maps/<layer>``, ``prediction``,
            ``confidence``, ...).
        shared: tensors computed once for all samples.
    """

    rows: Mapping[str, Tensor]
    shared: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = (f"{key} {tuple(tensor.shape)}" for held in (self.rows, self.shared) for key, tensor in held.items())
        return f"Measured({', '.join(parts)})"


@dataclass(frozen=True, eq=False, repr=False)
class Reading:
    """One `Measured`, with the epoch and the global step (optimizer steps taken) it belongs to."""

    epoch: int
    step: int
    measured: Measured

    def __repr__(self) -> str:
        return f"Reading(epoch {self.epoch}, step {self.step}, {self.measured})"


def moments(readings: Sequence[Reading]) -> tuple[list[int], str]:
    """Where readings stand in the run, and what that counts: ``"epoch"``, or ``"step"`` where an epoch has several."""
    epochs = [reading.epoch for reading in readings]
    if len(set(epochs)) == len(epochs):
        return epochs, "epoch"
    return [reading.step for reading in readings], "step"


def thinned(count: int, at_most: int) -> list[int]:
    """Indices of at most ``at_most`` of ``count`` things: the latest, the first, the rest spread evenly.

    Example:
        >>> thinned(100, 5)
        [0, 25, 50, 74, 99]
    """
    if count <= at_most:
        return list(range(count))
    if at_most < 2:
        return [count - 1][:at_most]
    return [round(i * (count - 1) / (at_most - 1)) for i in range(at_most)]
