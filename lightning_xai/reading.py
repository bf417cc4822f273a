"""Reading: what one look at the model measured, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """What `measure` returns of a chunk of the probe, and the flow of the whole.

    Args:
        rows: tensors whose first dimension is the samples (``maps/<layer>``, ``prediction``, ``confidence``, ...). In
            a history they are there for at most 16 readings, and of the shown samples for all but the latest.
        shared: what `prepare` computed once for all samples.
        kept: tensors whose first dimension is the samples, at most 64 bytes a sample: there for every reading of a run
            (``prediction``, ``probability`` of the label, ``peak/<layer>``, ...).
    """

    rows: Mapping[str, Tensor]
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = (self.rows, self.shared, self.kept)
        return (
            f"Measured({', '.join(f'{key} {tuple(tensor.shape)}' for part in parts for key, tensor in part.items())})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Reading:
    """One `Measured`, and when it was taken.

    Args:
        epoch: it belongs to.
        step: the global step, optimizer steps taken.
        measured: what was measured.
        index: how many readings of this callback were taken at this step before.
        scalars: what was logged of it, by tag; empty while it is being reported.
    """

    epoch: int
    step: int
    measured: Measured
    index: int = 0
    scalars: Mapping[str, float] = field(default_factory=dict)

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
