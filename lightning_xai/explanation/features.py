"""Features: the family of callbacks that weigh named things: concepts, columns, units."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lightning_xai.explanation.base import Explanation
from lightning_xai.pictures import Picture
from lightning_xai.probe import Probe
from lightning_xai.reading import Reading
from lightning_xai.report import Report
from lightning_xai.reporting.charts import scalar_charts


@dataclass(eq=False, kw_only=True)
class Features(Explanation):
    """Weights of named things, as scalars and as curves over the run. A method adds `measure`, `weights` and a title.

    Which curves belong together, and which scalars are the ends of their bands, is declared with the `scalars`.
    """

    band: ClassVar[str] = "chance"
    """What the bands of its scalars are of."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the pictures are called: the method's name."""

    @abstractmethod
    def weights(self, probe: Probe, reading: Reading) -> Mapping[str, float]:
        """The scalars of one reading, by name below the tag. From the arguments and the settings alone."""

    def curves(self, probe: Probe, history: Sequence[Reading]) -> dict[str, Picture]:
        """Name below the tag -> the curves over the run; all readings have their scalars, the latest too."""
        pictures = scalar_charts(self.declared(probe), history, self.title, self.band)
        return {} if pictures is None else {"weights": pictures}

    def report(self, probe: Probe, history: Sequence[Reading]) -> Report:
        """The weights, and their curves over the run."""
        latest = history[-1]
        numbers = {f"{self.tag}/{name}": float(value) for name, value in self.weights(probe, latest).items()}
        pictures = self.curves(probe, [*history[:-1], replace(latest, scalars=numbers)])
        return Report(latest.epoch, numbers, {f"{self.tag}/{name}": picture for name, picture in pictures.items()})
