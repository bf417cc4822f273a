"""What TCAV knows of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_xai.callbacks.tcav.example_sets import Sets
from lightning_xai.callbacks.tcav.reservoir import Reservoir
from lightning_xai.flow.state import State
from lightning_xai.probe import Probe


@dataclass
class TCAVState(State):
    """What TCAV knows of a run beyond the rest.

    Args:
        reservoir: random samples to be, while batches pass by.
        random_probes: random sets, until they are prepared.
        random_error: why there are none.
        sets: concepts and random sets as the model takes them.
        constant: layers at which the gradient is the same for all samples of a class.
    """

    reservoir: Reservoir | None = None
    random_probes: list[Probe] | None = None
    random_error: Exception | None = None
    sets: Sets | None = None
    constant: set[str] = field(default_factory=set)
